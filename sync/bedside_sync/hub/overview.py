"""How far every round is: who has reported, what it waits for, what it costs.

Read from the store alone, so the page, `round show` and a hub that is off say the same.
"""

from dataclasses import dataclass

from bedside_sync.hub import upcoming
from bedside_sync.hub.plan import round_epsilon
from bedside_sync.hub.service import HubService
from bedside_sync.secagg.machines import Hub
from bedside_sync.secagg.manifest import Manifest, round_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A box's report: `in`, `withdrawn` or `dropped`, and when it came."""

    box: str
    organisation: str
    state: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundView:
    """One round. Times are seconds since the epoch, `rho` units of 1e-12.

    Attributes:
        waits_for: in words; empty when it is over.
        silent: members of its roster that have not reported.
        helpers: what each helper has said so far.
        refusals: how often what was refused, by code.
    """

    name: str
    task: str
    purpose: str
    state: str
    opens: int
    closes: int
    expires: int
    words: int
    rho: int
    epsilon: float
    reported: tuple[Reported, ...]
    silent: tuple[str, ...]
    helpers: dict[str, tuple[str, ...]]
    refusals: dict[str, int]
    waits_for: str


def view(service: HubService, name: str, now: int) -> RoundView:
    """Return how far a round is; NotFoundError."""
    store = service.store
    manifest, state = store.manifest(name).manifest, store.state(name)
    members = service.roster_at(manifest).members
    reported = tuple(
        Reported(box=box, organisation=members[box].organisation, state=how, at=at)
        for box, how, at in store.states(name)
    )
    came = {one.box for one in reported}
    said = {kind: store.said(name, kind) for kind in ("findings", "cosignature", "table")}
    return RoundView(
        name=name,
        task=manifest.task,
        purpose=manifest.purpose.value,
        state=state.value,
        opens=manifest.opens,
        closes=manifest.closes,
        expires=manifest.expires,
        words=manifest.length,
        rho=round_cost(manifest),
        epsilon=round_epsilon(manifest),
        reported=reported,
        silent=tuple(sorted(set(members) - came)),
        helpers={
            one.box: tuple(kind for kind, words in said.items() if one.box in words)
            for one in manifest.helpers
        },
        refusals=dict(
            store.rows(
                "SELECT code, count(*) FROM refusal WHERE round = ? GROUP BY code ORDER BY code",
                name,
            )
        ),
        waits_for=_waits(manifest, state, reported, said, now),
    )


def views(service: HubService, now: int) -> list[RoundView]:
    """Return every round, those that are not over first."""
    found = [view(service, name, now) for name, _ in service.store.rounds()]
    return sorted(found, key=lambda one: (not one.waits_for, -one.opens, one.name))


def awaited_keys(service: HubService) -> dict[str, list[str]]:
    """Return the rounds to come and whose helper keys each of them awaits."""
    store = service.store
    return {name: upcoming.awaited(store, name) for name in upcoming.names(store)}


def _waits(
    manifest: Manifest,
    state: Hub,
    reported: tuple[Reported, ...],
    said: dict[str, dict[str, bytes]],
    now: int,
) -> str:
    if state in (Hub.PUBLISHED, Hub.EXPIRED):
        return ""
    quorum = manifest.quorum
    if now >= manifest.expires and state in (Hub.OPEN, Hub.CLOSED):
        return f"expired: {_more(quorum, said['cosignature'])} to sign the empty set"
    if state in (Hub.ANNOUNCED, Hub.OPEN):
        there = len({one.organisation for one in reported if one.state == "in"})
        wanted = [] if now >= manifest.closes else ["its closing time"]
        if there < manifest.least_boxes:
            wanted.append(f"{manifest.least_boxes - there} more organisations")
        return " and ".join(wanted) or "a visitor to close it"
    if state is Hub.CLOSED:
        return f"{_more(quorum, said['findings'])} to look at the candidates"
    if state is Hub.DIGEST:
        return f"{_more(quorum, said['cosignature'])} to sign the set"
    return f"mask sums; {len(said['table'])} helpers have answered"


def _more(quorum: int, there: dict[str, bytes]) -> str:
    return f"{max(0, quorum - len(there))} more helpers"
