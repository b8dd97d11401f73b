"""Whether a new policy could permit more than the one in force, and what for instance.

A stricter policy needs one signature, a looser one two. What counts as looser is decided on the
rules themselves and never by trying cases: cases only show a person what the change means.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Final

from bedside_core.policy_rules import Rule
from bedside_core.uses import (
    ActorKind,
    Ask,
    Asker,
    Facts,
    Incident,
    Purpose,
    Situation,
    Target,
    Thing,
    Use,
)

SIGNATURES: Final = 1  # keys that must have signed a document
SIGNATURES_LOOSER: Final = 2  # the same when it could permit more than the one in force


def looser(old: Sequence[Rule], new: Sequence[Rule]) -> tuple[str, ...]:
    """Return the changes through which more could be permitted; empty when none can.

    Sound, not clever: a use is permitted when some permit applies and no forbid does, so without
    a new permit and with every old forbid nothing can be permitted that was not before. Whatever
    is not plainly so counts as looser.
    """
    permits = {rule.body for rule in old if rule.effect == "permit"}
    forbids = {rule.body for rule in new if rule.effect == "forbid"}
    added = [
        f"permits more: {rule.rule_id}"
        for rule in new
        if rule.effect == "permit" and rule.body not in permits
    ]
    lost = [
        f"forbids less: {rule.rule_id}"
        for rule in old
        if rule.effect == "forbid" and rule.body not in forbids
    ]
    return (*added, *lost)


def probes() -> Iterator[Ask]:
    """Yield asks over the facts a policy turns on, to show what a change permits that was denied.

    They illustrate and never excuse: `looser` decides how many must sign.
    """
    for use, asker, facts, situation in product(Use, _ASKERS, _FACTS, _SITUATIONS):
        yield Ask(use=use, asker=asker, facts=facts, situation=situation)


def _asker(kind: ActorKind, *roles: str) -> Asker:
    return Asker(actor_id=f"{kind}:probe", kind=kind, roles=frozenset(roles))


def _facts(**changed: Any) -> Facts:  # noqa: ANN401
    consents = frozenset(map(str, Purpose))
    whole: dict[str, Any] = {
        "grade": 4,
        "consents": consents,
        "guardian_consent": True,
        "separate_consent": True,
    }
    return Facts(**({"thing": Thing.STUDY} | whole | changed))


_ROLES: Final = ("radiologist", "administrator", "privacy-officer", "auditor", "vendor")
_ASKERS: Final = (
    *(_asker(ActorKind.PERSON, role) for role in _ROLES),
    *(_asker(kind) for kind in ActorKind),
)
_FACTS: Final = (
    *(_facts(grade=grade) for grade in (1, 3, 4, 5)),
    _facts(consents=frozenset()),
    _facts(withdrawn=True),
    _facts(minor=True, guardian_consent=False),
    _facts(hold=True),
    _facts(deidentified=True, grade=2),
    _facts(deidentified=True, burned_in=True),
    _facts(thing=Thing.RESULT),
    _facts(thing=Thing.STATISTIC, grade=2),
)
_READY: Final = {
    "model_state": "released",
    "epsilon_left": 1,
    "same_region": True,
    "agreement": True,
    "people": 2,
}
_SITUATIONS: Final = (
    Situation(purpose=Purpose.DIAGNOSIS, target=Target.HOSPITAL, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.TRAINING, target=Target.CONSORTIUM, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.STATISTICS, target=Target.CONSORTIUM, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.EXPORT, target=Target.OUTSIDE, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.RIGHTS, target=Target.PATIENT, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.DIAGNOSIS, incident=Incident.SEALED, **_READY),  # type: ignore[arg-type]
    Situation(purpose=Purpose.TRAINING),
)
