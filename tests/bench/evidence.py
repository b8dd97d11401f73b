"""The evidence log: a durable entry against a bare commit, a proof, and recomputing everything."""

import gc
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from rich.progress import Progress

from bedside_core.evidence.entry import Kind
from bedside_core.evidence.proof import verify_proof
from bedside_edge.ports.evidence import Event
from bedside_edge.store.evidence_check import check_log
from bedside_edge.store.evidence_offline import open_copy
from bench.plan import Plan
from bench.report import Row, limit_row, ratio_row
from support.evidence_houses import SqliteHouse

BENCH = "evidence"
_ROW_BYTES = 300
_PROOF_MS = 1.0
_AT_ONCE = 5_000
_GROWTH = 1_500  # commits after which SQLite's write-ahead log is as long as it gets
_EVENT = Event(kind=Kind.ADMIN, actor="service:box", refs={"what": "bench"})
_WITH_PAYLOAD = Event(
    kind=Kind.ADMIN, actor="service:box", payload=b"x" * 200, refs={"what": "bench"}
)


def run(plan: Plan) -> list[Row]:
    """Return the rows; the large log has a tenth of the entries in a quick run."""
    entries = 100_000 if plan.quick else 1_000_000
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-evidence-") as folder:
        rows = _commits(Path(folder), plan)
        return rows + _large(Path(folder), entries)


def _commits(folder: Path, plan: Plan) -> list[Row]:
    (folder / "commits").mkdir()
    house = SqliteHouse(folder / "commits")
    log = house.open()
    bare = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE entry (i INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    ):
        bare.execute(statement)

    def commit() -> None:
        bare.execute("BEGIN IMMEDIATE")
        bare.execute("INSERT INTO entry (data) VALUES (?)", (bytes(_ROW_BYTES),))
        bare.execute("COMMIT")

    ways: dict[str, Callable[[], object]] = {
        "bare": commit,
        "entry": lambda: log.append(_EVENT),
        "payload": lambda: log.append(_WITH_PAYLOAD),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for name in ("bare", "entry"):  # a log file that still grows costs another flush a commit
        for _ in range(_GROWTH):
            ways[name]()
    for _ in range(40 * plan.rounds):  # side by side: the disk of a busy machine changes its mind
        for name, way in ways.items():
            times[name] += [_ms(way) for _ in range(10)]
    bare.close()
    house.close()
    found = {name: 1000.0 / median(seen) for name, seen in times.items()}
    added = 1e6 / found["entry"] - 1e6 / found["bare"]
    return [
        Row(bench=BENCH, case="what an entry adds to a bare commit", ours=added, unit="us"),
        ratio_row(
            BENCH,
            "single durable entry",
            found["entry"],
            "1/s",
            "bare SQLite FULL commit",
            found["bare"],
            at_least=0.9,
        ),
        ratio_row(
            BENCH,
            "single durable entry with a sealed payload",
            found["payload"],
            "1/s",
            "bare SQLite FULL commit",
            found["bare"],
        ),
    ]


def _large(folder: Path, entries: int) -> list[Row]:
    (folder / "large").mkdir()
    house = SqliteHouse(folder / "large")
    log = house.open()
    began = time.perf_counter()

    def some(c: sqlite3.Connection) -> None:
        for _ in range(_AT_ONCE):
            log.record(c, _WITH_PAYLOAD)

    for _ in range(entries // _AT_ONCE):
        house.databases[-1].write(some)
    written = entries / (time.perf_counter() - began)
    log.checkpoint()
    places = [(entries * n) // 211 for n in range(211)]
    times = [_ms(lambda i=place: log.proof(i)) for place in places]
    files = [log.proof(place) for place in places[:40]]
    verifying = [_ms(lambda p=file: verify_proof(p, log.origin, log.keys)) for file in files]
    house.close()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Progress(disable=not sys.stderr.isatty()) as bar, open_copy(house.path) as c:
        task = bar.add_task("recomputing", total=entries)
        checked = check_log(
            c, log.origin, log.keys, lambda done, total: bar.update(task, completed=done)
        )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = house.path.stat().st_size
    return [
        limit_row(
            BENCH, f"proof file, {entries:,} entries", median(times), "ms", at_most=_PROOF_MS
        ),
        Row(bench=BENCH, case="verify a proof file", ours=median(verifying), unit="ms"),
        Row(bench=BENCH, case="entries with payload, one transaction", ours=written, unit="1/s"),
        Row(
            bench=BENCH,
            case=f"recompute {checked.entries:,} entries, {grown:.0f} MiB more memory",
            ours=checked.seconds,
            unit="s",
        ),
        Row(bench=BENCH, case="on disk, an entry with payload", ours=size / entries, unit="B"),
    ]


def _ms(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000.0
