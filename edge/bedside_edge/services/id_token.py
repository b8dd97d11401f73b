"""ID tokens: which key signed, who issued it for whom, and that it answers this very log-in.

OpenID Connect Core 3.1.3.7, with the list of algorithms fixed before the token is read: a token
never chooses how it is checked, and a key never serves another algorithm than its own.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from bedside_core.errors import InvalidIdTokenError

ALGORITHMS: Final[Mapping[str, str]] = {"RS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_LONGEST: Final = 16_384
_MOST_KEYS: Final = 64
_LEEWAY_S: Final = 60
_OLDEST_S: Final = 600  # of a token that answers a log-in of this moment
_SEGMENTS: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class UnknownKeyError(Exception):
    """No key of the set signs like this: the provider may have new ones."""


def read_id_token(
    token: str,
    keys: Mapping[str, Any],
    *,
    algorithms: Sequence[str],
    issuer: str,
    client_id: str,
    nonce: str,
    now_s: int,
) -> Mapping[str, Any]:
    """Return the claims of a token that holds in every respect.

    Args:
        token: compact JWS.
        keys: the provider's JWK set.
        algorithms: those the settings allow, of `ALGORITHMS`.
        issuer: of the settings.
        client_id: of the settings.
        nonce: sent with this log-in.
        now_s: seconds since 1970.

    Raises:
        UnknownKeyError: no key of the set fits the token's header.
        InvalidIdTokenError: anything else; the text says which check, never what was in it.
    """
    if len(token) > _LONGEST or not _SEGMENTS.fullmatch(token):
        raise InvalidIdTokenError("the ID token is no compact JWS")

    def find(found: Any) -> Key:  # noqa: ANN401  what joserfc hands over
        header = found.headers()
        if header.get("alg") not in algorithms or header.get("alg") not in ALGORITHMS:
            raise InvalidIdTokenError("the ID token is not signed with an allowed algorithm")
        if "crit" in header:
            raise InvalidIdTokenError("the ID token asks for an extension")
        return _key(keys, str(header["alg"]), header.get("kid"))

    try:
        decoded = jwt.decode(token, find, algorithms=[str(one) for one in algorithms])
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as cause:
        raise InvalidIdTokenError("the ID token's signature does not hold") from cause
    claims = decoded.claims
    if not isinstance(claims, dict):
        raise InvalidIdTokenError("the ID token holds no claims")
    _check(claims, issuer, client_id, nonce, now_s)
    return claims


def _key(keys: Mapping[str, Any], algorithm: str, kid: object) -> Key:
    listed = keys.get("keys")
    found = [
        one
        for one in (listed[:_MOST_KEYS] if isinstance(listed, list) else [])
        if isinstance(one, dict)
        and one.get("kty") == ALGORITHMS[algorithm]
        and one.get("use", "sig") == "sig"
        and one.get("alg", algorithm) == algorithm
        and (kid is None or one.get("kid") == kid)
    ]
    if len(found) != 1:  # without a kid only a lone key can be meant
        raise UnknownKeyError
    try:
        key = import_key(found[0])
    except (JoseError, ValueError, TypeError, KeyError) as cause:
        raise InvalidIdTokenError("a key of the provider cannot be used") from cause
    strong = (
        (isinstance(key, RSAKey) and key.raw_value.key_size >= 2048)
        or (isinstance(key, ECKey) and found[0].get("crv") == "P-256")
        or (isinstance(key, OKPKey) and found[0].get("crv") == "Ed25519")
    )
    if not strong:
        raise InvalidIdTokenError("a key of the provider is too weak or of another curve")
    return key


def _check(claims: Mapping[str, Any], issuer: str, client_id: str, nonce: str, now_s: int) -> None:
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") != issuer:
        raise InvalidIdTokenError("the ID token is of another issuer")
    if client_id not in audiences or claims.get("azp", client_id) != client_id:
        raise InvalidIdTokenError("the ID token is for another client")
    if len(audiences) > 1 and "azp" not in claims:
        raise InvalidIdTokenError("the ID token is for several clients and names none")
    expires, issued, begins = (_seconds(claims.get(name)) for name in ("exp", "iat", "nbf"))
    if expires is None or now_s >= expires + _LEEWAY_S:
        raise InvalidIdTokenError("the ID token has expired")
    if issued is None or not -_OLDEST_S <= issued - now_s <= _LEEWAY_S:
        raise InvalidIdTokenError("the ID token was not issued now")
    if "nbf" in claims and (begins is None or begins > now_s + _LEEWAY_S):
        raise InvalidIdTokenError("the ID token does not count yet")
    if claims.get("nonce") != nonce or not nonce:
        raise InvalidIdTokenError("the ID token does not answer this log-in")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
        raise InvalidIdTokenError("the ID token names nobody")


def _seconds(value: object) -> float | None:
    """Return a NumericDate; None for anything else, so that it never passes for a time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None
