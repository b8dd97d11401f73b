"""A real `bedside-edge serve` as a process of its own, on loopback, over a throw-away folder."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bedside_core.access import Action
from bedside_edge.config import CONFIG_VARIABLE, STATE_VARIABLE, Config
from bedside_edge.demo.problem import DemoError
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access

READY_WITHIN_S = 120.0  # a death is seen at once; this bounds only a hang on a starved machine
_STOP_WITHIN_S = 60.0
_LAST_LINES = 15
_ACTIONS = (
    Action.STORE,
    Action.ANALYZE,
    Action.VIEW_WORKLIST,
    Action.VIEW_RESULT,
    Action.VIEW_IMAGE,
    Action.MANAGE_JOBS,
    Action.MONITOR,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the box answers."""

    http: str
    dicom_host: str
    dicom_port: int
    ae_title: str
    token: str = field(default="", repr=False)


class RunningBox:
    """Starts the box on entry, stops it on exit.

    Args:
        folder: an empty folder; state, log and the ready file go in there.
    """

    def __init__(self, folder: Path) -> None:
        self.state, self.log = folder / "state", folder / "service.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""

    def __enter__(self) -> Self:
        with offline_access(Config(), self.state) as access:
            _, self._token = access.create_token("demonstration", _ACTIONS, CONSOLE, days=1)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name not in (CONFIG_VARIABLE, STATE_VARIABLE)
        }
        command = [*_program(), "serve", "--state", str(self.state)]
        command += ["--http-port", "0", "--dicom-port", "0", "--ready-file", str(self._ready)]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  our own program, fixed arguments
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,  # where no settings file lies
                env=environment,
                start_new_session=True,  # Ctrl-C reaches the demo, which then stops the box
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_until_ready(self) -> Addresses:
        """Return the addresses once the box serves.

        Raises:
            DemoError: it ended or did not come up; the message holds the end of its log.
        """
        deadline = time.monotonic() + READY_WITHIN_S
        while not self._ready.exists():
            if self._process is None or self._process.poll() is not None:
                raise DemoError(f"the service ended before it was ready.\n{self.last_lines()}")
            if time.monotonic() > deadline:
                waited = f"the service was not ready within {READY_WITHIN_S:g} s."
                raise DemoError(f"{waited}\n{self.last_lines()}")
            time.sleep(0.02)
        found = json.loads(self._ready.read_text())
        dicom = found["dicom"]
        return Addresses(
            http=found["http"],
            dicom_host=dicom["host"],
            dicom_port=dicom["port"],
            ae_title=dicom["ae_title"],
            token=self._token,
        )

    def stop(self) -> int:
        """Ask the box to stop, insist after a while, return its exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def last_lines(self) -> str:
        """Return the end of the service's log, which names no patient."""
        lines = self.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        return "its last log lines:\n" + "\n".join(f"  {line}" for line in lines)

    @property
    def _ready(self) -> Path:
        return self._folder / "ready.json"


def _program() -> list[str]:
    script = Path(sys.executable).with_name("bedside-edge")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from bedside_edge.cli import main; main()"]
