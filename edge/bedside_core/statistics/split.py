"""Which part of training a patient belongs to: a function of the patient alone.

All studies of a patient stand in one part, so nothing of a patient who is trained on is tested on.
The patient's name is a keyed hash that only the hospital knows; the shares are public.
"""

import hashlib
from typing import Final

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS: Final = (TRAIN, VALIDATION, TEST)
_BOUNDS: Final = ((TRAIN, 70), (VALIDATION, 85), (TEST, 100))  # upper ends, in percent
_RANGE: Final = 1 << 64


def split_of(patient: str) -> str:
    """Return train (70 %), validation (15 %) or test (15 %), always the same for a patient."""
    digest = hashlib.sha256(b"bedside-split/1\0" + patient.encode("utf-8", "surrogatepass"))
    place = int.from_bytes(digest.digest()[:8], "big")
    return next(name for name, percent in _BOUNDS if place < _RANGE * percent // 100)
