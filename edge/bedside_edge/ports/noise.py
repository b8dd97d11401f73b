"""The port of exact noise: what a release asks of the box's generator.

`Noise` is the core's `Mechanisms`: integers in, integers out, every call one fresh draw. An adapter
takes no seed, refuses anything that is no plain integer (True and numpy integers too), and never
lets its parameters depend on the value. tests/contract/test_noise_contract.py holds adapters to it.
"""

from bedside_core.statistics.measure import Mechanisms as Noise

__all__ = ["Noise"]
