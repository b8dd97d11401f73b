"""The package in the repository is whole, honest and answers as its golden cases say."""

import shutil

import numpy as np
import pytest

from bedside_core.errors import GoldenMismatchError, InvalidPackageError
from bedside_core.findings import Familiar
from bedside_core.golden import check_logit, check_tensor, parse_golden
from bedside_core.imaging import prepare
from bedside_models.package import open_variant, read_package
from bedside_models.phantom import golden_phantoms

VARIANTS = [(e, p) for e in ("onnxruntime", "openvino") for p in ("f32", "int8")]


@pytest.fixture(scope="module")
def golden(shipped, manifest):
    return parse_golden((shipped / manifest.golden.path).read_bytes(), manifest.files)


@pytest.fixture(scope="module")
def prepared(shipped, manifest, golden):
    frames = [case.frame.frame((shipped / case.frame.path).read_bytes()) for case in golden.cases]
    return [prepare(frame, manifest.pipeline.spec()) for frame in frames]


@pytest.fixture(scope="module")
def answers(shipped, manifest, prepared):
    images = np.concatenate([p.tensor for p in prepared])
    return {v: open_variant(shipped, manifest, *v).run(images) for v in VARIANTS}


def test_every_engine_and_precision_is_there(manifest):
    assert {(v.engine, v.precision) for v in manifest.variants} == set(VARIANTS)
    assert manifest.not_a_medical_device
    assert min(manifest.io.input.shape[2:]) >= 320


def test_the_pixel_pipeline_makes_the_golden_tensors(golden, prepared):
    for case, made in zip(golden.cases, prepared, strict=True):
        check_tensor(case, made.tensor)


def test_a_tensor_of_another_pipeline_is_noticed(golden, prepared):
    case, made = golden.cases[0], prepared[0]
    with pytest.raises(GoldenMismatchError):
        check_tensor(case, np.ascontiguousarray(made.tensor[:, :, ::-1]))
    with pytest.raises(GoldenMismatchError):
        check_tensor(case, np.full_like(made.tensor, np.nan))


@pytest.mark.parametrize(("engine", "precision"), VARIANTS)
def test_every_export_repeats_its_golden_answers(manifest, golden, answers, engine, precision):
    tolerance = manifest.variant(engine, precision).tolerance.golden_logit
    for case, logit in zip(golden.cases, answers[engine, precision].logit, strict=True):
        check_logit(case, engine, precision, float(logit), tolerance)
        with pytest.raises(GoldenMismatchError):
            check_logit(case, engine, precision, float(logit) + 3 * tolerance, tolerance)


def test_golden_answers_state_the_decision_of_the_manifest(manifest, golden):
    calibration, rule = manifest.calibration.value(), manifest.decision.value()
    for case in golden.cases:
        for answer in case.answers:
            probability = calibration.probability(answer.logit)
            assert answer.probability == pytest.approx(probability, abs=1e-5)
            assert answer.decision == rule.decide(answer.probability).value


@pytest.mark.parametrize(("engine", "precision"), VARIANTS)
def test_the_logit_is_the_mean_of_the_map(answers, engine, precision):
    found = answers[engine, precision]
    assert found.cam.std() > 0.01
    np.testing.assert_allclose(found.cam.mean(axis=(1, 2)), found.logit, atol=1e-4)


def test_outputs_have_the_shapes_of_the_contract(manifest, answers):
    for found in answers.values():
        assert list(found.features.shape[1:]) == manifest.io.features.shape[1:]
        assert list(found.cam.shape[1:]) == manifest.io.cam.shape[1:]


def test_float_exports_agree_between_the_engines(answers):
    first, second = answers["onnxruntime", "f32"], answers["openvino", "f32"]
    np.testing.assert_allclose(first.logit, second.logit, atol=1e-3)
    np.testing.assert_allclose(first.features, second.features, atol=1e-3)


def test_golden_frames_are_drawn_from_formulas(shipped, golden):
    drawn = {p.frame.path: p.data for p in golden_phantoms()}
    assert set(drawn) == {case.frame.path for case in golden.cases}
    for path, data in drawn.items():
        dtype = next(c.frame.dtype for c in golden.cases if c.frame.path == path)
        stored = np.frombuffer((shipped / path).read_bytes(), dtype).astype(int)
        assert np.abs(stored - np.frombuffer(data, dtype).astype(int)).max() <= 1  # another libm


def test_the_outlier_files_fit_the_features(shipped, manifest, answers):
    entry = manifest.outlier
    mean = np.frombuffer((shipped / entry.mean).read_bytes(), "<f4")
    chol = np.frombuffer((shipped / entry.precision_chol).read_bytes(), "<f4")
    chol = chol.reshape(entry.features, entry.features)
    assert np.array_equal(chol, np.tril(chol))
    assert (np.diag(chol) > 0).all()
    familiar = Familiar(
        mean=mean, precision_chol=chol, cutoff=entry.cutoff, intensity=entry.intensity
    )
    assert familiar.distance(mean) == pytest.approx(0, abs=1e-3)
    assert familiar.distance(mean * 0 + np.float32(1e3)) > entry.cutoff
    assert np.isinf(familiar.distance(mean * np.float32(np.nan)))


def test_a_changed_byte_is_refused(shipped, tmp_path):
    copy = tmp_path / "1.0.0"
    shutil.copytree(shipped, copy)
    read_package(copy)
    weights = bytearray((copy / "model.bin").read_bytes())
    weights[1000] ^= 1
    (copy / "model.bin").write_bytes(weights)
    with pytest.raises(InvalidPackageError, match=r"model\.bin"):
        read_package(copy)


def test_a_stray_weight_file_is_refused(shipped, tmp_path):
    copy = tmp_path / "1.0.0"
    shutil.copytree(shipped, copy)
    (copy / "model.onnx.data").write_bytes(b"weights nobody signed")
    with pytest.raises(InvalidPackageError, match=r"model\.onnx\.data"):
        read_package(copy)


def test_the_card_says_what_it_must(shipped):
    card = (shipped / "card.md").read_text(encoding="utf-8")
    for words in (
        "Not a medical device",
        "https://nihcc.app.box.com/v/ChestXray-NIHCC",
        "https://doi.org/10.1109/CVPR.2017.369",
        "NIH Clinical Center is the data provider",
        "AP/PA view confounds",
        "Equipment confounds",
        "No image and no row of the table",
        "commonest size, AP",
    ):
        assert words in card


@pytest.mark.slow
def test_int8_changes_at_most_one_decision_in_200_on_held_out_images(shipped, manifest, cxr_folder):
    from bedside_models import data
    from bedside_models.decisions import Operating, parity

    dataset = data.load_dataset(cxr_folder)
    images, _ = data.tensors(dataset, dataset.indices("val", "test"), manifest.pipeline.spec())
    operating = Operating(
        calibration=manifest.calibration.value(), rule=manifest.decision.value(), alpha=0.1
    )
    logits = {v: open_variant(shipped, manifest, *v).run(images).logit for v in VARIANTS}
    reference = logits["onnxruntime", "f32"]
    for variant in VARIANTS:
        found = parity(reference, logits[variant], operating)
        allowed = manifest.variant(*variant).tolerance.changed_decisions_per_200
        assert found.changed_per_200 <= allowed
