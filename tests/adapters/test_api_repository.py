import json

import numpy as np
import pytest

from bedside_core.errors import GoldenMismatchError
from bedside_core.findings import saliency
from support.fake_engine import FakeEngine
from support.http_box import HttpBox

TENSOR = np.linspace(-6, 20, 1024, dtype=np.float32).reshape(1, 1, 32, 32)
ENTRY = {"name": "image", "shape": [1, 1, 32, 32], "datatype": "FP32"}
REPOSITORY = "/v2/repository/models/second"


@pytest.fixture
def box():
    with HttpBox() as box:
        yield box


def index(box, **asked):
    found = box.client.post("/v2/repository/index", content=json.dumps(asked) if asked else b"")
    assert found.status_code == 200
    return {(entry["name"], entry["state"]) for entry in found.json()}


def test_load_and_unload_move_a_package_through_the_index(box):
    assert index(box) == {("sample", "READY"), ("second", "UNAVAILABLE")}
    assert box.client.get("/v2/models/second/ready").status_code == 404
    assert box.client.post(f"{REPOSITORY}/load", content=b"{}").json() == {}
    assert index(box, ready=True) == {("sample", "READY"), ("second", "READY")}
    assert box.client.get("/v2/models/second/ready").status_code == 200
    names = [model["name"] for model in box.client.get("/api/v1/models").json()["models"]]
    assert names == ["sample", "second"]
    asked = {"parameters": {"unload_dependents": False}}
    assert box.client.post(f"{REPOSITORY}/unload", json=asked).status_code == 200
    assert index(box, ready=True) == {("sample", "READY")}


def test_a_loaded_package_answers_under_its_own_name(box):
    box.client.post(f"{REPOSITORY}/load")
    body = {"inputs": [ENTRY | {"data": TENSOR.ravel().tolist()}]}
    answer = box.client.post("/v2/models/second/infer", json=body).json()
    assert answer["model_name"] == "second"
    assert box.client.post("/v2/models/second/versions/9.0.0/infer", json=body).status_code == 404


def test_a_package_that_fails_its_self_test_is_refused_with_the_reason(box):
    box.fail_open = GoldenMismatchError("one logit is off")
    answer = box.client.post(f"{REPOSITORY}/load")
    assert answer.status_code == 503
    assert answer.json() == {"error": "golden-mismatch: one logit is off"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("models/sample/unload", "", 409),
        ("models/nothing/load", "", 404),
        ("models/..%2F..%2Fetc/load", "", 404),
        ("models/second/unload", "", 404),
        ("models/second/load", '{"parameters": {"version": "9.9.9"}}', 404),
        ("models/second/load", '{"parameters": {"version": 1}}', 400),
        ("models/second/load", '{"parameters": {"config": "{}"}}', 400),
        ("models/second/load", '{"parameters": {"file:1/model.onnx": "AA=="}}', 400),
        ("models/second/load", '{"parameters": []}', 400),
        ("models/second/load", "no json", 400),
        ("models/second/load", " " * 70_000, 413),
        ("index", '{"ready": 1}', 400),
    ],
)
def test_what_cannot_be_done_says_so_and_changes_nothing(box, path, body, status):
    answer = box.client.post(f"/v2/repository/{path}", content=body.encode())
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert index(box, ready=True) == {("sample", "READY")}
    assert box.opened == []


def test_server_metadata_names_the_extensions(box):
    named = box.client.get("/v2").json()["extensions"]
    assert {"binary_tensor_data", "model_repository", "bedside_explain"} <= set(named)


def test_explain_gives_the_map_of_the_same_tensor(box):
    head = json.dumps(
        {
            "id": "7",
            "inputs": [ENTRY | {"parameters": {"binary_data_size": TENSOR.nbytes}}],
            "outputs": [{"name": "saliency", "parameters": {"binary_data": True}}, {"name": "cam"}],
        }
    ).encode()
    answer = box.client.post(
        "/v2/models/sample/versions/1.0.0/explain",
        content=head + TENSOR.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200
    size = int(answer.headers["inference-header-content-length"])
    document = json.loads(answer.content[:size])
    glow, cam = document["outputs"]
    wanted = FakeEngine().run(TENSOR).cam
    assert document["id"] == "7"
    assert glow["shape"] == cam["shape"] == [1, 8, 8]
    shown = np.frombuffer(answer.content[size:], "<f4").reshape(1, 8, 8)
    assert np.array_equal(shown[0], saliency(wanted))
    assert shown.min() == 0.0 < shown.max() == 1.0
    assert np.allclose(np.reshape(cam["data"], (1, 8, 8)), wanted)


def test_explain_offers_its_own_outputs_only(box):
    body = {"inputs": [ENTRY | {"data": TENSOR.ravel().tolist()}], "outputs": [{"name": "logit"}]}
    answer = box.client.post("/v2/models/sample/explain", json=body)
    assert answer.status_code == 400
    assert "saliency, cam" in answer.json()["error"]


def test_explain_of_a_dicom_object_says_where_the_image_lies(box):
    image = {"cam": [[0.0] * 8] * 8, "placement": [0, 4, 32, 24], "probability": 0.25}
    box.analysis.document = {"images": [image]}
    answer = box.client.post(
        "/v2/models/sample/explain", content=b"dicom", headers={"Content-Type": "application/dicom"}
    ).json()
    assert answer["parameters"] == {"placement": [0, 4, 32, 24], "probability": 0.25}
    assert [output["name"] for output in answer["outputs"]] == ["saliency", "cam"]
