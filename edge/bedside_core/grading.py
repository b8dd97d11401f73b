"""Grades of data, 1 (public) to 5 (special disease): how they are given and what follows from them.

Every object gets a grade when it is filed, by rules people write in TOML. What is made of several
objects has the highest of their grades. A grade rises when the rules say so and falls in one way
only: through a recorded de-identification that a second person confirmed.

Levels after GB/T 39725-2020 (unverified - have it checked); what follows from a level is ours and
can be changed by the policy and by these rules.
"""

import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bedside_core.errors import GradeFallsError, InvalidGradingError, InvalidInputError
from bedside_core.input_check import plain

FORMAT: Final = "bedside-grading/1"
LOWEST: Final = 1
HIGHEST: Final = 5
IDENTIFYING: Final = 4  # what a received study is unless a rule says otherwise
STATISTIC: Final = 2  # a noisy statistic: not identifying, on application
MOST_RULES: Final = 200
MOST_VALUES: Final = 500
_MOST_BYTES: Final = 256 << 10

# Full-width forms and the wide space, as Chinese keyboards write Latin letters and digits
_NARROW: Final = {code + 0xFEE0: code for code in range(0x21, 0x7F)} | {0x3000: 0x20}
_LISTS: Final = ("modality", "body_part", "codes", "words", "source")
_ALLOWED: Final = frozenset({"name", "grade", "age_below", "burned_in", *_LISTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What rules may look at.

    Attributes:
        modality: DICOM modality.
        body_part: Body Part Examined.
        age_years: whole years at the time of the study; None when the header does not say.
        codes: code values of procedures and admitting diagnoses, without their schemes.
        texts: descriptions of study, series, procedure and diagnosis.
        burned_in: Burned In Annotation as sent: `YES`, `NO` or empty.
        source: calling AE title or label of the sender.
    """

    modality: str = ""
    body_part: str = ""
    age_years: int | None = None
    codes: tuple[str, ...] = ()
    texts: tuple[str, ...] = field(default=(), repr=False)
    burned_in: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradeRule:
    """All conditions that are given must hold; of a list, one value is enough."""

    name: str
    grade: int
    lists: Mapping[str, frozenset[str]]
    age_below: int | None = None
    burned_in: bool | None = None

    def applies(self, seen: Described) -> bool:
        """Say whether the rule speaks of the object; an unknown age is under no limit."""
        if self.age_below is not None and (
            seen.age_years is None or seen.age_years >= self.age_below
        ):
            return False
        if self.burned_in is not None and (seen.burned_in == "YES") is not self.burned_in:
            return False
        return all(_met(key, wanted, seen) for key, wanted in self.lists.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A grade and the rule that gave it; the name is empty when the default did."""

    grade: int
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grading:
    """Rules, the grade of what no rule speaks of, rho per grade, and the digest of the text."""

    default: int
    rules: tuple[GradeRule, ...]
    rho: Mapping[int, int]
    digest: str

    def grade(self, seen: Described) -> Graded:
        """Return the highest grade of the rules that apply, else the default."""
        found = [rule for rule in self.rules if rule.applies(seen)]
        if not found:
            return Graded(grade=self.default, rule="")
        chosen = max(found, key=lambda rule: rule.grade)  # the first of equals
        return Graded(grade=chosen.grade, rule=chosen.name)

    def stratum(self, grade: int) -> "Stratum":
        """Return the budget stratum of patients of a grade; their budgets do not add up."""
        return Stratum(grade=checked(grade), rho=self.rho[grade])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Patients of one grade and what an epoch may cost each of them, in units of 1e-12 rho."""

    grade: int
    rho: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What a grade means on the box; who may see and what may leave is held by the policy.

    Attributes:
        meaning: the level in words.
        read_by: whom the shipped policy lets read it.
        leaves_as: as what the shipped policy lets it leave.
    """

    meaning: str
    read_by: str
    leaves_as: str


EFFECTS: Final[Mapping[int, Effects]] = {
    1: Effects(
        meaning="public",
        read_by="all",
        leaves_as="anything",
    ),
    2: Effects(
        meaning="wide use, not identifying",
        read_by="staff on application",
        leaves_as="DP statistic, masked update, de-identified object",
    ),
    3: Effects(
        meaning="re-identifiable",
        read_by="named team",
        leaves_as="DP statistic, masked update",
    ),
    4: Effects(
        meaning="identifying",
        read_by="treating staff",
        leaves_as="exact result inside the hospital; DP statistic with its own budget",
    ),
    5: Effects(
        meaning="special disease",
        read_by="treating physician",
        leaves_as="the treating physician's screen; rounds with separate consent only",
    ),
}


def checked(grade: int) -> int:
    """Return the grade; InvalidInputError unless it is 1 to 5."""
    if not LOWEST <= grade <= HIGHEST:
        raise InvalidInputError(f"a grade is {LOWEST} to {HIGHEST}, got {grade}")
    return grade


def derived(sources: Iterable[int]) -> int:
    """Return the grade of what is made of objects of these grades: the highest, 5 of nothing."""
    return max((checked(grade) for grade in sources), default=HIGHEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """What is needed for a grade to fall.

    Attributes:
        deidentification: id of the recorded de-identification that made the object.
        actor: who asks for it.
        second: who confirmed; another person.
    """

    deidentification: str
    actor: str
    second: str


def regraded(before: int, after: int, lowering: Lowering | None = None) -> int:
    """Return the new grade.

    Raises:
        GradeFallsError: it would fall without a recorded de-identification and two people.
    """
    if checked(after) >= checked(before):
        return after
    if lowering is None or not lowering.deidentification:
        raise GradeFallsError("a grade falls only through a recorded de-identification")
    people = {lowering.actor, lowering.second}
    if len(people) != 2 or not all(who.startswith("person:") for who in people):
        raise GradeFallsError("a second person has to confirm that a grade falls")
    return after


def parse_grading(data: bytes) -> Grading:
    """Return the grading rules in TOML bytes.

    Raises:
        InvalidGradingError: not TOML, an unknown key, or a value out of range.
    """
    if len(data) > _MOST_BYTES:
        raise InvalidGradingError(f"grading rules have at most {_MOST_BYTES} bytes")
    try:
        written = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as cause:
        raise InvalidGradingError(f"grading rules: not TOML in UTF-8: {cause}") from cause
    if written.get("format") != FORMAT:
        raise InvalidGradingError(f'grading rules: needs format = "{FORMAT}"')
    if unknown := sorted(set(written) - {"format", "default", "rule", "rho"}):
        raise InvalidGradingError(f"grading rules: unknown key {unknown[0]}")
    listed = written.get("rule", [])
    if not isinstance(listed, list) or len(listed) > MOST_RULES:
        raise InvalidGradingError(f"grading rules: at most {MOST_RULES} tables [[rule]]")
    rules = tuple(_rule(one, number) for number, one in enumerate(listed, 1))
    names = [rule.name for rule in rules]
    if len(set(names)) != len(names):
        raise InvalidGradingError("grading rules: two rules have one name")
    return Grading(
        default=_grade(written.get("default", IDENTIFYING), "default"),
        rules=rules,
        rho=_rho(written.get("rho")),
        digest=hashlib.sha256(data).hexdigest(),
    )


def _rule(one: Any, number: int) -> GradeRule:  # noqa: ANN401
    where = f"rule {number}"
    if not isinstance(one, dict):
        raise InvalidGradingError(f"grading rules: {where} is no table")
    if unknown := sorted(set(one) - _ALLOWED):
        raise InvalidGradingError(f"grading rules: {where}: unknown key {unknown[0]}")
    name, age, burned = one.get("name"), one.get("age_below"), one.get("burned_in")
    if not isinstance(name, str) or not 0 < len(name) <= 64:
        raise InvalidGradingError(f"grading rules: {where} needs a name")
    if age is not None and (type(age) is not int or not 1 <= age <= 150):
        raise InvalidGradingError(f"grading rules: {where}: age_below is 1 to 150 years")
    if burned is not None and not isinstance(burned, bool):
        raise InvalidGradingError(f"grading rules: {where}: burned_in is true or false")
    return GradeRule(
        name=name,
        grade=_grade(one.get("grade"), where),
        lists={key: _values(key, one[key], where) for key in _LISTS if key in one},
        age_below=age,
        burned_in=burned,
    )


def _values(key: str, values: Any, where: str) -> frozenset[str]:  # noqa: ANN401
    good = isinstance(values, list) and 0 < len(values) <= MOST_VALUES
    if not good or not all(isinstance(one, str) and one.strip() for one in values):
        raise InvalidGradingError(f"grading rules: {where}: {key} is a list of words")
    return frozenset(_folded(key, one) for one in values)


def _grade(value: Any, where: str) -> int:  # noqa: ANN401
    if type(value) is not int or not LOWEST <= value <= HIGHEST:
        raise InvalidGradingError(f"grading rules: {where}: a grade is 1 to 5")
    return value


def _rho(written: Any) -> dict[int, int]:  # noqa: ANN401
    """Read `[rho]`: for each grade what an epoch may cost, never more for a stricter one."""
    names = [str(grade) for grade in range(LOWEST, HIGHEST + 1)]
    if not isinstance(written, dict) or sorted(written) != names:
        raise InvalidGradingError("grading rules: [rho] needs a value for each grade 1 to 5")
    units = [written[name] for name in names]
    if not all(type(one) is int and 0 < one <= 10**15 for one in units):
        raise InvalidGradingError("grading rules: [rho] holds integers in units of 1e-12")
    if units != sorted(units, reverse=True):
        raise InvalidGradingError("grading rules: [rho] of a stricter grade is never larger")
    return {int(name): one for name, one in zip(names, units, strict=True)}


def _met(key: str, wanted: frozenset[str], seen: Described) -> bool:
    if key == "words":
        texts = [_folded(key, text) for text in seen.texts]
        return any(word in text for word in wanted for text in texts)
    found = getattr(seen, key)
    values = found if isinstance(found, tuple) else (found,)
    return any(_folded(key, value) in wanted for value in values)


def _folded(key: str, value: str) -> str:
    """Sources compare as written; other words regardless of case, spacing and width."""
    if key == "source":
        return value
    value = value.translate(_NARROW)
    return " ".join(value.casefold().split()) if key == "words" else plain(value)
