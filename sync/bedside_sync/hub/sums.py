"""A finished round's sum with what it needs to be read: record, settings, noise."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import NotFoundError
from bedside_sync.hub.service import HubService
from bedside_sync.secagg import tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import Hub
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.tasks.kinds import KINDS, reading


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedSum:
    """The sum of one round.

    Attributes:
        record: the signed public record the sum was checked against.
        organisations: whose boxes are in it.
        total: (length,) signed integers, noise included.
        settings: of the task; empty when the hub does not hold them.
    """

    record: tally.Transcript = field(repr=False)
    organisations: frozenset[str]
    total: NDArray[np.int64] = field(repr=False)
    settings: bytes = field(repr=False)

    @property
    def manifest(self) -> Manifest:
        """What was signed before the round."""
        return self.record.body.manifest.manifest

    @property
    def boxes(self) -> int:
        """Reports in the sum."""
        return len(self.record.body.reports)

    @property
    def variance(self) -> float:
        """Of the noise in each word: every box in the sum added its own."""
        return float(self.boxes * self.manifest.sigma2)

    def reading(self) -> dict[str, Any] | None:
        """Return what the sum says, or None for a task or settings unknown here."""
        if self.manifest.task not in KINDS or not self.settings:
            return None
        return reading(self.manifest.task, self.settings, self.total, self.variance)


def open_sum(service: HubService, name: str) -> OpenedSum:
    """Return a published round's sum, checked against its record.

    Raises:
        NotFoundError: no such round, not finished, expired without a sum, or the sum on the disk
            is not the one in the record.
    """
    data = service.store.column(name, "transcript")
    record = decode(tally.Transcript, data, tally.MAX_TRANSCRIPT)
    manifest = record.body.manifest.manifest
    if not record.body.reports:
        raise NotFoundError("the round expired without a sum; its record is kept")
    total = service.opened(name)
    if tally.sum_digest(manifest, total) != record.body.total:
        raise NotFoundError("the sum on the disk is not the one in the record")
    members = service.roster_at(manifest).members
    try:
        settings = service.store.settings(bytes.fromhex(manifest.settings))
    except NotFoundError:  # planned with a bare digest: the settings are elsewhere
        settings = b""
    return OpenedSum(
        record=record,
        organisations=frozenset(
            members[report.body.box].organisation for report in record.body.reports
        ),
        total=total,
        settings=settings,
    )


def reading_of(service: HubService, name: str) -> dict[str, Any] | None:
    """Return what a round's sum says; None while there is none, or for an unknown task."""
    if service.store.state(name) is not Hub.PUBLISHED:
        return None
    return open_sum(service, name).reading()
