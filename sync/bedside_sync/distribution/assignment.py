"""What a site is to run, and the rule that decides: only what assignment and owner both name.

The assignment is signed by an online key, so it is believed in one thing only: its choice among
what the owning roles have signed. A stolen online key can install nothing new, nothing older.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bedside_core.errors import (
    BedsideError,
    ForeignAssignmentError,
    InvalidMessageError,
    InvalidTargetError,
    NotPermittedError,
    ProfileMismatchError,
    RequiresUnmetError,
    RollbackRefusedError,
    StaleAssignmentError,
    TargetDiffersError,
    TargetNotSignedError,
    UpdateTooLargeError,
)
from bedside_sync.distribution.manifest import (
    Counter,
    Hex32,
    Kind,
    Name,
    TargetManifest,
    read_manifest,
    safe_path,
)
from bedside_sync.secagg.bodies import Body, decode

MAX_ITEMS: Final = 64
_OWNED_BY: Final[dict[str, str]] = {
    "app": "app",
    "models": "models",
    "policies": "policies",
    "assign": "assign",
}
_FIRST_PART: Final = {
    "app": "app",
    "model": "models",
    "policy": "policies",
    "profile": "hw_profiles",
}


def owner_of(path: str) -> str:
    """Return the role that owns a target path; InvalidTargetError when no role does."""
    first, _, rest = path.partition("/")
    if first == "hw_profiles" and rest.count("/") == 1:
        return f"vendor-{rest.partition('/')[0]}"
    if first in _OWNED_BY and rest and rest.count("/") == (1 if first == "models" else 0):
        return _OWNED_BY[first]
    raise InvalidTargetError("no role owns this path")


def assignment_path(site: str) -> str:
    """Return where a site's assignment is signed."""
    return f"assign/{site}.json"


class Item(Body):
    """One thing the site is to run, named by its digest."""

    kind: Kind
    path: Annotated[str, AfterValidator(safe_path)]
    sha256: Hex32
    release_counter: Counter

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if not self.path.startswith(f"{_FIRST_PART[self.kind]}/"):
            raise ValueError("the path is not one of its kind")
        return self


class Window(Body):
    """When the site may change what it runs; minutes after midnight, UTC.

    Equal ends mean at any time; an end before the start is on the next day.
    """

    start: Annotated[int, Field(ge=0, lt=1440)] = 0
    end: Annotated[int, Field(ge=0, lt=1440)] = 0

    def contains(self, minute: int) -> bool:
        """Whether a minute of the day lies in the window."""
        if self.start == self.end:
            return True
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


class Assignment(Body):
    """`assign/<site>.json`. Site ids are opaque: their names stand in public metadata."""

    format: Literal["bedside-assignment/1"] = "bedside-assignment/1"
    site: Name
    serial: Counter
    window: Window = Window()
    group: Name | Literal[""] = ""
    items: Annotated[tuple[Item, ...], Field(max_length=MAX_ITEMS)]

    @model_validator(mode="after")
    def _once(self) -> Self:
        paths = [item.path for item in self.items]
        if len(set(paths)) != len(paths):
            raise ValueError("an item is named twice")
        return self


