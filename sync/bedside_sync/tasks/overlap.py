"""Fuse: how many patients two consenting hospitals share, and nothing else.

Each id becomes a point of Curve25519 that nobody has chosen (hash until it is on the curve: on the
twist an id would give away one bit), is multiplied by each side's secret, and shuffled before it
goes back. Both secrets commute, so equal ids end equal; without both secrets nothing can be tried.
The count is noised before it is told, and small sets are refused: they could be used to ask about
one person.

Source: Meadows 1986; Huberman, Franklin, Hogg 1999 (ECDH intersection); RFC 7748 (X25519).
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from bedside_core.errors import InvalidInputError, RoundRefusedError

_P: Final = 2**255 - 19
_A: Final = 486662
_TAG: Final = b"bedside/overlap/v1"
POINT_BYTES: Final = 32
LEAST_SET: Final = 200

RandBelow = Callable[[int], int]


def on_curve(u: int) -> bool:
    """Whether u is the coordinate of a point of Curve25519 itself and not of its twist."""
    square = (u * u * u + _A * u * u + u) % _P
    return square != 0 and pow(square, (_P - 1) // 2, _P) == 1


def to_point(identifier: bytes, session: bytes) -> bytes:
    """Return the point of an id: 32 bytes, little-endian u coordinate.

    Args:
        identifier: an id normalised the same way at both sites.
        session: both sites' fresh randomness, so points of two sessions cannot be compared.
    """
    counter = 0
    while True:
        head = len(session).to_bytes(2, "big") + session + counter.to_bytes(4, "big")
        data = hashlib.sha512(_TAG + head + identifier).digest()
        u = int.from_bytes(data, "little") % _P
        if on_curve(u):
            return u.to_bytes(POINT_BYTES, "little")
        counter += 1


def blind(points: Sequence[bytes], secret: X25519PrivateKey, randbelow: RandBelow) -> list[bytes]:
    """Return the points multiplied by a secret, in an order that says nothing.

    Raises:
        RoundRefusedError: a point is malformed, on the twist, of small order, or sent twice.
    """
    if len(set(points)) != len(points):
        raise RoundRefusedError("a point was sent twice")
    found: list[bytes] = []
    for point in points:
        if len(point) != POINT_BYTES or not on_curve(_coordinate(point)):
            raise RoundRefusedError("a point is not on the curve")
        try:
            found.append(secret.exchange(X25519PublicKey.from_public_bytes(point)))
        except ValueError as cause:
            raise RoundRefusedError("a point has small order") from cause
    for last in range(len(found) - 1, 0, -1):  # Fisher and Yates
        other = randbelow(last + 1)
        found[last], found[other] = found[other], found[last]
    return found


def _coordinate(point: bytes) -> int:
    u = int.from_bytes(point, "little")
    if u >= _P:
        raise RoundRefusedError("a point is written in another way than its own")
    return u


def shared(ours_twice: Sequence[bytes], theirs_twice: Sequence[bytes], noise: int) -> int:
    """Return how many points both sides have, plus noise drawn by the caller.

    Args:
        ours_twice: our points under both secrets, as the other side sent them back.
        theirs_twice: their points under both secrets.
        noise: a draw of discrete noise for sensitivity 1.

    Raises:
        RoundRefusedError: a set is smaller than `LEAST_SET`, or a point stands in it twice.
    """
    if min(len(ours_twice), len(theirs_twice)) < LEAST_SET:
        raise RoundRefusedError(f"an overlap is counted between sets of at least {LEAST_SET}")
    ours, theirs = set(ours_twice), set(theirs_twice)
    if len(ours) != len(ours_twice) or len(theirs) != len(theirs_twice):
        raise RoundRefusedError("a point stands in a set twice")
    if type(noise) is not int:
        raise InvalidInputError("noise is an integer")
    return len(ours & theirs) + noise
