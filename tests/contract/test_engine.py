"""What every Engine promises: both runtimes in every precision, the pair of copies, the fake."""

import threading

import numpy as np
import pytest

from bedside_core.errors import EngineFailedError, InvalidInputError
from bedside_core.hardware.matching import EnginePlan, check_readback
from bedside_edge.engine.opening import RUNTIMES, ElasticEngine
from support.fake_engine import FakeEngine
from support.tiny_onnx import SIZE
from support.tiny_package import EXPORTS, tiny_build

KINDS = [f"{engine}-{precision}" for engine, precision in EXPORTS] + ["elastic", "fake"]


def open_kind(kind):
    if kind == "fake":
        return FakeEngine()
    if kind == "elastic":
        copies = [
            RUNTIMES["onnxruntime"](tiny_build("onnxruntime", "f32", threads=n)) for n in (1, 2)
        ]
        return ElasticEngine(*copies)
    engine, precision = kind.split("-")
    return RUNTIMES[engine](tiny_build(engine, precision, streams=2))


@pytest.fixture(scope="module", params=KINDS)
def engine(request):
    opened = open_kind(request.param)
    yield opened
    opened.close()


def image(phase=0.0):
    waves = np.sin(np.arange(SIZE * SIZE) / 7.0 + phase).reshape(1, 1, SIZE, SIZE)
    return waves.astype(np.float32)


def test_an_image_becomes_a_logit_features_and_a_map(engine):
    outputs = engine.run(image())
    assert isinstance(outputs.logit, float)
    assert (outputs.features.shape, outputs.features.dtype) == ((16,), np.float32)
    assert (outputs.cam.shape, outputs.cam.dtype) == ((8, 8), np.float32)
    assert np.isfinite(outputs.features).all()


def test_the_map_averages_to_the_logit(engine):
    outputs = engine.run(image())
    assert float(outputs.cam.mean()) == pytest.approx(outputs.logit, abs=2e-2)


def test_the_same_image_gets_the_same_bits(engine):
    first = engine.run(image())
    for _ in range(20):
        again = engine.run(image())
        assert again.logit == first.logit
        assert np.array_equal(again.cam, first.cam)


def test_an_answer_outlives_the_next_call(engine):
    kept = engine.run(image())
    cam, features = kept.cam.copy(), kept.features.copy()
    engine.run(image(2.0))
    assert np.array_equal(kept.cam, cam)
    assert np.array_equal(kept.features, features)


def test_the_caller_keeps_his_tensor(engine):
    tensor = image()
    engine.run(tensor)
    assert np.array_equal(tensor, image())


def test_calls_from_several_threads_do_not_mix(engine):
    expected = [engine.run(image(phase)).logit for phase in range(6)]
    assert len(set(expected)) == 6
    wrong = []

    def worker(phase):
        for _ in range(30):
            got = engine.run(image(phase)).logit
            if got != expected[phase]:
                wrong.append((phase, got))

    threads = [threading.Thread(target=worker, args=(phase,)) for phase in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def spoilt(*values):
    tensor = image()
    tensor[0, 0, 3, 5 : 5 + len(values)] = values
    return tensor


UNUSABLE = {
    "big-endian": lambda: image().astype(">f4"),
    "float64": lambda: image().astype(np.float64),
    "integers": lambda: image().astype(np.int32),
    "no batch": lambda: image()[0],
    "other size": lambda: np.zeros((1, 1, SIZE, SIZE + 1), np.float32),
    "two images": lambda: np.zeros((2, 1, SIZE, SIZE), np.float32),
    "empty": lambda: np.zeros((0, 1, SIZE, SIZE), np.float32),
    "columns first": lambda: np.asfortranarray(image()),
    "every second pixel": lambda: np.zeros((1, 1, SIZE, 2 * SIZE), np.float32)[..., ::2],
    "not a number": lambda: spoilt(np.nan),
    "infinite": lambda: spoilt(np.inf),
    "both infinities": lambda: spoilt(np.inf, -np.inf),
    "a list": lambda: image().tolist(),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_what_an_engine_would_misread_is_refused(engine, name):
    with pytest.raises(InvalidInputError):
        engine.run(UNUSABLE[name]())


def test_a_refusal_leaves_the_engine_usable(engine):
    before = engine.run(image()).logit
    with pytest.raises(InvalidInputError):
        engine.run(image().astype(">f4"))
    assert engine.run(image()).logit == before


def test_huge_finite_values_are_an_image_too(engine):
    tensor = np.full((1, 1, SIZE, SIZE), np.float32(1e36))
    engine.run(tensor)  # their sum overflows; they are finite all the same


def test_it_reads_back_what_was_built(engine, request):
    kind = request.node.callspec.params["engine"]
    name, _, precision = kind.partition("-")
    if not precision:
        name, precision = "onnxruntime", "f32"
    pinned = EnginePlan(
        kind=name, device="CPU", precision=precision, streams=2, threads=1, latency_threads=0
    )
    check_readback(pinned, 1, engine.info, engine.readback)
    assert any(layer.endswith(("f32", "u8", "int8")) for layer in engine.census)
    assert engine.info.model_sha256.startswith("sha256:")
    assert engine.info.version


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_engine_says_so(kind):
    opened = open_kind(kind)
    opened.run(image())
    opened.close()
    opened.close()
    with pytest.raises(EngineFailedError):
        opened.run(image())


def test_both_runtimes_agree_in_f32():
    ort, vino = (open_kind(kind) for kind in ("onnxruntime-f32", "openvino-f32"))
    for phase in range(8):
        one, two = ort.run(image(phase)), vino.run(image(phase))
        for left, right in (
            (one.logit, two.logit),
            (one.features, two.features),
            (one.cam, two.cam),
        ):
            gap = np.abs(np.asarray(left) - np.asarray(right)).max()
            assert gap <= 1e-5 * np.abs(right).max()


@pytest.mark.parametrize("engine_name", ["onnxruntime", "openvino"])
def test_the_answer_does_not_depend_on_threads(engine_name):
    one, two = (
        RUNTIMES[engine_name](tiny_build(engine_name, "f32", threads=count)) for count in (1, 2)
    )
    for phase in range(5):
        assert one.run(image(phase)).logit == two.run(image(phase)).logit
