"""Programs a benchmark starts: the box, foreign peers, measuring helpers. All die with it."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bedside_core.access import PERSONS_ONLY, Action
from bedside_edge.config import load_config
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access

TOKENS: dict[int, str] = {}  # HTTP port of a box -> token that lets a measurement in

WARM_UP = (
    3  # calls at the start of a round that count for nothing: whoever ran before left its caches
)
_START_S = 90.0
_PLUGIN = "libOrthancDicomWeb.so"
_PLUGIN_FOLDERS = (
    "/usr/share/orthanc/plugins",
    "/usr/lib/orthanc",
    "/usr/local/share/orthanc/plugins",
)


def find_program(name: str) -> str | None:
    """Return a foreign program; pynetdicom puts its own `storescu` into the environment."""
    ours = Path(sys.executable).parent
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/bin", "/usr/sbin"]
    found = shutil.which(name, path=os.pathsep.join(f for f in folders if Path(f) != ours))
    return found


def free_port() -> int:
    """Return a port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def media() -> dict[str, Path]:
    """Return folders on a disk and on a RAM disk, those that this machine has."""
    kinds = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split(" ")
        kinds[where] = kind

    def kind_of(path: Path) -> str:
        return next(kinds[str(p)] for p in (path, *path.parents) if str(p) in kinds)

    found = {}
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):  # noqa: S108
        if folder.is_dir() and os.access(folder, os.W_OK) and kind_of(folder) != "tmpfs":
            found["disk"] = folder
            break
    shared = Path("/dev/shm")  # noqa: S108
    if shared.is_dir() and os.access(shared, os.W_OK):
        found["ram"] = shared
    return found


@contextlib.contextmanager
def scratch(parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bedside-bench-", dir=parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def running(
    command: list[str], log: Path, *, env: dict[str, str] | None = None, grace_s: float = 8.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own; it is ended whatever happens."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=env, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM if grace_s else signal.SIGKILL)
        try:
            process.wait(grace_s or 5.0)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class BoxProcess:
    """A running `bedside-edge serve` on random ports."""

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any], to_ready_s: float):
        self.pid = process.pid
        self.http_port = int(ready["http"].rsplit(":", 1)[1])
        self.dicom_port = int(ready["dicom"]["port"])
        self.ae_title = str(ready["dicom"]["ae_title"])
        self.to_ready_s = to_ready_s

    def get(self, path: str) -> bytes:
        """Fetch a page of the service."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}",
            headers={"Authorization": f"Bearer {TOKENS[self.http_port]}"},
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:  # noqa: S310
            body: bytes = answer.read()
        return body

    def resident_mb(self) -> float:
        """Resident memory in MB."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """Processor time used so far, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until no job collects, waits or runs, so that the next round has the cores."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            text = self.get("/metrics").decode()
            busy = [
                line
                for line in text.splitlines()
                if line.startswith("bedside_jobs{")
                and any(f'"{state}"' in line for state in ("collecting", "ready", "running"))
                and float(line.rsplit(" ", 1)[1]) > 0
            ]
            if not busy:
                return
            time.sleep(0.1)


@contextlib.contextmanager
def box(folder: Path, *, engine: str = "", precision: str = "") -> Iterator[BoxProcess]:
    """Start the box on a fresh state folder below `folder` and wait until it is ready."""
    home = Path(tempfile.mkdtemp(prefix="box-", dir=folder))
    settings = home / "bench.toml"
    settings.write_text(
        f'[model]\nengine = "{engine}"\nprecision = "{precision}"\n'
        "[disk]\nhigh_watermark = 1.0\nmin_free_bytes = 0\n"
        "[completion]\nquiet_s = 0.3\n"  # STOW names no end: rounds need not wait long for it
    )
    ready_file = home / "ready.json"
    command = [str(Path(sys.executable).parent / "bedside-edge"), "serve"]
    command += ["--config", str(settings), "--state", str(home / "state")]
    command += ["--http-port", "0", "--dicom-port", "0", "--ready-file", str(ready_file)]
    log = home / "log"
    with offline_access(load_config(settings)[0], home / "state") as access:
        _, token = access.create_token("bench", set(Action) - PERSONS_ONLY, CONSOLE)
    started = time.perf_counter()
    with running(command, log) as process:
        ready = _wait_ready(process, ready_file, log)
        TOKENS[int(ready["http"].rsplit(":", 1)[1])] = token
        yield BoxProcess(process, ready, time.perf_counter() - started)


