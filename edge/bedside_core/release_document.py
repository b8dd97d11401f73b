"""The document of a release: what was asked, what came out, what it cost, and how far to trust it.

`release_document` writes it from public numbers and the noisy integers alone; everything else in it
follows from those, so a verifier derives it again (`bedside_core.release_check`). The bytes are
canonical JSON: keys sorted, no spaces, numbers of ten digits. They are what the device signs and
what the ledger's final entry binds by SHA-256; the proof of that entry travels beside the document.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from bedside_core.accounting import UNITS_PER_RHO, epsilon
from bedside_core.errors import InvalidInputError
from bedside_core.ledger.entries import Scope
from bedside_core.planner import DELTA, Schedule, plan_choice
from bedside_core.release import Prepared, graded_part, spec_document
from bedside_core.release_figures import figures
from bedside_core.statistics.choice import Choice
from bedside_core.statistics.measure import ChoiceLaw, GaussianLaw, Law
from bedside_core.statistics.query import BOUND_HITS
from bedside_core.statistics.reading import (
    MISS,
    NOT_COVERED,
    Answer,
    Estimate,
    answer,
    estimate,
)
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import Strata, total

FORMAT = "bedside-release-document/1"
PAYLOAD_TYPE = "application/vnd.bedside.release+json"  # of the DSSE envelope
_DIGITS = 10  # of every derived number

# Said on every document, bluntly. Codes are stable; pages have the words in other languages.
UNPROTECTED: Mapping[str, str] = {
    "public-quantities": "keys, bounds, grids, c, schedule, prices and policy are public",
    "root": "nothing here holds against whoever is root on the box",
    "exact-results": "the radiologist and the patient's record have the exact result",
    "truncation": "studies beyond c per patient are left out; the interval does not cover that",
    "several-hospitals": "a patient treated at several hospitals pays at each of them",
    "relatives": "what is true of a family may be told by any of its members",
    "timing": "the time of a draw is hidden by answer slots only",
}

ESTIMANDS: Mapping[Weight, str] = {
    Weight.STUDY: "studies: each of a patient's first c counts once",
    Weight.PATIENT: "patients: the studies of a patient share one weight",
    Weight.ONCE: "patients: each cell counts a patient at most once",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A budget after the charge, in units of 1e-12 rho."""

    scope: Scope
    cap: int
    spent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the ledger says around an answer; nothing of it depends on data.

    Attributes:
        origin: name of the evidence log that holds the final entry.
        seq: ledger entries up to and with the reservation.
        night: of a schedule, from 0.
        starts, ends: arrivals in the snapshot, milliseconds since 1970; `ends` is not included.
        standings: every scope that was charged, after the charge.
        views: further totals of the epoch's spend by name, epsilon at `DELTA`; never the gate.
    """

    origin: str
    seq: int
    starts: int
    ends: int
    night: int = 0
    standings: tuple[Standing, ...] = ()
    views: Mapping[str, float] = field(default_factory=dict)


def release_document(
    prepared: Prepared,
    values: Sequence[int],
    around: Surroundings,
    earlier: Sequence[Sequence[int]] = (),
) -> bytes:
    """Return the canonical document of an answer.

    Args:
        prepared: the release.
        values: the noisy integers in release order; of a quantile the chosen places of the grid;
            of a running total this night's measurement; by grade the vectors of the grades, one
            after the other.
        around: what the ledger says.
        earlier: of a running total, the measurements of all nights before, in order.

    Raises:
        InvalidInputError: the answer does not fit the release.
    """
    document = public_part(prepared, around) | answer_part(prepared, values, around.night, earlier)
    return canonical(document)


def canonical(document: Mapping[str, object]) -> bytes:
    """Return the one spelling of a document: sorted keys, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def public_part(prepared: Prepared, around: Surroundings) -> dict[str, object]:
    """Return everything that was fixed before data was read."""
    request = prepared.request
    return {
        "format": FORMAT,
        "identity": {
            "fingerprint": prepared.fingerprint,
            "log": around.origin,
            "seq": around.seq,
            "dataset": request.dataset,
            "epoch": request.epoch,
            "snapshot": request.snapshot,
            "purpose": request.purpose,
            "policy": request.policy,
            "arrivals": {"starts": around.starts, "ends": around.ends},
            "schedule": str(request.schedule),
            "nights": request.nights,
            "night": around.night,
            "units": request.units,
            "pure": request.pure,
        }
        | graded_part(request),
        "statistics": [spec_document(spec) for spec in request.specs],
        "noise": noise_part(prepared),
        "cost": price(prepared.cost),
        "remaining": [_standing(one) for one in around.standings],
        "not_the_gate": {name: rounded(value) for name, value in sorted(around.views.items())},
        "estimand": ESTIMANDS[request.specs[0].weight],
        "unprotected": [{"code": code, "text": text} for code, text in UNPROTECTED.items()],
    }


