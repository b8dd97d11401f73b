"""What a round of the consortium needs from the box's own cases.

The night (`services/sync.py`) decides who is charged; a `Material` says who could take part and
adds up those who were charged. There is one for each task name a manifest may carry.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_sync.secagg.manifest import Manifest


class Material(Protocol):
    """One task on this box's own studies. Synchronous; called from the night's thread only."""

    def patients(self, manifest: Manifest, settings: bytes) -> Sequence[str]:
        """Return the subject ids that could take part, in order of arrival.

        Reads no pixel and charges nothing. The policy is asked here for each patient
        (`Use.TRAIN` where cases train); who may not take part is left out.

        Raises:
            InvalidInputError: the settings are not ones of this task, or do not fit the manifest
                (segments, bounds, ring). The round is then refused on this box.
        """
        ...

    def vector(
        self, manifest: Manifest, settings: bytes, patients: Sequence[str]
    ) -> NDArray[np.int64]:
        """Return the exact bounded sum over exactly these patients, without noise.

        Returns:
            (manifest.length,); no patient moves it by more than `sensitivity2` (squared L2) in
            all or `largest` in one word. A patient who was erased since counts as zero.

        Raises:
            InvalidInputError: as above.
        """
        ...


Materials = Mapping[str, Material]  # by `manifest.task`
