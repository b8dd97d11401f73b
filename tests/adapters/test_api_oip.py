import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import EngineFailedError, InvalidInputError
from bedside_edge.api import oip
from bedside_edge.ports import Outputs
from support.fake_engine import TINY_IO, FakeEngine
from support.http_box import tiny_manifest

SHAPE = (1, 1, 32, 32)
SIZE = math.prod(SHAPE) * 4
TENSOR = np.linspace(-1, 1, math.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
MANIFEST = tiny_manifest()


RAW = TENSOR.astype("<f4").tobytes()


def request(entry=None, raw=RAW, **top):
    """A binary request; `entry` changes the input, None in it removes a field."""
    tensor = {
        "name": "image",
        "shape": list(SHAPE),
        "datatype": "FP32",
        "parameters": {"binary_data_size": SIZE},
    }
    changed = {key: value for key, value in (tensor | (entry or {})).items() if value is not None}
    text = json.dumps({"inputs": [changed], **top}).encode()
    return memoryview(bytearray(text + raw)), len(text)


def read(body, head):
    return oip.read_call(body, head, TINY_IO)


def split(reply):
    """The JSON of an answer, and its binary tensors by name."""
    headers = dict(reply.headers)
    head = int(headers.get(oip.HEADER_LENGTH, len(reply.body)))
    document, tail, binary = json.loads(reply.body[:head]), reply.body[head:], {}
    for output in document["outputs"]:
        if "parameters" in output:
            size = output["parameters"]["binary_data_size"]
            binary[output["name"]] = np.frombuffer(tail[:size], "<f4").reshape(output["shape"])
            tail = tail[size:]
    assert tail == b""
    return document, binary


def test_a_binary_tensor_arrives_bit_for_bit_in_native_order():
    call = read(*request())
    assert call.tensor.dtype == np.float32
    assert call.tensor.dtype.isnative
    assert call.tensor.flags.c_contiguous
    assert np.array_equal(call.tensor, TENSOR)


@pytest.mark.parametrize("data", [TENSOR.tolist(), TENSOR.ravel().tolist()])
def test_a_json_tensor_may_be_nested_or_flat(data):
    body, _ = request({"data": data, "parameters": None}, raw=b"")
    assert np.array_equal(read(body, None).tensor, TENSOR)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"name": "other"}, "called 'image'"),
        ({"name": None}, "called 'image'"),
        ({"datatype": "FP64"}, "datatype"),
        ({"datatype": None}, "datatype"),
        ({"shape": [1, 1, 32, 31]}, "shape"),
        ({"shape": [-1, 1, 32, 32]}, "shape"),
        ({"shape": "1,1,32,32"}, "shape"),
        ({"parameters": {"binary_data_size": SIZE - 4}}, "binary_data_size must be"),
        ({"parameters": {"binary_data_size": str(SIZE)}}, "binary_data_size must be"),
        ({"parameters": {"binary_data_size": float(SIZE)}}, "binary_data_size must be"),
        ({"parameters": {"binary_data_size": True}}, "binary_data_size must be"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory"),
        ({"data": [1.0]}, "either"),
        ({"parameters": None}, "no input asks"),
    ],
)
def test_an_input_that_is_not_the_models_is_refused(entry, words):
    with pytest.raises(InvalidInputError, match=words):
        read(*request(entry))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "neither"),
        ([0.0] * 1023, "1023 values"),
        ([[0.0, 1.0], [2.0]], "ragged"),
        (["1.0"] * 1024, "not a number"),
        ([True] * 1024, "not a number"),
        ([None] * 1024, "not a number"),
        ([{}] * 1024, "not a number"),
        (np.zeros((32, 32)).tolist(), "another shape"),
        (0.5, "neither"),
    ],
)
def test_json_data_that_is_no_such_tensor_is_refused(data, words):
    body, _ = request({"data": data, "parameters": None}, raw=b"")
    with pytest.raises(InvalidInputError, match=words):
        read(body, None)


@pytest.mark.parametrize("raw", [b"", bytes(SIZE - 1), bytes(SIZE + 1)])
def test_bytes_that_do_not_add_up_are_refused(raw):
    with pytest.raises(InvalidInputError, match="bytes follow"):
        read(*request(raw=raw))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b'{"inputs": {}}']
)
def test_what_is_no_request_is_refused(text):
    with pytest.raises(InvalidInputError):
        read(memoryview(text), None)


