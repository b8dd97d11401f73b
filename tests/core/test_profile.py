"""Profiles: exact or refused, the most specific wins, every refusal names its reason."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidProfileError, ProfileMismatchError
from bedside_core.profile import (
    _LEVELS,
    Board,
    EnginePlan,
    check_readback,
    choose,
    parse_profile,
    plan,
    profile_schema_text,
    unmet,
)

FOLDER = Path(__file__).resolve().parents[2] / "hw_profiles"
V3_FLAGS = _LEVELS["x86_64"] | _LEVELS["x86_64_v2"] | _LEVELS["x86_64_v3"]
V4_FLAGS = V3_FLAGS | _LEVELS["x86_64_v4"]


def shipped(name):
    return (FOLDER / "generic" / f"{name}.toml").read_text()


def board(**changes):
    fields = {"arch": "x86_64", "cpu_flags": V4_FLAGS, "cores": 2, "memory_mib": 8192}
    return Board(**(fields | changes))


def parse(text):
    return parse_profile(text.encode())


V3, V4 = parse(shipped("x86-64-v3")), parse(shipped("x86-64-v4"))


# --- the file ----------------------------------------------------------------------------------


def test_the_schema_file_is_the_schema():
    assert (FOLDER / "schema.json").read_text() == profile_schema_text()


def test_every_setting_says_what_it_is():
    def settings(node):
        yield from node.get("properties", {}).items()
        for part in node.get("$defs", {}).values():
            yield from settings(part)

    mute = {
        name
        for name, value in settings(json.loads(profile_schema_text()))
        if "description" not in value
    }
    # Named as themselves, or described where they are defined.
    assert mute <= {"limits", "dicom", "acceptance", "match"}


def test_the_digest_is_of_the_bytes():
    assert parse(shipped("x86-64-v3")).digest == V3.digest
    assert parse(shipped("x86-64-v3") + "\n").digest != V3.digest
    assert V3.label == "generic-x86-64-v3#1"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('device = "CPU"', 'device = "AUTO"'),
        ('device = "CPU"', 'device = "HETERO:CPU"'),
        ('device = "CPU"', 'device = "MULTI:CPU"'),
        ('device = "CPU"', 'device = "cpu"'),
        ('precision = "f32"', 'precision = "dynamic"'),
        ('precision = "f32"', ""),
        ('kind = "onnxruntime"', 'kind = "torch"'),
        ('streams = "cores"', 'streams = "many"'),
        ('streams = "cores"', "streams = 0"),
        ('streams = "cores"', "streams = true"),
        ('streams = "cores"', "streams = 1.5"),
        ("threads = 1", "threads = -1"),
        ("threads = 1", "threads = 1\nthread = 2"),
        ("seq = 1", "seq = 0"),
        ("seq = 1", 'seq = "1"'),
        ("schema_version = 1", "schema_version = 2"),
        ('id = "generic', 'id = "../generic'),
        ('vendor = "generic"', 'vendor = "Generic"'),
        ('evidence = "measured"', 'evidence = "trust me"'),
        ('arch = "x86_64"', 'arch = "aarch64"'),
        ("x86_64_v3", "x86_64_v5"),
        ("golden_logit", "golden_logits"),
        ("[acceptance]\ngolden_logit", "[acceptance]\n# golden_logit"),
        ("max_associations = 64", "max_associations = 0"),
        ("network_timeout_s = 60", "network_timeout_s = -1"),
        ("network_timeout_s = 60", "network_timeout_s = nan"),
        ("network_timeout_s = 60", "network_timeout_s = inf"),
        ("[limits]", "[limits"),
    ],
)
def test_anything_unknown_missing_or_out_of_range_is_refused(old, new):
    text = shipped("x86-64-v3")
    assert old in text
    with pytest.raises(InvalidProfileError):
        parse(text.replace(old, new))


@given(st.binary(max_size=200))
def test_no_bytes_end_in_another_error(data):
    with pytest.raises(InvalidProfileError):
        parse_profile(data)


# --- the board ---------------------------------------------------------------------------------


def test_levels_build_on_each_other():
    assert board().level == "x86_64_v4"
    assert board(cpu_flags=V3_FLAGS).level == "x86_64_v3"
    assert board(cpu_flags=V4_FLAGS - {"ssse3"}).level == "x86_64"
    assert board(cpu_flags=frozenset()).level == ""
    assert board(arch="aarch64").level == ""


@given(st.sets(st.sampled_from(sorted(V4_FLAGS))))
def test_a_level_is_reached_exactly_when_nothing_is_missing(removed):
    some = board(cpu_flags=V4_FLAGS - removed)
    for level in _LEVELS:
        reached = bool(some.level) and list(_LEVELS).index(some.level) >= list(_LEVELS).index(level)
        assert reached == (some.missing(level) == [])


# --- choosing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(V3, V4), (V4, V3)])
def test_a_v4_board_gets_v4_and_a_v3_board_v3(order):
    assert choose(order, board()).loaded is V4
    chosen = choose(order, board(cpu_flags=V3_FLAGS))
    assert chosen.loaded is V3
    assert chosen.passed_over == (
        (
            "generic-x86-64-v4#1",
            f"level x86_64_v4 needs CPU flags {', '.join(sorted(_LEVELS['x86_64_v4']))}",
        ),
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"arch": "aarch64"}, "architecture is aarch64"),
        ({"cpu_flags": V4_FLAGS - {"avx2"}}, "needs CPU flags avx2"),
        ({"memory_mib": 1024}, "1024 MiB of memory, 2048 needed"),
    ],
)
def test_each_missing_fact_is_named_for_each_profile(change, reason):
    with pytest.raises(ProfileMismatchError) as refusal:
        choose([V3, V4], board(**change))
    assert str(refusal.value).count(reason) == 2


def test_flags_cores_vendor_and_product_are_conditions_too():
    text = (
        shipped("x86-64-v3")
        .replace(
            "min_cores = 1 }", 'min_cores = 8, flags = ["avx512_vnni"], vendor = "GenuineIntel" }'
        )
        .replace("[match]", '[match]\nproduct = "ACME Box"')
    )
    reasons = unmet(parse(text).profile, board(cpu_vendor="AuthenticAMD"))
    assert reasons == [
        "CPU vendor is AuthenticAMD, not GenuineIntel",
        "CPU flags absent: avx512_vnni",
        "2 CPUs usable, 8 needed",
        "another board",
    ]


def variant(**lines):
    text = shipped("x86-64-v3").replace('id = "generic-x86-64-v3"', f'id = "{lines["id"]}"')
    if product := lines.get("product"):
        text = text.replace("[match]", f'[match]\nproduct = "{product}"')
    if seq := lines.get("seq"):
        text = text.replace("seq = 1", f"seq = {seq}")
    return parse(text)


def test_the_exact_board_wins_over_a_higher_level():
    exact = variant(id="acme-box", product="ACME Box")
    assert choose([V4, exact, V3], board(product="ACME Box")).loaded is exact
    assert choose([V4, exact, V3], board(product="Other")).loaded is V4


def test_the_newer_revision_of_one_profile_wins():
    newer = variant(id="generic-x86-64-v3", seq=2)
    for order in ([V3, newer], [newer, V3]):
        assert choose(order, board(cpu_flags=V3_FLAGS)).loaded is newer


def test_a_tie_is_refused_instead_of_guessed():
    twin = variant(id="twin")
    with pytest.raises(ProfileMismatchError, match="fit equally well"):
        choose([V3, twin], board(cpu_flags=V3_FLAGS))
    with pytest.raises(ProfileMismatchError, match="fit equally well"):
        choose([V3, V3], board(cpu_flags=V3_FLAGS))


def test_no_profiles_at_all_is_said():
    with pytest.raises(ProfileMismatchError, match="there are none"):
        choose([], board())


# --- settling and reading back -----------------------------------------------------------------


def test_cores_are_settled_for_the_board():
    made = plan(V3.profile.engines[0], board(cores=6))
    assert (made.streams, made.threads, made.precision) == (6, 1, "f32")


def test_more_threads_than_cores_are_refused():
    wide = parse(shipped("x86-64-v3").replace("threads = 1", "threads = 2"))
    with pytest.raises(ProfileMismatchError, match="4 threads pinned, 2 CPUs usable"):
        plan(wide.profile.engines[0], board())


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_int8_needs_vnni(flag):
    quantised = parse(shipped("x86-64-v3").replace('"f32"', '"int8"')).profile.engines[0]
    assert plan(quantised, board(cpu_flags=V3_FLAGS | {flag})).precision == "int8"
    with pytest.raises(ProfileMismatchError, match="int8 needs one of the CPU flags"):
        plan(quantised, board())


def test_a_copy_for_latency_never_takes_more_than_the_board_has():
    text = shipped("x86-64-v3")
    assert "latency_threads = 2" in text
    wide = parse(text.replace("latency_threads = 2", "latency_threads = 8")).profile.engines[0]
    assert [plan(wide, board(cores=cores)).latency_threads for cores in (1, 2, 12)] == [1, 2, 8]


@dataclass(frozen=True)
class Seen:
    engine: str = "openvino"
    device: str = "CPU"
    precision: str = "f32"
    threads: int = 1


PINNED = EnginePlan(
    kind="openvino", device="CPU", precision="f32", streams=2, threads=1, latency_threads=0
)


def test_a_read_back_as_pinned_passes():
    check_readback(PINNED, 1, Seen())


@pytest.mark.parametrize(
    ("field", "value"),
    [("engine", "onnxruntime"), ("device", "GPU"), ("precision", "bf16"), ("threads", 2)],
)
def test_each_value_that_differs_is_named(field, value):
    with pytest.raises(ProfileMismatchError, match=f"{field} {value} instead of"):
        check_readback(PINNED, 1, Seen(**{field: value}))


def test_all_differences_are_told_at_once():
    with pytest.raises(ProfileMismatchError, match=r"precision bf16 .*, threads 2 "):
        check_readback(PINNED, 1, Seen(precision="bf16", threads=2))


def test_the_example_in_the_page_is_a_profile():
    page = (FOLDER.parent / "docs" / "engines.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    loaded = parse(example)
    made = plan(loaded.profile.engines[0], board(cores=8))
    assert (made.streams, made.threads, made.latency_threads) == (8, 1, 4)
