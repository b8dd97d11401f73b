"""What single sign-on needs from outside: the provider's answers, and who is whose account."""

from collections.abc import Mapping
from typing import Any, Protocol

from bedside_edge.ports.evidence import Event


class Provider(Protocol):
    """The identity provider over the network; answers are bounded in size and time."""

    def get(self, url: str) -> Mapping[str, Any]:
        """Return the JSON object at a URL; IdentityProviderError."""
        ...

    def exchange(self, url: str, fields: Mapping[str, str]) -> Mapping[str, Any]:
        """Post a form as this client and return the JSON object; IdentityProviderError."""
        ...


class SubjectLinks(Protocol):
    """Which account a person of the provider has."""

    def account_of(self, subject: str) -> str:
        """Return the account id of a hashed subject; empty when it has none."""
        ...

    def link(self, subject: str, account_id: str, event: Event) -> None:
        """Remember it, with its evidence; a subject has one account for good.

        Raises:
            WrongStateError: it has one already.
        """
        ...
