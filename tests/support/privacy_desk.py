"""A desk of privacy over a real ledger, for the API, the pages and commands."""

from types import SimpleNamespace
from typing import cast

from bedside_edge.services.local_answer import LocalAnswerService
from bedside_edge.services.privacy import PrivacyServices
from bedside_edge.services.privacy_desk import PrivacyDesk
from bedside_edge.services.release import Origin
from bedside_edge.services.slots import SlotRule, Slots
from bedside_edge.store.local_answers import SqliteLocalAnswers
from bedside_edge.store.sealing import Box
from bedside_edge.system.accounting_lazy import LazyAccounting
from support.evidence_log import LOG_ED, ORIGIN
from support.privacy_house import Hospital


class Ticking:
    """Monotonic seconds that a wait moves on; no test sleeps."""

    def __init__(self) -> None:
        self.at = 0.1
        self.left_at: list[float] = []

    def now(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.at

    def wait(self, seconds: float) -> None:
        self.at += seconds
        self.left_at.append(self.at)


def privacy_over(house: Hospital, ticking: Ticking | None = None) -> PrivacyServices:
    """Return the services a box has, over the house's stores; slots on the test's own time."""
    ticking = ticking or Ticking()
    slots = Slots(ticking, SlotRule(), wait=ticking.wait)
    store = SqliteLocalAnswers(
        house.database, house.keys, lambda c, study_id: Box(bytes(32)), house.evidence.record
    )
    gate = house.governance.gate
    local = LocalAnswerService(store, house.noise, LOG_ED, gate, house.budget)
    desk = PrivacyDesk(
        budgets=house.budget,
        releases=house.service,
        ledger=house.ledger,
        snapshots=house.snapshots,
        slots=slots,
        local=local,
        accountant=LazyAccounting(),
        device=LOG_ED,
        origin=Origin(name=ORIGIN, proof=house.evidence.proof),
    )
    return cast("PrivacyServices", SimpleNamespace(desk=desk, local=local, slots=slots))
