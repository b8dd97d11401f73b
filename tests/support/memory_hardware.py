"""`AcceptanceStore` in memory, and verdicts to put into it."""

from typing import Any

from bedside_core.hardware.acceptance import AcceptanceRecord, CaseReport, Subject, Surroundings


class MemoryHardware:
    """Verdicts in a list; floors in a dictionary."""

    def __init__(self) -> None:
        self.records: list[AcceptanceRecord] = []
        self._floors: dict[str, int] = {}

    def find(self, key: str) -> AcceptanceRecord | None:
        return next((one for one in reversed(self.records) if one.subject.key == key), None)

    def add(self, record: AcceptanceRecord) -> int:
        self.records.append(record)
        if record.accepted:
            about = record.subject
            seq = max(self.floor(about.profile_id), about.profile_seq)
            self._floors[about.profile_id] = seq
        return len(self.records) - 1

    def floor(self, profile_id: str) -> int:
        return self._floors.get(profile_id, 0)

    def newest(self, limit: int = 50) -> list[AcceptanceRecord]:
        return self.records[::-1][:limit]


def subject(**changes: Any) -> Subject:
    """Return a subject with some fields replaced."""
    fields: dict[str, Any] = {
        "profile_id": "acme-box",
        "profile_seq": 2,
        "profile_digest": "sha256:" + "1" * 64,
        "package_digest": "sha256:" + "2" * 64,
        "engine": "openvino",
        "engine_version": "2026.4.1",
        "device": "CPU",
        "precision": "f32",
        "streams": 2,
        "threads": 1,
        "latency_threads": 2,
        "properties": {"ENABLE_CPU_PINNING": "false"},
        "kernel": "6.12.9",
    }
    return Subject(**(fields | changes))


def verdict(at: int = 1_000, failures: tuple[str, ...] = (), **changes: Any) -> AcceptanceRecord:
    """Return a verdict on `subject(**changes)`."""
    report = CaseReport(
        case="*",
        n=60,
        p50_ms=4.0,
        p99_ms=6.0,
        max_abs=1e-7,
        max_rel=1e-7,
        argmax_equal=True,
        bit_repeatable=True,
        task_metric_delta=0.0,
        failures=(),
    )
    return AcceptanceRecord(
        at=at,
        subject=subject(**changes),
        probe_digest="sha256:" + "3" * 64,
        reports=(report,),
        surroundings=Surroundings(rss_mib=200),
        failures=failures,
    )
