"""The training side itself: needs the `train` extra, and says so when it is absent."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: `make train-env`")
pytest.importorskip("onnx", reason="needs the train extra: `make train-env`")

from click.testing import CliRunner  # noqa: E402

from bedside_core.errors import ExportRefusedError, InvalidInputError  # noqa: E402
from bedside_models.augment import Strength, views  # noqa: E402
from bedside_models.checkpoint import load_checkpoint, of_network, save_checkpoint  # noqa: E402
from bedside_models.cli import cli  # noqa: E402
from bedside_models.data import load_dataset  # noqa: E402
from bedside_models.export import export  # noqa: E402
from bedside_models.graphs import refuse_stray_weights  # noqa: E402
from bedside_models.network import Architecture, Network, multiply_adds  # noqa: E402
from bedside_models.recipe import DEFAULT_ARCHITECTURE, Recipe  # noqa: E402
from bedside_models.runtimes import open_runner  # noqa: E402
from bedside_models.train import load_material, train  # noqa: E402

TINY = Architecture(stem=4, stages=((8,), (8,)), input_size=48)


@pytest.fixture
def checkpoint():
    torch.manual_seed(3)
    return of_network(Network(TINY).eval(), {"recipe": {}})


def test_the_logit_is_the_mean_of_the_map(checkpoint):
    image = torch.linspace(-2, 2, 48 * 48).reshape(1, 1, 48, 48)
    with torch.no_grad():
        logit, features, cam = checkpoint.network()(image)
    assert features.shape == (1, TINY.features)
    torch.testing.assert_close(cam.mean(dim=(1, 2)), logit[:, 0])


def test_a_checkpoint_survives_the_disk_and_keeps_its_digest(checkpoint, tmp_path):
    save_checkpoint(checkpoint, tmp_path / "c.npz")
    read = load_checkpoint(tmp_path / "c.npz")
    assert read.digest() == checkpoint.digest()
    assert read.architecture == TINY


def test_a_pickle_in_a_checkpoint_is_refused(tmp_path):
    np.savez(tmp_path / "c.npz", description=np.array([{"a": 1}], object))
    with pytest.raises(InvalidInputError):
        load_checkpoint(tmp_path / "c.npz")


def test_weights_of_another_shape_are_refused(checkpoint, tmp_path):
    other = Architecture(stem=4, stages=((8,), (16,)), input_size=48)
    mixed = of_network(checkpoint.network(), {})
    wrong = type(mixed)(architecture=other, arrays=mixed.arrays, training={})
    with pytest.raises(InvalidInputError):
        wrong.network()


def test_both_exports_repeat_the_network(checkpoint, tmp_path):
    paths = export(checkpoint, tmp_path)
    assert sorted(p.name for p in paths) == ["model.bin", "model.onnx", "model.xml"]
    image = np.linspace(-2, 2, 48 * 48, dtype=np.float32).reshape(1, 1, 48, 48)
    with torch.no_grad():
        logit = checkpoint.network()(torch.from_numpy(image))[0].numpy()[:, 0]
    for engine, name in (("onnxruntime", "model.onnx"), ("openvino", "model.xml")):
        answers = open_runner(engine, tmp_path / name).run(image)
        np.testing.assert_allclose(answers.logit, logit, atol=1e-5)
        np.testing.assert_allclose(answers.cam.mean(axis=(1, 2)), logit, atol=1e-5)


def test_the_same_checkpoint_exports_to_the_same_bytes(checkpoint, tmp_path):
    for name in ("a", "b"):
        export(checkpoint, tmp_path / name)
    for name in ("model.onnx", "model.bin"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_weights_in_a_second_file_are_refused(checkpoint, tmp_path):
    import onnx

    export(checkpoint, tmp_path)
    model = onnx.load(str(tmp_path / "model.onnx"))
    onnx.save_model(
        model,
        str(tmp_path / "split.onnx"),
        save_as_external_data=True,
        size_threshold=0,
        location="weights.bin",
    )
    with pytest.raises(ExportRefusedError):
        refuse_stray_weights(tmp_path / "split.onnx")


def test_the_default_network_fits_its_budget():
    assert DEFAULT_ARCHITECTURE.input_size >= 320
    assert multiply_adds(DEFAULT_ARCHITECTURE) < 1e9
    assert sum(p.numel() for p in Network(DEFAULT_ARCHITECTURE).parameters()) < 3_000_000


def test_views_are_normalised_inside_and_zero_outside():
    canvas = torch.zeros(6, 64, 64, dtype=torch.uint8)
    canvas[:, 12:52] = (torch.arange(64) * 3).to(torch.uint8)
    extent = torch.tensor([[40, 64]] * 6)
    generator = torch.Generator().manual_seed(0)
    made = views(canvas, extent, 48, Strength(), generator)
    assert made.shape == (6, 1, 48, 48)
    for view in made:
        inside = view[view != 0]
        assert abs(float(inside.mean())) < 1e-3
        assert abs(float(inside.std(unbiased=False)) - 1) < 1e-2
        assert float((view == 0).float().mean()) > 0.1  # the letterbox stays empty
    again = views(canvas, extent, 48, Strength(), torch.Generator().manual_seed(0))
    assert torch.equal(made, again)


def test_the_test_split_is_never_read_by_training(collection, tmp_path):
    dataset = load_dataset(collection)
    for index in dataset.indices("test").tolist():
        (tmp_path / dataset.rows[index].file).touch()
    unread = {dataset.rows[i].file for i in dataset.indices("test").tolist()}
    hidden = type(dataset)(root=tmp_path / "copy", rows=dataset.rows, digest=dataset.digest)
    (hidden.root / "images").mkdir(parents=True)
    for row in dataset.rows:
        if row.file not in unread:
            (hidden.root / "images" / row.file).symlink_to(collection / "images" / row.file)
    material = load_material(hidden, Recipe(architecture=TINY, batch=8))
    assert len(material.labels) == dataset.indices("train").size


@pytest.mark.slow
def test_training_repeats_from_its_seed(collection, tmp_path):
    recipe = Recipe(
        architecture=TINY, teachers=1, teacher_size=32, teacher_epochs=1, student_epochs=1, batch=8
    )
    dataset = load_dataset(collection)
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        digests.add(train(dataset, recipe, tmp_path / name, lambda *_: None).digest())
    assert len(digests) == 1
    lines = [
        json.loads(line) for line in (tmp_path / "a" / "training.jsonl").read_text().splitlines()
    ]
    assert [line["stage"] for line in lines] == ["teacher 1", "student"]
    assert "within_strata" in lines[-1]


@pytest.mark.slow
def test_a_whole_run_makes_a_package_or_refuses_it_for_its_decisions(collection, tmp_path):
    work, target = tmp_path / "work", tmp_path / "drawn" / "0.0.1"
    data = ["--data", str(collection)]
    steps = [
        [
            *("train", *data, "--out", str(work), "--teachers", "1"),
            *("--teacher-epochs", "1", "--epochs", "2", "--json"),
        ],
        ["export", str(work), "--json"],
        ["quantise", str(work), *data, "--images", "16", "--openvino", "qdq", "--json"],
        ["evaluate", str(work), *data, "--final", "--draws", "100", "--json"],
    ]
    for step in steps:
        ran = CliRunner().invoke(cli, step, catch_exceptions=False)
        assert ran.exit_code == 0, ran.output
        json.loads(ran.stdout)
    package = ["package", str(work), *data, "--target", str(target), "--name", "drawn", "--json"]
    ran = CliRunner().invoke(cli, package)
    if ran.exception is None:
        assert json.loads(ran.stdout)["version"] == "0.0.1"
        assert CliRunner().invoke(cli, ["inspect", str(target)]).exit_code == 0
    else:  # a network of two epochs has logits so close that int8 may well flip some
        assert isinstance(ran.exception, ExportRefusedError)
        assert not target.exists()
