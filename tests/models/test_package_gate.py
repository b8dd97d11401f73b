"""A package is refused for the decisions its exports change, whatever their AUC."""

import shutil

import numpy as np
import pytest

from bedside_core.errors import EngineFailedError, ExportRefusedError, InvalidInputError
from bedside_core.findings import Calibration, Rule
from bedside_core.imaging import PipelineSpec, prepare
from bedside_models.decisions import Operating, parity
from bedside_models.metrics import auc
from bedside_models.package import EXPORTS, gate, judge, read_package
from bedside_models.phantom import _phantom, chest
from bedside_models.runtimes import open_runner

OPERATING = Operating(
    calibration=Calibration(), rule=Rule(threshold=0.5, low=0.4, high=0.6), alpha=0.1
)
INT8 = next(e for e in EXPORTS if e.key == "onnxruntime int8")
FLOAT = next(e for e in EXPORTS if e.key == "openvino f32")
TRAINED = np.linspace(-2, 2, 200)


def test_an_unchanged_export_passes():
    assert judge(FLOAT, TRAINED, TRAINED.copy(), OPERATING).changed == 0


def test_a_shift_keeps_every_auc_and_is_refused_for_its_decisions():
    shifted = TRAINED + 0.3
    labels = (np.arange(200) % 3 == 0).astype(int)
    assert auc(labels, shifted) == auc(labels, TRAINED)
    with pytest.raises(ExportRefusedError, match="decisions"):
        judge(INT8, TRAINED, shifted, OPERATING)


def test_one_changed_decision_in_200_is_the_limit_of_int8():
    near = int(np.argmin(np.abs(TRAINED)))
    one = TRAINED.copy()
    one[near] *= -1
    assert judge(INT8, TRAINED, one, OPERATING).changed == 1
    with pytest.raises(ExportRefusedError):
        judge(FLOAT, TRAINED, one, OPERATING)
    two = one.copy()
    two[0] *= -1
    with pytest.raises(ExportRefusedError):
        judge(INT8, TRAINED, two, OPERATING)


def test_an_answer_that_is_no_number_counts_as_changed():
    broken = TRAINED.copy()
    broken[0] = np.nan
    found = parity(TRAINED, broken, OPERATING)
    assert found.changed == 1
    assert np.isinf(found.largest_probability)


def test_missing_answers_are_not_a_pass():
    with pytest.raises(InvalidInputError):
        judge(FLOAT, TRAINED, TRAINED[:5], OPERATING)
    with pytest.raises(InvalidInputError):
        judge(FLOAT, TRAINED[:0], TRAINED[:0], OPERATING)


@pytest.fixture(scope="module")
def held_out(manifest):
    spec: PipelineSpec = manifest.pipeline.spec()
    frames = [
        _phantom(
            f"p{number}",
            255
            * chest(
                160,
                192,
                opacity=0.06 * (number % 9),
                side=1.0 if number % 2 else -1.0,
                rib_phase=0.2 * number,
                scale=0.8 + 0.03 * (number % 13),
            ),
            "|u1",
        )
        for number in range(40)
    ]
    return np.concatenate([prepare(f.frame.frame(f.data), spec).tensor for f in frames])


@pytest.fixture(scope="module")
def trained(shipped, held_out):
    return open_runner("onnxruntime", shipped / "model.onnx").run(held_out).logit


@pytest.fixture(scope="module")
def halfway(trained):
    """A rule with half of the drawn chests on either side."""
    middle = float(Calibration().probability(float(np.median(trained))))
    rule = Rule(threshold=middle, low=middle, high=middle)
    return Operating(calibration=Calibration(), rule=rule, alpha=0.1)


FLOATS = tuple(e for e in EXPORTS if e.precision == "f32")


def test_the_shipped_float_exports_pass_the_gate(shipped, held_out, trained, halfway):
    assert {p.changed for p in gate(shipped, held_out, trained, halfway, FLOATS).values()} == {0}


def test_a_damaged_export_is_refused(shipped, held_out, trained, halfway, tmp_path):
    for name in ("model.onnx", "model.xml", "model.bin"):
        shutil.copyfile(shipped / name, tmp_path / name)
    weights = np.frombuffer((tmp_path / "model.bin").read_bytes(), np.float32).copy()
    large = np.flatnonzero(np.isfinite(weights) & (np.abs(weights) > 1e-4))
    weights[large[: large.size // 3]] *= np.float32(1.5)
    (tmp_path / "model.bin").write_bytes(weights.tobytes())
    with pytest.raises(ExportRefusedError, match=r"model\.xml"):
        gate(tmp_path, held_out, trained, halfway, FLOATS)


def test_an_export_that_does_not_load_is_refused(shipped, held_out, trained, halfway, tmp_path):
    (tmp_path / "model.onnx").write_bytes((shipped / "model.onnx").read_bytes()[:5000])
    with pytest.raises(EngineFailedError):
        gate(tmp_path, held_out, trained, halfway, FLOATS)


def test_a_folder_without_a_manifest_is_no_package(tmp_path):
    with pytest.raises(InvalidInputError):
        read_package(tmp_path)
