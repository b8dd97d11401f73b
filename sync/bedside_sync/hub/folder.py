"""The hub's folder: who the hub is, what it trusts, and one process at a time that serves it.

consortium.json   the root: administrators and their keys; never changes
hub.json          address and server name that members are told
hub.key           Ed25519 identity           authority.key/.pem   transport authority
server.key/.pem   the hub's own certificate  hub.db, vectors/     the store
lock              held by `bedside-hub serve`
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from bedside_core.errors import (
    AlreadyExistsError,
    BedsideError,
    DiskFullError,
    InvalidConfigError,
    NotFoundError,
    StoreUnavailableError,
)
from bedside_sync.hub.authority import Authority, make_key, pem, private_pem, to_revoke
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.secagg.bodies import Body, decode
from bedside_sync.secagg.roster import Root, Roster
from bedside_sync.transport_nng import Identity

_SECRET: Final = 0o600
_PUBLIC: Final = 0o644


class Place(Body):
    """Where boxes reach the hub."""

    url: Annotated[str, Field(pattern=r"^tls\+tcp://[^/ ]+:[0-9]{1,5}$", max_length=512)]
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """What stands in the folder beside the store."""

    folder: Path
    root: Root
    place: Place
    key: Ed25519PrivateKey = field(repr=False)
    authority: Authority = field(repr=False)
    certificate: str
    certificate_key: str = field(repr=False)

    @property
    def public_key(self) -> str:
        """The hub's identity, hex."""
        return self.key.public_key().public_bytes_raw().hex()

    def identity(self, store: HubStore, roster: Roster, now: int) -> Identity:
        """Return what the transport serves under, with the revocation list as of now."""
        return Identity(
            certificate=self.certificate,
            key=self.certificate_key,
            authority=pem(self.authority.certificate),
            revoked=self.authority.revocation_list(to_revoke(store, roster), now),
        )


def make_hub(folder: Path, root: Root, place: Place, now: int) -> Hub:
    """Write a new hub's folder and return it; AlreadyExistsError when there is one."""
    if (folder / "consortium.json").exists():
        raise AlreadyExistsError("the folder holds a hub already; its root never changes")
    with _files():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, authority = Ed25519PrivateKey.generate(), Authority.make(root.consortium, now)
    server = make_key()
    certificate = authority.issue_server(place.server_name, server.public_key(), now)
    raw = key.private_bytes_raw().hex().encode("ascii")
    write_file(folder / "hub.key", raw, _SECRET)
    write_file(folder / "authority.key", authority.key_pem.encode("ascii"), _SECRET)
    write_file(folder / "authority.pem", pem(authority.certificate).encode("ascii"), _PUBLIC)
    write_file(folder / "server.key", private_pem(server).encode("ascii"), _SECRET)
    write_file(folder / "server.pem", pem(certificate).encode("ascii"), _PUBLIC)
    write_file(folder / "hub.json", place.encode(), _PUBLIC)
    write_file(folder / "consortium.json", root.encode(), _PUBLIC)  # last: with it the hub exists
    HubStore(folder).close()
    return read_hub(folder)


def read_hub(folder: Path) -> Hub:
    """Return the hub of a folder; NotFoundError, InvalidConfigError."""
    if not (folder / "consortium.json").exists():
        raise NotFoundError("the folder holds no hub; `bedside-hub init` makes one")
    try:
        texts = {name: (folder / name).read_bytes() for name in _NAMES}
        return Hub(
            folder=folder,
            root=decode(Root, texts["consortium.json"]),
            place=decode(Place, texts["hub.json"]),
            key=Ed25519PrivateKey.from_private_bytes(bytes.fromhex(texts["hub.key"].decode())),
            authority=Authority.read(
                texts["authority.key"].decode(), texts["authority.pem"].decode()
            ),
            certificate=texts["server.pem"].decode(),
            certificate_key=_readable(texts["server.key"]).decode(),
        )
    except (OSError, ValueError, TypeError, BedsideError) as cause:
        raise InvalidConfigError("a file of the hub's folder is missing or damaged") from cause


_NAMES: Final = (
    "consortium.json",
    "hub.json",
    "hub.key",
    "authority.key",
    "authority.pem",
    "server.key",
    "server.pem",
)


def write_file(path: Path, data: bytes, mode: int = _PUBLIC, *, fresh: bool = False) -> None:
    """Write a file whole or not at all, synced.

    Raises:
        AlreadyExistsError: `fresh` and the file is there.
        DiskFullError, StoreUnavailableError: it cannot be written.
    """
    if fresh and path.exists():
        raise AlreadyExistsError(f"{path.name} is there already; it is not written over")
    with _files():
        partial = path.with_name(f".{path.name}.part")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; StoreUnavailableError when another process serves it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _SECRET)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as cause:
            raise StoreUnavailableError("another process serves this hub's folder") from cause
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        if cause.errno == 28:  # ENOSPC
            raise DiskFullError("the disk is full") from cause
        raise StoreUnavailableError(f"cannot write: {cause.strerror}") from cause


def _readable(key: bytes) -> bytes:
    serialization.load_pem_private_key(key, None)  # ValueError: nng would only say CryptoError
    return key
