"""Open Inference Protocol v2: JSON and binary tensors to arrays and back. Nothing here waits.

The binary tensor extension puts raw little-endian C-order tensors behind the JSON, back to back
in the order of the inputs; `Inference-Header-Content-Length` says where the JSON ends.

Source: Open Inference Protocol, REST; Triton Inference Server, binary tensor data extension.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import EngineFailedError, InvalidInputError
from bedside_core.manifest import IoContract, Manifest, TensorContract
from bedside_edge.api.reply import Reply
from bedside_edge.ports import Outputs

HEADER_LENGTH = b"inference-header-content-length"
BINARY = b"application/octet-stream"

_WIRE = np.dtype("<f4")  # FP32 on the wire is little-endian whatever the machine is
_SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A checked inference request: the tensor, and which outputs to send back in what form."""

    request_id: str | None
    tensor: NDArray[np.float32]
    outputs: tuple[tuple[str, bool], ...]  # name, as binary


def json_length(headers: Mapping[bytes, bytes], size: int | None) -> int | None:
    """Return the length of the JSON part, None when the whole body is JSON.

    Raises:
        InvalidInputError: not a number, or longer than the body.
    """
    value = headers.get(HEADER_LENGTH)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 9 or (size is not None and int(value) > size):
        raise InvalidInputError("Inference-Header-Content-Length does not fit the body")
    return int(value)


def read_call(
    body: memoryview, head: int | None, io: IoContract, offered: Sequence[str] = ()
) -> Call:
    """Parse and check a request body.

    Args:
        body: the JSON, and the tensors behind it.
        head: length of the JSON in bytes; None when there is nothing behind it.
        io: the model's tensors; shapes are static.
        offered: names of the outputs that may be asked for; the model's own when empty.

    Raises:
        InvalidInputError: anything that is not a request for this model.
    """
    if head is not None and head > len(body):
        raise InvalidInputError("Inference-Header-Content-Length does not fit the body")
    raw = body[len(body) :] if head is None else body[head:]
    document = json_object(body if head is None else body[:head])
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise InvalidInputError(f"need exactly one input, {io.input.name!r}")
    request_id = document.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise InvalidInputError("id must be text")
    return Call(
        request_id=request_id,
        tensor=_read_tensor(inputs[0], raw, io.input),
        outputs=_wanted(document, offered or _names(io)),
    )


def write_reply(call: Call, outputs: Outputs, manifest: Manifest) -> Reply:
    """Return the answer: JSON, with the tensors asked for as binary behind it.

    Raises:
        EngineFailedError: an output breaks the contract; no number is passed on for it.
    """
    found = {name: _output(name, outputs, manifest.io) for name, _ in call.outputs}
    return tensors_reply(call, found, manifest)


def tensors_reply(
    call: Call,
    found: Mapping[str, tuple[Sequence[int], NDArray[np.float32]]],
    manifest: Manifest,
    extra: Mapping[str, Any] | None = None,
) -> Reply:
    """Return the answer with these tensors in it.

    Args:
        call: which outputs, in what form.
        found: shape promised and values, by name of the output.
        manifest: of the model that answered.
        extra: the answer's `parameters`, if any.

    Raises:
        EngineFailedError: a tensor breaks its promise.
    """
    entries, tail = [], []
    for name, binary in call.outputs:
        shape, values = found[name]
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(shape)}
        flat = np.ascontiguousarray(values, _WIRE).ravel()
        if flat.size != math.prod(shape) or not np.isfinite(flat).all():
            raise EngineFailedError(f"the model's {name!r} has another shape, or is not finite")
        if binary:
            entry["parameters"] = {"binary_data_size": flat.nbytes}
            tail.append(flat.tobytes())
        else:
            entry["data"] = flat.tolist()
        entries.append(entry)
    document: dict[str, Any] = {"model_name": manifest.name, "model_version": manifest.version}
    if call.request_id is not None:
        document["id"] = call.request_id
    if extra:
        document["parameters"] = dict(extra)
    document["outputs"] = entries
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    if not tail:
        return Reply(status=200, body=text)
    return Reply(
        status=200,
        body=b"".join((text, *tail)),
        content_type=BINARY,
        headers=[(HEADER_LENGTH, str(len(text)).encode())],
    )


def metadata(manifest: Manifest, platform: str) -> dict[str, Any]:
    """Return the model's metadata document."""
    io = manifest.io
    return {
        "name": manifest.name,
        "versions": [manifest.version],
        "platform": platform,
        "inputs": [_tensor_metadata(io.input)],
        "outputs": [_tensor_metadata(part) for part in (io.logit, io.features, io.cam)],
    }