def _wait_ready(process: subprocess.Popen[bytes], ready_file: Path, log: Path) -> dict[str, Any]:
    """Return the addresses once /readyz answers 200."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        if ready_file.exists():
            ready: dict[str, Any] = json.loads(ready_file.read_text())
            if _answers(f"{ready['http']}/readyz"):
                return ready
        time.sleep(0.005)
    raise RuntimeError(f"the box did not become ready:\n{log.read_text()[-2000:]}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def nagle(*, off: bool) -> dict[str, str]:
    """Return an environment in which DCMTK, also inside Orthanc, keeps Nagle's algorithm or not."""
    kept = {name: value for name, value in os.environ.items() if name != "TCP_NODELAY"}
    return kept | {"TCP_NODELAY": "1"} if off else kept


class Peer:
    """A foreign receiver."""

    def __init__(self, name: str, dicom_port: int, ae_title: str, http_port: int = 0) -> None:
        self.name, self.dicom_port, self.ae_title = name, dicom_port, ae_title
        self.http_port = http_port


@contextlib.contextmanager
def storescp(folder: Path, *, nodelay: bool = False) -> Iterator[Peer | None]:
    """DCMTK's receiver, one process per association; None when it is not installed.

    Args:
        folder: where it stores.
        nodelay: whether Nagle's algorithm is off for its answers too: its own stall would hide
            what a sender without Nagle gains.
    """
    program = find_program("storescp")
    if program is None:
        yield None
        return
    home = Path(tempfile.mkdtemp(prefix="storescp-", dir=folder))
    port = free_port()
    command = [program, "--fork", "-aet", "STORESCP", "-od", str(home), str(port)]
    with running(command, home / "log", env=nagle(off=nodelay), grace_s=0):
        _wait_port(port)
        yield Peer("storescp", port, "STORESCP")


@contextlib.contextmanager
def orthanc(folder: Path, *, nodelay: bool = False) -> Iterator[Peer | None]:
    """Orthanc as Debian ships it, on its defaults; None when it is not installed."""
    program = find_program("Orthanc")
    if program is None:
        yield None
        return
    home = Path(tempfile.mkdtemp(prefix="orthanc-", dir=folder))
    dicom_port, http_port = free_port(), free_port()
    plugins = [f"{place}/{_PLUGIN}" for place in _PLUGIN_FOLDERS if Path(place, _PLUGIN).exists()]
    settings = {
        "Name": "BENCH",
        "StorageDirectory": str(home / "store"),
        "IndexDirectory": str(home / "store"),
        "HttpPort": http_port,
        "DicomPort": dicom_port,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": plugins[:1],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = home / "orthanc.json"
    path.write_text(json.dumps(settings))
    # killed, not stopped: stopping takes five seconds, and the folder goes away anyway
    with running([program, str(path)], home / "log", env=nagle(off=nodelay), grace_s=0):
        _wait_port(dicom_port)
        _wait_port(http_port)
        yield Peer("Orthanc", dicom_port, "ORTHANC", http_port if plugins else 0)


def _wait_port(port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise RuntimeError("a peer did not open its port")


class Helper:
    """A measuring process of ours that answers one JSON line per question."""

    def __init__(self, module: str, *arguments: str) -> None:
        tests = Path(__file__).resolve().parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(tests)},
            text=True,
        )
        self._told: set[int] = set()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one question and wait for its answer; a port of the box's comes with its token."""
        port = arguments.get("port")
        if port in TOKENS and port not in self._told:
            self._told.add(port)
            self.ask("identify", port=port, token=TOKENS[port])
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the helper has no pipes")
        self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a measuring helper ended while it was asked for {op}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def answer_questions(operations: dict[str, Any]) -> None:
    """The other end of `Helper`: read questions until standard input closes."""
    out = sys.stdout
    sys.stdout = sys.stderr  # a library that prints must not break the answers
    for line in sys.stdin:
        question = json.loads(line)
        answer = operations[question.pop("op")](**question)
        out.write(json.dumps(answer) + "\n")
        out.flush()
