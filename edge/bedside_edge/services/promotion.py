"""A promotion the consortium signed, against the package this box holds and the root it pinned."""

from typing import Protocol

from bedside_core.errors import InvalidInputError, NotReadyError
from bedside_edge.services.sync import SyncService
from bedside_sync.promotion import Promotion, SignedPromotion, check_promotion
from bedside_sync.secagg.bodies import decode


class Served(Protocol):
    """A loaded package."""

    @property
    def package_digest(self) -> str:
        """`sha256:` and the digest of its manifest."""
        ...


class Models(Protocol):
    """The packages of this box."""

    def load(self, name: str, version: str = "") -> object:
        """Open a package; NotFoundError, WrongStateError, or why it may not serve."""
        ...

    def model(self, name: str, version: str = "") -> Served:
        """Return a loaded package; NotFoundError."""
        ...


def promoted(
    data: bytes, name: str, version: str, models: Models, sync: SyncService | None
) -> Promotion:
    """Return the promotion of a version of a model; loads it.

    Args:
        data: the file, as `bedside-hub promote` wrote it and two administrators signed it.
        name: of the model.
        version: to be served.
        models: of this box.
        sync: this box in its consortium.

    Raises:
        InvalidMessageError: not such a file.
        NotReadyError: the box is in no consortium, so it knows no administrators.
        InvalidInputError: it promotes another model or version.
        UntrustedSignatureError: administrators of fewer than two organisations signed it.
        RoundRefusedError: the package on this box is another one.
        NotFoundError: the box holds no such version.
    """
    signed = decode(SignedPromotion, data.strip())
    welcome = sync.status().welcome if sync is not None else None
    if welcome is None:
        raise NotReadyError("the box is in no consortium: it knows nobody who may promote")
    if (signed.promotion.model, signed.promotion.model_version) != (name, version):
        raise InvalidInputError("the promotion is of another model or version")
    models.load(name, version)
    digest = models.model(name, version).package_digest.removeprefix("sha256:")
    return check_promotion(signed, welcome.root, digest)
