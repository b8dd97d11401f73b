"""What releases spend, as accountants that print a second number take it; never the gate.

Gaussian releases are Gaussian there too. Of discrete Laplace vectors and of choices only the pure
epsilon is used: a patient may move several cells, and the pair of distributions that is the worst
for any mechanism of that epsilon covers it whatever moves.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

from bedside_core.release import Prepared, ReleaseRequest, prepare
from bedside_core.statistics.measure import ChoiceLaw, GaussianLaw, LaplaceLaw
from bedside_edge.ports.accounting import GaussianSpend, PureSpend, Spend
from bedside_edge.ports.privacy import Held, LedgerStore

_PAGE = 500


def spend_of(prepared: Prepared) -> Spend:
    """Return what a release spends; by grade that of the mildest, whose patients lose the most."""
    law: GaussianLaw | LaplaceLaw | ChoiceLaw | None = prepared.law or prepared.choice_law
    if prepared.strata is not None:
        law = max(prepared.strata.laws.values(), key=lambda one: one.cost)
    if isinstance(law, GaussianLaw):
        return GaussianSpend(l2sq=law.l2sq, sigma2=law.sigma2)
    if isinstance(law, ChoiceLaw):
        return PureSpend(epsilon=law.epsilon, times=law.draws)
    assert law is not None  # noqa: S101  a prepared release has a law
    return PureSpend(epsilon=law.epsilon)


@lru_cache(maxsize=4096)
def _asked(request: ReleaseRequest) -> Spend:
    return spend_of(prepare(request))


def of_epoch(ledger: LedgerStore, dataset: str, epoch: int) -> Mapping[str, Spend]:
    """Return what each release of an epoch spends, by fingerprint; void ones too."""
    return {
        one.fingerprint: _asked(one.request)
        for one in _every(ledger)
        if (one.request.dataset, one.request.epoch) == (dataset, epoch)
    }


def together(spends: Iterable[Spend]) -> list[Spend]:
    """Return the spends with equal ones counted."""
    counted: Counter[Spend] = Counter()
    for spend in spends:
        counted[replace(spend, times=1)] += spend.times
    return [replace(spend, times=times) for spend, times in counted.items()]


def pure_part(spends: Mapping[str, Spend]) -> dict[str, float]:
    """Return the pure epsilon of each release that is not Gaussian."""
    return {
        name: float(spend.epsilon * spend.times)
        for name, spend in spends.items()
        if isinstance(spend, PureSpend)
    }


def _every(ledger: LedgerStore) -> Iterable[Held]:
    before: int | None = None
    while page := ledger.releases(limit=_PAGE, before=before):
        yield from page
        before = page[-1].seq
