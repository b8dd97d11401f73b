"""diffprivlib as it comes: the oracle of some tests, and the known-bad fixtures of others.

The only module of the tests that imports it. Nothing here may run on a box.
"""

import warnings

from bedside_edge.system import noise_diffprivlib  # makes the library importable

assert noise_diffprivlib

import diffprivlib.mechanisms as mechanisms  # noqa: E402
from diffprivlib import BudgetAccountant, tools  # noqa: E402
from diffprivlib.mechanisms.base import DPMechanism  # noqa: E402

__all__ = ["BudgetAccountant", "DPMechanism", "mechanisms", "quiet", "tools"]


def quiet(call, *arguments, **named):
    """Call a leaky function without its warnings; tests turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **named)
