"""Exact mechanisms as subclasses of diffprivlib's, drawing from the operating system.

The only module that imports diffprivlib. What the library calls `tools` and `models`, and its float
mechanisms, leak (docs/statistics.md lists how); they are banned by ruff and by a test. Used are
`DPMechanism`, `Exponential`, `PermuteAndFlip` and `Binary`, and of the last three the interface
and the checks: their draws compare floats, ours compare integers (`bedside_core.noise`).

`diffprivlib.models` is replaced by an empty module before the import: it is banned anyway, needs
scikit-learn below 1.9 and more than doubles the import's time.
"""

import secrets
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from types import ModuleType

sys.modules.setdefault("diffprivlib.models", ModuleType("diffprivlib.models"))

from diffprivlib.mechanisms import Binary, Exponential, PermuteAndFlip  # noqa: E402
from diffprivlib.mechanisms.base import DPMechanism  # noqa: E402
from diffprivlib.utils import BudgetError  # noqa: E402

from bedside_core.accounting import epsilon as epsilon_of  # noqa: E402
from bedside_core.accounting import gaussian_cost, gaussian_sigma2  # noqa: E402
from bedside_core.noise import (  # noqa: E402
    discrete_gaussian,
    discrete_laplace,
    exponential_choice,
    permute_and_flip,
    randomised_response,
)

__all__ = [
    "BudgetError",
    "ExactBinary",
    "ExactDiscreteGaussian",
    "ExactDiscreteLaplace",
    "ExactExponential",
    "ExactPermuteAndFlip",
    "SystemNoise",
]

Bytes = Callable[[int], bytes]

REPORT_DELTA = 1e-6  # printed epsilon of a Gaussian; the ledger counts rho


def _refuse_seed(random_state: object) -> None:
    if random_state is not None:
        raise ValueError("seeded noise is refused")


def _require_int(value: object) -> int:
    if type(value) is not int:  # True is no count, and numpy integers wrap
        raise TypeError("value must be int")
    return value


class ExactDiscreteGaussian(DPMechanism):  # type: ignore[misc]  # the library is untyped
    """Discrete Gaussian noise for a vector of squared L2 sensitivity `l2sq`, cell by cell.

    Args:
        l2sq: squared L2 sensitivity of the whole integer vector.
        rho_units: asked price in units of 1e-12 rho; sigma2 is rounded up, so the charge is at
            most this.
        report_delta: delta at which `epsilon` is printed.
        random_state: must stay None.
    """

    def __init__(
        self,
        *,
        l2sq: int,
        rho_units: int,
        report_delta: float = REPORT_DELTA,
        random_state: None = None,
    ) -> None:
        _refuse_seed(random_state)
        self.l2sq, self.rho_units, self.report_delta = l2sq, rho_units, report_delta
        self.sigma2 = gaussian_sigma2(l2sq, rho_units)
        printed = epsilon_of(gaussian_cost(l2sq, self.sigma2), report_delta)
        super().__init__(epsilon=printed, delta=report_delta)

    def randomise(self, value: int) -> int:
        """Return value + noise.

        Raises:
            TypeError: `value` is no plain int.
        """
        exact = _require_int(value)
        self._check_all(exact)
        return exact + discrete_gaussian(self.sigma2, secrets.token_bytes)

    def bias(self, value: int) -> float:
        """Return 0: the law is symmetric."""
        return 0.0

    def variance(self, value: int) -> float:
        """Return sigma2, which the variance does not exceed."""
        return float(self.sigma2)


class ExactDiscreteLaplace(DPMechanism):  # type: ignore[misc]
    """Discrete Laplace noise of scale l1 * eps_den / eps_num: pure epsilon = eps_num / eps_den."""

    def __init__(self, *, eps_num: int, eps_den: int, l1: int, random_state: None = None) -> None:
        _refuse_seed(random_state)
        self.eps_num, self.eps_den, self.l1 = map(_require_int, (eps_num, eps_den, l1))
        super().__init__(epsilon=float(Fraction(eps_num, eps_den)), delta=0.0)

    def randomise(self, value: int) -> int:
        """Return value + noise.

        Raises:
            TypeError: `value` is no plain int.
        """
        exact = _require_int(value)
        self._check_all(exact)
        scale = self.eps_den * self.l1
        return exact + discrete_laplace(self.eps_num, scale, secrets.token_bytes)

    def bias(self, value: int) -> float:
        """Return 0: the law is symmetric."""
        return 0.0


class _Chooser:
    """The integers behind a choice; the library's own floats are only printed."""

    def _set(self, epsilon: Fraction, sensitivity: int, utility: Sequence[int]) -> None:
        self.exact_epsilon, self.exact_sensitivity = epsilon, _require_int(sensitivity)
        self.exact_utility = [_require_int(one) for one in utility]

    def _rate(self) -> tuple[int, int]:
        return self.exact_epsilon.numerator, 2 * self.exact_sensitivity * (
            self.exact_epsilon.denominator
        )


