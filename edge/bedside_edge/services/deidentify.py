"""De-identified objects of a study for somebody outside the hospital, or not at all.

The policy is asked with the facts as they are: de-identified, with the grade of the study, or, when
two different persons say that nothing identifying is left, with the grade of what is wide use. All
of a study goes or nothing. What went is in the evidence log before it is handed over.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from bedside_core.errors import GradeFallsError, NotFoundError
from bedside_core.evidence.entry import Kind
from bedside_core.uses import Asker
from bedside_edge.ports import Instance
from bedside_edge.ports.evidence import Event
from bedside_edge.services.gate import Gate

WIDE_USE: Final = 2  # the grade of an object that two people looked at


class Cleaned(Protocol):
    """A de-identified object."""

    @property
    def data(self) -> bytes:
        """A Part 10 file."""
        ...

    @property
    def name(self) -> str:
        """Its SOP Instance UID."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where objects come from and where the evidence goes."""

    instances: Callable[[str], Sequence[Instance]]
    read: Callable[[Instance], bytes]
    clean: Callable[[bytes], Cleaned]
    append: Callable[[Event], int]
    profile: str


def deidentified(
    gate: Gate, sources: Sources, asker: Asker, study_id: str, second: str = ""
) -> list[Cleaned]:
    """Return every object of a study without what identifies.

    Args:
        gate: asked before anything is made.
        sources: of objects.
        asker: who wants it.
        study_id: ours.
        second: another person who looked; empty leaves the grade of the study.

    Raises:
        GradeFallsError: the second person is the first, or one of them is no person.
        NotPermittedError: the policy says no: no consent to export, grade, minor, sealed.
        RefusedError, InvalidInputError: an object cannot be cleaned; nothing goes.
        NotFoundError: no such study, or it has no images.
    """
    grade = None
    if second:
        people = {asker.actor_id, second}
        if len(people) < 2 or not all(one.startswith("person:") for one in people):
            raise GradeFallsError("two different persons lower a grade")
        grade = WIDE_USE
    gate.outside(asker, study_id, grade=grade).must()
    instances = sources.instances(study_id)
    if not instances:
        raise NotFoundError("the study has no images")
    made = [sources.clean(sources.read(instance)) for instance in instances]
    payload = {
        "study": study_id,
        "second": second,
        "objects": [
            [instance.instance_id, one.name, hashlib.sha256(one.data).hexdigest()]
            for instance, one in zip(instances, made, strict=True)
        ],
    }
    sources.append(
        Event(
            kind=Kind.ACCESS,
            actor=asker.actor_id,
            study_id=study_id,
            payload=json.dumps(payload, sort_keys=True, separators=(",", ":")).encode(),
            refs={"what": "deidentified", "profile": sources.profile, "people": 1 + bool(second)},
        )
    )
    return made