@pytest.mark.parametrize("count", [0, 2])
def test_there_is_exactly_one_input(count):
    body, head = request()
    entry = json.loads(bytes(body[:head]))["inputs"][0]
    text = json.dumps({"inputs": [entry] * count}).encode()
    with pytest.raises(InvalidInputError, match="exactly one"):
        read(memoryview(text), None)


@pytest.mark.parametrize("value", [b"-1", b"abc", b"1e3", b"", b"99999999999", b"101"])
def test_a_header_length_that_does_not_fit_is_refused(value):
    with pytest.raises(InvalidInputError, match="does not fit"):
        oip.json_length({oip.HEADER_LENGTH: value}, 100)


def test_a_header_length_beyond_a_chunked_body_is_refused():
    body, _ = request()
    with pytest.raises(InvalidInputError, match="does not fit"):
        read(body, len(body) + 1)


@settings(max_examples=50, deadline=None)
@given(
    binary=st.lists(st.booleans(), min_size=3, max_size=3),
    order=st.permutations(["logit", "features", "cam"]),
)
def test_outputs_come_in_the_order_and_form_asked_for(binary, order):
    asked = [
        {"name": name, "parameters": {"binary_data": flag}}
        for name, flag in zip(order, binary, strict=True)
    ]
    call = read(*request(outputs=asked))
    outputs = FakeEngine().run(call.tensor)
    document, tensors = split(oip.write_reply(call, outputs, MANIFEST))
    assert [output["name"] for output in document["outputs"]] == order
    assert sorted(tensors) == sorted(n for n, flag in zip(order, binary, strict=True) if flag)
    for output in document["outputs"]:
        values = tensors.get(output["name"], np.asarray(output.get("data"), np.float32))
        wanted = {"logit": np.float32(outputs.logit)}.get(output["name"])
        wanted = getattr(outputs, output["name"]) if wanted is None else wanted
        assert np.array_equal(values.ravel(), np.ravel(wanted).astype(np.float32))


def test_all_outputs_come_as_json_unless_asked_otherwise():
    document, tensors = split(oip.write_reply(read(*request()), FakeEngine().run(TENSOR), MANIFEST))
    assert tensors == {}
    assert [len(output["data"]) for output in document["outputs"]] == [1, 16, 64]


def test_one_word_makes_every_output_binary_and_an_output_can_disagree():
    every = read(*request(parameters={"binary_data_output": True}))
    assert all(binary for _, binary in every.outputs)
    one = read(
        *request(
            parameters={"binary_data_output": True},
            outputs=[{"name": "logit"}, {"name": "cam", "parameters": {"binary_data": False}}],
        )
    )
    assert one.outputs == (("logit", True), ("cam", False))


@pytest.mark.parametrize(
    ("top", "words"),
    [
        ({"outputs": []}, "outputs"),
        ({"outputs": [{"name": "label"}]}, "outputs are called"),
        ({"outputs": [{"name": "cam"}, {"name": "cam"}]}, "twice"),
        ({"outputs": [{"name": "cam", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"outputs": [{"name": "logit", "parameters": {"classification": 3}}]}, "classification"),
        ({"parameters": {"binary_data_output": "yes"}}, "true or false"),
        ({"id": 7}, "id"),
    ],
)
def test_an_answer_that_cannot_be_given_is_refused(top, words):
    with pytest.raises(InvalidInputError, match=words):
        read(*request(**top))


def test_the_request_id_comes_back():
    call = read(*request(id="case 7"))
    document, _ = split(oip.write_reply(call, FakeEngine().run(TENSOR), MANIFEST))
    assert (document["id"], document["model_name"]) == ("case 7", "sample")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("logit", "cells"), [(math.nan, 64), (math.inf, 64), (0.0, 63)])
def test_an_answer_that_breaks_the_contract_is_never_sent(binary, logit, cells):
    call = read(*request(parameters={"binary_data_output": binary}))
    features, cam = np.zeros((1, 16), np.float32), np.zeros(cells, np.float32)
    outputs = Outputs(logit=logit, features=features, cam=cam)
    with pytest.raises(EngineFailedError, match="another shape, or is not finite"):
        oip.write_reply(call, outputs, MANIFEST)


def test_the_metadata_names_every_tensor():
    document = oip.metadata(MANIFEST, "onnxruntime")
    assert document["inputs"] == [{"name": "image", "datatype": "FP32", "shape": list(SHAPE)}]
    assert [output["name"] for output in document["outputs"]] == ["logit", "features", "cam"]
