"""Simulators of `RequestStore` and `ChangeFeed`."""

from bedside_core.errors import KeyReusedError, RequestRunningError
from bedside_edge.ports.events import Change
from bedside_edge.store.requests import KEPT_MS


class MemoryRequests:
    def __init__(self) -> None:
        self._held: dict[tuple[str, str, str], tuple[bytes, str, int]] = {}

    def begin(self, actor_id: str, route: str, key: str, asked: bytes, now: int) -> str:
        self._held = {k: v for k, v in self._held.items() if abs(v[2] - now) <= KEPT_MS}
        held = self._held.get((actor_id, route, key))
        if held is None:
            self._held[actor_id, route, key] = (asked, "", now)
            return ""
        if held[0] != asked:
            raise KeyReusedError("another request")
        if not held[1]:
            raise RequestRunningError("still runs")
        return held[1]

    def finish(self, actor_id: str, route: str, key: str, subject: str) -> None:
        asked, _, at = self._held[actor_id, route, key]
        self._held[actor_id, route, key] = (asked, subject, at)

    def forget(self, actor_id: str, route: str, key: str) -> None:
        held = self._held.get((actor_id, route, key))
        if held is not None and not held[1]:
            del self._held[actor_id, route, key]

    def restart(self) -> None:
        self._held = {key: held for key, held in self._held.items() if held[1]}


class MemoryChanges:
    def __init__(self) -> None:
        self.kept: list[Change] = []

    def add(self, kind: str, id: str, state: str, *, job: str = "", at: int = 1) -> None:  # noqa: A002
        self.kept.append(
            Change(
                seq=self.kept[-1].seq + 1 if self.kept else 1,
                kind=kind,
                id=id,
                job_id=job or id,
                study_id="study-1",
                state=state,
                reason="",
                at=at,
            )
        )

    def newest(self) -> Change | None:
        return self.kept[-1] if self.kept else None

    def known(self, seq: int, at: int) -> bool:
        return any((change.seq, change.at) == (seq, at) for change in self.kept)

    def after(self, seq: int, *, job_id: str = "", limit: int = 100) -> list[Change]:
        found = [c for c in self.kept if c.seq > seq and job_id in ("", c.job_id)]
        return found[:limit]
