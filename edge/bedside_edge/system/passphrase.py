"""A key wrapped under a passphrase, for machines without a TPM: Argon2id, then AES-256-GCM.

The passphrase comes from a systemd credential (`keys-passphrase`, which systemd may itself keep
encrypted to the host or its TPM) or from a file named by `BEDSIDE_KEYS_PASSPHRASE_FILE`.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bedside_core.errors import InvalidInputError, KeysSealedError
from bedside_edge.ports import RandomBytes
from bedside_edge.ports.key_protection import Protection

FILE_VARIABLE: Final = "BEDSIDE_KEYS_PASSPHRASE_FILE"
CREDENTIAL: Final = "keys-passphrase"
_CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"  # set by systemd
_CONTEXT: Final = b"bedside keys passphrase v1"
_TIME, _MEMORY_KIB, _LANES = 3, 1 << 16, 4  # RFC 9106 section 4, second recommended option
_MOST: Final = {"time": 16, "memory": 1 << 20, "lanes": 16}  # a file cannot ask for more
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES, _LEAST = 16, 12, 32, 12


class PassphraseSealer:
    """`Sealer` under a passphrase held in memory."""

    protection = Protection.PASSPHRASE

    def __init__(self, passphrase: str, random: RandomBytes) -> None:
        """Take the passphrase.

        Raises:
            InvalidInputError: it is too short to keep anybody out.
        """
        if len(passphrase) < _LEAST:
            raise InvalidInputError(f"a passphrase has at least {_LEAST} characters")
        self._passphrase, self._random = passphrase, random

    def seal(self, key: bytes) -> Mapping[str, str | int]:
        """Return the wrapped key with the parameters it is derived with."""
        cost = {"time": _TIME, "memory": _MEMORY_KIB, "lanes": _LANES}
        salt, nonce = self._random(_SALT_BYTES), self._random(_NONCE_BYTES)
        wrapped = AESGCM(self._derive(salt, cost)).encrypt(nonce, key, _CONTEXT)
        return {
            **cost,
            "salt": base64.b64encode(salt).decode(),
            "wrapped": base64.b64encode(nonce + wrapped).decode(),
        }

    def unseal(self, sealed: Mapping[str, str | int]) -> bytes:
        """Return the key; KeysSealedError when the passphrase is another."""
        try:
            cost = {name: int(sealed[name]) for name in _MOST}
            salt = base64.b64decode(str(sealed["salt"]), validate=True)
            wrapped = base64.b64decode(str(sealed["wrapped"]), validate=True)
            if any(not 0 < cost[name] <= most for name, most in _MOST.items()):
                raise KeysSealedError("the sealed keys ask for too much memory or time")
            cipher = AESGCM(self._derive(salt, cost))
            return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _CONTEXT)
        except InvalidTag as cause:
            raise KeysSealedError("that is not the passphrase of the keys") from cause
        except (KeyError, ValueError, binascii.Error) as cause:
            raise KeysSealedError("the sealed keys cannot be read") from cause

    def _derive(self, salt: bytes, cost: Mapping[str, int]) -> bytes:
        return hash_secret_raw(
            self._passphrase.encode(),
            salt,
            time_cost=cost["time"],
            memory_cost=cost["memory"],
            parallelism=cost["lanes"],
            hash_len=_KEY_BYTES,
            type=Type.ID,
        )


def passphrase_at_hand() -> str:
    """Return the passphrase this process was started with.

    Raises:
        KeysSealedError: there is none, or its file cannot be read.
    """
    path = os.environ.get(FILE_VARIABLE, "")
    if not path and (folder := os.environ.get(_CREDENTIALS)):
        path = str(Path(folder) / CREDENTIAL)
    if not path:
        raise KeysSealedError(
            f"the keys are under a passphrase: give the systemd credential {CREDENTIAL}, or name "
            f"a file in {FILE_VARIABLE}"
        )
    try:
        return Path(path).read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as cause:
        raise KeysSealedError("the file with the keys' passphrase cannot be read") from cause
