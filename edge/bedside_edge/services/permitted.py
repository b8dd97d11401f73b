"""Inference asks first: a study the policy does not permit to be read becomes a refused job.

The study is kept, shown and delivered as before; its result says which rule said no.
"""

import dataclasses
from collections.abc import Callable, Sequence

from bedside_core.errors import NotPermittedError
from bedside_core.result import Json, canonical, refusal_entry, unrouted_result
from bedside_core.uses import Decision, Use
from bedside_edge.ports import Instance, Outcome
from bedside_edge.services.gate import BOX, Gate
from bedside_edge.services.worker import StudyReader


class PermittedReader:
    """`StudyReader` that asks the gate before another one reads."""

    def __init__(self, reader: StudyReader, gate: Gate) -> None:
        self._reader, self._gate = reader, gate

    def analyse_study(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes]
    ) -> Outcome:
        """Return the reader's outcome, or a refusal when the policy does not permit the use."""
        # Packages that serve have passed their gates; there is no way to load a draft.
        found = self._gate.study(Use.INFER, BOX, instances[0].study_id, model_state="released")
        if not found.permitted:
            return _refused(instances, found)
        outcome = self._reader.analyse_study(instances, read)
        return dataclasses.replace(outcome, refs=dict(outcome.refs) | {"policy": found.policy})

    def follow_up(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes], shown: Outcome
    ) -> None:
        """Do what comes after a stored result; nothing when the study must not be read."""
        if shown.reason != NotPermittedError.code:
            self._reader.follow_up(instances, read, shown)


def _refused(instances: Sequence[Instance], found: Decision) -> Outcome:
    words = " ".join(reason.en for reason in found.reasons)
    refusal = NotPermittedError(words, found.rules)
    permission: Json = {
        "cause": str(found.cause),
        "policy": found.policy,
        "rules": [
            {"rule": reason.rule, "en": reason.en, "zh": reason.zh} for reason in found.reasons
        ],
    }
    entries = [refusal_entry(instance.instance_id, refusal) for instance in instances]
    routing: Json = {"rule": None, "rules": None, "reason": words}
    body = unrouted_result(entries, refusal, routing) | {"permission": permission}
    return Outcome(
        refused=True,
        reason=refusal.code,
        body=canonical(body),
        refs={"policy": found.policy},
    )
