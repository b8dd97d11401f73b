"""What each runtime does behind our back, and that the adapters see it."""

import subprocess
import sys

import numpy as np
import pytest

from bedside_core.errors import EngineFailedError, InvalidPackageError, ProfileMismatchError
from bedside_core.hardware.matching import EnginePlan, check_readback
from bedside_core.hardware.profile import PROPERTIES
from bedside_core.manifest import IoContract
from bedside_edge.engine import onnx as onnx_adapter
from bedside_edge.engine import openvino as openvino_adapter
from bedside_edge.engine.onnx import OnnxEngine
from bedside_edge.engine.openvino import OpenvinoEngine
from bedside_edge.engine.tensor import precision_of
from support.fake_engine import TINY_IO
from support.tiny_onnx import SIZE, tiny_network
from support.tiny_package import tiny_build, to_ir

openvino = openvino_adapter.openvino  # imported there, after the block against calling home
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def pinned(engine, precision):
    return EnginePlan(
        kind=engine, device="CPU", precision=precision, streams=1, threads=1, latency_threads=0
    )


def test_importing_openvino_calls_nobody():
    program = (
        "import sys, bedside_edge.engine.openvino\n"
        "from openvino.tools.ovc import telemetry_stub, telemetry_utils\n"
        "assert telemetry_utils.tm is telemetry_stub\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16, OpenVINO cannot stray into it")
def test_openvino_left_to_its_default_is_refused_where_f32_is_pinned(monkeypatch):
    real = openvino.Core.compile_model

    def forget_the_hint(core, model, device, properties):
        return real(core, model, device, properties | {"INFERENCE_PRECISION_HINT": "bf16"})

    monkeypatch.setattr(openvino.Core, "compile_model", forget_the_hint)
    engine = OpenvinoEngine(tiny_build("openvino", "f32"))
    assert engine.info.precision.startswith("bf16")
    with pytest.raises(ProfileMismatchError, match=r"precision bf16 .* instead of f32"):
        check_readback(pinned("openvino", "f32"), 1, engine.info, {})


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16")
def test_bf16_runs_only_where_it_is_pinned():
    engine = OpenvinoEngine(tiny_build("openvino", "f32", precision="bf16"))
    check_readback(pinned("openvino", "bf16"), 1, engine.info, {})


@pytest.mark.parametrize("engine", [OnnxEngine, OpenvinoEngine])
def test_a_float_model_sold_as_int8_is_refused(engine):
    name = "onnxruntime" if engine is OnnxEngine else "openvino"
    opened = engine(tiny_build(name, "f32", precision="int8"))
    with pytest.raises(ProfileMismatchError, match="precision f32 instead of int8"):
        check_readback(pinned(name, "int8"), 1, opened.info, {})


@pytest.mark.parametrize("engine", [OnnxEngine, OpenvinoEngine])
def test_an_int8_model_sold_as_f32_is_refused(engine):
    name = "onnxruntime" if engine is OnnxEngine else "openvino"
    opened = engine(tiny_build(name, "int8", precision="f32"))
    with pytest.raises(ProfileMismatchError, match="precision int8 instead of f32"):
        check_readback(pinned(name, "f32"), 1, opened.info, {})


def test_one_half_precise_layer_names_the_whole_model():
    assert precision_of(["f32", "f32"], ["f32", "bf16", "other"]) == "bf16"
    assert precision_of(["int8", "f32"], ["int8", "f16"]) == "f16"
    assert precision_of(["int8", "f32"], ["int8", "f32"]) == "int8"
    assert precision_of(["f32"], ["f32", "int8"]) == "f32"
    assert precision_of([], ["f32"]) == "unknown"
    assert precision_of(["f32", "other"], ["f32", "other"]) == "unknown"


