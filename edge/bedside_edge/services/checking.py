"""Looking at passwords: slow on purpose, two at a time, and every guess is counted first."""

import hashlib
import threading
from typing import Final

from bedside_core.errors import QueueFullError, TooManyAttemptsError
from bedside_edge.ports.access import AccessStore, Account, Passwords, Tries
from bedside_edge.services.passwords import LONGEST, check_password, normal

_FREE_OF_ACCOUNT: Final = 5  # failures before waits begin
_FREE_OF_ADDRESS: Final = 30  # a whole department may sit behind one address
_LONGEST_WAIT_S: Final = 900
_HASHING: Final = 2  # each takes 19 MiB and a core
_HASHING_WAIT_S: Final = 5.0


class Checking:
    """Holds guesses back; safe to call from several threads."""

    def __init__(self, store: AccessStore, passwords: Passwords, nobody: str) -> None:
        """Take the store of failures, the slow hash, and a password nobody has."""
        self._store, self._passwords = store, passwords
        self._places = threading.BoundedSemaphore(_HASHING)
        self._nobody = passwords.hash(nobody)

    def count(self, login: str, address: str, now: int) -> None:
        """Count a failure before the password is looked at: guesses sent together count, too.

        Raises:
            TooManyAttemptsError: this name or this address has to wait; nothing is counted.
        """
        name = _key("account", login)

        def check(key: str, tries: Tries) -> None:
            free = _FREE_OF_ACCOUNT if key == name else _FREE_OF_ADDRESS
            if tries.failures < free:
                return
            wait_s = min(2 ** min(tries.failures - free, 30), _LONGEST_WAIT_S)
            left_ms = tries.last + wait_s * 1000 - now
            if left_ms > 0:
                raise TooManyAttemptsError("too many failed log-ins; wait", -(-left_ms // 1000))

        self._store.attempt([name, _key("address", address)], now, check)

    def right(self, login: str, address: str = "") -> None:
        """Take back what was counted: the password was right, or is a new one."""
        self._store.forgive(_key("account", login), _key("address", address))

    def verify(self, account: Account | None, password: str) -> bool:
        """Whether the account's password is this one; without an account the same work, and no."""
        usable = account is not None and bool(account.password) and not account.disabled
        encoded = account.password if account is not None and usable else self._nobody
        with _Turn(self._places):
            return self._passwords.verify(encoded, normal(password[: 4 * LONGEST])) and usable

    def hash(self, password: str, account: Account) -> str:
        """Return the encoded hash of a new password; WeakPasswordError."""
        chosen = check_password(password, account.login, account.name)
        with _Turn(self._places):
            return self._passwords.hash(chosen)

    def renewed(self, account: Account, password: str) -> str:
        """Return a hash by today's parameters where the account's is weaker; else nothing."""
        if not self._passwords.outdated(account.password):
            return ""
        with _Turn(self._places):
            return self._passwords.hash(normal(password))


class _Turn:
    """A place among the passwords being looked at."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places

    def __enter__(self) -> None:
        if not self._places.acquire(timeout=_HASHING_WAIT_S):
            raise QueueFullError("too many log-ins at a time")

    def __exit__(self, *raised: object) -> None:
        self._places.release()


def _key(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}:{value}".encode()).hexdigest()[:32]
