"""The policy in force, as services see it, and the engine that understands policy texts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bedside_core.policy import Document, parse_payload
from bedside_core.policy_rules import Rule
from bedside_core.uses import Ask, Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Fired:
    """What one rule alone says to an ask."""

    rule: str
    effect: str
    applies: bool


class Policy(Protocol):
    """A document that decides. Safe to call from several threads; never fails, it denies."""

    @property
    def document(self) -> Document:
        """What decides."""
        ...

    @property
    def rules(self) -> Sequence[Rule]:
        """Its rules, in order of the text."""
        ...

    def decide(self, ask: Ask) -> Decision:
        """Return the decision; whatever goes wrong is a deny whose cause is `policy-error`."""
        ...

    def explain(self, ask: Ask) -> list[Fired]:
        """Return what each rule alone says, in order of the text."""
        ...


# Return the policy of a document; InvalidPolicyError when its text cannot be read, does not fit
# the facts that are asked with, or holds a rule that could fail. Nothing else is checked.
Compile = Callable[[Document], Policy]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A policy document as the box keeps it.

    Attributes:
        revision: counts the changes of policy on this box, from 1.
        payload: the document.
        envelope: the signed envelope it came in; empty for the one shipped with the box.
        signers: key ids that signed it; empty for the one shipped with the box.
        actor: who put it in force.
        at: when, milliseconds since 1970, UTC.
    """

    revision: int
    payload: bytes = field(repr=False)
    envelope: bytes = field(repr=False, default=b"")
    signers: tuple[str, ...] = ()
    actor: str
    at: int

    @property
    def document(self) -> Document:
        """The document; InvalidPolicyError when this version of the box cannot read it."""
        return parse_payload(self.payload)


class PolicyStore(Protocol):
    """Which document is in force, and which were."""

    def active(self) -> StoredPolicy | None:
        """Return what is in force; None on a fresh box."""
        ...

    def history(self) -> list[StoredPolicy]:
        """Return every document that was in force, newest first."""
        ...

    def activate(self, policy: StoredPolicy, digest: str, label: str) -> None:
        """Put a document in force, with its evidence, in one transaction.

        Args:
            policy: its revision follows the one in force.
            digest: of the document, for the evidence.
            label: name and version, for the evidence.

        Raises:
            StaleRevisionError: another document came into force meanwhile.
        """
        ...
