"""A software TPM (swtpm) of its own for a test, spoken to by the real tpm2-tools."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = ("swtpm", "tpm2_create", "tpm2_unseal", "tpm2_pcrextend")
START_S = 10.0


def require_swtpm() -> None:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (Debian packages swtpm, tpm2-tools)")


class SoftwareTpm:
    """One TPM; its state is a folder, so that it can be switched off and on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.tcti = ""

    def on(self) -> None:
        """Power on: all registers start again."""
        for _ in range(5):  # the port may be taken between the look and the use
            port = _free_pair()
            words = f"socket --tpm2 --tpmstate dir={self._folder} "
            words += f"--server type=tcp,port={port},bindaddr=127.0.0.1 "
            words += f"--ctrl type=tcp,port={port + 1},bindaddr=127.0.0.1 "
            words += "--flags not-need-init,startup-clear"
            self._process = subprocess.Popen(
                [str(shutil.which("swtpm")), *words.split()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self.tcti = f"swtpm:host=127.0.0.1,port={port}"
            if self._listens(port + 1):
                return
        raise AssertionError("swtpm does not start")

    def off(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def extend(self, register: int) -> None:
        """Measure something, as another firmware or Secure Boot state would be."""
        subprocess.run(
            [str(shutil.which("tpm2_pcrextend")), f"{register}:sha256={'5a' * 32}"],
            env=os.environ | {"TPM2TOOLS_TCTI": self.tcti},
            check=True,
            timeout=30,
        )

    def _listens(self, port: int) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            time.sleep(0.02)
        self.off()
        return False


@contextmanager
def software_tpm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftwareTpm]:
    """Lend a TPM that this process's tools use."""
    require_swtpm()
    tpm = SoftwareTpm(folder)
    tpm.on()
    monkeypatch.setenv("TPM2TOOLS_TCTI", tpm.tcti)
    try:
        yield tpm
    finally:
        tpm.off()


def _free_pair() -> int:
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                two.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
