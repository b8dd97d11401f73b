"""A head that hospitals trained together, as the file the hub hands to whoever makes packages.

Weights and offset act on the raw pooled features of one named package. With them go the rule that
turns the score into an answer, and where all of it comes from: every round with its record and
what it cost a patient.
"""

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from bedside_core.errors import BedsideError, InvalidInputError
from bedside_core.findings import Calibration, Rule

HEAD_FORMAT: Final = "bedside-head/1"
_HEX = frozenset("0123456789abcdef")
_DIGEST_LENGTH: Final = 64
# a whole number too large for a float overflows
_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRound:
    """One night the head was learned from.

    Attributes:
        round: its name.
        manifest: hash of its manifest, hexadecimal.
        record: hash of its signed record, hexadecimal.
        boxes: reports in the sum.
        organisations: distinct ones among them.
        sigma: standard deviation of the noise in each word of the sum, in integer units.
        rho: what it cost a patient in it, zero-concentrated.
        epsilon: the same at `delta`.
        delta: of epsilon.
    """

    round: str
    manifest: str
    record: str
    boxes: int
    organisations: int
    sigma: float
    rho: float
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        if not _text(self.round) or not _digest(self.manifest) or not _digest(self.record):
            raise InvalidInputError("a round has a name, a manifest and a record")
        if not all(isinstance(one, int) and one >= 1 for one in (self.boxes, self.organisations)):
            raise InvalidInputError("a sum has boxes of organisations in it")
        if not _finite(self.sigma, self.rho, self.epsilon, self.delta):
            raise InvalidInputError("noise and cost of a round are positive numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedHead:
    """A linear head on pooled features: score = features . weights + offset.

    Attributes:
        model: hexadecimal digest of the package whose features these are.
        finding: code of what it tells, as in the package.
        weights: one for each feature.
        offset: added to every score.
        calibration: from score to probability.
        rule: from probability to answer.
        chosen_by: how calibration and rule came about, for manifest and card.
        patients: noisy count of patients learned from.
        positives: noisy count of those with the finding.
        ridge: penalty of the solution.
        rounds: where it comes from, in the order of the nights.
    """

    model: str
    finding: str
    weights: tuple[float, ...]
    offset: float
    calibration: Calibration
    rule: Rule
    chosen_by: str
    patients: float
    positives: float
    ridge: float
    rounds: tuple[HeadRound, ...]

    def __post_init__(self) -> None:
        if (
            not _digest(self.model)
            or not _text(self.finding)
            or not self.rounds
            or not self.weights
        ):
            raise InvalidInputError("a head belongs to a package, a finding and at least one round")
        if not _text(self.chosen_by):
            raise InvalidInputError("a head says how its rule came about")
        numbers = (*self.weights, self.offset, self.calibration.offset, self.ridge)
        if not all(map(math.isfinite, (*numbers, self.patients, self.positives))):
            raise InvalidInputError("a head holds a number that is none")
        if not _finite(self.calibration.scale):
            raise InvalidInputError("a higher score is a higher probability")

    @property
    def epsilon(self) -> float:
        """What it cost one patient who was in one round: the dearest of them."""
        return max(one.epsilon for one in self.rounds)

    def document(self) -> bytes:
        """Return the file."""
        fields = {"format": HEAD_FORMAT, **asdict(self)}
        return (json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def parse_head(data: bytes) -> TrainedHead:
    """Return the head in a file.

    Raises:
        InvalidInputError: not such a file; the text says what is wrong.
    """
    try:
        fields: dict[str, Any] = json.loads(data)
        if fields.pop("format") != HEAD_FORMAT:
            raise InvalidInputError(f"not in the format {HEAD_FORMAT}")
        rounds = tuple(HeadRound(**one) for one in fields.pop("rounds"))
        weights = tuple(fields.pop("weights"))
        calibration = Calibration(**fields.pop("calibration"))
        rule = Rule(**fields.pop("rule"))
        return TrainedHead(
            **fields, rounds=rounds, weights=weights, calibration=calibration, rule=rule
        )
    except BedsideError as cause:
        raise InvalidInputError(f"head: {cause}") from cause
    except _UNREADABLE as cause:
        raise InvalidInputError("head: not a file of a trained head") from cause


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _digest(text: str) -> bool:
    return len(text) == _DIGEST_LENGTH and _HEX.issuperset(text)


def _finite(*numbers: float) -> bool:
    return all(math.isfinite(one) and one > 0 for one in numbers)
