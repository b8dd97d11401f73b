"""What a release is before it is measured: a request, its query and law, its price, its name.

The fingerprint names the question, not the asker: once charged, the same answer serves everyone. It
covers everything that could change the answer's law (statistics with their bounds, price, snapshot,
policy, purpose, schedule) and nothing that was computed from data.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from fractions import Fraction

from bedside_core.errors import InvalidInputError
from bedside_core.planner import Schedule
from bedside_core.statistics.choice import Choice, compile_choice
from bedside_core.statistics.measure import (
    ChoiceLaw,
    GaussianLaw,
    Law,
    choice_law,
    gaussian_law,
    laplace_law,
)
from bedside_core.statistics.query import Query, compile_query
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import KeySet, Kind, Number, StatSpec, Weight
from bedside_core.statistics.strata import GRADES, Strata, strata

FORMAT = "bedside-release/1"
_MOST_NIGHTS = 3660


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """What is asked, of which snapshot, for which purpose, at which price.

    Attributes:
        specs: statistics released together; a quantile stands alone.
        units: rho to spend, in units of 1e-12; the charge is at most this.
        snapshot: random label of the frozen snapshot, or of the epoch for a schedule.
        policy: digest of the signed policy whose public bounds are in `specs`.
        pure: discrete Laplace noise instead of Gaussian; for one-off counts in pure epsilon.
        strata: rho for each grade of data, 1 to 5, the first of them `units`; empty for one price
            for all. Each grade is measured with its own noise, and the data set pays the largest.
    """

    specs: tuple[StatSpec, ...]
    units: int
    snapshot: str
    dataset: str
    epoch: int
    policy: str
    purpose: str
    schedule: Schedule = Schedule.ONE_OFF
    nights: int = 1
    pure: bool = False
    strata: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = (self.snapshot, self.dataset, self.policy, self.purpose)
        if any(type(name) is not str or not name for name in names):
            raise InvalidInputError("a release names its snapshot, data set, policy and purpose")
        if type(self.units) is not int or self.units < 1:
            raise InvalidInputError("a release costs at least 1 unit of rho")
        if type(self.epoch) is not int or self.epoch < 1:
            raise InvalidInputError("epochs count from 1")
        once = self.schedule is Schedule.ONE_OFF
        if type(self.nights) is not int or not 1 <= self.nights <= (1 if once else _MOST_NIGHTS):
            raise InvalidInputError("a one-off has one night, a schedule 1 to ten years of them")
        if self.pure and not once:
            raise InvalidInputError("a schedule uses Gaussian noise")
        if any(spec.weight is not Weight.STUDY for spec in self.specs) and not once:
            raise InvalidInputError("patient weights need a closed window, not nights")
        if self.strata:
            self._check_strata()

    def _check_strata(self) -> None:
        if any(type(one) is not int or one < 1 for one in self.strata):
            raise InvalidInputError("every grade pays at least 1 unit of rho")
        if len(self.strata) != len(GRADES) or self.strata[0] != self.units:
            raise InvalidInputError("each grade has its price, and the first is the release's")
        if self.schedule is not Schedule.ONE_OFF or self.pure:
            raise InvalidInputError("noise by grade is Gaussian, and released once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request made ready to measure: everything that is fixed before data is read.

    Attributes:
        query, law: of a vector; for a running total the law is that of one night's y.
        strata: the laws of the grades instead of one law.
        choice, choice_law: of a quantile, instead.
        cost: what the ledger charges, once.
        fingerprint: SHA-256, hex.
    """

    request: ReleaseRequest
    cost: int
    fingerprint: str
    query: Query | None = None
    law: Law | None = None
    choice: Choice | None = None
    choice_law: ChoiceLaw | None = None
    strata: Strata | None = None


def prepare(request: ReleaseRequest) -> Prepared:
    """Compile a request; touches no data.

    Raises:
        InvalidInputError: the statistics cannot be released together or in that schedule.
    """
    name = fingerprint(request)
    if any(spec.kind is Kind.QUANTILE for spec in request.specs):
        plain = not (request.pure or request.strata)
        if len(request.specs) != 1 or request.schedule is not Schedule.ONE_OFF or not plain:
            raise InvalidInputError("a quantile is released alone, once, at one price")
        choice = compile_choice(request.specs[0])
        chosen = choice_law(choice, request.units)
        return Prepared(
            request=request, cost=chosen.cost, fingerprint=name, choice=choice, choice_law=chosen
        )
    query = compile_query(request.specs)
    if request.strata:
        graded = strata(query, dict(zip(GRADES, request.strata, strict=True)))
        return Prepared(
            request=request, cost=graded.cost, fingerprint=name, query=query, strata=graded
        )
    law: Law
    if request.pure:
        law = laplace_law(query, request.units)
    elif request.schedule is Schedule.RUNNING:
        law = GaussianLaw(l2sq=running(query, request.nights).l2sq, units=request.units)
    else:
        law = gaussian_law(query, request.units)
    return Prepared(request=request, cost=law.cost, fingerprint=name, query=query, law=law)


def fingerprint(request: ReleaseRequest) -> str:
    """Return the release's name: SHA-256 of its canonical JSON, hex."""
    document = {
        "format": FORMAT,
        "specs": [spec_document(spec) for spec in request.specs],
        "units": request.units,
        "snapshot": request.snapshot,
        "dataset": request.dataset,
        "epoch": request.epoch,
        "policy": request.policy,
        "purpose": request.purpose,
        "schedule": str(request.schedule),
        "nights": request.nights,
        "pure": request.pure,
    } | graded_part(request)
    data = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(data).hexdigest()


def request_document(request: ReleaseRequest) -> bytes:
    """Return a request as canonical JSON: enough to finish it after a restart.

    `bedside_core.release_check.parse_request` reads it back.
    """
    named = ("snapshot", "dataset", "epoch", "policy", "purpose", "nights", "units", "pure")
    identity = {name: getattr(request, name) for name in named}
    document = {
        "identity": identity | {"schedule": str(request.schedule)} | graded_part(request),
        "statistics": [spec_document(spec) for spec in request.specs],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def graded_part(request: ReleaseRequest) -> dict[str, object]:
    """Return the prices of the grades where there are some; other documents have no such key."""
    return {"strata": list(request.strata)} if request.strata else {}


def spec_document(spec: StatSpec) -> dict[str, object]:
    """Return everything public about a statistic as plain JSON values."""
    return {one.name: _plain(getattr(spec, one.name)) for one in fields(spec)}


def _plain(value: object) -> object:
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    if isinstance(value, Number | KeySet):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
