"""The writer: a result or a review in, finished DICOM files out.

highdicom takes a third of a second to import, so it is loaded with the first object, not with the
box. Objects are made one at a time: building them is Python work, and a lock keeps two of them
from doubling each other's time.
"""

import threading
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import pydicom
from pydicom.dataset import Dataset

from bedside_core.review import Review, ReviewKind
from bedside_edge.dicom.quiet import muted_warnings
from bedside_edge.ports import RandomBytes
from bedside_edge.services.outputs import Draft, Kind, Made

if TYPE_CHECKING:
    from bedside_edge.dicom.write_common import Equipment
    from bedside_edge.dicom.write_sr import Uids


class DicomWriter:
    """Implements `ObjectWriter`."""

    def __init__(self, device_uid: str, serial: str, version: str, random: RandomBytes) -> None:
        """Write as the device `device_uid` (a UID) of this `serial` and software `version`."""
        self._device = (device_uid, serial, version)
        self._random = random
        self._lock = threading.Lock()

    def result_objects(self, draft: Draft) -> list[Made]:
        """Return report, secondary capture and, where the source allows, a segmentation."""
        with self._lock, muted_warnings():
            return self._result_objects(draft)

    def review_objects(self, draft: Draft, review: Review, rejected: Sequence[bytes]) -> list[Made]:
        """Return the signed report; for a rejection the key object naming `rejected` first."""
        with self._lock, muted_warnings():
            return self._review_objects(draft, review, rejected)

    def _result_objects(self, draft: Draft) -> list[Made]:
        from bedside_edge.dicom import write_common, write_sc, write_seg, write_sr

        body, equipment = draft.body, self._equipment()
        sources = {name: write_common.read_source(data) for name, data in draft.sources.items()}
        source = sources[body["value"]["image"]]
        report = write_sr.preliminary_sr(
            body,
            sources,
            equipment,
            self._uids(write_sr.tracked_items(body)),
            draft.at,
            _reference(draft.earlier),
        )
        made = [_made(Kind.SR, report)]
        if draft.picture is not None:
            capture = write_sc.overlay_sc(
                body, source, draft.picture, equipment, self._uids(), draft.at
            )
            made.append(_made(Kind.SC, capture))
        if write_seg.possible(source):
            entry = next(e for e in body["images"] if e["instance"] == body["value"]["image"])
            mask = write_seg.mask_of(entry, (int(source.Rows), int(source.Columns)))
            if mask.any():
                seg = write_seg.saliency_seg(body, source, mask, equipment, self._uids(1), draft.at)
                made.append(_made(Kind.SEG, seg))
        return made

    def _review_objects(
        self, draft: Draft, review: Review, rejected: Sequence[bytes]
    ) -> list[Made]:
        from bedside_edge.dicom import write_common, write_ko, write_sr

        body, equipment = draft.body, self._equipment()
        sources = {name: write_common.read_source(data) for name, data in draft.sources.items()}
        made: list[Made] = []
        if review.kind is ReviewKind.REJECT and rejected:
            named = [_whole(data) for data in rejected]
            source = sources[body["value"]["image"]]
            key_object = write_ko.rejection_ko(body, source, named, review, equipment, self._uids())
            made.append(_made(Kind.KO, key_object))
        uids = self._uids(max(1, write_sr.tracked_items(body)))
        report = write_sr.signed_sr(
            body, sources, equipment, uids, review, _reference(draft.earlier)
        )
        return [*made, _made(Kind.SR, report)]

    def _equipment(self) -> "Equipment":
        from bedside_edge.dicom.write_common import Equipment

        device_uid, serial, version = self._device
        return Equipment(device_uid=device_uid, serial=serial, version=version)

    def _uids(self, tracked: int = 0) -> "Uids":
        from bedside_edge.dicom.write_sr import Uids

        return Uids(
            series=self._uid(),
            instance=self._uid(),
            tracking=[self._uid() for _ in range(tracked)],
        )

    def _uid(self) -> str:
        """Return a fresh UID of the UUID root (PS3.5 B.2)."""
        return random_uid(self._random)


def random_uid(random: RandomBytes) -> str:
    """Return 2.25 and a random 128-bit number (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(random(16), 'big')}"


def _made(kind: Kind, made: Dataset) -> Made:
    from bedside_edge.dicom.write_common import encoded

    return Made(
        kind=kind,
        sop_class_uid=str(made.SOPClassUID),
        sop_instance_uid=str(made.SOPInstanceUID),
        data=encoded(made),
    )


def _whole(data: bytes) -> Dataset:
    return pydicom.dcmread(BytesIO(data), stop_before_pixels=True)


def _reference(data: bytes) -> Dataset | None:
    return _whole(data) if data else None
