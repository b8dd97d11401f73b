"""Manifests: consistent in themselves, exact about their files, one error for everything else."""

import copy
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidPackageError
from bedside_core.manifest import check_files, parse_manifest
from support.sample_manifest import ZERO, manifest_fields


def parse(fields):
    return parse_manifest(json.dumps(fields).encode())


def changed(path, value):
    """Return the sample's fields with one value set; dots lead to it, `None` removes it."""
    fields = copy.deepcopy(manifest_fields())
    *way, last = path.split(".")
    here = fields
    for step in way:
        here = here[int(step)] if isinstance(here, list) else here[step]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return fields


def test_the_sample_is_whole():
    manifest = parse(manifest_fields())
    assert manifest.variant("onnxruntime", "f32").path == "model.onnx"
    assert manifest.decision.value().threshold == 0.5
    assert manifest.calibration.value().probability(0.0) == 0.5


@pytest.mark.parametrize("key", sorted(manifest_fields()))
def test_every_part_is_needed(key):
    with pytest.raises(InvalidPackageError, match=key):
        parse(changed(key, None))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", "bedside-model/2"),
        ("name", "Sample"),
        ("name", "../sample"),
        ("version", "1.0"),
        ("version", "1.0.0-rc1"),
        ("release", 0),
        ("release", True),
        ("release", "1"),
        ("not_a_medical_device", False),
        ("surprise", 1),
        ("io.input.shape", [1, 1, 32, 64]),
        ("io.input.shape", [1, 3, 32, 32]),
        ("io.input.shape", [-1, 1, 32, 32]),
        ("io.input.shape", []),
        ("io.input.datatype", "FP16"),
        ("pipeline.size", 33),
        ("pipeline.size", 4),
        ("pipeline.revision", 2),
        ("pipeline.digest", ZERO),
        ("pipeline.low_percentile", 100.0),
        ("calibration.scale", 0.0),
        ("calibration.scale", -1.0),
        ("calibration.scale", math.nan),
        ("calibration.offset", math.inf),
        ("decision.low", 0.55),
        ("decision.high", 1.5),
        ("decision.threshold", math.nan),
        ("accepts.modalities", []),
        ("accepts.minimum_pixels", 1),
        ("outlier.cutoff", 0.0),
        ("outlier.cutoff", math.inf),
        ("outlier.features", 0),
        ("outlier.mean", "elsewhere.f32"),
        ("outlier.intensity", {"contrast": [0.0, 1.0]}),
        ("outlier.intensity", {"mean": [1.0, 0.0]}),
        ("outlier.intensity", {"mean": [0.0, math.inf]}),
        ("outlier.intensity", {"mean": [0.0]}),
        ("golden.cases", 0),
        ("golden.path", "elsewhere.json"),
        ("variants", []),
        ("variants.0.engine", "tensorrt"),
        ("variants.0.precision", "f64"),
        ("variants.0.path", "elsewhere.onnx"),
        ("variants.0.companions", ["elsewhere.bin"]),
        ("variants.0.tolerance.golden_logit", -1.0),
        ("variants.0.tolerance.golden_logit", math.inf),
        ("variants.0.tolerance.golden_logit", math.nan),
        ("variants.0.tolerance.changed_decisions_per_200", math.inf),
        ("files.model.onnx", None),
    ],
)
def test_what_is_wrong_or_contradicts_itself_is_refused(path, value):
    fields = changed(path, value) if path != "files.model.onnx" else manifest_fields()
    if path == "files.model.onnx":
        del fields["files"]["model.onnx"]
    with pytest.raises(InvalidPackageError):
        parse(fields)


def test_two_exports_for_one_engine_and_precision_are_refused():
    fields = manifest_fields()
    fields["variants"] = fields["variants"] * 2
    with pytest.raises(InvalidPackageError, match="two variants"):
        parse(fields)


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../up",
        "a/../b",
        "a//b",
        "a/",
        ".hidden",
        "a/.hidden",
        "a\\b",
        "a b",
        "a\n",
        "",
        "é",
        "manifest.json",
    ],
)
def test_a_file_name_that_could_lead_astray_is_refused(name):
    fields = manifest_fields()
    fields["files"][name] = {"sha256": ZERO, "size": 1}
    with pytest.raises(InvalidPackageError, match="may not be in a package"):
        parse(fields)


@pytest.mark.parametrize(
    "digest", ["0" * 64, "sha256:" + "0" * 63, "sha256:" + "G" * 64, ZERO + "\n"]
)
def test_a_digest_is_sha256_in_full(digest):
    fields = manifest_fields()
    fields["files"]["model.onnx"]["sha256"] = digest
    with pytest.raises(InvalidPackageError):
        parse(fields)


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(data):
    with pytest.raises(InvalidPackageError):
        parse_manifest(data)


def test_deep_nesting_ends_in_the_same_error():
    with pytest.raises(InvalidPackageError):
        parse_manifest(b"[" * 200_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(key=st.sampled_from(sorted(manifest_fields())), value=JSON)
def test_any_part_replaced_by_anything_parses_or_is_refused(key, value):
    fields = manifest_fields() | {key: value}
    try:
        assert parse(fields).model_dump(mode="json").keys() == manifest_fields().keys()
    except InvalidPackageError:
        return


def test_an_export_that_is_not_there_is_named(manifest):
    with pytest.raises(InvalidPackageError, match="no openvino export in int8"):
        manifest.variant("openvino", "int8")


def found(manifest):
    return {path: (entry.sha256, entry.size) for path, entry in manifest.files.items()}


def test_the_files_as_listed_pass(manifest):
    check_files(manifest, found(manifest))


@given(data=st.data())
def test_any_difference_in_any_file_is_refused(data):
    manifest = parse(manifest_fields())
    seen = found(manifest)
    path = data.draw(st.sampled_from(sorted(seen)))
    change = data.draw(st.sampled_from(["digest", "size", "missing", "extra"]))
    if change == "digest":
        seen[path] = ("sha256:" + "1" * 64, seen[path][1])
    elif change == "size":
        seen[path] = (seen[path][0], seen[path][1] + 1)
    elif change == "missing":
        del seen[path]
    else:
        seen[path + ".data"] = seen[path]
    with pytest.raises(InvalidPackageError):
        check_files(manifest, seen)
