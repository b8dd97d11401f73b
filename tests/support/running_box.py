"""A real `bedside-edge serve` process on loopback, over a throw-away state folder."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE, build_context

from bedside_core.access import PERSONS_ONLY, Action
from bedside_edge.config import load_config
from bedside_edge.dicom.scu import keep_answers
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access

READY_S = 30.0
ENDED = ("done", "refused", "dead", "cancelled")


class RunningBox:
    """One process; `kill` is SIGKILL, `stop` is SIGTERM and must end cleanly."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.state = folder / "state"
        self._ready = folder / "ready.json"
        config = folder / "bedside.toml"
        config.write_text(settings)
        self._ready.unlink(missing_ok=True)
        self.token = _token(folder / "token", config, self.state)
        self._log = (folder / "log").open("ab")
        started = time.monotonic()
        arguments = [sys.executable, "-m", "bedside_edge", "serve", "--config", str(config)]
        arguments += ["--state", str(self.state), "--http-port", "0", "--dicom-port", "0"]
        self.process = subprocess.Popen(
            [*arguments, "--ready-file", str(self._ready)],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=os.environ | {"PYTHONWARNINGS": "default"},
        )
        while not self._ready.exists():
            if self.process.poll() is not None or time.monotonic() - started > READY_S:
                self.process.kill()
                raise AssertionError("the box did not start:\n" + self.log()[-4000:])
            time.sleep(0.02)
        self.ready_s = time.monotonic() - started
        addresses = json.loads(self._ready.read_text())
        self.url, self.dicom = addresses["http"], addresses["dicom"]
        self.setup = addresses.get("setup", "")
        self._people: list[httpx.Client] = []
        self.bearer = {"Authorization": f"Bearer {self.token}"}
        self.http = httpx.Client(base_url=self.url, timeout=60.0, headers=self.bearer)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def resident(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self._ended()

    def stop(self, seconds: float = 15.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)
        self._ended()
        return self.process.returncode

    def _ended(self) -> None:
        self.process.wait(10)
        for client in (self.http, *self._people):
            client.close()
        self._log.close()

    def person(self, *roles: str, login: str = "") -> httpx.Client:
        """Return the browser of a new person with these roles, logged in, as pages would."""
        login = login or f"{roles[0]}-{len(self._people)}"
        body = {"login": login, "name": f"Test^{login}", "roles": list(roles)}
        added = self.http.post("/api/v1/accounts", json=body).raise_for_status().json()
        password = {"password": "violet otter climbs stairs"}
        link = {"link": added["link"].partition("link=")[2]}
        browser = httpx.Client(base_url=self.url, timeout=60.0)
        self._people.append(browser)
        browser.post("/api/v1/setup", json=link | password).raise_for_status()
        opened = browser.post("/api/v1/login", json={"login": login} | password)
        browser.headers["X-CSRF-Token"] = opened.raise_for_status().json()["csrf"]
        return browser

    # --- talking to it ------------------------------------------------------------------------

    def store(self, *paths: Path) -> list[int]:
        """Send files over one association, each in the transfer syntax it is in."""
        datasets = [dcmread(path) for path in paths]
        return self.store_datasets(datasets)

    def store_datasets(self, datasets: list[FileDataset]) -> list[int]:
        wanted = {(d.SOPClassUID, d.file_meta.TransferSyntaxUID) for d in datasets}
        entity = AE(ae_title="TEST")
        entity.requested_contexts = [build_context(*pair) for pair in sorted(wanted)]
        association = entity.associate(
            self.dicom["host"], self.dicom["port"], ae_title=self.dicom["ae_title"]
        )
        assert association.is_established
        keep_answers(association)
        try:
            return [association.send_c_store(dataset).Status for dataset in datasets]
        finally:
            association.release()

    def analyze(self, data: bytes, wait_s: float = 30) -> httpx.Response:
        headers = {"Content-Type": "application/dicom", "Prefer": f"wait={wait_s:g}"}
        return self.http.post("/api/v1/studies:analyze", content=data, headers=headers)

    def stow(self, *parts: bytes) -> httpx.Response:
        head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(head + part + b"\r\n" for part in parts) + b"--edge--\r\n"
        kind = 'multipart/related; type="application/dicom"; boundary=edge'
        return self.http.post("/dicom-web/studies", content=body, headers={"Content-Type": kind})

    def jobs(self) -> list[dict[str, Any]]:
        return self.http.get("/api/v1/jobs", params={"limit": 1000}).json()["jobs"]

    def settled(self, seconds: float = 60.0) -> list[dict[str, Any]]:
        """Wait until every job has ended; return them, newest first."""
        deadline = time.monotonic() + seconds
        while True:
            jobs = self.jobs()
            if jobs and all(job["state"] in ENDED for job in jobs):
                return jobs
            assert time.monotonic() < deadline, [job["state"] for job in jobs]
            time.sleep(0.05)

    def result(self, job: dict[str, Any]) -> dict[str, Any]:
        return self.http.get(job["result"]).json()


def _token(kept: Path, config: Path, state: Path) -> str:
    """Return a token for everything a token may do; made before the box starts."""
    if not kept.exists():
        with offline_access(load_config(config)[0], state) as access:
            kept.write_text(access.create_token("test", set(Action) - PERSONS_ONLY, CONSOLE)[1])
    return kept.read_text()


@contextmanager
def running_box(folder: Path, settings: str = "") -> Iterator[RunningBox]:
    """Run a box; whatever happens, no process is left."""
    box = RunningBox(folder, settings)
    try:
        yield box
    finally:
        if box.process.poll() is None:
            box.kill()


def part10(dataset: FileDataset) -> bytes:
    """Return the bytes of a data set as a DICOM file, pixels untouched."""
    out = io.BytesIO()
    dataset.save_as(out)
    return out.getvalue()
