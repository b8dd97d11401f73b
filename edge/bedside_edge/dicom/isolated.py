"""Codecs in processes of their own.

All JPEG codecs are native code that holds the interpreter lock while it works: one JPEG 2000
radiograph stops every thread of the service for half a second, and a codec that crashes on a
hostile frame takes the service along. In a process of its own it does neither, and a frame that
takes too long can be given up.
"""

import atexit
import json
import math
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import CorruptPixelsError, TimedOutError, UnavailableError
from bedside_edge.dicom.decoder import ANSWER, MAX_DESCRIPTION, REQUEST, receive


class _Lost(Exception):  # noqa: N818 - not an error of ours, a fact about the process
    """The decoding process died: the codec crashed or had used its time."""


class _Process:
    """One decoding process and our end of the socket to it."""

    def __init__(self, timeout_s: float, cpu_s: int) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(timeout_s)
        self._socket = ours
        self.used = False
        quiet = subprocess.DEVNULL  # codecs write to stderr what they think of a frame
        command = [sys.executable, "-P", "-m", "bedside_edge.dicom.decoder"]
        command += [str(theirs.fileno()), str(cpu_s)]
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=quiet,
                    stdout=quiet,
                    stderr=quiet,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                )
        except OSError as cause:
            ours.close()
            raise UnavailableError("no process for decoding can be started") from cause

    def ask(self, coded: bytes, description: bytes) -> tuple[dict[str, Any], bytearray]:
        """Have one frame decoded.

        Raises:
            _Lost: the process died.
            TimedOutError: it does not answer. After either it is of no further use.
        """
        self.used = True
        try:
            self._socket.sendall(REQUEST.pack(len(description), len(coded)) + description)
            self._socket.sendall(coded)
            (size,) = ANSWER.unpack(receive(self._socket, ANSWER.size))
            answer = json.loads(receive(self._socket, min(size, MAX_DESCRIPTION)))
            return answer, receive(self._socket, _bytes_of(answer))
        except TimeoutError as cause:
            raise TimedOutError("decoding took too long; the box may be overloaded") from cause
        except (OSError, EOFError, ValueError) as cause:
            raise _Lost from cause

    def end(self) -> None:
        """Kill the process and wait for it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


class DecodingProcesses:
    """Starts processes when frames come, keeps them for the next ones. Thread-safe.

    Args:
        most: processes at a time; further frames wait.
        cpu_s: processor time one frame may take; a frame that takes more is corrupt.
        timeout_s: longest wait for one frame, also when the box is busy with other things.
    """

    def __init__(self, most: int = 2, cpu_s: int = 60, timeout_s: float = 600.0) -> None:
        self._slots = threading.BoundedSemaphore(most)
        self._cpu_s, self._timeout_s = cpu_s, timeout_s
        self._idle: list[_Process] = []

    def decode(self, coded: bytes, **description: int | str) -> NDArray[np.generic]:
        """Decode one frame; `description` as pydicom's decoders take it, and the syntax.

        Raises:
            CorruptPixelsError: the codec failed, crashed or used up its time.
            TimedOutError, UnavailableError: not decoded now; trying again later may help.
        """
        said = json.dumps(description).encode()
        with self._slots:
            try:
                answer, values = self._ask(coded, said)
            except _Lost as cause:
                raise CorruptPixelsError("the decoder did not survive the frame") from cause
        if "failed" in answer:
            raise CorruptPixelsError("the pixel data ended early or cannot be decoded")
        return np.frombuffer(values, np.dtype(answer["dtype"])).reshape(answer["shape"])

    def close(self) -> None:
        """End every process that waits for work; new frames start new ones."""
        while self._idle:
            self._idle.pop().end()

    def _ask(self, coded: bytes, description: bytes) -> tuple[dict[str, Any], bytearray]:
        """Ask a waiting process first; one that died while waiting does not speak of the frame."""
        while True:
            try:
                process = self._idle.pop()
            except IndexError:
                process = _Process(self._timeout_s, self._cpu_s)
            fresh = not process.used
            try:
                answer = process.ask(coded, description)
            except BaseException as problem:
                process.end()
                if isinstance(problem, _Lost) and not fresh:
                    continue
                raise
            self._idle.append(process)
            return answer


def _bytes_of(answer: dict[str, Any]) -> int:
    if "failed" in answer:
        return 0
    return math.prod(map(int, answer["shape"])) * int(np.dtype(answer["dtype"]).itemsize)


SHARED = DecodingProcesses()
atexit.register(SHARED.close)
