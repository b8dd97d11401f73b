"""What a box puts into a round: permitted, charged, bounded, with its own share of the noise.

Order: agreement and policy, who could take part, charge (durable), exact sum over exactly those who
were charged, noise. The sum is checked against the bounds the round was signed with before noise
hides it.
"""

import hashlib
import logging
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidInputError, ManifestRefusedError
from bedside_core.uses import Ask, Facts, Purpose, Situation, Target, Thing, Use
from bedside_edge.ports import Clock
from bedside_edge.ports.sync import Caps, Material, Materials, Price, SyncStore
from bedside_edge.services.gate import BOX, Gate
from bedside_sync.agent import SETTINGS
from bedside_sync.secagg import gauss
from bedside_sync.secagg.manifest import Manifest
from bedside_sync.secagg.manifest import Purpose as RoundPurpose

log = logging.getLogger(__name__)

DELTA: Final = 1e-6
_MILLIONTHS: Final = 10**6
_GRADE: Final = 2  # of a masked sum, as of a released statistic


class RoundSource:
    """`bedside_sync.box.Source` over the box's own cases."""

    def __init__(
        self,
        store: SyncStore,
        materials: Materials,
        gate: Gate,
        clock: Clock,
        caps: Caps,
        words: Callable[[int], NDArray[np.uint64]],
    ) -> None:
        """Stand on the ports; `words` are fresh words of the operating system's generator."""
        self._store, self._materials, self._gate = store, materials, gate
        self._clock, self._caps, self._words = clock, caps, words

    def permit(self, manifest: Manifest, cost: int) -> None:
        """Ask agreement and policy and charge patients, durably; see `Source.permit`."""
        self._ask(manifest, cost)
        material, settings = self._material(manifest)
        try:
            subjects = material.patients(manifest, settings)
        except InvalidInputError as wrong:  # nothing the next night would change
            raise ManifestRefusedError(f"round refused: {wrong}") from wrong
        price = Price(
            round=manifest.round,
            cost=cost,
            honest=manifest.least_boxes - manifest.unhonest,
            most=manifest.patients_a_box,
        )
        self._store.charge(price, subjects, self._caps)

    def vector(self, manifest: Manifest) -> NDArray[np.int64]:
        """Return the bounded sum over the charged patients plus this box's noise."""
        material, settings = self._material(manifest)
        candidates = material.patients(manifest, settings)
        patients = self._store.charged(manifest.round, candidates)
        exact = material.vector(manifest, settings, patients)
        check_bounds(exact, manifest, len(patients))
        return exact + gauss.draw_noise(manifest.sigma2, manifest.length, self._words)

    def _material(self, manifest: Manifest) -> tuple[Material, bytes]:
        material = self._materials.get(manifest.task)
        if material is None:
            raise ManifestRefusedError(f"round refused: this box has no task {manifest.task}")
        settings = self._store.facts.read(manifest.round, SETTINGS)
        if hashlib.sha256(settings).hexdigest() != manifest.settings:
            raise ManifestRefusedError("round refused: the settings held are not those it names")
        return material, settings

    def _ask(self, manifest: Manifest, cost: int) -> None:
        now = self._clock.now()
        held = [a for a in self._store.agreements() if a.holds(manifest.purpose.value, now)]
        left = self._caps.lifetime - cost
        trains = manifest.purpose is RoundPurpose.TRAIN
        self._gate.decide(
            Ask(
                use=Use.JOIN_ROUND,
                asker=BOX,
                facts=Facts(thing=Thing.ROUND, grade=_GRADE),
                situation=Situation(
                    purpose=Purpose.TRAINING if trains else Purpose.STATISTICS,
                    incident=self._gate.incident(),
                    target=Target.CONSORTIUM,
                    epsilon_left=int(epsilon(left, DELTA) * _MILLIONTHS) if left > 0 else left,
                    same_region=any(one.same_region for one in held),
                    agreement=bool(held),
                ),
            )
        ).must()


def check_bounds(exact: NDArray[np.int64], manifest: Manifest, patients: int) -> None:
    """Check a sum of so many patients against what the manifest lets each of them add.

    Raises:
        ManifestRefusedError: another shape, or a word or norm that they cannot have together: the
            task is wrong, and nothing of it may leave.
    """
    if exact.shape != (manifest.length,) or exact.dtype != np.int64:
        raise ManifestRefusedError("round refused: the task made a vector of another shape")
    words = [abs(value) for value in exact.tolist()]  # Python integers: squares would wrap
    if max(words) > manifest.largest * patients:
        raise ManifestRefusedError("round refused: a word passes what the patients may add")
    if sum(value * value for value in words) > manifest.sensitivity2 * patients * patients:
        raise ManifestRefusedError("round refused: the sum passes what the patients may add")
