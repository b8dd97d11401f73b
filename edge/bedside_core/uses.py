"""What is asked before every use of data, and the answer.

An `Ask` holds facts only: who, which use, for what purpose, what the data is, how the box is. It
names no study and no patient, so equal facts get equal answers and an answer may be kept. The
schema of these facts belongs to the software: a policy document may read any of them and can add
none. Nothing is asked with a fact left out, because a rule that meets a missing fact would be
skipped.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from bedside_core.errors import InvalidInputError, NotPermittedError

Json = dict[str, Any]
MAX_LONG: Final = 2**63 - 1  # Cedar's Long


class Use(StrEnum):
    """What is about to be done with data."""

    RECEIVE = "receive"  # take instances in
    INFER = "infer"  # let a model read a study
    VIEW = "view"  # show a result, an image or a worklist row
    EXPORT = "export"  # hand objects to another machine
    RELEASE = "release"  # publish a noisy statistic or a randomised answer
    JOIN_ROUND = "join-round"  # take part in a round of the consortium
    TRAIN = "train"  # use a case for training
    ERASE = "erase"  # destroy data
    UNSEAL = "unseal"  # end an incident


class Purpose(StrEnum):
    """What for. The gate asks for one purpose at a time."""

    DIAGNOSIS = "diagnosis"  # of this patient, now: the treatment itself
    QUALITY = "quality"
    TRAINING = "training"
    STATISTICS = "statistics"
    ANNOTATION = "annotation"
    EXPORT = "export"  # to somebody outside the treatment
    RIGHTS = "rights"  # a patient's request: to know, to have a copy, to have deleted
    OPERATION = "operation"  # keeping the box running: retention, incidents


class ActorKind(StrEnum):
    """What kind of actor asks."""

    PERSON = "person"
    TOKEN = "token"  # noqa: S105  a program with an API token
    DEVICE = "device"  # a modality or archive known by its AE title
    SYSTEM = "system"  # the box itself


class Thing(StrEnum):
    """What the use is of."""

    SOURCE = "source"  # whatever a sender sends; nothing of it is known yet
    STUDY = "study"  # received instances
    RESULT = "result"  # what a model said of a study, and every object made of it
    REQUEST = "request"  # what a request itself carries; it is answered and not kept
    STATISTIC = "statistic"
    ROUND = "round"
    BOX = "box"


class Incident(StrEnum):
    """How the box is."""

    NORMAL = "normal"
    ALARM = "alarm"
    SEALED = "sealed"
    SHUTDOWN = "shutdown"
    PATCHING = "patching"
    DRILL = "drill"  # as normal; every entry of the incident says that it is a drill


class Target(StrEnum):
    """Where data goes."""

    NONE = "none"  # nowhere: it stays on the box or on a screen of it
    HOSPITAL = "hospital"  # archive or workstation of the same hospital
    CONSORTIUM = "consortium"  # the hub, protected updates and statistics only
    OUTSIDE = "outside"
    PATIENT = "patient"  # the patient's own copy


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks: the actor's id as the evidence has it, its kind and its roles."""

    actor_id: str
    kind: ActorKind
    roles: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of the data.

    Attributes:
        thing: what it is.
        grade: 1 (public) to 5 (special disease); 0 when the data is not graded yet (`SOURCE`).
        consents: purposes for which a consent is on record and valid now.
        withdrawn: the patient withdrew.
        minor: under the age of consent.
        guardian_consent: a guardian's consent is on record and valid now.
        separate_consent: a consent of its own kind, as grade 5 asks for.
        hold: a legal hold: stop processing, but keep.
        deidentified: made by a recorded de-identification.
        burned_in: text that may identify stands in the pixels.
        modality: DICOM modality; empty when unknown or mixed.
        source: calling AE title or label of the sender; empty when it does not matter.
    """

    thing: Thing
    grade: int = 0
    consents: frozenset[str] = frozenset()
    withdrawn: bool = False
    minor: bool = False
    guardian_consent: bool = False
    separate_consent: bool = False
    hold: bool = False
    deidentified: bool = False
    burned_in: bool = False
    modality: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.grade <= 5:
            raise InvalidInputError(f"a grade is 0 to 5, got {self.grade}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """How the box and the surroundings of the use are.

    Attributes:
        purpose: what for.
        incident: state of the box.
        target: where the data goes.
        model_state: `released`, `draft`, or `none` where no model takes part.
        epsilon_left: privacy budget left after this use, in millionths; integers only, because
            the policy language has no fractions.
        same_region: the other side lies in the region of the hospital.
        agreement: a valid agreement covers the other side.
        people: how many different authorised people asked for it.
    """

    purpose: Purpose
    incident: Incident = Incident.NORMAL
    target: Target = Target.NONE
    model_state: str = "none"
    epsilon_left: int = 0
    same_region: bool = False
    agreement: bool = False
    people: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.people <= MAX_LONG and -MAX_LONG <= self.epsilon_left <= MAX_LONG):
            raise InvalidInputError("a number of the situation is out of range")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question. Hashable, so that an answer can be kept under it."""

    use: Use
    asker: Asker
    facts: Facts
    situation: Situation

    def to_json(self) -> Json:
        """Return the facts as JSON values: sets as sorted lists, names as plain text."""
        actor = record(self.asker)
        return {
            "use": str(self.use),
            "actor": {"id": actor.pop("actor_id")} | actor,
            "data": record(self.facts),
            "context": record(self.situation),
        }

    @property
    def digest(self) -> str:
        """SHA-256 over the canonical JSON of all facts, 64 hex digits."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()


class Cause(StrEnum):
    """Why a decision is as it is."""

    PERMIT = "permit"  # a rule permits and none forbids
    FORBID = "forbid"  # a rule forbids
    NO_RULE = "no-rule"  # no rule permits
    ERROR = "policy-error"  # a rule failed or the question could not be asked: deny on any doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why, in both languages of the box; `rule` is empty when no rule decided."""

    rule: str
    en: str
    zh: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer.

    Attributes:
        permitted: whether the use may happen.
        cause: which kind of answer it is.
        policy: digest of the policy document that decided, 64 hex digits.
        asked: digest of the facts it decided on, 64 hex digits.
        reasons: the rules that decided, in order of their ids, with their words.
        errors: what the policy engine complained of; empty unless `cause` is ERROR.
    """

    permitted: bool
    cause: Cause
    policy: str
    asked: str
    reasons: tuple[Reason, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def rules(self) -> tuple[str, ...]:
        """Ids of the rules that decided."""
        return tuple(reason.rule for reason in self.reasons if reason.rule)

    def must(self) -> None:
        """Return when permitted; NotPermittedError names the rules and their reason."""
        if self.permitted:
            return
        named = f"{', '.join(self.rules)}: " if self.rules else ""
        words = " ".join(reason.en for reason in self.reasons)
        raise NotPermittedError(f"{named}{words}", self.rules)


NO_RULE: Final = Reason(
    rule="", en="No rule of the policy permits this.", zh="策略中没有任何规则允许此操作。"
)
FAILED: Final = Reason(
    rule="",
    en="The policy could not decide; a doubt is a refusal.",
    zh="策略无法作出判定。存疑即拒绝。",
)


def canonical(value: Json) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# --- the schema ------------------------------------------------------------------------------

_STRING: Final[Json] = {"type": "String"}
_LONG: Final[Json] = {"type": "Long"}
_BOOLEAN: Final[Json] = {"type": "Boolean"}
_SET: Final[Json] = {"type": "Set", "element": _STRING}
_NAMES: Final = MappingProxyType(
    {kind: tuple(field.name for field in fields(kind)) for kind in (Asker, Facts, Situation)}
)
_TYPES: Final = MappingProxyType({str: _STRING, int: _LONG, bool: _BOOLEAN, frozenset: _SET})


def _cedar_type(annotation: Any) -> Json:  # noqa: ANN401
    """Return the schema's type of a field; text enumerations are strings to the policy."""
    kind = getattr(annotation, "__origin__", annotation)
    return _STRING if issubclass(kind, str) else _TYPES[kind]


def _shape(kind: type, leave: str = "") -> Json:
    attributes = {
        field.name: _cedar_type(field.type) for field in fields(kind) if field.name != leave
    }
    return {"type": "Record", "attributes": attributes}


def record(value: Asker | Facts | Situation) -> Json:
    """Return one group of facts as JSON values: sets as sorted lists, names as plain text."""
    return {name: _plain(getattr(value, name)) for name in _NAMES[type(value)]}


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, frozenset):
        return sorted(str(one) for one in value)
    return str(value) if isinstance(value, str) else value


def _schema() -> Json:
    applies = {
        "principalTypes": ["Actor"],
        "resourceTypes": ["Data"],
        "context": {"type": "Situation"},
    }
    return {
        "": {
            "commonTypes": {"Situation": _shape(Situation)},
            "entityTypes": {
                "Actor": {"shape": _shape(Asker, leave="actor_id")},
                "Data": {"shape": _shape(Facts)},
            },
            "actions": {str(use): {"appliesTo": applies} for use in Use},
        }
    }


SCHEMA: Final = canonical(_schema()).decode()  # Cedar's JSON schema of every fact
SCHEMA_DIGEST: Final = hashlib.sha256(SCHEMA.encode()).hexdigest()
