"""Whether an engine may serve on this very unit: what was measured against what was promised.

A verdict holds for one tuple of profile, package, engine, driver and kernel and for nothing else.
Nothing here measures: runs come in as numbers, the verdict goes out as a value.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.profile import AcceptanceCase, LoadedProfile

RECORD_FORMAT: Final = "bedside-acceptance/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a verdict is about; any other value of any field is another verdict.

    Attributes:
        profile_id, profile_seq, profile_digest: the profile, and its very bytes.
        package_digest: the model package.
        engine, engine_version, device, precision: what was compiled, as read back.
        streams, threads, latency_threads: settled for this board.
        properties: every property, as read back.
        drivers: kernel drivers of the matched devices with their versions.
        kernel: its release.
    """

    profile_id: str
    profile_seq: int
    profile_digest: str
    package_digest: str
    engine: str
    engine_version: str
    device: str
    precision: str
    streams: int
    threads: int
    latency_threads: int
    properties: Mapping[str, str] = field(default_factory=dict)
    drivers: tuple[str, ...] = ()
    kernel: str = ""

    @property
    def key(self) -> str:
        """Return the SHA-256 of the tuple, 64 hex digits."""
        return _digest(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRuns:
    """Every timed run of one golden case.

    Attributes:
        name: the case.
        tensor_sha256: digest of its tensor, as the package states it.
        known_logit, known_probability, known_decision: what the package says.
        logits: answers, one for each run, in order.
        probabilities, decisions: of the same runs.
        times_ms: wall time of each run.
        repeated: every output tensor of every run had the same bits.
    """

    name: str
    tensor_sha256: str
    known_logit: float
    known_probability: float
    known_decision: str
    logits: tuple[float, ...]
    probabilities: tuple[float, ...]
    decisions: tuple[str, ...]
    times_ms: tuple[float, ...]
    repeated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What was measured beside the runs; None where it cannot be told.

    Attributes:
        rss_mib: resident memory of the process after the runs.
        sync_ms: median of a write made durable in the state folder.
        free_mib: free space there.
        power_mode: governor or name of the mode, as the profile's tool tells it.
        power_watts: power limit, where the tool tells one.
        temperature_c: warmest of the profile's zones after the runs.
    """

    rss_mib: int
    sync_ms: float | None = None
    free_mib: int | None = None
    power_mode: str | None = None
    power_watts: int | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseReport:
    """What one acceptance case of a profile showed; times in ms."""

    case: str
    n: int
    p50_ms: float
    p99_ms: float
    max_abs: float
    max_rel: float
    argmax_equal: bool
    bit_repeatable: bool
    task_metric_delta: float
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptanceRecord:
    """The verdict on one tuple, as it is kept and proved.

    Attributes:
        at: milliseconds since 1970, UTC.
        subject: what it is about.
        probe_digest: of the board it ran on.
        reports: one for each acceptance case.
        surroundings: memory, disk, power and temperature.
        failures: every promise that was not kept; empty: accepted.
    """

    at: int
    subject: Subject
    probe_digest: str
    reports: tuple[CaseReport, ...]
    surroundings: Surroundings
    failures: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether the engine may serve."""
        return not self.failures

    def document(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return {"format": RECORD_FORMAT, "accepted": self.accepted, **asdict(self)}

    def data(self) -> bytes:
        """Return the record as canonical JSON."""
        return _canonical(self.document())

    @property
    def digest(self) -> str:
        """Return the SHA-256 of `data`, 64 hex digits."""
        return hashlib.sha256(self.data()).hexdigest()


def judge(
    loaded: LoadedProfile,
    subject: Subject,
    runs: Sequence[CaseRuns],
    surroundings: Surroundings,
    *,
    at: int,
    probe_digest: str,
    tolerance: float,
) -> AcceptanceRecord:
    """Return the verdict on what was measured.

    Args:
        loaded: the profile.
        subject: what was compiled and ran.
        runs: the golden cases, each with its timed runs.
        surroundings: what was measured beside them.
        at: milliseconds since 1970.
        probe_digest: of the board.
        tolerance: the package's own tolerance of a logit.
    """
    cases = loaded.profile.cases_for(subject.precision)
    failures: list[str] = []
    if not cases:
        failures.append(f"the profile has no acceptance case for {subject.precision}")
    reports = []
    for case in cases:
        chosen = [one for one in runs if case.case in ("*", one.name)]
        if not chosen:
            failures.append(f"{case.case}: the package has no such golden case")
            continue
        report = _report(case, chosen, tolerance)
        reports.append(report)
        failures += [f"{case.case}: {told}" for told in report.failures]
    failures += _around(loaded, surroundings)
    return AcceptanceRecord(
        at=at,
        subject=subject,
        probe_digest=probe_digest,
        reports=tuple(reports),
        surroundings=surroundings,
        failures=tuple(failures),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile: the least value that `percent` of them do not exceed."""
    return sorted(values)[max(0, math.ceil(percent * len(values) / 100) - 1)]


def _report(case: AcceptanceCase, runs: Sequence[CaseRuns], tolerance: float) -> CaseReport:
    times = [time for one in runs for time in one.times_ms]
    known = [one.known_logit for one in runs]
    worst = max(abs(logit - one.known_logit) for one in runs for logit in one.logits)
    # Over the range of the outputs; one case alone has none, its size stands in.
    width = max(known) - min(known) or max(abs(known[0]), 1.0)
    metric = max(abs(p - one.known_probability) for one in runs for p in one.probabilities)
    decided = all(decision == one.known_decision for one in runs for decision in one.decisions)
    repeated = all(one.repeated for one in runs)
    p50, p99 = percentile(times, 50), percentile(times, 99)
    allowed = min(case.max_abs, tolerance)
    digest = case.golden_sha256
    checks = (
        (digest is None or all(one.tensor_sha256 == digest for one in runs), "another tensor"),
        (len(times) >= case.n, f"{len(times)} runs, {case.n} asked"),
        (p50 <= case.p50_ms, f"p50 {p50:.2f} ms, {case.p50_ms:g} allowed"),
        (p99 <= case.p99_ms, f"p99 {p99:.2f} ms, {case.p99_ms:g} allowed"),
        (worst <= allowed, f"logit off by {worst:.2e}, {allowed:g} allowed"),
        (worst / width <= case.max_rel, f"off by {worst / width:.2e} of the range"),
        (decided, "a decision is not the known one"),
        (repeated or not case.bit_repeatable, "two runs gave different bits"),
        (metric <= case.task_metric_delta, f"probability off by {metric:.2e}"),
    )
    return CaseReport(
        case=case.case,
        n=len(times),
        p50_ms=round(p50, 3),
        p99_ms=round(p99, 3),
        max_abs=worst,
        max_rel=worst / width,
        argmax_equal=decided,
        bit_repeatable=repeated,
        task_metric_delta=metric,
        failures=tuple(told for held, told in checks if not held),
    )


def _around(loaded: LoadedProfile, seen: Surroundings) -> list[str]:
    limits, power = loaded.profile.limits, loaded.profile.power
    storage = loaded.profile.storage
    checks = [
        (seen.rss_mib <= limits.rss_mib, f"{seen.rss_mib} MiB resident, {limits.rss_mib} allowed"),
        (
            seen.sync_ms is None or seen.sync_ms <= storage.sync_probe_ms_max,
            f"a durable write takes {seen.sync_ms} ms, {storage.sync_probe_ms_max:g} allowed",
        ),
        (
            seen.free_mib is None or seen.free_mib >= storage.state_min_mib,
            f"{seen.free_mib} MiB free, {storage.state_min_mib} needed",
        ),
        (
            power.tool == "none" or not power.mode or seen.power_mode == power.mode,
            f"power mode is {seen.power_mode}, not {power.mode}",
        ),
        (
            power.tool != "nvidia-smi" or seen.power_watts == power.watts,
            f"power limit is {seen.power_watts} W, not {power.watts}",
        ),
        (
            limits.temp_stop_c is None
            or seen.temperature_c is None
            or seen.temperature_c < limits.temp_stop_c,
            f"{seen.temperature_c} degrees, the limit is {limits.temp_stop_c}",
        ),
    ]
    return [told for held, told in checks if not held]


def parse_record(data: bytes) -> AcceptanceRecord:
    """Return the record in `data`, as `AcceptanceRecord.data` wrote it.

    Raises:
        InvalidProfileError: it is not a record of this format.
    """
    try:
        found = json.loads(data)
        if found["format"] != RECORD_FORMAT:
            raise InvalidProfileError("acceptance record: another format")
        subject = found["subject"]
        record = AcceptanceRecord(
            at=found["at"],
            subject=Subject(**{**subject, "drivers": tuple(subject["drivers"])}),
            probe_digest=found["probe_digest"],
            reports=tuple(
                CaseReport(**{**one, "failures": tuple(one["failures"])})
                for one in found["reports"]
            ),
            surroundings=Surroundings(**found["surroundings"]),
            failures=tuple(found["failures"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise InvalidProfileError("acceptance record: cannot be read") from cause
    return record


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()
