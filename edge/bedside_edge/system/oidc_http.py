"""The identity provider over HTTP: one short request at a time, bounded in size and time."""

import json
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bedside_core.errors import IdentityProviderError, InvalidConfigError

_LARGEST: Final = 256 << 10
_TIMEOUT_S: Final = 5.0
_AT_A_TIME: Final = 4


class HttpProvider:
    """`Provider` over httpx, which is loaded with the first call."""

    def __init__(self, client_id: str, secret_file: str, ca_file: str) -> None:
        """Take who we are to the provider, and whom to trust (the system's when empty).

        Raises:
            InvalidConfigError: a file cannot be read.
        """
        try:
            self._secret = Path(secret_file).read_text("utf-8").strip() if secret_file else ""
            self._trust = ssl.create_default_context(cafile=ca_file or None)
        except (OSError, UnicodeDecodeError, ssl.SSLError) as cause:
            raise InvalidConfigError("a file of [oidc] cannot be used") from cause
        self._client_id = client_id
        self._places = threading.BoundedSemaphore(_AT_A_TIME)

    def get(self, url: str) -> Mapping[str, Any]:
        """Return the JSON object at a URL; IdentityProviderError."""
        return self._ask("GET", url, None)

    def exchange(self, url: str, fields: Mapping[str, str]) -> Mapping[str, Any]:
        """Post a form as this client (client_secret_basic where there is a secret)."""
        return self._ask("POST", url, fields)

    def _ask(self, method: str, url: str, fields: Mapping[str, str] | None) -> Mapping[str, Any]:
        """Ask, unless too many ask already.

        Whoever sees the log-in page can start calls; with a provider that hangs they would keep
        every thread, and local log-ins need those.
        """
        if not self._places.acquire(blocking=False):
            raise IdentityProviderError("too many log-ins wait for the identity provider")
        try:
            return self._asked(method, url, fields)
        finally:
            self._places.release()

    def _asked(self, method: str, url: str, fields: Mapping[str, str] | None) -> Mapping[str, Any]:
        import httpx

        auth = httpx.BasicAuth(self._client_id, self._secret) if fields and self._secret else None
        body = bytearray()
        try:
            with (
                httpx.Client(verify=self._trust, timeout=_TIMEOUT_S, trust_env=False) as client,
                client.stream(
                    method,
                    url,
                    data=dict(fields) if fields else None,
                    auth=auth,
                    headers={"Accept": "application/json"},
                ) as answer,
            ):
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise IdentityProviderError("the provider's answer is too large")
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as cause:
            raise IdentityProviderError("the identity provider does not answer") from cause
        if status != 200:
            raise IdentityProviderError(f"the identity provider answered {status}")
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as cause:
            raise IdentityProviderError("the provider's answer is no JSON") from cause
        if not isinstance(found, dict):
            raise IdentityProviderError("the provider's answer is no JSON object")
        return found
