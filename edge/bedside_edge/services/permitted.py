"""Inference and DICOMweb ask first.

A study the policy does not permit to be read becomes a refused job: it is kept, shown and
delivered as before, and its result says which rule said no. What a caller may not see is not
found, and what they may not retrieve is refused.
"""

import dataclasses
from collections.abc import Callable, Sequence

from bedside_core.errors import NotPermittedError
from bedside_core.result import Json, canonical, refusal_entry, unrouted_result
from bedside_core.uses import Asker, Decision, Target, Thing, Use
from bedside_edge.ports import Instance, Outcome
from bedside_edge.services.gate import BOX, Gate, Visible
from bedside_edge.services.holdings import Holdings, Item, StudyEntry
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


class PermittedHoldings:
    """What of the held objects one actor may find and retrieve; lives for one request."""

    def __init__(self, holdings: Holdings, gate: Gate, asker: Asker) -> None:
        self._holdings, self._gate, self._asker = holdings, gate, asker
        self._seen = Visible(studies=frozenset(), results=frozenset())

    def studies(self) -> list[StudyEntry]:
        """Return the studies that may be shown, newest first."""
        return self._shown(self._holdings.studies())

    def study(self, study_uid: str) -> list[StudyEntry]:
        """Return the studies of a UID that may be shown."""
        return self._shown(self._holdings.study(study_uid))

    def items(self, entry: StudyEntry) -> list[Item]:
        """Return the objects of a study that may be shown."""
        if entry.study_id not in self._seen.studies:
            self._shown([entry])
        seen = self._seen
        return [
            item
            for item in self._holdings.items(entry)
            if entry.study_id in (seen.results if item.made else seen.studies)
        ]

    def take(self, study_uid: str, series_uid: str = "", instance_uid: str = "") -> list[Item]:
        """Return the objects under a path to be retrieved; asked once per study, with evidence.

        Of a whole study the objects that may not leave are left out, if others may.

        Raises:
            NotFoundError: nothing is held there.
            NotPermittedError: none of it may be retrieved.
        """
        found = self._holdings.find(study_uid, series_uid, instance_uid)
        decisions = {
            key: self._gate.study(
                Use.EXPORT,
                self._asker,
                key[0],
                thing=Thing.RESULT if key[1] else Thing.STUDY,
                target=Target.HOSPITAL,
            )
            for key in dict.fromkeys((item.study_id, item.made) for item in found)
        }
        kept = [item for item in found if decisions[item.study_id, item.made].permitted]
        if not kept:
            next(iter(decisions.values())).must()
        return kept

    def _shown(self, entries: list[StudyEntry]) -> list[StudyEntry]:
        self._seen = self._gate.visible(self._asker, [entry.study_id for entry in entries])
        return [entry for entry in entries if entry.study_id in self._seen.studies]