def test_more_threads_than_cores_are_read_back_as_they_are():
    engine = OpenvinoEngine(tiny_build("openvino", "f32", threads=64))
    if engine.info.threads == 64:
        pytest.skip("this machine really has 64 cores")
    with pytest.raises(ProfileMismatchError, match="instead of 64"):
        check_readback(pinned("openvino", "f32"), 64, engine.info, {})


@pytest.mark.parametrize("device", ["CUDA", "TensorRT", "VitisAI", "Hailo"])
def test_a_provider_that_is_not_there_is_refused_instead_of_the_cpu(device):
    with pytest.raises(EngineFailedError, match="this onnxruntime has no"):
        OnnxEngine(tiny_build("onnxruntime", "f32", device=device))


def test_onnxruntime_asked_for_cuda_alone_computes_on_the_cpu_so_the_check_must_come_first():
    data = tiny_build("onnxruntime", "f32").model
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"):
        session = onnx_adapter.onnxruntime.InferenceSession(
            data, providers=["CUDAExecutionProvider"]
        )
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_a_provider_that_falls_back_to_the_cpu_is_refused(monkeypatch):
    # The second line of defence: a build that lists CUDA on a machine where it cannot start.
    runtime = onnx_adapter.onnxruntime
    listed = ["CUDAExecutionProvider", *runtime.get_available_providers()]
    monkeypatch.setattr(runtime, "get_available_providers", lambda: listed)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(EngineFailedError):
        OnnxEngine(tiny_build("onnxruntime", "f32", device="CUDA"))


@pytest.mark.parametrize("device", ["AUTO", "HETERO:CPU", "MULTI:CPU"])
def test_a_device_that_picks_for_itself_cannot_be_read_back_and_is_refused(device):
    # The profile's schema refuses these words before; this is the second line.
    with pytest.raises(EngineFailedError):
        OpenvinoEngine(tiny_build("openvino", "f32", device=device))


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_openvino_without_the_device_refuses(device):
    if device in openvino.Core().available_devices:
        pytest.skip(f"this machine has {device}")
    with pytest.raises(EngineFailedError, match="cannot compile"):
        OpenvinoEngine(tiny_build("openvino", "f32", device=device))


@pytest.mark.skipif(not HAS_BF16, reason="this CPU has no bf16, f16 then becomes f32")
def test_f16_on_the_cpu_is_compiled_as_bf16_and_refused():
    engine = OpenvinoEngine(tiny_build("openvino", "f32", precision="f16"))
    assert engine.info.precision.startswith("bf16")
    with pytest.raises(ProfileMismatchError, match=r"precision bf16 .* instead of f16"):
        check_readback(pinned("openvino", "f16"), 1, engine.info, {})


def test_accuracy_mode_reads_back_as_nothing_pinned():
    # Why EXECUTION_MODE_HINT stands in no allow-list: the precision it leads to is not told.
    core = openvino.Core()
    build = tiny_build("openvino", "f32")
    model = core.read_model(build.model, build.companions[0])
    compiled = core.compile_model(model, "CPU", {"EXECUTION_MODE_HINT": "ACCURACY"})
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    assert hint == "dynamic"


@pytest.mark.parametrize("key", ["session.no_such_key", "no_such_option"])
def test_onnxruntime_takes_words_it_does_not_know_so_the_list_is_ours(key):
    engine = OnnxEngine(tiny_build("onnxruntime", "f32", properties={key: "1"}))
    assert engine.info.device == "CPU"
    assert not any(key in allowed for allowed in PROPERTIES.values())


