"""A Sealer without cost: for tests of what is done with sealed keys, not of sealing."""

import base64
import hashlib
import hmac

from bedside_core.errors import KeysSealedError
from bedside_edge.ports.key_protection import Protection

_SECRET = b"known to this file only"


class MemorySealer:
    """`Sealer` whose machine is this module."""

    protection = Protection.PASSPHRASE

    def __init__(self):
        self._count = 0

    def seal(self, key):
        self._count += 1
        salt = hashlib.sha256(f"{id(self)} {self._count}".encode()).digest()
        hidden = bytes(a ^ b for a, b in zip(key, _pad(salt), strict=True))
        mac = hmac.digest(_SECRET, salt + hidden, "sha256")
        return {"sealed": base64.b64encode(salt + hidden + mac).decode()}

    def unseal(self, sealed):
        data = base64.b64decode(sealed.get("sealed", ""))
        salt, hidden, mac = data[:32], data[32:-32], data[-32:]
        if not hmac.compare_digest(mac, hmac.digest(_SECRET, salt + hidden, "sha256")):
            raise KeysSealedError("changed")
        return bytes(a ^ b for a, b in zip(hidden, _pad(salt), strict=True))


def _pad(salt):
    return hmac.digest(_SECRET, b"pad" + salt, "sha256")
