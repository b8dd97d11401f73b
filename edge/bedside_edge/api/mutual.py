"""Mutual TLS: a client certificate becomes an actor by an explicit table, never by being valid.

The transport has checked the chain against `http.client_ca_file`. Which system that is, and what
it may do, stands in the settings: by the certificate's fingerprint, or by its common name among
those that authority issued. A certificate in no table is nobody.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.types import Scope

from bedside_core.access import Action, Actor
from bedside_edge.config import Client

EXTENSION: Final = "bedside.peer"
_MOST: Final = 1024  # certificates whose actor is remembered


class CertificateActors:
    """An `ActorFromScope` over the table `[clients]`."""

    def __init__(self, clients: Mapping[str, Client]) -> None:
        self._by_fingerprint: dict[str, Actor] = {}
        self._by_name: dict[str, Actor] = {}
        for name, client in clients.items():
            actor = Actor(
                actor_id=f"system:{name}",
                name=name,
                actions=frozenset(Action(word) for word in client.actions),
            )
            if client.fingerprint:
                self._by_fingerprint[client.fingerprint] = actor
            else:
                self._by_name[client.common_name] = actor
        self._seen: dict[str, Actor | None] = {}

    def __call__(self, scope: Scope) -> Actor | None:
        """Return whose certificate the connection shows; None without one, or of nobody."""
        found = (scope.get("extensions") or {}).get(EXTENSION)
        der = found.get("certificate") if isinstance(found, dict) else None
        if not der:
            return None
        fingerprint = hashlib.sha256(der).hexdigest()
        if fingerprint not in self._seen:
            if len(self._seen) >= _MOST:
                self._seen.clear()
            self._seen[fingerprint] = self._find(fingerprint, der)
        return self._seen[fingerprint]

    def _find(self, fingerprint: str, der: bytes) -> Actor | None:
        known = self._by_fingerprint.get(fingerprint)
        if known is not None or not self._by_name:
            return known
        try:
            subject = x509.load_der_x509_certificate(der).subject
            names = [a.value for a in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        except ValueError:  # OpenSSL took what cryptography does not: it has no name here
            return None
        return self._by_name.get(str(names[0])) if len(names) == 1 else None
