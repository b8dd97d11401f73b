"""The gate: one decision of the engine, one that is known already, a sender's, a long list."""

import gc
import time
from collections.abc import Callable
from itertools import count
from statistics import median, quantiles

from bedside_core.access import Actor, Role
from bedside_core.policy import parse_ask
from bedside_core.uses import Ask, Asker, Situation
from bedside_edge.ports import Way
from bedside_edge.services.gate import asker_of
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document
from bench.plan import Plan
from bench.report import Row, limit_row
from support.fake_clock import FakeClock
from support.memory_governance import MemoryGovernance

BENCH = "policy"
_DECISION_MS, _LATE_MS = 0.2, 1.0
_STUDIES = 2000
_ASK = parse_ask(
    b'{"use": "infer", "actor": {"id": "service:box", "kind": "system"},'
    b' "context": {"model_state": "released"}}'
)
_READER = asker_of(Actor(actor_id="person:a", name="A", roles=frozenset({Role.RADIOLOGIST})))


def run(plan: Plan) -> list[Row]:
    """Return the rows; every engine decision is of facts that were not asked with before."""
    policy = CedarPolicy(shipped_document())
    budget = count(1)

    def fresh() -> None:
        situation = _ASK.situation
        changed = Situation(
            purpose=situation.purpose,
            model_state=situation.model_state,
            epsilon_left=next(budget),
        )
        policy.decide(Ask(use=_ASK.use, asker=_ASK.asker, facts=_ASK.facts, situation=changed))

    def stranger() -> None:
        number = next(budget)
        asker = Asker(actor_id=f"person:{number}", kind=_READER.kind, roles=_READER.roles)
        policy.decide(Ask(use=_ASK.use, asker=asker, facts=_ASK.facts, situation=_ASK.situation))

    gate = MemoryGovernance(FakeClock()).gate
    studies = [f"study-{number}" for number in range(_STUDIES)]
    gate.receive(Way.DIMSE, "CT1")
    calls = plan.calls * 50
    one, new = _times(fresh, calls), _times(stranger, calls)
    busy = _times(fresh, calls, time.thread_time)  # what others do on the machine left out
    sender = _times(lambda: gate.receive(Way.DIMSE, "CT1"), calls)
    listed = _times(lambda: gate.visible(_READER, studies), plan.calls)
    return [
        limit_row(BENCH, "decision, known actor", median(one), "ms", at_most=_DECISION_MS),
        limit_row(BENCH, "the same, 99th percentile, own CPU", _late(busy), "ms", at_most=_LATE_MS),
        Row(bench=BENCH, case="the same, 99th percentile, wall", ours=_late(one), unit="ms"),
        Row(bench=BENCH, case="decision, actor never seen", ours=median(new), unit="ms"),
        Row(bench=BENCH, case="an instance's sender", ours=median(sender) * 1000, unit="us"),
        Row(bench=BENCH, case=f"rows of {_STUDIES} studies", ours=median(listed), unit="ms"),
    ]


def _late(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def _times(
    work: Callable[[], object], calls: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return milliseconds of each call, the first tenth left out."""
    found = []
    gc.collect()
    for _ in range(calls + calls // 10):
        began = clock()
        work()
        found.append((clock() - began) * 1000)
    return found[calls // 10 :]
