"""Idempotency-Key: a request that creates something is carried out once, however often it comes.

Follows draft-ietf-httpapi-idempotency-key-header-07: the key belongs to the actor and the path, the
same key with another request is refused with 422, and a request that still runs answers 409.
Errors are not kept: a request that failed may be sent again under its key.
"""

import re
from collections.abc import Callable
from typing import Annotated

from fastapi import Header, Request

from bedside_core.access import Actor
from bedside_core.errors import InvalidRequestError
from bedside_edge.api.guard import actor_of
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.services import Services

IdempotencyKey = Annotated[
    str,
    Header(
        description="the client's own random key: sent again with the same request within 24 "
        "hours, the request is answered and not carried out twice"
    ),
]
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


class Once:
    """Carries requests out at most once per key."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(
        self, pool: WorkPool, request: Request, key: str, work: Callable[[], str]
    ) -> str:
        """Carry `work` out in a thread of `pool`, once for this request's key; see `do`."""
        if not key:
            return await pool.run(work)
        precondition = request.headers.get("if-match", "").encode()
        asked = b"\0".join((request.url.query.encode(), precondition, await request.body()))
        route = f"{request.method} {request.url.path}"
        return await pool.run(self.do, actor_of(request), route, key, asked, work)

    def do(self, actor: Actor, route: str, key: str, asked: bytes, work: Callable[[], str]) -> str:
        """Return what `work` returned, now or the first time it was asked under this key.

        Args:
            actor: who asks.
            route: method and path.
            key: the header; empty: the work is simply done.
            asked: everything that makes the request what it is.
            work: does it; returns ids of ours from which the answer can be made again.

        Raises:
            InvalidRequestError: the key has spaces, controls or more than 255 characters.
            KeyReusedError, RequestRunningError: see `RequestStore.begin`.
        """
        if not key:
            return work()
        if not _KEY.fullmatch(key):
            raise InvalidRequestError("an Idempotency-Key has 1 to 255 visible ASCII characters")
        requests, now = self._services.requests, self._services.clock.now()
        known = requests.begin(actor.actor_id, route, key, asked, now)
        if known:
            return known
        try:
            subject = work()
        except BaseException:
            requests.forget(actor.actor_id, route, key)
            raise
        requests.finish(actor.actor_id, route, key, subject)
        return subject
