"""Metadata of the repository's roles as values: made, changed, signed, told in words.

No file is read and no clock asked here: bytes and seconds come in. `docs/distribution.md` has the
table of roles. Source: TUF specification 1.0.34, sections 4 and 6.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from bedside_core.errors import InvalidInputError, InvalidMetadataError, NotFoundError
from bedside_sync.distribution.manifest import TargetManifest
from bedside_sync.distribution.signers import PrivateKey, SignerPublic, tuf_key

DAYS: Final[Mapping[str, int]] = {
    "root": 365,
    "targets": 90,
    "snapshot": 7,
    "timestamp": 2,
    "assign": 5,
}
ROLE_DAYS: Final = 30  # of vendors, models, app, policies
MAX_STICK_DAYS: Final = 31
ONLINE: Final = ("snapshot", "timestamp", "assign")
_PATTERNS: Final = {
    "models": "models/*/*",
    "app": "app/*",
    "policies": "policies/*",
    "assign": "assign/*",
}
S = TypeVar("S", Root, Targets, Snapshot, Timestamp)
_NAME: Final = "x-bedside-name"  # field of a key that says whose it is


def expiry(now: int, role: str, days: int = 0) -> datetime:
    """Return when metadata made now expires.

    Args:
        now: seconds since the epoch.
        role: decides how long.
        days: instead of the role's own.
    """
    lasts = timedelta(days=days or DAYS.get(role, ROLE_DAYS))
    return datetime.fromtimestamp(now, UTC).replace(microsecond=0) + lasts


def pattern_of(role: str) -> str:
    """Return the only paths a role may sign; `*` never crosses a `/`."""
    if role.startswith("vendor-"):
        return f"hw_profiles/{role.removeprefix('vendor-')}/*"
    if role not in _PATTERNS:
        raise NotFoundError("there is no such role")
    return _PATTERNS[role]


def named_key(half: SignerPublic) -> Key:
    """Return a key that carries its owner's name; the name is signed, and no part of the key."""
    key: Key = tuf_key(half)
    key.unrecognized_fields[_NAME] = half.name
    return key


