"""The rules of a policy text as Cedar reads them, and which of them are refused.

Nothing here evaluates a rule. What Cedar would skip because it fails while it is tried is refused
beforehand, so that a forbid that is there is a forbid that holds.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from bedside_core.errors import InvalidPolicyError
from bedside_core.uses import Json, canonical

# What a rule may be made of. Arithmetic can overflow and extension functions can fail while a
# rule is tried; a rule that fails is skipped by Cedar, so what can fail is refused beforehand.
_OPERATORS: Final = frozenset(
    [
        *("&&", "||", "!", "if-then-else", "==", "!=", "<", "<=", ">", ">="),
        *("in", "has", ".", "like", "is", "contains", "containsAll", "containsAny", "isEmpty"),
        *("Set", "Record", "Value", "Var"),
    ]
)
RULE_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,47}")
MOST_DEPTH: Final = 40  # open brackets
MOST_LINKS: Final = 120  # operators of one statement
_TOKEN: Final = re.compile(
    r'"(?:[^"\\]|\\.)*"|//[^\n\r]*|[(\[{}\]);]'
    r"|&&|\|\||==|!=|<=|>=|::|[-+*%!<>.]|\b(?:if|in|has|like|is)\b",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One statement of the text.

    Attributes:
        rule_id: its `@id`.
        effect: `permit` or `forbid`.
        body: canonical JSON of scope and conditions, without annotations: equal bodies decide
            equally.
    """

    rule_id: str
    effect: Literal["permit", "forbid"]
    body: str = field(repr=False)


def refuse_deep(text: str) -> None:
    """Return when the engine's parser can take the text without running out of stack.

    It descends once a bracket and once a link of a chain, in machine code: too deep ends the
    process. What people write stays far below both bounds.

    Raises:
        InvalidPolicyError: too many open brackets, or too long a chain in one statement.
    """
    depth = links = 0
    for found in _TOKEN.findall(text):
        if found in ("(", "[", "{"):
            depth += 1
        elif found in (")", "]", "}"):
            depth -= 1
        elif found == ";":
            links = 0
        elif found[0] not in '"/':  # neither text nor comment
            links += 1
        if depth > MOST_DEPTH or links > MOST_LINKS:
            raise InvalidPolicyError(
                f"policy: nested too deeply: a statement has at most {MOST_DEPTH} open brackets"
                f" and {MOST_LINKS} operators"
            )


def read_rules(tree: str) -> dict[str, Rule]:
    """Return the rules by the engine's own ids, in order of the text.

    Args:
        tree: Cedar's JSON form of the policies (EST).

    Raises:
        InvalidPolicyError: a statement without a usable or unique `@id`, a template, or an
            expression that could fail while it is tried.
    """
    parsed: Json = json.loads(tree)
    if parsed["templates"]:
        raise InvalidPolicyError("policy: a template has no place in a document")
    rules: dict[str, Rule] = {}
    seen: set[str] = set()
    for engine_id, statement in parsed["staticPolicies"].items():
        rule_id = statement.get("annotations", {}).get("id") or ""
        if not RULE_ID.fullmatch(rule_id):
            raise InvalidPolicyError('policy: every statement needs @id("lower-case-words")')
        if rule_id in seen:
            raise InvalidPolicyError(f"policy: two statements have the id {rule_id}")
        seen.add(rule_id)
        for condition in statement["conditions"]:
            _refuse_what_can_fail(condition["body"], rule_id)
        body = {key: value for key, value in statement.items() if key != "annotations"}
        rules[engine_id] = Rule(
            rule_id=rule_id, effect=statement["effect"], body=canonical(body).decode()
        )
    return rules


def _refuse_what_can_fail(expression: Any, rule_id: str) -> None:  # noqa: ANN401
    """Walk Cedar's JSON expression: each object has one key, the operator."""
    operator, operands = next(iter(expression.items()))
    if operator not in _OPERATORS:
        raise InvalidPolicyError(
            f"policy: rule {rule_id} uses {operator}, which can fail while the rule is tried"
        )
    if operator in ("Value", "Var"):
        return
    for operand in _operands(operator, operands):
        _refuse_what_can_fail(operand, rule_id)


def _operands(operator: str, operands: Any) -> Iterator[Any]:  # noqa: ANN401
    if operator == "Set":
        yield from operands
    elif operator == "Record":
        yield from operands.values()
    else:  # names such as `attr`, `pattern` and `entity_type` are no expressions
        names = ("left", "right", "arg", "if", "then", "else", "in")
        yield from (operands[name] for name in names if isinstance(operands.get(name), dict))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the engine said, as it said it.

    Attributes:
        decision: `Allow`, `Deny`, or anything else.
        determining: the engine's own ids of the statements that decided.
        errors: its complaints.
    """

    decision: str
    determining: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