def test_properties_are_set_and_read_back():
    build = tiny_build(
        "openvino",
        "f32",
        properties={"PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False},
        readback=(
            "PERFORMANCE_HINT",
            "ENABLE_CPU_PINNING",
            "EXECUTION_DEVICES",
            "INFERENCE_PRECISION_HINT",
            "LOADED_FROM_CACHE",
        ),
    )
    assert OpenvinoEngine(build).readback == {
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": "false",
        "EXECUTION_DEVICES": "CPU",
        "INFERENCE_PRECISION_HINT": "f32",
        "LOADED_FROM_CACHE": "false",
    }
    spinning = {"session.intra_op.allow_spinning": "1"}
    keys = ("session.intra_op.allow_spinning", "session.set_denormal_as_zero", "providers")
    told = OnnxEngine(tiny_build("onnxruntime", "f32", properties=spinning, readback=keys)).readback
    assert told == {
        "session.intra_op.allow_spinning": "1",
        "providers": "CPUExecutionProvider",
    }


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_dynamic_batch_is_refused(name):
    model = tiny_network(batch="n")
    change = {"model": model}
    if name == "openvino":
        xml, weights = to_ir(model)
        change = {"model": xml, "companions": (weights,)}
    engine = OnnxEngine if name == "onnxruntime" else OpenvinoEngine
    with pytest.raises(InvalidPackageError, match="manifest"):
        engine(tiny_build(name, "f32", **change))


@pytest.mark.parametrize("part", ["input", "logit", "features", "cam"])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_names_and_shapes_must_be_the_manifests(name, part):
    fields = TINY_IO.model_dump()
    fields[part]["name"] = "other"
    engine = OnnxEngine if name == "onnxruntime" else OpenvinoEngine
    with pytest.raises(InvalidPackageError, match="manifest"):
        engine(tiny_build(name, "f32", io=IoContract.model_validate(fields)))


@pytest.mark.parametrize("data", [b"", b"not a model", tiny_network()[:-40]])
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_bytes_that_are_no_model_end_in_one_error(name, data):
    engine = OnnxEngine if name == "onnxruntime" else OpenvinoEngine
    with pytest.raises((EngineFailedError, InvalidPackageError)):
        engine(tiny_build(name, "f32", model=data))


def test_weights_of_the_wrong_length_are_refused():
    with pytest.raises(EngineFailedError):
        OpenvinoEngine(tiny_build("openvino", "f32", companions=(b"\0" * 16,)))


def test_companions_are_one_for_openvino_and_none_for_onnxruntime():
    with pytest.raises(InvalidPackageError):
        OnnxEngine(tiny_build("onnxruntime", "f32", companions=(b"x",)))
    with pytest.raises(InvalidPackageError):
        OpenvinoEngine(tiny_build("openvino", "f32", companions=()))


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_answer_that_is_no_number_is_a_failure_not_a_result(name):
    model = tiny_network(divide=True)
    change = {"model": model}
    if name == "openvino":
        xml, weights = to_ir(model)
        change = {"model": xml, "companions": (weights,)}
    engine = OnnxEngine if name == "onnxruntime" else OpenvinoEngine
    with pytest.raises(EngineFailedError, match="not a number"):
        engine(tiny_build(name, "f32", **change)).run(np.ones((1, 1, SIZE, SIZE), np.float32))


def test_onnxruntime_computes_nonsense_from_big_endian_so_the_check_must_come_first():
    engine = OnnxEngine(tiny_build("onnxruntime", "f32"))
    tensor = np.ones((1, 1, SIZE, SIZE), np.float32)
    right = engine.run(tensor).logit
    raw = engine._session.run(["logit"], {"image": tensor.astype(">f4")})[0]
    assert float(raw[0, 0]) != pytest.approx(right, rel=1e-3)


def test_swapped_weights_of_equal_size_change_the_answer():
    tensor = np.ones((1, 1, SIZE, SIZE), np.float32)
    first = OpenvinoEngine(tiny_build("openvino", "f32")).run(tensor).logit
    xml, weights = to_ir(tiny_network(scale=0.25))
    assert len(weights) == len(tiny_build("openvino", "f32").companions[0])
    second = OpenvinoEngine(tiny_build("openvino", "f32", model=xml, companions=(weights,)))
    assert second.run(tensor).logit != first
    assert second.info.model_sha256 != tiny_build("openvino", "f32").digest()
