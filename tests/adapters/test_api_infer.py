import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bedside_core.errors import UndecodableTransferSyntaxError, WrongModalityError
from support.asgi_client import in_pieces
from support.fake_engine import FakeEngine
from support.http_box import HttpBox

PATH = "/v2/models/sample/infer"
TENSOR = np.linspace(-1, 1, 1024, dtype=np.float32).reshape(1, 1, 32, 32)


@pytest.fixture(scope="module")
def served():
    with HttpBox(max_tensor_bytes=20_000, max_body_bytes=1 << 20) as box:
        yield box


@pytest.fixture
def box(served):
    served.analysis.refusal = None
    served.analysis.seen.clear()
    served.analysis.model.engine.failing = False
    return served


def binary(**top):
    parameters = {"binary_data_size": TENSOR.nbytes}
    entry = {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32"}
    text = json.dumps({"inputs": [entry | {"parameters": parameters}], **top}).encode()
    return text + TENSOR.tobytes(), {"Inference-Header-Content-Length": str(len(text))}


def test_a_binary_tensor_gives_what_the_engine_gives(box):
    body, headers = binary(parameters={"binary_data_output": True}, id="7")
    answer = box.client.post(PATH, content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    head = int(answer.headers["inference-header-content-length"])
    document = json.loads(answer.content[:head])
    values = np.frombuffer(answer.content[head:], "<f4")
    wanted = FakeEngine().run(TENSOR)
    assert document["id"] == "7"
    assert values[0] == np.float32(wanted.logit)
    assert np.array_equal(values[1:17], wanted.features.ravel())
    assert np.array_equal(values[17:], wanted.cam.ravel())


def test_a_chunked_body_gives_the_same(box):
    body, headers = binary()
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    whole = box.client.post(PATH, content=body, headers=headers)
    chunked = box.client.post(PATH, content=in_pieces(pieces), headers=headers)
    assert chunked.json() == whole.json()


def test_json_gives_the_same(box):
    entry = {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": TENSOR.tolist()}
    body, headers = binary()
    text = json.dumps({"inputs": [entry]}).encode()
    assert len(text) > 20_000  # JSON is that much larger: it does not fit this box's limit
    assert box.client.post(PATH, content=text).status_code == 413
    flat = [round(float(value), 2) for value in TENSOR.ravel()]
    short = json.dumps({"inputs": [entry | {"data": flat}]}, separators=(",", ":")).encode()
    answer = box.client.post(PATH, content=short, headers={"Content-Type": "application/json"})
    exact = box.client.post(PATH, content=body, headers=headers).json()
    logits = [document["outputs"][0]["data"][0] for document in (answer.json(), exact)]
    assert logits[0] == pytest.approx(logits[1], abs=0.01)


def test_the_version_may_stand_in_the_path(box):
    body, headers = binary()
    path = "/v2/models/sample/versions/1.0.0/infer"
    assert box.client.post(path, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/v2/models/other/infer", "/v2/models/sample/versions/2.0.0/infer"],
)
def test_a_model_that_is_not_served_is_not_found(box, path):
    body, headers = binary()
    answer = box.client.post(path, content=body, headers=headers)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_a_wrong_request_gets_400_and_one_error_text(box):
    body, headers = binary()
    answer = box.client.post(PATH, content=body[:-1], headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid-input: ")
    assert list(answer.json()) == ["error"]


def test_a_header_length_beyond_the_body_gets_400(box):
    body, _ = binary()
    for value in ("99999", "abc", "-5"):
        headers = {"Inference-Header-Content-Length": value}
        assert box.client.post(PATH, content=body, headers=headers).status_code == 400


def test_a_body_over_the_limit_is_refused_before_it_is_read(box):
    async def endless():
        while True:
            yield bytes(4096)

    assert box.client.post(PATH, content=bytes(30_000)).status_code == 413
    assert box.client.post(PATH, content=endless()).status_code == 413


@pytest.mark.parametrize("headers", [{"Content-Type": "image/png"}, {"Content-Encoding": "gzip"}])
def test_a_body_of_another_kind_is_refused(box, headers):
    body, length = binary()
    assert box.client.post(PATH, content=body, headers=length | headers).status_code == 415


def test_a_dicom_body_gives_the_result_document(box):
    headers = {"Content-Type": "application/dicom"}
    answer = box.client.post(PATH, content=b"dicom bytes", headers=headers)
    assert answer.json() == box.analysis.document
    assert box.analysis.seen == [b"dicom bytes"]
    assert box.ingest.begun == 0  # nothing is stored


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (UndecodableTransferSyntaxError("no decoder"), 415),
        (WrongModalityError("a CT is no chest radiograph"), 422),
    ],
)
def test_a_dicom_body_that_is_refused_says_why(box, refusal, status):
    box.analysis.refusal = refusal
    headers = {"Content-Type": "application/dicom"}
    answer = box.client.post(PATH, content=b"dicom bytes", headers=headers)
    assert answer.status_code == status
    assert answer.json() == {"error": f"{refusal.code}: {refusal}"}


def test_an_engine_that_fails_is_unavailable_and_says_when_to_come_again(box):
    box.analysis.model.engine.failing = True
    body, headers = binary()
    answer = box.client.post(PATH, content=body, headers=headers)
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("engine-failed: ")
    assert int(answer.headers["retry-after"]) > 0


def test_an_unforeseen_error_tells_a_client_nothing(box):
    box.analysis.refusal = KeyError("DOE^JANE")
    headers = {"Content-Type": "application/dicom"}
    answer = box.client.post(PATH, content=b"dicom bytes", headers=headers)
    assert answer.status_code == 500
    assert "DOE" not in answer.text
    assert list(answer.json()) == ["error"]


def test_metadata_and_readiness_follow_the_protocol(box):
    assert box.client.get("/v2").json()["name"] == "bedside"
    assert box.client.get("/v2/health/live").status_code == 200
    assert box.client.get("/v2/health/ready").status_code == 200
    for path in ("/v2/models/sample", "/v2/models/sample/versions/1.0.0"):
        assert box.client.get(path).json()["versions"] == ["1.0.0"]
        assert box.client.get(path + "/ready").status_code == 200
    assert box.client.get("/v2/models/other").status_code == 404
    assert box.client.get("/v2/models/other/ready").json()["error"].startswith("not-found")


@pytest.mark.parametrize("announced", [True, False])
def test_objects_held_in_memory_are_bounded_together(announced):
    with HttpBox(max_held_bytes=1 << 20) as box:
        begun, go_on = threading.Event(), threading.Event()
        half = b"x" * (600 << 10)
        kind = {"Content-Type": "application/dicom"}

        def infer(body):
            length = {"Content-Length": str(len(half))} if announced else {}
            content = body if isinstance(body, bytes) else body()
            return box.client.post(PATH, content=content, headers=kind | length)

        async def slow():
            yield half[:-1]
            begun.set()
            await asyncio.to_thread(go_on.wait, 10)
            yield half[-1:]

        with ThreadPoolExecutor() as threads:
            first = threads.submit(infer, slow)
            assert begun.wait(10)
            assert infer(half).status_code == 429
            go_on.set()
            assert first.result(10).status_code == 200
        assert infer(half).status_code == 200
        too_large = box.client.post(PATH, content=b"x" * (2 << 20), headers=kind)
        assert too_large.status_code == 413
