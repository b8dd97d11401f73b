"""Requests under an Idempotency-Key: carried out once, however often they come."""

from typing import Protocol


class RequestStore(Protocol):
    """What was asked under which key. Every method is one transaction."""

    def begin(self, actor_id: str, route: str, key: str, asked: bytes, now: int) -> str:
        """Note that a request starts, or return what came of the first one.

        Args:
            actor_id: who asks; keys of others are other keys.
            route: method and path.
            key: the client's key.
            asked: everything that makes the request what it is: body, query, precondition.
            now: milliseconds since 1970; a key is remembered for 24 hours.

        Returns:
            What `finish` was given for the first request; empty when this is the first.

        Raises:
            KeyReusedError: the key came with another request.
            RequestRunningError: the first one has not ended.
        """
        ...

    def finish(self, actor_id: str, route: str, key: str, subject: str) -> None:
        """Keep what the answer can be made of again: ids of ours, never content."""
        ...

    def forget(self, actor_id: str, route: str, key: str) -> None:
        """The request failed: it may come again."""
        ...
