"""Files for a recipient with an age key (X25519): streams in, streams out.

The hospital makes the identity with `age-keygen` and keeps it away from the box; the box knows the
recipient only. Format: age-encryption.org/v1.
"""

import errno
from pathlib import Path
from typing import BinaryIO

from bedside_core.errors import InvalidBackupError, InvalidInputError

HEADER = b"age-encryption.org/v1"
_LINE = "AGE-SECRET-KEY-1"


def is_age(path: Path) -> bool:
    """Tell whether a file is encrypted with age (not armoured)."""
    try:
        with path.open("rb") as file:
            return file.read(len(HEADER)) == HEADER
    except OSError:
        return False


def read_identity(path: Path) -> str:
    """Return the identity in a file as `age-keygen` writes it.

    Raises:
        InvalidInputError: there is none, or more than one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidInputError("the identity file cannot be read") from cause
    found = [line.strip() for line in lines if line.strip().startswith(_LINE)]
    if len(found) != 1:
        raise InvalidInputError(f"the identity file needs one line that starts with {_LINE}")
    return found[0]


def recipient_of(identity: str) -> str:
    """Return the recipient (`age1...`) of an identity; InvalidInputError."""
    import pyrage

    try:
        return str(pyrage.x25519.Identity.from_str(identity).to_public())
    except pyrage.IdentityError as cause:
        raise InvalidInputError("that is no age identity") from cause


def make_identity() -> tuple[str, str]:
    """Return a new identity and its recipient."""
    import pyrage

    made = pyrage.x25519.Identity.generate()
    return str(made), str(made.to_public())


def check_recipient(recipient: str) -> None:
    """Raise InvalidInputError for what is no recipient."""
    import pyrage

    try:
        pyrage.x25519.Recipient.from_str(recipient)
    except pyrage.RecipientError as cause:
        raise InvalidInputError("that is no age recipient (age1...)") from cause


def encrypt(source: BinaryIO, target: BinaryIO, recipient: str) -> None:
    """Write everything `source` gives to `target`, encrypted; InvalidInputError."""
    import pyrage

    check_recipient(recipient)
    pyrage.encrypt_io(source, target, [pyrage.x25519.Recipient.from_str(recipient)])


def decrypt(source: BinaryIO, target: BinaryIO, identity: str) -> None:
    """Write to `target` what `source` holds.

    Raises:
        InvalidInputError: not an identity.
        InvalidBackupError: changed, cut off, or for another recipient.
    """
    import pyrage

    recipient_of(identity)
    who = pyrage.x25519.Identity.from_str(identity)
    try:
        pyrage.decrypt_io(source, target, [who])
    except (pyrage.DecryptError, OSError) as cause:  # a changed chunk comes out as OSError
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidBackupError("changed, cut off, or not for this identity") from cause
