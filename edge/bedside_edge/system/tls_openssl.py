"""The server side of TLS, for HTTP and DICOM alike: BCP 195, the box's certificate, reload.

TLS 1.2 with forward secrecy and authenticated encryption, or 1.3 (RFC 9325; PS3.15 B.12, B.13).
Client certificates are checked against the authorities of the settings only, never against those
the machine trusts for the web.
"""

import ssl
from typing import Final, Literal

from bedside_core.errors import InvalidConfigError

ClientAuth = Literal["off", "optional", "required"]

_TLS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_VERIFY: Final = {
    "off": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class ServerTls:
    """A context and the files it came from."""

    def __init__(
        self, certificate_file: str, key_file: str, client_auth: ClientAuth, client_ca_file: str
    ) -> None:
        """Read the files.

        Raises:
            InvalidConfigError: one cannot be read, or key and certificate do not belong together.
        """
        self._chain = (certificate_file, key_file)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_TLS_1_2)  # 1.3 has only good ones
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
        self.context = context
        self.reload()
        if client_auth != "off":
            try:
                context.load_verify_locations(client_ca_file)
            except (OSError, ssl.SSLError) as cause:
                raise InvalidConfigError("client_ca_file cannot be used") from cause
        context.verify_mode = _VERIFY[client_auth]

    def reload(self) -> None:
        """Read certificate and key again; connections from now on use them.

        Raises:
            InvalidConfigError: they cannot be used; the old ones stay in force.
        """
        try:  # into a context of its own first: a half-written pair must not replace a good one
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*self._chain, password=_refuse)
            self.context.load_cert_chain(*self._chain, password=_refuse)
        except (OSError, ssl.SSLError, ValueError) as cause:
            raise InvalidConfigError("certificate_file and key_file cannot be used") from cause


def _refuse() -> str:
    """An encrypted key would ask for its passphrase on a terminal nobody watches."""
    raise ValueError("the key is encrypted")
