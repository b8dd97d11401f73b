"""A joint head becomes a package version: in both graphs, tested by the box, or not at all."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from bedside_core.errors import ExportRefusedError, InvalidInputError
from bedside_core.findings import Calibration, Rule
from bedside_core.imaging import prepare
from bedside_core.trained_head import HeadRound, TrainedHead
from bedside_edge.engine.package import open_package
from bedside_models.cli import cli
from bedside_models.data import load_dataset, tensors
from bedside_models.package import read_package
from bedside_models.phantom import golden_phantoms
from bedside_models.rehead import in_log_odds, package_digest, rehead, set_head
from bedside_models.rehead_figures import Figures
from bedside_models.runtimes import open_runner

pytest.importorskip("onnx", reason="needs the train extra: `make train-env`")

onnx = pytest.importorskip("onnx", reason="the training side is not installed: make train-env")

ROUND = HeadRound(
    round="train-1",
    manifest="ab" * 32,
    record="cd" * 32,
    boxes=5,
    organisations=4,
    sigma=46_000.0,
    rho=0.125,
    epsilon=2.25,
    delta=1e-6,
)


@pytest.fixture(scope="module")
def images(manifest):
    frames = [one.frame.frame(one.data) for one in golden_phantoms()]
    return np.concatenate([prepare(one, manifest.pipeline.spec()).tensor for one in frames])


@pytest.fixture(scope="module")
def head(shipped, images):
    """A head that tells the drawn chests apart in its own way."""
    features = open_runner("onnxruntime", shipped / "model.onnx").run(images).features
    weights = np.sin(np.arange(features.shape[1])) * 0.1
    return TrainedHead(
        model=package_digest(shipped),
        finding="233604007",
        weights=tuple(weights.tolist()),
        offset=0.125,
        calibration=Calibration(scale=4.0, offset=-1.0),
        rule=Rule(threshold=0.5, low=0.4, high=0.6),
        chosen_by="From the sums of the round",
        patients=431.0,
        positives=200.0,
        ridge=12.5,
        rounds=(ROUND,),
    )


@pytest.fixture(scope="module")
def made(shipped, head, tmp_path_factory):
    """The new version, made by the command as a data scientist makes it."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "head.json").write_bytes(head.document())
    target = folder / "1.1.0"
    words = ["head", str(shipped), str(folder / "head.json"), "-o", str(target), "--json"]
    ran = CliRunner().invoke(cli, words)
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["digest"] == package_digest(target)
    return target


def test_every_export_says_what_the_head_says_of_the_same_features(made, shipped, head, images):
    features = open_runner("onnxruntime", shipped / "model.onnx").run(images).features
    wanted = 4 * (features.astype(float) @ np.array(head.weights) + head.offset) - 1
    for engine, path in (("onnxruntime", "model.onnx"), ("openvino", "model.xml")):
        answers = open_runner(engine, made / path).run(images)
        assert np.abs(answers.logit - wanted).max() < 1e-3
        assert np.abs(answers.cam.mean(axis=(1, 2)) - wanted).max() < 1e-3
        assert np.abs(answers.features - features).max() < 1e-3


def test_a_box_opens_it_and_its_golden_cases_are_the_new_head_s(made, shipped):
    package, before = open_package(made), open_package(shipped)
    assert (package.manifest.version, package.manifest.release) == ("1.1.0", 2)
    assert {one.precision for one in package.manifest.variants} == {"f32"}
    assert package.spec == before.spec
    assert (package.familiar.mean == before.familiar.mean).all()
    answers, old = package.golden.cases[0].answers[0], before.golden.cases[0].answers[0]
    assert answers.logit != old.logit


def test_card_and_evaluation_tell_where_it_comes_from_and_what_is_missing(made):
    card, held = (made / "card.md").read_text(), json.loads((made / "evaluation.json").read_text())
    assert "| train-1 | 4 | 5 |" in card
    assert "2.250 at 1e-06" in card
    assert "None of its own" in card
    assert "onnxruntime int8 is left out" in card
    assert held["figures"] is None
    assert held["lineage"]["rounds"][0]["record"] == "cd" * 32
    assert (made / "lineage" / "base-card.md").is_file()


def test_log_odds_change_no_answer(head):
    scaled = in_log_odds(head)
    for score in (-1.0, 0.0, 0.4):
        before = head.calibration.probability(score)
        after = scaled.calibration.probability(4 * score - 1)
        assert before == pytest.approx(after)


@pytest.mark.parametrize(
    "changes", [{"model": "00" * 32}, {"finding": "nodule"}, {"weights": (1.0, 2.0)}]
)
def test_another_package_s_head_is_refused_and_nothing_is_written(shipped, head, tmp_path, changes):
    with pytest.raises(ExportRefusedError):
        rehead(shipped, replace(head, **changes), tmp_path / "1.1.0")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["1.0.0", "0.9.9", "new", "1.1"])
def test_a_version_that_does_not_follow_is_refused(shipped, head, tmp_path, name):
    with pytest.raises(InvalidInputError, match="version"):
        rehead(shipped, head, tmp_path / name)


def test_a_graph_without_a_replaceable_head_is_refused(shipped, head, tmp_path):
    model = onnx.load(str(shipped / "model.onnx"))
    last = next(node for node in model.graph.node if "logit" in node.output)
    last.output[0] = "inner"
    model.graph.node.append(onnx.helper.make_node("Neg", ["inner"], ["logit"]))
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(ExportRefusedError, match="replaced"):
        set_head(tmp_path / "m.onnx", np.array(head.weights), 0.0)


@pytest.mark.slow
def test_with_images_int8_is_made_again_and_a_worse_head_is_refused(
    shipped, head, collection, tmp_path
):
    """On drawn chests: a head that was fitted to them passes, its opposite after it does not."""
    manifest, data = read_package(shipped), load_dataset(collection)
    chests, _ = tensors(data, data.indices("train", "val"), manifest.pipeline.spec())
    x = open_runner("onnxruntime", shipped / "model.onnx").run(chests).features.astype(float)
    centred, y = x - x.mean(axis=0), data.labels()[data.indices("train", "val")] - 0.5
    weights = 40 * np.linalg.solve(centred.T @ centred + np.eye(x.shape[1]), centred.T @ y)
    offset = -float(x.mean(axis=0) @ weights)
    good = replace(head, weights=tuple(weights.tolist()), offset=offset, calibration=Calibration())
    figures = Figures(dataset=data, spec=manifest.pipeline.spec(), draws=100)
    written = rehead(shipped, good, tmp_path / "1.1.0", figures)
    told = json.loads((tmp_path / "1.1.0" / "evaluation.json").read_text())
    kept = {f"{one.engine} {one.precision}" for one in written.variants}
    assert {"onnxruntime f32", "openvino f32"} <= kept
    assert kept | set(told["left_out"]) >= {"onnxruntime int8", "openvino int8"}
    found = told["figures"]["val"]["all"]
    assert found["auc"][0] > 0.9
    against = replace(
        good,
        model=package_digest(tmp_path / "1.1.0"),
        weights=tuple(-one for one in good.weights),
    )
    with pytest.raises(ExportRefusedError, match="worse"):
        rehead(tmp_path / "1.1.0", against, tmp_path / "1.2.0", figures)
    assert not (tmp_path / "1.2.0").exists()
