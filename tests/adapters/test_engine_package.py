"""Packages on disk: what was hashed is what is used, and nothing else is in the folder."""

import json
import os
from pathlib import Path

import pytest

from bedside_core.errors import InvalidPackageError
from bedside_edge.engine import package as package_module
from bedside_edge.engine.package import open_package
from support.fake_engine import TINY_IO
from support.tiny_package import known_answers, write_tiny_package


@pytest.fixture
def folder(tmp_path):
    return write_tiny_package(tmp_path / "package")


def flip(path, at=-1):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_whole_package_opens(folder):
    package = open_package(folder)
    assert package.label == "sample/1.0.0"
    assert package.digest.startswith("sha256:")
    assert package.familiar.mean.shape == (16,)
    assert package.familiar.distance(package.familiar.mean + 1) == pytest.approx(4.0)
    assert [case.name for case in package.golden.cases] == ["waves", "ripples"]
    assert package.spec.size == 32
    assert len(package.read("model.onnx")) == package.manifest.files["model.onnx"].size


def test_the_digest_names_every_file(folder):
    before = open_package(folder).digest
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["intended_use"] = "other tests"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_package(folder).digest != before


@pytest.mark.parametrize("name", ["model.onnx", "model.bin", "golden/waves.raw", "ood/chol.f32"])
def test_one_changed_bit_is_refused(folder, name):
    flip(folder / name)
    with pytest.raises(InvalidPackageError, match=name):
        open_package(folder)


@pytest.mark.parametrize(
    "name", ["model.onnx.data", "model.int8.data", "golden/more.raw", ".hidden"]
)
def test_a_stray_file_is_refused(folder, name):
    (folder / name).write_bytes(b"weights an engine might pick up")
    with pytest.raises(InvalidPackageError, match="does not list"):
        open_package(folder)


def test_a_missing_file_is_refused(folder):
    (folder / "model.bin").unlink()
    with pytest.raises(InvalidPackageError, match="lacks"):
        open_package(folder)


def test_a_folder_without_a_manifest_is_refused(folder, tmp_path):
    (folder / "manifest.json").unlink()
    with pytest.raises(InvalidPackageError, match=r"manifest\.json"):
        open_package(folder)
    with pytest.raises(InvalidPackageError):
        open_package(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_link_is_refused_even_to_the_right_bytes(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    with pytest.raises(InvalidPackageError):
        open_package(folder)


def test_a_linked_folder_is_refused(folder, tmp_path):
    (folder / "golden").rename(tmp_path / "golden")
    (folder / "golden").symlink_to(tmp_path / "golden")
    with pytest.raises(InvalidPackageError):
        open_package(folder)


def test_a_pipe_is_refused_and_never_waited_for(folder):
    (folder / "model.onnx").unlink()
    os.mkfifo(folder / "model.onnx")
    with pytest.raises(InvalidPackageError):
        open_package(folder)


def test_a_file_changed_after_opening_is_not_used(folder):
    package = open_package(folder)
    flip(folder / "model.onnx")
    with pytest.raises(InvalidPackageError, match=r"model\.onnx"):
        package.read("model.onnx")


def test_a_file_that_became_a_link_after_opening_is_not_used(folder, tmp_path):
    package = open_package(folder)
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(InvalidPackageError):
        package.read("model.onnx")


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/hostname", "golden/../model.onnx", "", "card.md"]
)
def test_only_listed_names_can_be_read(folder, name):
    with pytest.raises(InvalidPackageError, match="lists no"):
        open_package(folder).read(name)


def test_a_manifest_beyond_the_limit_is_not_parsed(folder, monkeypatch):
    monkeypatch.setattr(package_module, "_MANIFEST_LIMIT", 100)
    with pytest.raises(InvalidPackageError, match="larger"):
        open_package(folder)


def test_thousands_of_files_are_not_hashed(folder, monkeypatch):
    monkeypatch.setattr(package_module, "_FILES_LIMIT", 5)
    with pytest.raises(InvalidPackageError, match="at most"):
        open_package(folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 63, b"\0" * 68, b"\x00\x00\xc0\x7f" * 16, b"\x00\x00\x80\x7f" * 16],
    ids=["empty", "torn", "too many", "nan", "infinite"],
)
def test_outlier_statistics_must_be_finite_and_complete(tmp_path, data):
    folder = write_tiny_package(tmp_path, files={"ood/mean.f32": data})
    with pytest.raises(InvalidPackageError, match=r"ood/mean\.f32"):
        open_package(folder)


def test_outlier_statistics_must_be_of_the_models_features(tmp_path):
    io = TINY_IO.model_copy(
        update={"features": TINY_IO.features.model_copy(update={"shape": [1, 8]})}
    )
    with pytest.raises(InvalidPackageError, match="features"):
        open_package(write_tiny_package(tmp_path, io=io))


def test_golden_cases_must_be_as_many_as_the_manifest_says(tmp_path):
    folder = write_tiny_package(
        tmp_path, fields={"golden": {"path": "golden/cases.json", "cases": 3}}
    )
    with pytest.raises(InvalidPackageError, match="number of golden cases"):
        open_package(folder)


def test_a_golden_frame_without_a_digest_is_refused(tmp_path):
    cases = known_answers()
    cases["cases"][0]["frame"]["path"] = "golden/unlisted.raw"
    with pytest.raises(InvalidPackageError, match="unlisted"):
        open_package(write_tiny_package(tmp_path, golden=cases))


def test_no_descriptor_stays_open(folder):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    package = open_package(folder)
    package.read("model.onnx")
    (folder / "stray").write_bytes(b"x")
    for _ in range(20):
        with pytest.raises(InvalidPackageError):
            open_package(folder)
    assert descriptors() == before
