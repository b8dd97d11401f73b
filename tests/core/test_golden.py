"""Golden cases: parsed strictly, compared so that a NaN fails."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import GoldenMismatchError, InvalidPackageError
from bedside_core.golden import check_logit, check_tensor, parse_golden

FIELDS = {
    "format": "bedside-golden/1",
    "cases": [
        {
            "name": "phantom-1",
            "frame": {
                "path": "golden/phantom-1.raw",
                "dtype": ">u2",
                "rows": 2,
                "columns": 3,
                "monochrome1": True,
                "slope": 1,
                "intercept": 0,
                "window": {"centre": 3, "width": 6, "function": "LINEAR"},
                "padding": None,
                "spacing": [0.2, 0.1],
            },
            "tensor": {
                "sha256": "sha256:" + "0" * 64,
                "tolerance": 1e-3,
                "probes": [[0, 1, 0.5], [1, 0, -0.5]],
            },
            "answers": [
                {
                    "engine": "openvino",
                    "precision": "f32",
                    "logit": 0.25,
                    "probability": 0.56,
                    "decision": "undetermined",
                }
            ],
        }
    ],
}
LISTED = {"golden/phantom-1.raw": ...}


def parse(fields):
    return parse_golden(json.dumps(fields).encode(), LISTED)


def changed(path, value):
    fields = copy.deepcopy(FIELDS)
    *way, last = path.split(".")
    here = fields["cases"][0]
    for step in way:
        here = here[int(step)] if isinstance(here, list) else here[step]
    here[last] = value
    return fields


CASE = parse(FIELDS).cases[0]


def test_a_frame_is_read_in_its_own_byte_order():
    frame = CASE.frame.frame(np.arange(6, dtype=">u2").tobytes())
    assert frame.pixels.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (frame.monochrome1, frame.spacing) == (True, (0.2, 0.1))
    assert frame.window is not None
    assert frame.window.width == 6


@pytest.mark.parametrize("length", [0, 11, 13])
def test_a_frame_of_another_length_is_refused(length):
    with pytest.raises(InvalidPackageError, match="wrong length"):
        CASE.frame.frame(b"\0" * length)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "Phantom 1"),
        ("frame.dtype", "<f4"),
        ("frame.rows", 1),
        ("frame.rows", 100_000),
        ("frame.slope", math.nan),
        ("frame.path", "golden/unlisted.raw"),
        ("frame.window", {"centre": 3, "width": math.inf, "function": "LINEAR"}),
        ("tensor.tolerance", 0),
        ("tensor.tolerance", math.inf),
        ("tensor.probes", []),
        ("tensor.probes", [[0, 1]]),
        ("answers", []),
        ("answers.0.logit", math.nan),
        ("answers.0.decision", "maybe"),
        ("surprise", 1),
    ],
)
def test_anything_else_is_refused(path, value):
    with pytest.raises(InvalidPackageError):
        parse(changed(path, value))


def test_two_cases_of_one_name_are_refused():
    with pytest.raises(InvalidPackageError, match="share a name"):
        parse(FIELDS | {"cases": FIELDS["cases"] * 2})


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(data):
    with pytest.raises(InvalidPackageError):
        parse_golden(data, LISTED)


def tensor(one=0.5, other=-0.5):
    plane = np.zeros((1, 1, 2, 3), np.float32)
    plane[0, 0, 0, 1], plane[0, 0, 1, 0] = one, other
    return plane


def test_a_tensor_within_tolerance_passes():
    check_tensor(CASE, tensor(0.5009, -0.5009))


@pytest.mark.parametrize("values", [(0.502, -0.5), (0.5, -0.4), (math.nan, -0.5), (0.5, math.inf)])
def test_a_tensor_off_at_any_probe_is_named(values):
    with pytest.raises(GoldenMismatchError, match="phantom-1: tensor is off"):
        check_tensor(CASE, tensor(*values))


@pytest.mark.parametrize("probe", [[2, 0, 0.0], [0, 3, 0.0], [-1, 0, -0.5], [0, -1, 0.0]])
def test_a_probe_outside_the_tensor_is_refused(probe):
    case = parse(changed("tensor.probes", [probe])).cases[0]
    with pytest.raises(InvalidPackageError, match="outside"):
        check_tensor(case, tensor())


def test_a_logit_within_tolerance_tells_how_far():
    assert check_logit(CASE, "openvino", "f32", 0.26, 0.02) == pytest.approx(0.01)


@pytest.mark.parametrize("logit", [0.28, 0.22, math.nan, math.inf])
def test_a_logit_off_names_case_engine_and_distance(logit):
    with pytest.raises(GoldenMismatchError, match="phantom-1: openvino f32 is off by"):
        check_logit(CASE, "openvino", "f32", logit, 0.02)


def test_an_export_without_an_answer_is_refused():
    with pytest.raises(InvalidPackageError, match="lacks onnxruntime int8"):
        check_logit(CASE, "onnxruntime", "int8", 0.25, 0.02)
