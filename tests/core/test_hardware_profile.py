"""Profiles: nothing unknown, nothing that picks for itself, no claim without its measurement."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.profile import PROPERTIES, parse_profile, profile_schema_text
from support.boards import PROFILES

V3 = (PROFILES / "generic" / "x86-64-v3.toml").read_text()
EVERY = sorted(PROFILES.glob("*/*.toml"))


def parse(text):
    return parse_profile(text.encode())


def test_the_schema_file_is_the_schema():
    assert (PROFILES / "schema.json").read_text() == profile_schema_text()


def test_every_setting_says_what_it_is():
    def settings(node):
        yield from node.get("properties", {}).items()
        for part in node.get("$defs", {}).values():
            yield from settings(part)

    schema = json.loads(profile_schema_text())
    mute = {name for name, value in settings(schema) if "description" not in value}
    assert mute <= {"limits", "match"}  # named as themselves


def test_the_digest_is_of_the_bytes():
    assert parse(V3).digest == parse(V3).digest != parse(V3 + "\n").digest
    assert parse(V3).label == "generic-x86-64-v3#2"


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_every_shipped_profile_is_one_and_only_what_was_measured_says_so(path):
    profile = parse_profile(path.read_bytes(), built_in=True).profile
    assert profile.vendor == path.parent.name
    assert (profile.evidence == "measured") == (profile.vendor == "generic" and "x86" in profile.id)
    for choice in profile.engines:
        assert profile.cases_for(choice.precision), "accepting needs something to hold it to"


REFUSED = [
    ('device = "CPU"', 'device = "AUTO"'),
    ('device = "CPU"', 'device = "HETERO:CPU"'),
    ('device = "CPU"', 'device = "MULTI:CPU"'),
    ('device = "CPU"', 'device = "BATCH:CPU"'),
    ('device = "CPU"', 'device = "cpu"'),
    ('device = "CPU"', 'device = "CPU.1"'),
    ('device = "CPU"', 'device = "GPU.x"'),
    ('device = "CPU"', 'device = "CUDA,CPU"'),
    ('precision = "f32"', 'precision = "dynamic"'),
    ('precision = "f32"', ""),
    ('kind = "onnxruntime"', 'kind = "torch"'),
    ('streams = "cores"', 'streams = "many"'),
    ('streams = "cores"', "streams = 0"),
    ('streams = "cores"', "streams = true"),
    ('streams = "cores"', "streams = 1.5"),
    ("threads = 1", "threads = -1"),
    ("threads = 1", "threads = 1\nthread = 2"),
    ("threads = 1", "threads = 1\nallow_fallback = true"),
    ("threads = 1", "threads = 1\ninstances = 2"),
    ("ENABLE_CPU_PINNING = false", 'CACHE_DIR = "cache"'),
    ("ENABLE_CPU_PINNING = false", 'EXECUTION_MODE_HINT = "ACCURACY"'),
    ("ENABLE_CPU_PINNING = false", 'INFERENCE_PRECISION_HINT = "f32"'),
    ('"session.intra_op.allow_spinning" = "0"', '"session.no_such_key" = "1"'),
    ('"session.intra_op.allow_spinning" = "0"', 'providers = "CPUExecutionProvider"'),
    ('"session.intra_op.allow_spinning" = "0"', "ENABLE_CPU_PINNING = false"),
    ('providers = "CPU', 'provider = "CPU'),
    ("seq = 2", "seq = 0"),
    ("seq = 2", 'seq = "1"'),
    ("schema_version = 1", "schema_version = 2"),
    ('id = "generic', 'id = "../generic'),
    ('id = "generic-x86-64-v3"', 'id = "generic_x86"'),
    ('vendor = "generic"', 'vendor = "Generic"'),
    ('evidence = "measured"', 'evidence = "trust me"'),
    ('evidence_ref = "docs/hardware.md, Measured"\n', ""),
    ('arch = "x86_64"', 'arch = "aarch64"'),
    ("x86_64_v3", "x86_64_v5"),
    ("x86_64_v3", "armv8.2a"),
    ("min_mem_mib = 2048", 'min_mem_mib = 2048\nmin_kernel = "new"'),
    ("min_mem_mib = 2048", 'min_mem_mib = 2048\ndmi = { product_serial = "1" }'),
    (
        "min_mem_mib = 2048",
        'min_mem_mib = 2048\npci = [{ vendor = "10DE", device = ["27b8"] }]',
    ),
    ("min_mem_mib = 2048", 'min_mem_mib = 2048\npci = [{ vendor = "10de", device = [] }]'),
    ("max_abs", "max_absolute"),
    ("max_abs = 1e-4", "max_abs = nan"),
    ("p50_ms = 250", "p50_ms = 2500"),
    ("n = 60", "n = 1"),
    ("n = 60", "n = 60\nargmax_equal = false"),
    ("job_timeout_s = 120", "job_timeout_s = inf"),
    ("job_timeout_s = 120", "job_timeout_s = 120\ntemp_warn_c = 80\ntemp_stop_c = 80"),
    ("job_timeout_s = 120", "job_timeout_s = 120\ntemp_warn_c = 80"),
    ("job_timeout_s = 120", "job_timeout_s = 120\n[dicom]\nmax_associations = 0"),
    ("job_timeout_s = 120", "job_timeout_s = 120\n[dicom]\nnetwork_timeout_s = inf"),
    ("job_timeout_s = 120", 'job_timeout_s = 120\n[power]\ntool = "nvpmodel"'),
    ("job_timeout_s = 120", 'job_timeout_s = 120\n[power]\ntool = "nvidia-smi"'),
    ("job_timeout_s = 120", 'job_timeout_s = 120\n[[windows]]\nstart = "24:00"\nend = "05:00"'),
    ("[limits]", "[limits"),
]


@pytest.mark.parametrize(("old", "new"), REFUSED)
def test_anything_unknown_missing_or_out_of_range_is_refused(old, new):
    assert old in V3
    with pytest.raises(InvalidProfileError):
        parse(V3.replace(old, new))


def test_a_measurement_is_claimed_only_with_its_acceptance():
    bare = V3[: V3.index("[[acceptance]]")]
    with pytest.raises(InvalidProfileError, match="measured needs"):
        parse(bare)
    claimed = parse(bare.replace('"measured"', '"vendor-claimed"')).profile
    assert claimed.cases_for("f32") == ()
    assert claimed.logit_limit("f32") == math.inf


def test_the_strictest_tolerance_of_a_precision_holds():
    v4 = parse((PROFILES / "generic" / "x86-64-v4.toml").read_text()).profile
    assert [v4.logit_limit(name) for name in ("f32", "bf16", "int8")] == [1e-4, 0.05, 0.002]
    both = parse(V3 + '[[acceptance]]\ncase = "*"\np50_ms=1\np99_ms=1\nmax_abs=1e-6\nmax_rel=1\n')
    assert both.profile.logit_limit("f32") == 1e-6


def test_power_limits_and_windows_are_read():
    text = V3.replace(
        "job_timeout_s = 120",
        "job_timeout_s = 120\ntemp_warn_c = 70\ntemp_stop_c = 80\n"
        '[power]\ntool = "cpufreq"\nmode = "performance"\n'
        '[[windows]]\nstart = "22:00"\nend = "05:00"\ntz = "Europe/Berlin"\nmax_kbit = 2000\n',
    )
    profile = parse(text).profile
    assert (profile.limits.temp_warn_c, profile.power.mode) == (70, "performance")
    assert profile.windows[0].max_kbit == 2000


def test_no_cache_and_no_second_name_for_precision_stands_in_an_allow_list():
    for allowed in PROPERTIES.values():
        assert not {key for key in allowed if "cache" in key.lower() or "PRECISION" in key}


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(data):
    with pytest.raises(InvalidProfileError):
        parse_profile(data)


@pytest.mark.parametrize(
    "hostile",
    [
        "seq = " + "9" * 900,  # still a number
        "seq = " + "9" * 5000,  # longer than Python turns
        ".".join("a" * 400) + " = 1",
        ".".join("a" * 20_000) + " = 1",
        "[" * 900 + "]" * 99,
        "a = " + "[" * 990,
        "# and on\n" * 10_000,
    ],
)
def test_what_is_made_to_hang_or_crash_a_reader_is_refused_at_once(hostile):
    with pytest.raises(InvalidProfileError):
        parse(V3.replace("seq = 2", hostile))
    with pytest.raises(InvalidProfileError):
        parse(hostile)


def test_the_example_in_the_page_is_a_profile():
    page = (PROFILES.parent / "docs" / "hardware.md").read_text()
    example = parse(page.split("```toml\n")[1].split("```")[0]).profile
    assert example.engines[0].latency_threads == 4