def read_assignment(data: bytes) -> Assignment:
    """Return the assignment in `data`; InvalidTargetError."""
    try:
        return decode(Assignment, data)
    except InvalidMessageError as cause:
        raise InvalidTargetError(str(cause)) from cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What the owning role says about a path: the target's digest and its bytes."""

    sha256: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What the site runs and how far it may go back, by slot (`app`, `model/chest`, ...).

    Attributes:
        counters: release counter in service; a slot without one is not listed.
        floors: lowest counter that may still be installed.
        profile: id of the hardware profile in force; empty before there is one.
        room: bytes one package may have; 0 for no limit.
    """

    counters: Mapping[str, int]
    floors: Mapping[str, int]
    profile: str = ""
    room: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of an item: `manifest` and no code, or the code and words of the refusal."""

    item: Item
    manifest: TargetManifest | None = None
    code: str = ""
    reason: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it may be installed."""
        return not self.code


def check_assignment(assignment: Assignment, site: str, serial: int) -> None:
    """Check that an assignment is this site's and not older than the newest one seen.

    Args:
        assignment: as signed.
        site: this site's id.
        serial: highest serial seen; 0 before any.

    Raises:
        ForeignAssignmentError, StaleAssignmentError.
    """
    if assignment.site != site:
        raise ForeignAssignmentError("the assignment is for another site")
    if assignment.serial < serial:
        raise StaleAssignmentError(
            f"the assignment has serial {assignment.serial}, this box has seen {serial}"
        )


def decide(
    assignment: Assignment,
    signed: Mapping[str, Signed | BedsideError | None],
    running: Running,
    denied: Mapping[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """Return what may be installed, item by item; a refusal is a value with a stable code.

    Args:
        assignment: checked with `check_assignment`.
        signed: for each item's path what its owning role names, None when it names nothing, or
            why the role's metadata is not believed.
        running: what runs here and the floors.
        denied: paths the site's policy forbids, with the reason.
    """
    refused = denied or {}
    read: list[tuple[Item, TargetManifest | BedsideError]] = []
    for item in assignment.items:
        try:
            read.append((item, _named(item, signed.get(item.path))))
        except BedsideError as error:
            read.append((item, error))
    coming = _coming([found for _, found in read if isinstance(found, TargetManifest)], running)
    verdicts: list[Verdict] = []
    for item, found in read:
        try:
            if isinstance(found, BedsideError):
                raise found
            check_package(found, running, coming)
            if item.path in refused:
                raise NotPermittedError(refused[item.path])
        except BedsideError as error:
            verdicts.append(Verdict(item=item, code=error.code, reason=str(error)))
        else:
            verdicts.append(Verdict(item=item, manifest=found))
    return tuple(verdicts)


def _named(item: Item, signed: Signed | BedsideError | None) -> TargetManifest:
    owner = owner_of(item.path)
    if isinstance(signed, BedsideError):
        raise signed
    if signed is None:
        raise TargetNotSignedError(f"{owner} does not name {item.path}")
    if signed.sha256 != item.sha256:
        raise TargetDiffersError(f"{owner} signed another {item.path} than the assignment names")
    manifest = read_manifest(signed.data, item.path)
    if manifest.kind != item.kind or manifest.release_counter != item.release_counter:
        raise TargetDiffersError("kind or release counter differ from the assignment's")
    return manifest


def _coming(manifests: Sequence[TargetManifest], running: Running) -> dict[str, int]:
    """Return the counters in service once everything assigned is: what `requires` is held to."""
    after = dict(running.counters)
    for manifest in manifests:
        if manifest.release_counter >= running.floors.get(manifest.slot, 0):
            after[manifest.slot] = max(after.get(manifest.slot, 0), manifest.release_counter)
    return after


def check_package(
    manifest: TargetManifest, running: Running, beside: Mapping[str, int] | None = None
) -> None:
    """Check one package against what runs here.

    Args:
        manifest: of the package.
        running: what runs, and the floors.
        beside: counters to hold `requires` against; by default those in service. Pass those to
            come to see whether an assignment fits together; before a trial check again without.

    Raises:
        RollbackRefusedError: its counter is below the floor, or below what is in service.
        ProfileMismatchError: it is made for other hardware.
        UpdateTooLargeError: it does not fit.
        RequiresUnmetError: it needs what does not run here.
    """
    floor = max(running.floors.get(manifest.slot, 0), running.counters.get(manifest.slot, 0))
    if manifest.release_counter < floor:
        raise RollbackRefusedError(
            f"{manifest.slot} has release counter {manifest.release_counter}, the floor is {floor}"
        )
    if manifest.hardware and running.profile and running.profile not in manifest.hardware:
        raise ProfileMismatchError(f"{manifest.name} is not made for profile {running.profile}")
    if running.room and manifest.size > running.room:
        raise UpdateTooLargeError(
            f"{manifest.name} has {manifest.size} bytes, {running.room} are kept for it"
        )
    counters = running.counters if beside is None else beside
    for need in manifest.requires:
        held = counters.get(need.slot, 0)
        if held < need.least or (need.most and held > need.most):
            upper = f" to {need.most}" if need.most else " or more"
            raise RequiresUnmetError(
                f"{manifest.name} needs {need.slot} {need.least}{upper}, {held} runs here"
            )