def _tensor_metadata(contract: TensorContract) -> dict[str, Any]:
    return {"name": contract.name, "datatype": contract.datatype, "shape": contract.shape}


def json_object(text: memoryview) -> dict[str, Any]:
    """Return a JSON object; InvalidInputError when it is anything else."""
    try:
        document = json.loads(bytes(text))
    except (ValueError, RecursionError) as cause:
        raise InvalidInputError("the request is not JSON") from cause
    if not isinstance(document, dict):
        raise InvalidInputError("the request is not a JSON object")
    return document


def parameters(of: dict[str, Any]) -> dict[str, Any]:
    """Return the object's `parameters`, empty when it has none; InvalidInputError."""
    found = of.get("parameters", {})
    if not isinstance(found, dict):
        raise InvalidInputError("parameters must be an object")
    if _SHARED_MEMORY in found:
        raise InvalidInputError("shared memory is not offered")
    return found


def _read_tensor(
    entry: dict[str, Any], raw: memoryview, contract: TensorContract
) -> NDArray[np.float32]:
    if entry.get("name") != contract.name:
        raise InvalidInputError(f"the input is called {contract.name!r}")
    if entry.get("datatype") != contract.datatype:
        raise InvalidInputError(f"the input's datatype is {contract.datatype}")
    if entry.get("shape") != contract.shape:
        raise InvalidInputError(f"the input's shape is {contract.shape}; it never varies")
    size = parameters(entry).get("binary_data_size")
    if size is None:
        if len(raw):
            raise InvalidInputError("bytes follow the JSON that no input asks for")
        return _from_json(entry.get("data"), contract)
    count = math.prod(contract.shape)
    if "data" in entry:
        raise InvalidInputError("an input has either data or binary_data_size")
    if type(size) is not int or size != count * _WIRE.itemsize:
        raise InvalidInputError(f"binary_data_size must be {count * _WIRE.itemsize}")
    if len(raw) != size:
        raise InvalidInputError(f"{len(raw)} bytes follow the JSON, binary_data_size says {size}")
    wire = np.frombuffer(raw, _WIRE).reshape(contract.shape)
    return wire.astype(np.float32, copy=False)  # a copy on big-endian machines only


def _from_json(data: object, contract: TensorContract) -> NDArray[np.float32]:
    """Nested or flat lists of numbers, in row-major order."""
    if not isinstance(data, list):
        raise InvalidInputError("the input has neither data nor binary_data_size")
    try:
        values = np.asarray(data)
    except ValueError as cause:
        raise InvalidInputError("data is ragged") from cause
    if values.dtype.kind not in "iuf":
        raise InvalidInputError("data holds something that is not a number")
    if values.size != math.prod(contract.shape):
        raise InvalidInputError(f"data has {values.size} values for shape {contract.shape}")
    if values.ndim != 1 and list(values.shape) != contract.shape:
        raise InvalidInputError("data is nested in another shape")
    return np.ascontiguousarray(values.reshape(contract.shape), np.float32)


def _names(io: IoContract) -> list[str]:
    return [io.logit.name, io.features.name, io.cam.name]


def _wanted(document: dict[str, Any], names: Sequence[str]) -> tuple[tuple[str, bool], ...]:
    every = _flag(parameters(document), "binary_data_output", default=False)
    asked = document.get("outputs")
    if asked is None:
        return tuple((name, every) for name in names)
    if not isinstance(asked, list) or not asked:
        raise InvalidInputError("outputs must be a list, or be left out for all")
    wanted = []
    for entry in asked:
        if not isinstance(entry, dict) or entry.get("name") not in names:
            raise InvalidInputError(f"the outputs are called {', '.join(names)}")
        options = parameters(entry)
        if options.get("classification"):
            raise InvalidInputError("classification is not offered")
        wanted.append((str(entry["name"]), _flag(options, "binary_data", default=every)))
    if len({name for name, _ in wanted}) != len(wanted):
        raise InvalidInputError("an output is asked for twice")
    return tuple(wanted)


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInputError(f"{name} must be true or false")
    return value


def _output(
    name: str, outputs: Outputs, io: IoContract
) -> tuple[Sequence[int], NDArray[np.float32]]:
    if name == io.logit.name:
        return io.logit.shape, np.full(io.logit.shape, outputs.logit, np.float32)
    if name == io.features.name:
        return io.features.shape, outputs.features
    return io.cam.shape, outputs.cam
