"""Routing rules: which model reads which images of a study, and why not the others.

People write the rules in TOML. They are tried in order and the first that takes at least one image
takes the study; images it does not take are not read. No rule takes it: nothing runs. Rules decide
who is asked; whether the model will read an image is the input check's business afterwards.
"""

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bedside_core.errors import InvalidRulesError
from bedside_core.input_check import Described, judge_header, modality_of, plain, shown
from bedside_core.manifest import Accepts

FORMAT: Final = "bedside-rules/1"
MOST_RULES: Final = 200
MOST_VALUES: Final = 200
_MOST_BYTES: Final = 256 << 10
_LONGEST: Final = 600  # characters of a reason; results hold it

_FOLDED: Final = ("modality", "body_part", "view", "laterality", "image_type", "intent")
_EXACT: Final = ("source", "sop_class")
KEYS: Final = (*_EXACT, *_FOLDED)
_WORDS: Final = {"sop_class": "SOP Class", "image_type": "image type", "body_part": "body part"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One line of `when` or `unless`: an attribute and the values that meet it."""

    key: str
    values: tuple[str, ...]

    def met(self, image: "Image") -> bool:
        """Say whether the image has one of the values; "" stands for an attribute left empty."""
        found = _values(image, self.key)
        if self.key in _EXACT:
            return any(value in self.values for value in found)
        wanted = {plain(value) for value in self.values}
        return any(plain(value) in wanted for value in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """All of `when` and none of `unless`; an empty `model` ends the search and nothing runs."""

    name: str
    model: str
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules in order, and the digest of the text they came from."""

    rules: tuple[Rule, ...]
    digest: str

    @property
    def models(self) -> tuple[str, ...]:
        """The models that rules name, each once, in order."""
        return tuple(dict.fromkeys(rule.model for rule in self.rules if rule.model))


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What rules may look at: the header's routing attributes and who sent the image."""

    header: Described
    source: str
    laterality: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one rule said: which images it takes, and why it does not take the study if so."""

    rule: str
    model: str
    takes: tuple[bool, ...]
    chosen: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will run: the model, the rule that says so, and every rule's verdict in order.

    Attributes:
        model: name of the package; empty when nothing runs.
        rule: name of the rule that took the study; empty when none did.
        takes: which images the model is asked to read.
        reason: why nothing runs, or which rule decided.
    """

    model: str
    rule: str
    takes: tuple[bool, ...]
    reason: str
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """One model of the box in a dry run: whether it would run, and why not."""

    model: str
    runs: bool
    reason: str


def default_rules(model: str) -> str:
    """Return what holds when nobody wrote rules: the model is asked of every study.

    Its input check then refuses what it was not made for, each image with its own code
    (wrong-modality, wrong-body-part, no-pixels), which tells a sender more than `no-route`.
    """
    return f'format = "{FORMAT}"\n\n[[rules]]\nname = "every-study"\nmodel = "{model}"\n'


def parse_rules(data: bytes) -> Rules:
    """Return the rules in a TOML text.

    Raises:
        InvalidRulesError: not TOML, an unknown key, a name used twice, or no rule at all.
    """
    if len(data) > _MOST_BYTES:
        raise InvalidRulesError(f"the rules are larger than {_MOST_BYTES >> 10} KiB")
    try:
        document = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as cause:
        raise InvalidRulesError(f"the rules are not TOML: {cause}") from cause
    _only(document, ("format", "rules"), "the file")
    if document.get("format") != FORMAT:
        raise InvalidRulesError(f'the file must say format = "{FORMAT}"')
    entries = document.get("rules")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_RULES:
        raise InvalidRulesError(f"need between 1 and {MOST_RULES} [[rules]]")
    rules = tuple(_rule(entry, place) for place, entry in enumerate(entries, start=1))
    if len({rule.name for rule in rules}) != len(rules):
        raise InvalidRulesError("two rules have the same name")
    return Rules(rules=rules, digest="sha256:" + hashlib.sha256(data).hexdigest())


def route(rules: Rules, images: Sequence[Image]) -> Plan:
    """Return what will run over a study's images."""
    verdicts: list[Verdict] = []
    chosen: Rule | None = None
    takes: tuple[bool, ...] = (False,) * len(images)
    for rule in rules.rules:
        whys = [_why_not(rule, image) for image in images]
        taken = tuple(not why for why in whys)
        first = chosen is None and any(taken)
        if first:
            chosen, takes, reason = rule, taken, _taken_words(taken)
        elif any(taken):
            reason = f"rule {chosen.name} comes first" if chosen else ""
        else:
            reason = "; ".join(dict.fromkeys(whys)) or "the study has no images"
        verdicts.append(
            Verdict(rule=rule.name, model=rule.model, takes=taken, chosen=first, reason=reason)
        )
    if chosen is None:
        told = "; ".join(f"{verdict.rule}: {verdict.reason}" for verdict in verdicts)
        why = f"no rule takes it - {told}"[:_LONGEST]
    elif not chosen.model:
        why = f"rule {chosen.name} says that nothing runs"
    else:
        why = f"rule {chosen.name}"
    return Plan(
        model=chosen.model if chosen else "",
        rule=chosen.name if chosen else "",
        takes=takes,
        reason=why,
        verdicts=tuple(verdicts),
    )


def chances(plan: Plan, images: Sequence[Image], models: Mapping[str, Accepts]) -> list[Chance]:
    """Return, for every model of the box, whether it would run and why not.

    Args:
        plan: made by `route` for the same images.
        images: the study's.
        models: what each model of the box accepts, by name.
    """
    found = []
    for name, accepts in models.items():
        if name != plan.model:
            found.append(Chance(model=name, runs=False, reason=_unasked(name, plan)))
            continue
        taken = [image for image, take in zip(images, plan.takes, strict=True) if take]
        refusals = [judge_header(image.header, accepts).refusal for image in taken]
        reasons = dict.fromkeys(f"{why.code}: {why}" for why in refusals if why is not None)
        runs = None in refusals
        words = plan.reason if runs else "its input check refuses: " + "; ".join(reasons)
        found.append(Chance(model=name, runs=runs, reason=words))
    if plan.model and plan.model not in models:
        missing = f"{plan.reason} names it, and it is not loaded"
        found.append(Chance(model=plan.model, runs=False, reason=missing))
    return found


def _unasked(name: str, plan: Plan) -> str:
    named = [verdict for verdict in plan.verdicts if verdict.model == name]
    if not named:
        return "no rule names it"
    return "; ".join(f"rule {verdict.rule}: {verdict.reason}" for verdict in named)


def _taken_words(taken: Sequence[bool]) -> str:
    return f"takes {sum(taken)} of {len(taken)} images"


def _why_not(rule: Rule, image: Image) -> str:
    """Return why a rule does not take an image, empty when it does."""
    for condition in rule.when:
        if not condition.met(image):
            listed = ", ".join(value or "(empty)" for value in condition.values)
            return f"{_told(image, condition.key)}, the rule wants {listed}"
    for condition in rule.unless:
        if condition.met(image):
            return f"{_told(image, condition.key)}, which the rule leaves out"
    return ""


def _told(image: Image, key: str) -> str:
    """Return an attribute and its value in words that may stand in results and on pages."""
    word = _WORDS.get(key, key)
    values = [value for value in _values(image, key) if value]
    if key == "sop_class":
        return f"{word} {values[0][:64]}" if values else f"no {word}"
    return f"{word} " + ", ".join(shown(value) for value in values) if values else f"no {word}"


def _values(image: Image, key: str) -> tuple[str, ...]:
    header = image.header
    if key == "image_type":
        return header.image_type or ("",)
    single = {
        "source": image.source,
        "sop_class": header.sop_class_uid,
        "modality": modality_of(header),
        "body_part": header.body_part,
        "view": header.view,
        "laterality": image.laterality,
        "intent": header.presentation_intent,
    }
    return (single[key],)


# --- reading -------------------------------------------------------------------------------------


def _rule(entry: object, place: int) -> Rule:
    where = f"rule {place}"
    if not isinstance(entry, dict):
        raise InvalidRulesError(f"{where} is not a table")
    _only(entry, ("name", "model", "when", "unless"), where)
    name, model = _text(entry, "name", where), _text(entry, "model", where)
    if not name or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
        raise InvalidRulesError(f"{where}: name must be letters, digits and hyphens, at most 64")
    if len(model) > 64:
        raise InvalidRulesError(f"{where}: model is longer than any name")
    return Rule(
        name=name,
        model=model,
        when=_conditions(entry.get("when", {}), f"{where}, when"),
        unless=_conditions(entry.get("unless", {}), f"{where}, unless"),
    )


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise InvalidRulesError(f"{where}: {key} must be text")
    return value


def _conditions(table: object, where: str) -> tuple[Condition, ...]:
    if not isinstance(table, dict):
        raise InvalidRulesError(f"{where} is not a table")
    _only(table, KEYS, where)
    return tuple(_condition(key, values, where) for key, values in table.items())


def _condition(key: str, values: object, where: str) -> Condition:
    if (
        not isinstance(values, list)
        or not 1 <= len(values) <= MOST_VALUES
        or not all(isinstance(value, str) for value in values)
    ):
        raise InvalidRulesError(f"{where}: {key} must be a list of 1 to {MOST_VALUES} texts")
    # a value of nothing but signs would fold to "" and match every empty attribute
    if key in _FOLDED and any(value and not plain(value) for value in values):
        raise InvalidRulesError(f"{where}: a value of {key} has no letter and no digit")
    return Condition(key=key, values=tuple(values))


def _only(table: Mapping[str, Any], allowed: Sequence[str], where: str) -> None:
    if unknown := sorted(set(table) - set(allowed)):
        raise InvalidRulesError(
            f"{where}: unknown {', '.join(unknown)}; known are {', '.join(allowed)}"
        )
