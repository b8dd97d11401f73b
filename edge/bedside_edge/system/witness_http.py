"""The way to a witness over HTTP: one request, bounded in size and time, nothing tried twice."""

import hashlib
import ssl
from pathlib import Path
from typing import Final

from bedside_core.errors import DestinationUnavailableError, InvalidConfigError
from bedside_core.evidence.witness import MAX_ANSWER
from bedside_edge.ports.witness import Answer

_PATIENCE_S: Final = 30.0


class HttpWitness:
    """`WitnessLink` over httpx, which is loaded with the first call."""

    def __init__(
        self,
        url: str,
        *,
        token_file: str = "",
        ca_file: str = "",
        certificate_file: str = "",
        key_file: str = "",
    ) -> None:
        """Take the witness's submission prefix, what we show, and whom we trust.

        Raises:
            InvalidConfigError: a file cannot be read.
        """
        self._url = url.rstrip("/")
        try:
            token = Path(token_file).read_text("utf-8").strip() if token_file else ""
            self._trust = ssl.create_default_context(cafile=ca_file or None)
            if certificate_file:
                self._trust.load_cert_chain(certificate_file, key_file or None)
        except (OSError, UnicodeDecodeError, ssl.SSLError) as cause:
            raise InvalidConfigError("a file of [evidence.witnesses] cannot be used") from cause
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def add_checkpoint(self, request: bytes) -> Answer:
        """Send an add-checkpoint request; DestinationUnavailableError."""
        return self._ask("POST", "/add-checkpoint", request)

    def last_checkpoint(self, origin: str) -> Answer:
        """Ask for what it cosigned last of a log; DestinationUnavailableError."""
        digest = hashlib.sha256(origin.encode()).hexdigest()
        return self._ask("GET", f"/{digest}/checkpoint", None)

    def _ask(self, method: str, path: str, content: bytes | None) -> Answer:
        import httpx

        headers = dict(self._headers)
        if content is not None:
            headers["Content-Type"] = "text/plain; charset=utf-8"
        body = bytearray()
        try:
            with (
                httpx.Client(verify=self._trust, timeout=_PATIENCE_S, trust_env=False) as client,
                client.stream(method, self._url + path, content=content, headers=headers) as answer,
            ):
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        raise DestinationUnavailableError("the witness's answer is too large")
                kind = answer.headers.get("content-type", "")
                return Answer(status=answer.status_code, content_type=kind, body=bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError) as cause:
            raise DestinationUnavailableError("the witness does not answer") from cause
