"""Pictures of held images for a viewer: windowed on the box, as 8-bit PNG; saliency apart.

Decoded frames and finished pictures are kept in memory up to a bound. Nothing is shown of a study
whose rows or key are gone: every call looks them up first.
"""

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from bedside_core.display import GreyScale, grey_scale, shown
from bedside_core.errors import NotFoundError
from bedside_core.imaging import Frame, Window, placed_size
from bedside_core.overlay import veil
from bedside_edge.ports import Instance, JobQueue, ObjectStore, PixelReader, StudyStore

T = TypeVar("T")

VERSION: Final = "1"  # part of every tag: raised when the same question gets another picture
_FRAME_BYTES: Final = 96 << 20
_PICTURE_BYTES: Final = 32 << 20
_VEIL: Final = 640  # pixels of the longer side; the map itself has a few dozen cells


class Encoder(Protocol):
    """Writes pixels as a picture."""

    def plain(self, pixels: NDArray[np.uint8]) -> bytes:
        """Return (rows, columns) or (rows, columns, 3 or 4) as PNG."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A PNG and a tag that is equal only for equal pictures."""

    body: bytes = field(repr=False)
    tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How to show an image; see `bedside_core.display.shown`."""

    window: Window | None = None
    inverted: bool = False
    size: int = 1536


class PictureService:
    """Renders. Safe to call from several threads; two frames are worked on at a time."""

    def __init__(
        self,
        queue: JobQueue,
        studies: StudyStore,
        objects: ObjectStore,
        reader: PixelReader,
        encoder: Encoder,
    ) -> None:
        self._queue, self._studies, self._objects = queue, studies, objects
        self._reader, self._encoder = reader, encoder
        self._frames: _Lru[Frame] = _Lru(_FRAME_BYTES, lambda frame: frame.pixels.nbytes)
        self._pictures: _Lru[bytes] = _Lru(_PICTURE_BYTES, len)
        self._working = threading.BoundedSemaphore(2)

    def image(self, study_id: str, instance_id: str, view: View) -> Picture:
        """Return an image as a person looks at it.

        Raises:
            NotFoundError: no such image in that study.
            RefusedError: the leaf that says why it cannot be decoded.
            MalformedHeaderError: the window or the size is out of range.
        """
        instance = self._instance(study_id, instance_id)
        tag = _tag(instance.digest, view)
        found = self._pictures.get(study_id, tag)
        if found is None:
            with self._working:
                frame = self._frame(instance)
                pixels = shown(
                    frame,
                    window=view.window,
                    inverted=view.inverted,
                    size=min(view.size, _own_size(frame)),
                )
                found = self._encoder.plain(pixels)
            self._pictures.put(study_id, tag, found)
        return Picture(body=found, tag=tag)

    def tag(self, study_id: str, instance_id: str, view: View) -> str:
        """Return the tag `image` would answer with, without rendering; NotFoundError."""
        return _tag(self._instance(study_id, instance_id).digest, view)

    def grey_scale(self, study_id: str, instance_id: str) -> tuple[GreyScale, tuple[int, int]]:
        """Return where the values lie, and (height, width) in true proportions; as `image`."""
        instance = self._instance(study_id, instance_id)
        with self._working:
            frame = self._frame(instance)
            size = placed_size(frame.pixels.shape, frame.spacing, _own_size(frame))
            return grey_scale(frame), size

    def saliency(self, result_id: str, instance_id: str) -> Picture:
        """Return the saliency of one analysed image alone, to lie over it.

        Raises:
            NotFoundError: no such result, or the model did not read that image.
        """
        stored = self._queue.result(result_id)
        body: dict[str, Any] = json.loads(stored.body)
        for entry in body["images"]:
            if entry["instance"] == instance_id and entry["status"] == "analysed":
                break
        else:
            raise NotFoundError("the model did not read that image")
        tag = _tag(result_id, instance_id)
        found = self._pictures.get(stored.study_id, tag)
        if found is None:
            place = tuple(int(v) for v in entry["placement"])
            longest = max(place[2:])  # the longer side of the image fills the square
            shape = (round(_VEIL * place[2] / longest), round(_VEIL * place[3] / longest))
            cam = np.asarray(entry["cam"], np.float32)
            placement = (place[0], place[1], place[2], place[3])
            found = self._encoder.plain(veil(cam, shape, placement, longest))
            self._pictures.put(stored.study_id, tag, found)
        return Picture(body=found, tag=tag)

    def forget(self, study_id: str) -> None:
        """Drop what is kept of a study: it has been erased."""
        self._frames.forget(study_id)
        self._pictures.forget(study_id)

    def _instance(self, study_id: str, instance_id: str) -> Instance:
        for instance in self._studies.instances(study_id):
            if instance.instance_id == instance_id:
                return instance
        raise NotFoundError("no such image in this study")

    def _frame(self, instance: Instance) -> Frame:
        frame = self._frames.get(instance.study_id, instance.instance_id)
        if frame is None:
            data = self._objects.read(instance.object_name, instance.object_key)
            frame = self._reader.frame(data)
            self._frames.put(instance.study_id, instance.instance_id, frame)
        return frame


def _own_size(frame: Frame) -> int:
    rows, columns = frame.pixels.shape
    return max(16, int(rows), int(columns))


def _tag(*parts: object) -> str:
    return hashlib.sha256(repr((VERSION, parts)).encode()).hexdigest()[:32]


class _Lru(Generic[T]):
    """Values by study and name, bounded by their size in bytes; the least used go first."""

    def __init__(self, most: int, size: Callable[[T], int]) -> None:
        self._most, self._size, self._held = most, size, 0
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[str, str], T] = OrderedDict()

    def get(self, study_id: str, name: str) -> T | None:
        """Return a value, or None."""
        with self._lock:
            if (study_id, name) not in self._values:
                return None
            self._values.move_to_end((study_id, name))
            return self._values[study_id, name]

    def put(self, study_id: str, name: str, value: T) -> None:
        """Keep a value; one that is larger than the bound is not kept."""
        with self._lock:
            self._drop((study_id, name))
            if self._size(value) > self._most:
                return
            self._values[study_id, name] = value
            self._held += self._size(value)
            while self._held > self._most:
                self._drop(next(iter(self._values)))

    def forget(self, study_id: str) -> None:
        """Drop everything of a study."""
        with self._lock:
            for key in [key for key in self._values if key[0] == study_id]:
                self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._held -= self._size(value)