def answer_part(
    prepared: Prepared, values: Sequence[int], night: int, earlier: Sequence[Sequence[int]]
) -> dict[str, object]:
    """Return the released integers and what is read from them."""
    if any(type(value) is not int for value in values):
        raise InvalidInputError("a release holds integers")
    if prepared.choice is not None and prepared.choice_law is not None:
        return _chosen(prepared.choice, prepared.choice_law, values)
    graded: dict[str, object] = {}
    if prepared.strata is not None:
        vectors = by_grade(prepared.strata, values)
        graded, values = {"grades": _grades(prepared.strata, vectors)}, total(vectors)
    read = reading(prepared, values, night, earlier)
    found = {name: estimate_part(one) for name, one in figures(read).items()}
    truncation = _truncation(read)
    return graded | {"cells": _cells(read, values), "figures": found, "truncation": truncation}


def by_grade(graded: Strata, values: Sequence[int]) -> list[tuple[int, ...]]:
    """Return each grade's vector; InvalidInputError when there are more or fewer integers."""
    size = len(graded.query.cells)
    if len(values) != size * len(graded.laws):
        raise InvalidInputError(f"each grade has {size} cells")
    return [tuple(values[start : start + size]) for start in range(0, len(values), size)]


def released_integers(document: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the integers of an answer as `release_document` takes them."""
    if "grades" not in document:
        return tuple(cell["value"] for cell in document["cells"])
    return tuple(cell["value"] for one in document["grades"] for cell in one["cells"])


def _grades(graded: Strata, vectors: Sequence[tuple[int, ...]]) -> list[dict[str, object]]:
    """Return what each grade's patients pay and what was measured of them."""
    found = []
    for (grade, law), vector in zip(graded.laws.items(), vectors, strict=True):
        cells = _cells(answer(graded.query, law, vector), vector)
        found.append({"grade": grade, "cost": price(law.cost), "cells": cells})
    return found


def _cells(read: Answer, values: Sequence[int]) -> list[dict[str, object]]:
    """Return the cells; of a running total `values` is the night's and `read` the total."""
    return [
        {"cell": cell, "value": value, "unit": unit, "counts": step == 1}
        | estimate_part(_cell(read, place, counts=step == 1))
        for place, (cell, value, unit, step) in enumerate(
            zip(read.query.cells, values, read.query.units, read.query.grid_steps(), strict=True)
        )
    ]


def _cell(read: Answer, place: int, *, counts: bool) -> Estimate:
    """Return a cell's estimate: counts are not below 0 where shown, sums are as they are."""
    cell = read.query.cells[place]
    if counts:
        return read.count(cell)
    width, value = read.half_width / read.query.units[place], read.natural(cell)
    return estimate(value, value - width, value + width)


def reading(
    prepared: Prepared, values: Sequence[int], night: int, earlier: Sequence[Sequence[int]]
) -> Answer:
    """Return the answer of a vector with its law; of a running total that of the total.

    By grade `values` is the sum over the grades.
    """
    query, law, graded = prepared.query, prepared.law, prepared.strata
    if graded is not None:
        return Answer(
            query=graded.query,
            values=tuple(values),
            variance=graded.variance,
            half_width=graded.half_width(MISS),
        )
    if query is None or law is None:
        raise InvalidInputError("only a vector is read so")
    if prepared.request.schedule is not Schedule.RUNNING:
        return answer(query, law, values)
    if not isinstance(law, GaussianLaw) or len(earlier) != night:
        raise InvalidInputError("a running total needs the measurements of all nights before")
    totals = running(query, prepared.request.nights)
    summed = totals.totals([*earlier, values])
    return Answer(
        query=query,
        values=tuple(round(value) for value in summed),
        variance=totals.deviation(night + 1, law.sigma2) ** 2,
        half_width=math.ceil(totals.half_width(night + 1, law.sigma2)),
    )


def _chosen(choice: Choice, law: ChoiceLaw, values: Sequence[int]) -> dict[str, object]:
    grid, spec = choice.values, choice.spec
    if len(values) != law.draws or any(not 0 <= place < len(grid) for place in values):
        raise InvalidInputError("a quantile answers with one place of its grid for each part")
    error = plan_choice(choice, law.cost, 1).rank_error
    cells = [
        {
            "cell": f"{choice.number.field} at {float(share):g}",
            "value": place,
            "counts": False,
            "shown": rounded(float(grid[place])),
            "rank_error": rounded(error),
        }
        for share, place in zip(spec.probabilities, values, strict=True)
    ]
    return {"cells": cells, "figures": {}, "truncation": {"c": choice.c, "note": NOT_COVERED}}


def _truncation(read: Answer) -> dict[str, object]:
    base: dict[str, object] = {"c": read.query.c, "note": NOT_COVERED}
    if not read.query.truncation:
        return base
    return base | {"patients_at_the_bound": estimate_part(read.count(BOUND_HITS))}


def noise_part(prepared: Prepared) -> dict[str, object]:
    """Return the law of the noise and its parameters, as integers and fractions."""
    if prepared.strata is not None:
        laws = prepared.strata.laws
        scales = {str(grade): law.sigma2 for grade, law in laws.items()}
        l2sq = prepared.strata.query.l2sq
        return {"law": "discrete-gaussian by grade", "sigma2": scales, "l2sq": l2sq}
    law: Law | ChoiceLaw | None = prepared.law or prepared.choice_law
    if isinstance(law, GaussianLaw):
        return {"law": "discrete-gaussian", "sigma2": law.sigma2, "l2sq": law.l2sq}
    if isinstance(law, ChoiceLaw):
        return {"law": "exponential", "draws": law.draws, "epsilon": _fraction(law.epsilon)}
    if law is None:
        raise InvalidInputError("a release without a law")
    return {"law": "discrete-laplace", "l1": law.l1, "epsilon": _fraction(law.epsilon)}


def price(units: int) -> dict[str, object]:
    """Return a spend in units, as rho and as epsilon at `DELTA`."""
    return {
        "units": units,
        "rho": rounded(units / UNITS_PER_RHO),
        "epsilon": rounded(epsilon(units, DELTA)),
        "delta": DELTA,
    }


def _standing(one: Standing) -> dict[str, object]:
    left = one.cap - one.spent
    return {
        "kind": str(one.scope.kind),
        "name": one.scope.name,
        "cap": price(one.cap),
        "spent": price(one.spent),
        "left": price(left),
    }


def estimate_part(one: Estimate) -> dict[str, object]:
    """Return an estimate as JSON: null where nothing is reported or a ratio has no size."""
    return {
        "shown": _or_null(one.shown),
        "estimate": _or_null(one.value),
        "low": _or_null(one.low),
        "high": _or_null(one.high),
        "relative": rounded(one.relative) if math.isfinite(one.relative) else None,
        "grey": one.grey,
    }


def rounded(value: float) -> float:
    """Return a float cut to the digits a document shows."""
    return float(f"{value:.{_DIGITS}g}")


def _or_null(value: float | None) -> float | None:
    return None if value is None else rounded(value)


def _fraction(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def gaussian_view(units: int, delta: float = DELTA) -> float:
    """Return the exact epsilon of Gaussian releases that spent `units` of rho together.

    The curve of one Gaussian of mu = sqrt(2 rho): delta(e) = P(N > e/mu - mu/2) - exp(e) P(N > e/mu
    + mu/2), solved for e by bisection. What privacy loss distributions give for a schedule fixed in
    advance; as a filter it is not free, so it is printed and never decides.

    Source: Balle, Wang 2018, arXiv:1805.06530, Theorem 8; Dong et al. 2019, arXiv:1905.02383.
    """
    mu = math.sqrt(2 * units / UNITS_PER_RHO)
    low, high = 0.0, epsilon(units, delta)
    for _ in range(60):
        middle = (low + high) / 2
        above = _upper(middle / mu - mu / 2)
        below = _upper(middle / mu + mu / 2)
        product = math.exp(middle + math.log(below)) if below > 0 else 0.0
        low, high = (middle, high) if above - product > delta else (low, middle)
    return high


def _upper(x: float) -> float:
    return math.erfc(x / math.sqrt(2)) / 2
