"""Keys sealed to the machine's TPM by the tpm2-tools, under PCR 0 (firmware) and 7 (Secure Boot).

The storage key is made anew from the owner seed each time: nothing has to persist in the TPM. A
TPM has three transient slots and there may be no resource manager, so they are flushed after every
step that loads one. Secrets pass through pipes, never through arguments or files.

Not covered: somebody who listens on the bus between processor and TPM, and root on the box.
Source: TCG TPM 2.0 Library part 3 (TPM2_PolicyPCR, TPM2_Unseal); tpm2-tools 5.4 manual pages.
"""

import base64
import binascii
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bedside_core.errors import KeysSealedError
from bedside_edge.ports.key_protection import Protection

PCRS: Final = "sha256:0,7"
TCTI_VARIABLE: Final = "TPM2TOOLS_TCTI"
_TIMEOUT_S: Final = 60.0
_MOST_BLOB: Final = 4096  # bytes of a public or private part
_POLICY_FAILED: Final = b"99d"  # TPM_RC_POLICY_FAIL of session 1, as the tools print it
_RECOVER: Final = (
    "`bedside-edge keys recover` opens them with the hospital's recovery identity"
    " (`--to file` where no TPM is left)"
)


class Tpm2Tools:
    """`Sealer` over the programs of tpm2-tools; `TPM2TOOLS_TCTI` names another TPM than /dev's."""

    protection = Protection.TPM

    def seal(self, key: bytes) -> Mapping[str, str | int]:
        """Return the two parts of a sealed object that only this TPM in this state opens."""
        with tempfile.TemporaryDirectory(prefix="bedside-tpm-") as name:
            folder = Path(name)
            self._policy(folder)
            self._primary(folder)
            words = ["-C", "primary.ctx", "-L", "pcr.policy", "-i", "-", "-u", "public"]
            _run("tpm2_create", *words, "-r", "private", folder=folder, given=key)
            self._flush(folder)
            parts = {part: (folder / part).read_bytes() for part in ("public", "private")}
        return {"pcrs": PCRS} | {n: base64.b64encode(data).decode() for n, data in parts.items()}

    def unseal(self, sealed: Mapping[str, str | int]) -> bytes:
        """Return the key; KeysSealedError when the TPM is another or the PCRs have changed."""
        if sealed.get("pcrs") != PCRS:
            raise KeysSealedError("the keys are sealed under registers this version does not use")
        with tempfile.TemporaryDirectory(prefix="bedside-tpm-") as name:
            folder = Path(name)
            for part in ("public", "private"):
                (folder / part).write_bytes(_blob(sealed.get(part)))
            try:
                self._primary(folder)
            except KeysSealedError as cause:  # a dead board, a TPM switched off in the firmware
                raise KeysSealedError(f"{cause}: {_RECOVER}") from cause
            words = ["-C", "primary.ctx", "-u", "public", "-r", "private", "-c", "sealed.ctx"]
            try:
                _run("tpm2_load", *words, folder=folder)
                return _run("tpm2_unseal", "-c", "sealed.ctx", "-p", f"pcr:{PCRS}", folder=folder)
            finally:
                self._flush(folder)

    def _policy(self, folder: Path) -> None:
        """Write the digest of the policy that wants the registers as they are now."""
        _run("tpm2_startauthsession", "-S", "session.ctx", folder=folder)
        try:
            words = ["-S", "session.ctx", "-l", PCRS, "-L", "pcr.policy"]
            _run("tpm2_policypcr", *words, folder=folder)
        finally:
            _run("tpm2_flushcontext", "session.ctx", folder=folder)

    def _primary(self, folder: Path) -> None:
        words = ["-C", "o", "-G", "ecc256", "-c", "primary.ctx"]
        _run("tpm2_createprimary", *words, folder=folder)
        self._flush(folder)

    def _flush(self, folder: Path) -> None:
        _run("tpm2_flushcontext", "-t", folder=folder)


def has_tpm() -> bool:
    """Tell whether a TPM is configured or there is a device of one."""
    named = bool(os.environ.get(TCTI_VARIABLE))
    return named or any(Path(path).exists() for path in ("/dev/tpmrm0", "/dev/tpm0"))


def _run(program: str, *words: str, folder: Path, given: bytes = b"") -> bytes:
    """Run one of the tools in a private folder; return what it printed."""
    environment = {name: os.environ[name] for name in ("PATH", TCTI_VARIABLE) if name in os.environ}
    quiet = [] if program == "tpm2_unseal" else ["-Q"]
    try:
        done = subprocess.run(  # noqa: S603  constant program, words of this module
            [program, *words, *quiet],
            cwd=folder,
            env=environment,
            input=given,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as cause:
        raise KeysSealedError("the programs of tpm2-tools are not installed") from cause
    except (OSError, subprocess.TimeoutExpired) as cause:
        raise KeysSealedError("the TPM does not answer") from cause
    if done.returncode == 0:
        return done.stdout
    if program == "tpm2_unseal" and _POLICY_FAILED in done.stderr.lower():
        raise KeysSealedError(
            f"firmware or Secure Boot is not what the keys were sealed under: {_RECOVER}"
        )
    if program == "tpm2_load":
        raise KeysSealedError(f"the keys were sealed to another TPM: {_RECOVER}")
    if not has_tpm():
        raise KeysSealedError("there is no TPM on this machine")
    raise KeysSealedError(f"the TPM does not answer, or refuses ({program})")


def _blob(text: str | int | None) -> bytes:
    try:
        data = base64.b64decode(str(text), validate=True)
    except binascii.Error as cause:
        raise KeysSealedError("the sealed keys cannot be read") from cause
    if not 0 < len(data) <= _MOST_BLOB:
        raise KeysSealedError("the sealed keys cannot be read")
    return data
