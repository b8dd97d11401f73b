"""Releases on 10,000 patients with 30,762 studies, beside OpenDP and diffprivlib's own tools.

A release of ours is the whole way: permitted, charged, measured, signed, final, with its durable
commits and its evidence. The others keep no ledger; their figure is the answer alone.
"""

import importlib
import math
import sys
import tempfile
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

from bedside_core.release import prepare
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Kind, StatSpec
from bedside_edge.system.clock import SystemClock
from bench.plan import Plan
from bench.report import Row, limit_row, ratio_row
from support.privacy_house import OFFICER, ONE, Hospital, policy_text, signed
from support.synthetic import hospital

BENCH = "privacy"
_C = 20
_PRICE = ONE // 500
_DRAWS, _NIGHTS, _RUNS = 20_000, 365, 40
_YEAR_MS = 365 * 86_400_000
_OPENDP_MS = 918.0  # measured elsewhere; used only where OpenDP is not installed


def run(plan: Plan, notes: list[str]) -> list[Row]:
    """Return the rows."""
    studies = hospital()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-privacy-") as folder:
        house = Hospital(Path(folder), SystemClock())
        try:
            return _rows(house, studies, plan, notes)
        finally:
            house.close()


def _rows(house: Hospital, studies: list, plan: Plan, notes: list[str]) -> list[Row]:
    now = house.clock.now()
    house.budget.activate(signed(policy_text(c=_C)), "person:anna")
    house.budget.open_epoch(now - _YEAR_MS, now + _YEAR_MS, "person:anna")
    label = house.snapshot(studies)
    opendp = _opendp(studies, notes)
    tools = _tools(studies)
    price = iter(range(_PRICE, 10**12))
    house.service.release(house.ask("volume", snapshot=label, units=next(price)), OFFICER)
    ours: dict[str, list[float]] = {"volume": [], "prevalence": [], "score-mean": []}
    ours["device-counts"], theirs, tool = [], [], []
    for _ in range(plan.rounds * 4):
        for name, times in ours.items():
            request = house.ask(name, snapshot=label, units=next(price))
            times.append(_ms(lambda request=request: house.service.release(request, OFFICER)))
        if opendp is not None and len(theirs) < 5:
            theirs.append(_ms(opendp))
        tool.append(_ms(tools))
    reference = median(theirs) if theirs else _OPENDP_MS
    words = "OpenDP Polars" if theirs else "OpenDP Polars, as measured elsewhere"
    last = house.ledger.releases(limit=1)[0].fingerprint
    bare = median(_ms(lambda: _bare_commits(house)) for _ in range(plan.rounds * 8))
    calls = plan.calls * 50
    began = time.perf_counter()
    for _ in range(calls):
        house.service.replay(last)
    replay = (time.perf_counter() - began) * 1000 / calls
    found = [
        limit_row(BENCH, f"release of {name}, durable", median(times), "ms", at_most=10.0)
        for name, times in ours.items()
    ]
    volume = median(ours["volume"])
    return [
        *found,
        ratio_row(BENCH, "release of volume", volume, "ms", words, reference, at_most=1 / 50),
        ratio_row(BENCH, "release of volume", volume, "ms", "diffprivlib count", median(tool)),
        Row(bench=BENCH, case="of it: the same syncs alone", ours=bare, unit="ms"),
        limit_row(BENCH, "the same answer again", replay, "ms", at_most=0.1),
        *_errors(house, label),
    ]


def _bare_commits(house: Hospital) -> None:
    """Two durable commits of a row and one of the counter, as a release has them."""
    for _ in range(2):
        house.database.write(
            lambda c: c.execute("INSERT OR REPLACE INTO meta VALUES ('bench', x'00')")
        )
    house.counter.reset(house.counter.seen())


def _errors(house: Hospital, label: str) -> list[Row]:
    """Return how far off answers are, against what the law of the noise says."""
    prepared = prepare(house.ask("volume", snapshot=label, units=ONE))
    law = prepared.law
    draws = [house.noise.gaussian(0, l2sq=law.l2sq, rho_units=law.units) for _ in range(_DRAWS)]
    rms = math.sqrt(sum(draw * draw for draw in draws) / _DRAWS)
    ratio = rms / math.sqrt(law.sigma2)
    return [
        Row(
            bench=BENCH,
            case=f"error of {_DRAWS} draws over theory",
            ours=ratio,
            unit="x",
            value=f"{100 * abs(ratio - 1):.1f} %",
            target="within 5 %",
            met=abs(ratio - 1) <= 0.05,
        ),
        limit_row(BENCH, _case(), _running(house), "studies", at_most=40.0),
    ]


def _case() -> str:
    return f"running total, {_NIGHTS} nights at (1, 1e-6), c = 3, rms of {_RUNS} years"


def _running(house: Hospital) -> float:
    """Return the rms error of the totals of all nights, one statistic, c = 3."""
    query = compile_query([StatSpec(name="volume", kind=Kind.COUNT, c=3)], truncation=False)
    totals = running(query, _NIGHTS)
    square, count = 0.0, 0
    for _run in range(_RUNS):
        drawn = [
            (house.noise.gaussian(0, l2sq=totals.l2sq, rho_units=ONE),) for _ in range(_NIGHTS)
        ]
        for night in range(1, _NIGHTS + 1):
            (error,) = totals.totals(drawn[:night])
            square, count = square + (error / query.units[0]) ** 2, count + 1
    return math.sqrt(square / count)


def _opendp(studies: list, notes: list[str]) -> Callable[[], object] | None:
    """Return one count by OpenDP's Polars interface at the same contribution bound."""
    try:
        dp, pl = importlib.import_module("opendp.prelude"), importlib.import_module("polars")
    except ImportError:
        notes.append("OpenDP is not installed (pip install 'opendp[polars]==0.16.0'): its figure")
        notes.append(f"of {_OPENDP_MS:g} ms for one count was measured elsewhere")
        return None
    dp.enable_features("contrib")
    frame = pl.LazyFrame(
        {"patient": [row.patient for row in studies], "score": [row.score for row in studies]}
    )

    def count() -> object:
        context = dp.Context.compositor(
            data=frame,
            privacy_unit=dp.unit_of(contributions=1, identifier=pl.col("patient")),
            privacy_loss=dp.loss_of(rho=_PRICE / 1e12),
            split_evenly_over=1,
            margins=[dp.polars.Margin(max_length=100_000)],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            query = context.query().truncate_per_group(_C).select(dp.len())
            return query.release().collect()

    count()
    return count


def _tools(studies: list) -> Callable[[], object]:
    """Return diffprivlib's own count. Its tools are banned in the product: they leak."""
    sys.modules.setdefault("diffprivlib.models", types.ModuleType("diffprivlib.models"))
    tools = importlib.import_module("diffprivlib.tools")
    flags = [row.score > 0.5 for row in studies]
    return lambda: tools.count_nonzero(flags, epsilon=1.0)


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000
