"""The public client of the Open Inference Protocol, unchanged, against a real box."""

from contextlib import contextmanager

import numpy as np
import pytest
from tritonclient import http as triton
from tritonclient.http import InferenceServerClientPlugin
from tritonclient.utils import InferenceServerException

from support.running_box import running_box
from support.tiny_package import write_tiny_package

MODEL = "cxr-opacity"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("triton")
    write_tiny_package(folder / "packages" / "tiny" / "1.0.0", fields={"name": "tiny"})
    with running_box(folder, f'[model]\nrepository = "{folder / "packages"}"\n') as box:
        yield box
        assert box.stop() == 0


class Bearer(InferenceServerClientPlugin):
    """The way tritonclient itself offers to show a token."""

    def __init__(self, token):
        self._token = token

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self._token}"


@contextmanager
def connected(box, **options):
    with triton.InferenceServerClient(box.url.removeprefix("http://"), **options) as client:
        client.register_plugin(Bearer(box.token))
        yield client


@pytest.fixture
def client(box):
    with connected(box) as client:
        yield client


def test_without_a_token_only_health_answers(box):
    with triton.InferenceServerClient(box.url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="unauthenticated"):
            client.get_server_metadata()


def asked(client, model, binary):
    (described,) = client.get_model_metadata(model)["inputs"]
    tensor = triton.InferInput(described["name"], described["shape"], described["datatype"])
    ramp = np.linspace(0, 1, int(np.prod(described["shape"])), dtype=np.float32)
    tensor.set_data_from_numpy(ramp.reshape(described["shape"]), binary_data=binary)
    return tensor


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1.0.0")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "bedside"
    assert "model_repository" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata(MODEL, "1.0.0")["versions"] == ["1.0.0"]


@pytest.mark.parametrize("binary", [True, False])
def test_infer_gives_every_output_in_both_forms(client, binary):
    described = client.get_model_metadata(MODEL)["outputs"]
    wanted = [
        triton.InferRequestedOutput(output["name"], binary_data=binary) for output in described
    ]
    answer = client.infer(MODEL, [asked(client, MODEL, binary)], outputs=wanted, request_id="r-1")
    assert answer.get_response()["id"] == "r-1"
    for output in described:
        values = answer.as_numpy(output["name"])
        assert list(values.shape) == output["shape"]
        assert np.isfinite(values).all()
    plain = client.infer(MODEL, [asked(client, MODEL, True)], model_version="1.0.0")
    assert plain.as_numpy("logit") == answer.as_numpy("logit")


def test_concurrent_calls_answer_alike(box):
    with connected(box, concurrency=4) as client:
        tensor = asked(client, MODEL, True)
        calls = [client.async_infer(MODEL, [tensor]) for _ in range(12)]
        answers = {float(call.get_result().as_numpy("logit").item()) for call in calls}
    assert len(answers) == 1


def test_the_repository_loads_and_unloads_a_package(client):
    states = {e["name"]: e["state"] for e in client.get_model_repository_index()}
    assert states == {MODEL: "READY", "tiny": "UNAVAILABLE"}
    client.load_model("tiny")
    assert client.is_model_ready("tiny")
    answer = client.infer("tiny", [asked(client, "tiny", True)])
    assert answer.get_response()["model_name"] == "tiny"
    client.unload_model("tiny")
    assert not client.is_model_ready("tiny")
    with pytest.raises(InferenceServerException, match="not-found"):
        client.infer("tiny", [asked(client, MODEL, True)])
    with pytest.raises(InferenceServerException, match="reads the box's studies"):
        client.unload_model(MODEL)
    assert client.is_model_ready(MODEL)


def test_errors_reach_the_client_as_words(client):
    tensor = triton.InferInput("wrong", [1], "FP32")
    tensor.set_data_from_numpy(np.zeros(1, np.float32))
    with pytest.raises(InferenceServerException, match="invalid-input"):
        client.infer(MODEL, [tensor])
