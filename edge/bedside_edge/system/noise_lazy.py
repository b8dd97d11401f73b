"""The box's noise, its library imported by the first draw: a box must be ready in seconds."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property

from bedside_edge.ports.noise import Noise


class LazyNoise:
    """`Noise` that becomes `SystemNoise` when it is first used."""

    @cached_property
    def _noise(self) -> Noise:
        from bedside_edge.system.noise_diffprivlib import SystemNoise

        return SystemNoise()

    def gaussian(self, value: int, *, l2sq: int, rho_units: int) -> int:
        """See `SystemNoise`."""
        return self._noise.gaussian(value, l2sq=l2sq, rho_units=rho_units)

    def laplace(self, value: int, *, l1: int, epsilon: Fraction) -> int:
        """See `SystemNoise`."""
        return self._noise.laplace(value, l1=l1, epsilon=epsilon)

    def choose(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """See `SystemNoise`."""
        return self._noise.choose(utilities, sensitivity=sensitivity, epsilon=epsilon)

    def flip(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """See `SystemNoise`."""
        return self._noise.flip(utilities, sensitivity=sensitivity, epsilon=epsilon)

    def respond(self, truth: int, *, choices: int, epsilon: Fraction) -> int:
        """See `SystemNoise`."""
        return self._noise.respond(truth, choices=choices, epsilon=epsilon)
