"""How two raters agree: counts, share, Cohen's kappa, and how sure that is.

The raters here are the box and a reader who has seen what the box said. That is agreement, not
accuracy, and not independent: a reader may follow the box.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bedside_core.findings import Decision

Interval = tuple[float, float]

_Z: Final = 1.959963984540054  # 97.5th percentile of the normal distribution: 95 % intervals
_CLEAR: Final = (Decision.PRESENT, Decision.ABSENT)
_ALL: Final = (Decision.PRESENT, Decision.ABSENT, Decision.UNDETERMINED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement over pairs of decisions.

    Attributes:
        table: (box, reader) to how many, all nine cells.
        silent: results that were rejected without a word on the finding; in no other figure.
        share: of the pairs that are equal; None without pairs.
        share_interval: 95 %, Wilson's score interval.
        kappa: Cohen's kappa over the three decisions; None where it is not defined (no pairs, or
            both raters gave one and the same answer throughout).
        kappa_interval: 95 %, in -1..1.
        clear_kappa, clear_interval: the same over pairs where both said present or absent.
    """

    table: Mapping[tuple[Decision, Decision], int]
    silent: int
    share: float | None
    share_interval: Interval | None
    kappa: float | None
    kappa_interval: Interval | None
    clear_kappa: float | None
    clear_interval: Interval | None

    @property
    def pairs(self) -> int:
        """How many results count."""
        return sum(self.table.values())


def agreement(pairs: Iterable[tuple[Decision, Decision | None]]) -> Agreement:
    """Count pairs of what the box and what the reader said; None: the reader said nothing."""
    table = {(box, reader): 0 for box in _ALL for reader in _ALL}
    silent = 0
    for box, reader in pairs:
        if reader is None:
            silent += 1
        else:
            table[box, reader] += 1
    total = sum(table.values())
    equal = sum(table[one, one] for one in _ALL)
    kappa, interval = _kappa(table, _ALL)
    clear, clear_interval = _kappa(table, _CLEAR)
    return Agreement(
        table=table,
        silent=silent,
        share=equal / total if total else None,
        share_interval=wilson(equal, total) if total else None,
        kappa=kappa,
        kappa_interval=interval,
        clear_kappa=clear,
        clear_interval=clear_interval,
    )


def wilson(hits: int, total: int) -> Interval:
    """Return the 95 % score interval of a share; `total` is at least 1.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22(158):209-212.
    """
    share, z2 = hits / total, _Z * _Z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    half /= 1 + z2 / total
    return max(0.0, middle - half), min(1.0, middle + half)


def _kappa(
    table: Mapping[tuple[Decision, Decision], int], answers: tuple[Decision, ...]
) -> tuple[float | None, Interval | None]:
    """Return Cohen's kappa and its 95 % interval.

    The interval takes the chance agreement as known, as Cohen did, but Wilson's interval for the
    observed share in place of the normal one: three of three agreeing is not certainty.

    Source: Cohen 1960, Educ. Psychol. Meas. 20(1):37-46, equations 1 and 7.
    """
    total = sum(table[box, reader] for box in answers for reader in answers)
    if not total:
        return None, None
    chance = 0.0
    for one in answers:
        by_box = sum(table[one, reader] for reader in answers)
        by_reader = sum(table[box, one] for box in answers)
        chance += by_box * by_reader / (total * total)
    if chance >= 1.0:
        return None, None
    equal = sum(table[one, one] for one in answers)
    low, high = wilson(equal, total)
    return (
        (equal / total - chance) / (1 - chance),
        (max(-1.0, (low - chance) / (1 - chance)), min(1.0, (high - chance) / (1 - chance))),
    )
