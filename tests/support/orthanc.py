"""A real Orthanc with DICOMweb on loopback, over a throw-away folder; skips loudly without it."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

_START_S = 60.0
_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """One process; `stop` and `start` again keep its ports and its archive."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dicom_port, self.http_port = free_port(), free_port()
        self.web_url = f"http://127.0.0.1:{self.http_port}/dicom-web"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=30)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
        plugin = next((path for path in _PLUGINS if path.exists()), None)
        if program is None or plugin is None:
            pytest.skip("needs the Debian packages orthanc and orthanc-dicomweb")
        settings = {
            "Name": "TEST",
            "StorageDirectory": str(self.folder / "store"),
            "IndexDirectory": str(self.folder / "store"),
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "ORTHANC",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowMove": True,
            "StableAge": 1,
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(settings))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([program, str(path)], stdout=log, stderr=log)
        until = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if self.http.get("/system").status_code == 200:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < until, "Orthanc did not start"
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()  # an orderly stop takes five seconds
            self.process.wait(10)
            self.process = None

    # --- talking to it ------------------------------------------------------------------------

    def upload(self, data: bytes) -> dict[str, Any]:
        answer = self.http.post("/instances", content=data)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def know(self, name: str, ae_title: str, port: int) -> None:
        """Tell Orthanc a modality it may send to and take calls from."""
        self.http.put(f"/modalities/{name}", json=[ae_title, "127.0.0.1", port]).raise_for_status()

    def send(self, modality: str, *resources: str) -> dict[str, Any]:
        """Have Orthanc C-STORE resources; it answers when all are sent."""
        answer = self.http.post(
            f"/modalities/{modality}/store",
            json={"Resources": list(resources), "Synchronous": True},
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def instances(self, study_uid: str) -> dict[str, list[bytes]]:
        """The files of a study by modality."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}
        found: dict[str, list[bytes]] = {}
        for name in self.http.post("/tools/find", json=query).json():
            tags = self.http.get(f"/instances/{name}/simplified-tags").json()
            data = self.http.get(f"/instances/{name}/file").content
            found.setdefault(tags["Modality"], []).append(data)
        return found

    def wait_for(
        self, study_uid: str, seconds: float = 60, **wanted: int
    ) -> dict[str, list[bytes]]:
        """Wait until the study holds so many instances of each modality."""
        until = time.monotonic() + seconds
        while True:
            held = self.instances(study_uid)
            if all(len(held.get(kind, ())) >= count for kind, count in wanted.items()):
                return held
            seen = {kind: len(files) for kind, files in held.items()}
            assert time.monotonic() < until, f"wanted {wanted}, have {seen}"
            time.sleep(0.2)


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """Run Orthanc; whatever happens, no process is left."""
    running = Orthanc(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        running.http.close()