def name_of(key: Key) -> str:
    """Return whose a key is, or the beginning of its id."""
    return str(key.unrecognized_fields.get(_NAME, key.keyid[:12]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Holders:
    """Who signs for a role, and how many of them have to."""

    keys: Sequence[SignerPublic]
    threshold: int

    def __post_init__(self) -> None:
        ids = {half.key_id for half in self.keys}
        if len(ids) != len(self.keys) or not 1 <= self.threshold <= len(ids):
            raise InvalidInputError("a role needs its threshold of different keys")


def make_root(version: int, now: int, holders: Mapping[str, Holders]) -> bytes:
    """Return an unsigned root that names the keys of the four top roles."""
    root = Root(version=version, expires=expiry(now, "root"), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        _set_keys(root, role, holders[role])
    return written(root)


def _set_keys(root: Root, role: str, holders: Holders) -> None:
    for key_id in list(root.roles[role].keyids):
        root.revoke_key(key_id, role)
    for half in holders.keys:
        root.add_key(named_key(half), role)
    root.roles[role].threshold = holders.threshold


def change_root(
    data: bytes, now: int, changes: Mapping[str, Holders], *, version: int = 0
) -> bytes:
    """Return the next root, unsigned, with the keys of some roles changed.

    Old and new keys both have to sign it: whoever only has the new ones cannot take over.
    """
    root = read_role(data, Root)
    root.version = version or root.version + 1
    root.expires = expiry(now, "root")
    for role, holders in changes.items():
        _set_keys(root, role, holders)
    return written(root)


def make_targets(version: int, now: int, delegations: Mapping[str, Holders]) -> bytes:
    """Return an unsigned `targets` that names no file and hands every path to its owner."""
    targets = Targets(version=version, expires=expiry(now, "targets"))
    targets.delegations = Delegations({}, {})
    for role, holders in delegations.items():
        _delegate(targets, role, holders)
    return written(targets)


def change_targets(data: bytes, now: int, changes: Mapping[str, Holders | None]) -> bytes:
    """Return the next `targets`, unsigned; a role mapped to None is no longer delegated."""
    targets = read_role(data, Targets)
    targets.version += 1
    targets.expires = expiry(now, "targets")
    for role, holders in changes.items():
        _delegate(targets, role, holders)
    return written(targets)


def _delegate(targets: Targets, role: str, holders: Holders | None) -> None:
    delegations = targets.delegations
    if delegations is None or delegations.roles is None:
        raise InvalidMetadataError("the metadata of targets delegates nothing")
    held = delegations.roles.get(role)
    for key_id in list(held.keyids) if held else ():
        targets.revoke_key(key_id, role)
    if holders is None:
        if held is None:
            raise NotFoundError(f"{role} is not delegated")
        del delegations.roles[role]
        return
    delegations.roles[role] = DelegatedRole(
        name=role,
        keyids=[],
        threshold=holders.threshold,
        terminating=True,
        paths=[pattern_of(role)],
    )
    for half in holders.keys:
        targets.add_key(named_key(half), role)


def make_role(version: int, now: int, role: str) -> bytes:
    """Return metadata of a delegated role that names nothing yet, unsigned."""
    return written(Targets(version=version, expires=expiry(now, role)))


def change_role(
    data: bytes,
    now: int,
    role: str,
    *,
    add: Mapping[str, bytes] | None = None,
    drop: Iterable[str] = (),
    days: int = 0,
) -> bytes:
    """Return the next version of a delegated role, unsigned.

    Args:
        data: the version before.
        now: seconds since the epoch.
        role: its name.
        add: target paths with their bytes.
        drop: paths it shall no longer name.
        days: how long it is good for, instead of the role's own.

    Raises:
        InvalidMetadataError: a path is not the role's.
    """
    targets = read_role(data, Targets)
    targets.version += 1
    targets.expires = expiry(now, role, days)
    for path in drop:
        targets.targets.pop(path, None)
    for path, body in (add or {}).items():
        if not owns(role, path):
            raise InvalidMetadataError(f"{role} may not sign {path}")
        targets.targets[path] = TargetFile.from_data(path, body, ["sha256"])
    return written(targets)


def owns(role: str, path: str) -> bool:
    """Whether a path matches what a role may sign."""
    parts, wanted = path.split("/"), pattern_of(role).split("/")
    return len(parts) == len(wanted) and all(
        want in ("*", part) for part, want in zip(parts, wanted, strict=True)
    )


def add_package(data: bytes, now: int, role: str, manifest: TargetManifest) -> bytes:
    """Return the next version of a role with a package in it, unsigned."""
    return change_role(data, now, role, add={manifest.path: manifest.encode()})


def make_snapshot(
    version: int, now: int, roles: Mapping[str, int], private: PrivateKey, days: int = 0
) -> bytes:
    """Return a signed snapshot: which version of each role belongs together."""
    meta = {f"{role}.json": MetaFile(one) for role, one in roles.items()}
    made = Snapshot(version=version, expires=expiry(now, "snapshot", days), meta=meta)
    return sign(written(made), private)


def make_timestamp(
    version: int, now: int, snapshot: bytes, private: PrivateKey, days: int = 0
) -> bytes:
    """Return a signed timestamp of a snapshot."""
    number = read_role(snapshot, Snapshot).version
    meta = MetaFile.from_data(number, snapshot, ["sha256"])
    made = Timestamp(version=version, expires=expiry(now, "timestamp", days), snapshot_meta=meta)
    return sign(written(made), private)


def sign(data: bytes, private: PrivateKey) -> bytes:
    """Return metadata with this key's signature added; again it is no news."""
    metadata = parsed(data)
    signer = CryptoSigner(private)
    # ECDSA signs differently each time: a draft that carries this key's valid one stays as it is
    if not _signed_by(metadata, signer.public_key):
        metadata.sign(signer, append=True)
    return _bytes(metadata)


def _signed_by(metadata: Metadata[Any], key: Key) -> bool:
    held = metadata.signatures.get(key.keyid)
    if held is None:
        return False
    try:
        key.verify_signature(held, metadata.signed_bytes)
    except UnverifiedSignatureError:
        return False
    return True


def merge(one: bytes, other: bytes) -> bytes:
    """Return metadata with the signatures of both copies.

    Raises:
        InvalidInputError: they are not copies of the same.
    """
    first, second = parsed(one), parsed(other)
    if first.signed_bytes != second.signed_bytes:
        raise InvalidInputError("the copies differ in what they say")
    for key_id, signature in second.signatures.items():
        first.signatures.setdefault(key_id, signature)
    return _bytes(first)


# --- reading ---------------------------------------------------------------------------------


def parsed(data: bytes) -> Metadata[Any]:
    """Return metadata; InvalidMetadataError when it cannot be read."""
    try:
        found: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as cause:
        raise InvalidMetadataError("not metadata of a repository") from cause
    return found


def read_role(data: bytes, kind: type[S]) -> S:
    """Return what metadata says; InvalidMetadataError when it is of another kind."""
    signed = parsed(data).signed
    if not isinstance(signed, kind):
        raise InvalidMetadataError("metadata of another kind")
    return signed


def written(signed: Root | Targets | Snapshot | Timestamp) -> bytes:
    """Return unsigned metadata as bytes."""
    return _bytes(Metadata(signed))


def _bytes(metadata: Metadata[Any]) -> bytes:
    return bytes(metadata.to_bytes())


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far metadata is from being valid.

    Attributes:
        signed: names of the holders who have signed.
        awaited: names of those who have not.
        missing: signatures still needed; 0 when it may be published.
    """

    signed: tuple[str, ...]
    awaited: tuple[str, ...]
    missing: int


def standing(data: bytes, role: str, delegator: bytes, before: bytes = b"") -> Standing:
    """Return who has signed metadata of a role.

    Args:
        data: of the role.
        role: its name.
        delegator: the root, for top roles; `targets` for all others.
        before: of a root, the root before: its keys have to sign too.

    Raises:
        NotFoundError: the delegator does not know the role.
    """
    metadata = parsed(data)
    above: Any = parsed(delegator).signed
    results = []
    try:
        for one in (above, parsed(before).signed) if before else (above,):
            results.append(
                one.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            )
    except ValueError as cause:
        raise NotFoundError(f"{role} is not delegated") from cause
    signed = {key_id: key for one in results for key_id, key in one.signed.items()}
    awaited = {
        key_id: key
        for one in results
        if one.missing
        for key_id, key in one.unsigned.items()
        if key_id not in signed
    }
    return Standing(
        signed=tuple(sorted(map(name_of, signed.values()))),
        awaited=tuple(sorted(map(name_of, awaited.values()))),
        missing=max(one.missing for one in results),
    )


def keys_of(delegator: bytes, role: str) -> tuple[tuple[str, ...], int]:
    """Return the ids of a role's keys, sorted, and its threshold; NotFoundError."""
    above: Any = parsed(delegator).signed
    try:
        held: Role = above.get_delegated_role(role)
    except ValueError as cause:
        raise NotFoundError(f"{role} is not delegated") from cause
    return tuple(sorted(held.keyids)), held.threshold


def delegated(targets: bytes) -> tuple[str, ...]:
    """Return the names of the roles `targets` hands paths to."""
    found = read_role(targets, Targets).delegations
    return tuple(found.roles) if found is not None and found.roles is not None else ()


def told(data: bytes, role: str) -> dict[str, str]:
    """Return what a person should read before signing."""
    signed = parsed(data).signed
    facts = {"role": role, "version": str(signed.version), "expires": f"{signed.expires:%Y-%m-%d}"}
    if isinstance(signed, Root):
        for name, held in signed.roles.items():
            names = sorted(name_of(signed.keys[key_id]) for key_id in held.keyids)
            facts[f"keys of {name}"] = f"{held.threshold} of {', '.join(names)}"
    if isinstance(signed, Targets):
        if signed.delegations is not None:
            for name, held in (signed.delegations.roles or {}).items():
                keys = signed.delegations.keys
                who = ", ".join(sorted(name_of(keys[key_id]) for key_id in held.keyids))
                facts[name] = f"{held.threshold} of {who} for {', '.join(held.paths or ())}"
        for path, target in sorted(signed.targets.items()):
            facts[path] = f"sha256 {target.hashes['sha256']}"
    return facts
