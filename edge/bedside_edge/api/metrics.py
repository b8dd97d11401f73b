"""Figures for Prometheus, in a registry of their own. Labels are words of our lists, never ids."""

from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

# one series more per counter that nobody reads
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()

# What `Health.gauges` may name, and what it means. `jobs.<state>` becomes one labelled gauge.
GAUGES: Mapping[str, str] = {
    "disk_used_ratio": "Used fraction of the disk that holds the state folder",
    "disk_free_bytes": "Free bytes of the disk that holds the state folder",
    "queue_depth": "Study jobs ready to run",
    "associations": "Open DICOM associations",
    "alarms": "Alarms a person should look at",
    "resident_bytes": "Resident memory of the process",
    "deliveries_waiting": "Objects on their way to a destination",
    "updates_waiting": "Kinds flashed that the box does not act on yet",
    "updates_bad": "Slots whose candidate failed its trial",
    "deliveries_dead": "Objects no destination took; a person may send them again",
}
_JOBS = "jobs."

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class _Gauges(Collector):
    """Gauges as they were when the scrape asked."""

    def __init__(self) -> None:
        self.seen: Mapping[str, float] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges of the last look."""
        jobs = GaugeMetricFamily("bedside_jobs", "Study jobs by state", labels=["state"])
        for name, value in self.seen.items():
            if name.startswith(_JOBS):
                jobs.add_metric([name.removeprefix(_JOBS)], value)
        yield jobs
        for name, words in GAUGES.items():
            if name in self.seen:
                yield GaugeMetricFamily(f"bedside_{name}", words, value=self.seen[name])


class Metrics:
    """Counters and histograms of one process; every method may be called from any thread."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        self._requests = Counter(
            "bedside_http_requests",
            "HTTP requests by route template, method and status",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._latency = Histogram(
            "bedside_http_seconds",
            "Time from the request's head to the end of its answer",
            ["route"],
            buckets=_LATENCY_S,
            registry=self._registry,
        )
        self._received = Counter(
            "bedside_instances_received",
            "SOP Instances by way in (dimse, stow, http) and outcome",
            ["way", "outcome"],
            registry=self._registry,
        )
        self._jobs = Counter(
            "bedside_job_runs",
            "Runs of study jobs by outcome code",
            ["code"],
            registry=self._registry,
        )
        self._job_seconds = Histogram(
            "bedside_job_seconds",
            "Time one run of a study job took",
            buckets=_LATENCY_S,
            registry=self._registry,
        )
        self._deliveries = Counter(
            "bedside_deliveries",
            "Objects sent by destination (its name in the settings) and outcome",
            ["destination", "outcome"],
            registry=self._registry,
        )
        self._inference = Histogram(
            "bedside_inference_seconds",
            "Time one synchronous inference took, decoding of the request included",
            ["kind"],
            buckets=_LATENCY_S,
            registry=self._registry,
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request under its route template."""
        self._requests.labels(route, method, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def received(self, way: str, outcome: str) -> None:
        """Count an instance: outcome is a `Filing` word, or the code of the error."""
        self._received.labels(way, outcome).inc()

    def job_ended(self, code: str, seconds: float) -> None:
        """Count a run of a job: `analysed`, or the code of its refusal or failure."""
        self._jobs.labels(code).inc()
        self._job_seconds.observe(seconds)

    def inferred(self, kind: str, seconds: float) -> None:
        """Count a synchronous inference; kind is `tensor` or `dicom`."""
        self._inference.labels(kind).observe(seconds)

    def delivery(self, destination: str, outcome: str) -> None:
        """Count an object on its way: `delivered`, or the code of why not."""
        self._deliveries.labels(destination, outcome).inc()

    def text(self, gauges: Mapping[str, float]) -> bytes:
        """Return everything in the exposition format, with these gauges."""
        self._gauges.seen = gauges
        return generate_latest(self._registry)
