"""`Gate` in a process of its own, with a folder of its own and until a deadline."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bedside_core.errors import (
    AcceptanceFailedError,
    BedsideError,
    CandidateRefusedError,
    EngineFailedError,
    GoldenMismatchError,
    InvalidPackageError,
    InvalidProfileError,
    ProfileMismatchError,
    StoreUnavailableError,
    TrialFailedError,
    TrialMemoryError,
    UnavailableError,
)
from bedside_core.result import Json
from bedside_edge.ports.flashing import Candidate

Settings = Callable[[Candidate], Json]  # what the trial's [model] section says
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR")
_SAID: Final = "stderr"  # a trial has no patient: what it says when it dies may be shown
_LAST: Final = 300
_REPORT_LIMIT: Final = 1 << 20  # bytes
_VERDICTS: Final[dict[str, type[BedsideError]]] = {
    error.code: error
    for error in (
        AcceptanceFailedError,
        EngineFailedError,
        GoldenMismatchError,
        InvalidPackageError,
        InvalidProfileError,
        ProfileMismatchError,
        TrialMemoryError,
    )
}


class ProcessGate:
    """Runs `bedside_edge.trial` and reads its report."""

    def __init__(self, scratch: Path, settings: Settings) -> None:
        """Take where trials may write, and how a candidate is served in one.

        Args:
            scratch: a folder that is emptied before and after each trial.
            settings: the `[model]` section for a candidate.
        """
        self._scratch, self._settings = scratch, settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def stop(self) -> None:
        """End the trial under way, and let no other begin."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                _end(self._process)

    def __call__(self, candidate: Candidate, seconds: float) -> Json:
        """Return the report of a candidate that passed.

        Raises:
            TrialFailedError: it ended without a verdict, not in time, or the box itself failed.
            BedsideError: its verdict.
        """
        return self.run(self._settings(candidate), seconds)

    def run(self, settings: Json, seconds: float) -> Json:
        """Return the report of a box with these `[model]` settings; errors as for a candidate."""
        scratch = self._scratch.absolute()  # it runs in there
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            # A trial whose box was killed lives on for a moment: it may keep its own folder, but
            # must not answer for this one
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=scratch))
            (folder / "request.json").write_text(json.dumps(settings))
            code = self._run(folder, seconds)
            report = self._report(folder / "report.json", code)
        except OSError as cause:
            raise StoreUnavailableError(f"a trial cannot be run: {cause.strerror}") from cause
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if "code" in report:
            words = str(report.get("detail", ""))
            verdict = _VERDICTS.get(str(report["code"]))
            if verdict is None and report.get("exit_code") == UnavailableError.exit_code:
                # A full disk, a folder that cannot be opened: of this box, not of the candidate
                raise TrialFailedError(f"{report['code']}: {words}")
            if verdict is None:
                raise CandidateRefusedError(f"{report['code']}: {words}")
            raise verdict(words)
        return report

    def _run(self, folder: Path, seconds: float) -> int:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with self._lock, (folder / _SAID).open("wb") as said:
            if self._stopped:
                raise TrialFailedError("the box is stopping")
            process = self._process = subprocess.Popen(  # noqa: S603  our program, fixed arguments
                [sys.executable, "-m", "bedside_edge.trial", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=folder,  # where no settings file lies
                env=environment,
                start_new_session=True,
            )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired as cause:
            raise TrialFailedError("the trial did not end in time") from cause
        finally:
            with self._lock:
                self._process = None
            _end(process)
            process.wait()

    def _report(self, path: Path, code: int) -> Json:
        if code != 0 or not path.is_file():
            words = (path.parent / _SAID).read_text(errors="replace").splitlines()[-1:]
            last = words[0][:_LAST] if words else "nothing"
            raise TrialFailedError(f"the trial ended with {code} and said: {last}")
        if path.stat().st_size > _REPORT_LIMIT:
            raise TrialFailedError("the trial's report is too long")
        try:
            report = json.loads(path.read_text())
        except ValueError as cause:
            raise TrialFailedError("the trial's report cannot be read") from cause
        if not isinstance(report, dict):
            raise TrialFailedError("the trial's report cannot be read")
        return report


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a trial with everything it started; nothing when it has ended and was waited for."""
    if process.poll() is None:  # its number still names its group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