class ExactExponential(_Chooser, Exponential):  # type: ignore[misc]
    """The exponential mechanism with every candidate at its true chance, however small."""

    def __init__(
        self,
        *,
        epsilon: Fraction,
        sensitivity: int,
        utility: list[int],
        random_state: None = None,
    ) -> None:
        _refuse_seed(random_state)
        self._set(epsilon, sensitivity, utility)
        super().__init__(epsilon=float(epsilon), sensitivity=sensitivity, utility=utility)

    @classmethod
    def _find_probabilities(cls, *parameters: object) -> None:
        return None  # a table of floats that nothing may use

    def randomise(self, value: None = None) -> int:
        """Return the index of a candidate."""
        self._check_all(value)
        return exponential_choice(self.exact_utility, *self._rate(), secrets.token_bytes)


class ExactPermuteAndFlip(_Chooser, PermuteAndFlip):  # type: ignore[misc]
    """Permute-and-flip, exactly; for requests in pure epsilon, charged epsilon^2 / 2."""

    def __init__(
        self,
        *,
        epsilon: Fraction,
        sensitivity: int,
        utility: list[int],
        random_state: None = None,
    ) -> None:
        _refuse_seed(random_state)
        self._set(epsilon, sensitivity, utility)
        super().__init__(epsilon=float(epsilon), sensitivity=sensitivity, utility=utility)

    @classmethod
    def _find_probabilities(cls, *parameters: object) -> None:
        return None

    def randomise(self, value: None = None) -> int:
        """Return the index of a candidate."""
        self._check_all(value)
        return permute_and_flip(self.exact_utility, *self._rate(), secrets.token_bytes)


class ExactBinary(Binary):  # type: ignore[misc]
    """Randomised response between two labels, exactly."""

    def __init__(
        self, *, epsilon: Fraction, value0: str, value1: str, random_state: None = None
    ) -> None:
        _refuse_seed(random_state)
        self.exact_epsilon = epsilon
        super().__init__(epsilon=float(epsilon), value0=value0, value1=value1)

    def randomise(self, value: str) -> str:
        """Return `value` with probability exp(epsilon) / (1 + exp(epsilon)), else the other."""
        self._check_all(value)
        labels = (self.value0, self.value1)
        num, den = self.exact_epsilon.numerator, self.exact_epsilon.denominator
        said = randomised_response(labels.index(value), 2, num, den, secrets.token_bytes)
        return str(labels[said])


@lru_cache(maxsize=256)
def _gaussian(l2sq: int, rho_units: int) -> ExactDiscreteGaussian:
    """Return the mechanism of a vector: it holds public numbers only, so its cells share it."""
    return ExactDiscreteGaussian(l2sq=l2sq, rho_units=rho_units)


class SystemNoise:
    """`Noise` of the box: the mechanisms above, each made for one call."""

    def gaussian(self, value: int, *, l2sq: int, rho_units: int) -> int:
        """Return value + discrete Gaussian noise for a vector of `l2sq` at `rho_units`."""
        # checked before the cache, where True would be found under 1
        return _gaussian(_require_int(l2sq), _require_int(rho_units)).randomise(value)

    def laplace(self, value: int, *, l1: int, epsilon: Fraction) -> int:
        """Return value + discrete Laplace noise of scale l1 / epsilon."""
        mechanism = ExactDiscreteLaplace(
            eps_num=epsilon.numerator, eps_den=epsilon.denominator, l1=l1
        )
        return mechanism.randomise(value)

    def choose(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """Return an index by the exponential mechanism."""
        mechanism = ExactExponential(
            epsilon=epsilon, sensitivity=sensitivity, utility=list(utilities)
        )
        return mechanism.randomise()

    def flip(self, utilities: Sequence[int], *, sensitivity: int, epsilon: Fraction) -> int:
        """Return an index by permute-and-flip."""
        mechanism = ExactPermuteAndFlip(
            epsilon=epsilon, sensitivity=sensitivity, utility=list(utilities)
        )
        return mechanism.randomise()

    def respond(self, truth: int, *, choices: int, epsilon: Fraction) -> int:
        """Return one of 0 ... choices - 1 by randomised response."""
        num, den = epsilon.numerator, epsilon.denominator
        if choices == 2 and truth in (0, 1):
            labels = ("0", "1")
            mechanism = ExactBinary(epsilon=epsilon, value0="0", value1="1")
            return labels.index(mechanism.randomise(labels[_require_int(truth)]))
        return randomised_response(truth, choices, num, den, secrets.token_bytes)
