"""The program that runs the codecs: coded frames in, stored values out, over one socket.

`python -m bedside_edge.dicom.decoder FD SECONDS`, started by `isolated`. It gets frames and the
numbers that describe them, no header and no patient. It ends when the socket does.
"""

import json
import math
import resource
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from bedside_core.imaging import native

REQUEST = struct.Struct("<IQ")  # bytes of the JSON description, bytes of the coded frame
ANSWER = struct.Struct("<I")  # bytes of the JSON description; the values follow
MAX_DESCRIPTION = 4096
_MAX_MEMORY = 4 << 30


def receive(connection: socket.socket, count: int) -> bytearray:
    """Read exactly `count` bytes.

    Raises:
        EOFError: the other side is gone.
    """
    data = bytearray(count)
    view, got = memoryview(data), 0
    while got < count:
        more = connection.recv_into(view[got:])
        if not more:
            raise EOFError("the other side is gone")
        got += more
    return data


def decode(coded: bytes, description: dict[str, Any], plugin: str = "") -> NDArray[np.generic]:
    """Decode one frame to stored values in native byte order; any exception means it failed."""
    options = dict(description)
    pixels, _ = get_decoder(options.pop("transfer_syntax_uid")).as_array(
        encapsulate([coded]),
        raw=True,
        index=0,
        number_of_frames=1,
        pixel_keyword="PixelData",
        decoding_plugin=plugin,
        **options,
    )
    return np.ascontiguousarray(native(pixels))


def serve(connection: socket.socket, limit_cpu: Callable[[], None]) -> None:
    """Answer requests until the other side closes; `limit_cpu` runs before each frame."""
    while True:
        try:
            described, size = REQUEST.unpack(receive(connection, REQUEST.size))
        except EOFError:
            return
        description = json.loads(receive(connection, described))
        coded = bytes(receive(connection, size))
        limit_cpu()
        try:
            pixels = decode(coded, description)
        except Exception:  # any failure of a foreign codec means the same: corrupt
            answer, values = json.dumps({"failed": True}).encode(), b""
        else:
            said = {"dtype": pixels.dtype.str, "shape": pixels.shape}
            answer, values = json.dumps(said).encode(), pixels.tobytes()
        connection.sendall(ANSWER.pack(len(answer)) + answer)
        connection.sendall(values)


def _main(descriptor: int, seconds: int) -> None:
    """Serve with bounded memory, and processor time for one frame.

    Wall time would call a frame corrupt because the box is busy; the kernel ends the process
    when the codec has burnt its seconds.
    """

    def limit_cpu() -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = math.ceil(used.ru_utime + used.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.RLIM_INFINITY))

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the frame
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    with socket.socket(fileno=descriptor) as parent:
        serve(parent, limit_cpu)


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
