"""A client of the box's HTTP interface, as far as the demonstration needs it."""

import re
import time
from pathlib import Path
from typing import Any

import httpx

from bedside_edge.demo.problem import DemoError

Json = dict[str, Any]

_ENDED = frozenset({"done", "refused", "dead", "cancelled"})
_POLL_S = 0.02
_RECEIVED = re.compile(
    r'^bedside_instances_received_total\{outcome="([^"]+)",way="([^"]+)"\} ([0-9.e+]+)$',
    re.MULTILINE,
)


class BoxClient:
    """Asks the box; every call raises DemoError when the answer is no answer."""

    def __init__(self, base_url: str, token: str, timeout_s: float = 120.0) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self.http = httpx.Client(
            base_url=base_url, headers=headers, timeout=timeout_s, trust_env=False
        )
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def readiness(self) -> Json:
        """Return the named readiness checks."""
        return dict(self._json("/readyz")["checks"])

    def model(self) -> Json:
        """Return the model being served."""
        return dict(self._json("/api/v1/models")["models"][0])

    def jobs(self, study: str = "") -> list[Json]:
        """Return the jobs, newest first."""
        query = f"?study={study}" if study else ""
        return list(self._json(f"/api/v1/jobs{query}")["jobs"])

    def alarms(self) -> list[Json]:
        """Return what the box thinks a person should look at."""
        return list(self._json("/api/v1/alarms")["alarms"])

    def new_job(self, known: set[str]) -> Json:
        """Return the job of a study not in `known`, waiting for it to appear."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            for job in self.jobs():
                if job["study"] not in known:
                    return job
            time.sleep(_POLL_S)
        raise DemoError("the box acknowledged a study and made no job of it")

    def ended(self, study: str) -> Json:
        """Return the newest job of a study once it has ended."""
        deadline = time.monotonic() + self._timeout_s
        while time.monotonic() < deadline:
            job = self.jobs(study)[0]
            if job["state"] in _ENDED:
                return job
            time.sleep(_POLL_S)
        raise DemoError(f"a job did not end within {self._timeout_s:g} s")

    def complete(self, job: str) -> None:
        """Say that no more instances will come, so that the quiet timer need not run out."""
        reply = self.http.post(f"/api/v1/jobs/{job}:complete")
        if reply.status_code not in (200, 409):  # 409: it started by itself meanwhile
            raise DemoError(f"the box answered {reply.status_code} to :complete")

    def result(self, path: str) -> Json:
        """Return a result with its envelope."""
        return self._json(path)

    def overlay(self, path: str) -> bytes:
        """Return the PNG with the saliency of a result."""
        reply = self.http.get(f"{path}/heatmap.png")
        if reply.status_code != 200 or reply.headers.get("content-type") != "image/png":
            raise DemoError(f"no overlay: the box answered {reply.status_code}")
        return reply.content

    def analyze(self, path: Path) -> httpx.Response:
        """Post one file to be analysed at once; the answer may be a problem document."""
        return self.http.post(
            "/api/v1/studies:analyze",
            content=path.read_bytes(),
            headers={"Content-Type": "application/dicom", "Prefer": "wait=30"},
        )

    def received(self) -> dict[tuple[str, str], int]:
        """Return how many instances came in, by (way, outcome), from /metrics."""
        reply = self.http.get("/metrics")
        if reply.status_code != 200:
            raise DemoError(f"/metrics answered {reply.status_code}")
        return {
            (way, outcome): int(float(count))
            for outcome, way, count in _RECEIVED.findall(reply.text)
        }

    def _json(self, path: str) -> Json:
        try:
            reply = self.http.get(path)
        except httpx.HTTPError as cause:
            raise DemoError(f"the box does not answer: {type(cause).__name__}") from cause
        if reply.status_code != 200:
            raise DemoError(f"the box answered {reply.status_code} to {path}")
        return dict(reply.json())
