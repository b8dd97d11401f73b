"""Choosing: the most specific wins, a tie is refused, every refusal names its rule."""

from dataclasses import dataclass

import pytest

from bedside_core.errors import ProfileMismatchError
from bedside_core.hardware.matching import (
    EnginePlan,
    as_text,
    check_readback,
    choose,
    plan,
    rules_of,
    unmet,
)
from bedside_core.hardware.profile import parse_profile
from support.boards import IDS, PROFILES, changed, recorded

EVERY = [
    parse_profile(path.read_bytes(), built_in=True) for path in sorted(PROFILES.glob("*/*.toml"))
]
BY_ID = {loaded.profile.id: loaded for loaded in EVERY}
V3, V4 = BY_ID["generic-x86-64-v3"], BY_ID["generic-x86-64-v4"]
V3_TEXT = (PROFILES / "generic" / "x86-64-v3.toml").read_text()
HOST = recorded("generic-x86-64-v4")
V3_HOST = changed(HOST, cpu_flags=recorded("generic-x86-64-v3").cpu_flags)


def test_each_built_in_profile_has_a_board_and_each_board_a_profile():
    assert sorted(BY_ID) == IDS


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("backwards", [False, True])
def test_each_recorded_board_selects_exactly_its_own_profile(name, backwards):
    order = EVERY[::-1] if backwards else EVERY
    assert choose(order, recorded(name)).loaded.profile.id == name


def without_pci(board, vendor):
    return tuple(d.model_dump() for d in board.pci if d.vendor != vendor)


def unbound(board):
    return tuple(d.model_dump() | {"driver": ""} for d in board.pci)


# profile -> every fact its rules stand on, taken away, and the words of the refusal
REMOVED = [
    ("generic-x86-64-v3", {"arch": "aarch64"}, "arch: is aarch64, not x86_64"),
    ("generic-x86-64-v3", {"memory_mib": 1024}, "min_mem_mib: 1024 MiB of memory, 2048 needed"),
    ("generic-x86-64-v3", {"cpu_flags": V3_HOST.cpu_flags - {"avx2"}}, "needs CPU flags avx2"),
    ("generic-x86-64-v4", {"cpu_flags": V3_HOST.cpu_flags}, "cpu.level: x86_64_v4 needs CPU flags"),
    ("generic-aarch64", {"cpu_flags": frozenset({"fp"})}, "aarch64 needs CPU flags asimd"),
    ("generic-aarch64", {"cores": 1}, "cpu.min_cores: 1 CPUs usable, 2 needed"),
    ("intel-n100", {"cpu_vendor": ""}, "cpu.vendor: is unknown, not GenuineIntel"),
    ("intel-n100", {"cpu_family": 5}, "cpu.family: is 5, not 6"),
    ("intel-n100", {"cpu_model": 191}, "cpu.model: is 191, none of 190"),
    ("intel-n100", {"pci": ()}, "pci: 8086:46d0, 8086:46d1, 8086:46d2 absent"),
    ("intel-core-ultra-npu", {"kernel": "6.5.0-1"}, "min_kernel: kernel 6.5.0-1, 6.8 needed"),
    ("intel-core-ultra-npu", {"kernel": ""}, "min_kernel: kernel unknown, 6.8 needed"),
    (
        "intel-core-ultra-npu",
        {"pci": unbound(recorded("intel-core-ultra-npu"))},
        "present but driver intel_vpu not bound (bound: none)",
    ),
    (
        "intel-xeon-amx",
        {"cpu_flags": recorded("intel-xeon-amx").cpu_flags - {"amx_bf16"}},
        "cpu.flags: flag amx_bf16 absent",
    ),
    ("intel-xeon-amx", {"cpu_model": 85}, "cpu.model: is 85, none of 143, 207, 173"),
    (
        "intel-arc-dgpu",
        {"pci": without_pci(recorded("intel-arc-dgpu"), "8086")},
        "pci: 8086:56a0, 8086:56a5, 8086:e20b absent",
    ),
    ("amd-ryzen-ai", {"kernel": "6.8.0"}, "min_kernel: kernel 6.8.0, 6.14 needed"),
    ("amd-ryzen-ai", {"pci": unbound(recorded("amd-ryzen-ai"))}, "driver amdxdna not bound"),
    ("nvidia-jetson-orin-nx16", {"dt_compatible": ()}, "dt_compatible: nvidia,tegra234 absent"),
    ("nvidia-jetson-orin-nx16", {"memory_mib": 7800}, "7800 MiB of memory, 14000 needed"),
    ("nvidia-l4", {"pci": ()}, "pci: 10de:27b8 absent"),
    ("nvidia-l4", {"pci": unbound(recorded("nvidia-l4"))}, "driver nvidia not bound"),
    ("rpi5", {"cpu_parts": ("0xd08",)}, "cpu.part: is 0xd08, none of 0xd0b"),
    ("rpi5", {"cpu_parts": ()}, "cpu.part: is unknown, none of 0xd0b"),
    ("rpi5", {"cpu_implementer": ""}, "cpu.implementer: is unknown, not 0x41"),
    ("rpi5", {"dt_compatible": ("raspberrypi,4-model-b",)}, "raspberrypi,5-model-b absent"),
    ("rpi5-hailo8", {"pci": without_pci(recorded("rpi5-hailo8"), "1e60")}, "1e60:2864 absent"),
]


@pytest.mark.parametrize(("name", "facts", "told"), REMOVED)
def test_each_fact_taken_away_is_named_and_the_profile_is_not_taken(name, facts, told):
    board = changed(recorded(name), **facts)
    assert any(told in reason for reason in unmet(BY_ID[name].profile, board))
    last_resort = variant(id="last-resort", arch=board.arch)
    chosen = choose([BY_ID[name], last_resort], board)
    assert chosen.loaded is last_resort
    assert told in dict(chosen.passed_over)[BY_ID[name].label]


@pytest.mark.parametrize("name", IDS)
def test_every_rule_of_a_profile_that_fits_holds(name):
    rules = rules_of(BY_ID[name].profile, recorded(name))
    assert len(rules) >= 4
    assert all(not rule.told for rule in rules)


def test_fewer_cards_than_asked_are_counted():
    text = V3_TEXT.replace(
        "[match]\n",
        '[match]\npci = [{ vendor = "10de", device = ["27b8"], min_count = 2 }]\n',
    )
    profile = parse_profile(text.encode()).profile
    assert unmet(profile, recorded("nvidia-l4")) == ["pci: 10de:27b8: 1 there, 2 needed"]
    twice = recorded("nvidia-l4").pci * 2
    two = changed(recorded("nvidia-l4"), pci=tuple(d.model_dump() for d in twice))
    assert unmet(profile, two) == []


def variant(**lines):
    text = V3_TEXT.replace('id = "generic-x86-64-v3"', f'id = "{lines["id"]}"')
    if product := lines.get("product"):
        text = text.replace("[match]", f'[match]\ndmi = {{ product_name = "{product}" }}')
    if arch := lines.get("arch"):
        text = text.replace('arch = "x86_64"', f'arch = "{arch}"')
        text = text.replace('level = "x86_64_v3", ', "").replace("= 2048", "= 256")
    if seq := lines.get("seq"):
        text = text.replace("seq = 2", f"seq = {seq}")
    return parse_profile(text.encode(), built_in=lines.get("built_in", True))


def test_a_v4_host_gets_v4_though_both_have_as_many_rules():
    for order in ((V3, V4), (V4, V3)):
        assert choose(order, HOST).loaded is V4
        assert choose(order, V3_HOST).loaded is V3


def test_the_exact_board_wins_over_a_higher_level():
    exact = variant(id="acme-box", product="ACME Box")
    there = changed(HOST, dmi={"product_name": "ACME Box"})
    assert choose([V4, exact, V3], there).loaded is exact
    other = choose([V4, exact, V3], HOST)
    assert other.loaded is V4
    assert dict(other.passed_over)["acme-box#2"] == "dmi.product_name: is 'unknown', not 'ACME Box'"


def test_a_vendors_profile_wins_over_one_that_came_with_the_software():
    bought = variant(id="acme-v3", built_in=False)
    for order in ((V3, bought), (bought, V3)):
        assert choose(order, V3_HOST).loaded is bought


def test_the_newer_revision_of_one_profile_wins():
    newer = variant(id="generic-x86-64-v3", seq=3)
    for order in ([V3, newer], [newer, V3]):
        assert choose(order, V3_HOST).loaded is newer


def test_a_tie_is_refused_instead_of_guessed():
    for twin in (variant(id="twin"), variant(id="twin", seq=9), V3):
        with pytest.raises(ProfileMismatchError, match="fit equally well"):
            choose([V3, twin], V3_HOST)


def test_no_profiles_at_all_is_said():
    with pytest.raises(ProfileMismatchError, match="there are none"):
        choose([], HOST)


def test_an_unknown_architecture_fits_nothing():
    with pytest.raises(ProfileMismatchError, match="is riscv64, not x86_64"):
        choose(EVERY, changed(HOST, arch="riscv64"))


# --- settling and reading back -----------------------------------------------------------------


def engine(text):
    return parse_profile(text.encode()).profile.engines[0]


def test_cores_and_sockets_are_settled_for_the_board():
    made = plan(V3.profile.engines[0], changed(HOST, cores=6))
    assert (made.streams, made.threads, made.precision) == (6, 1, "f32")
    xeon = plan(BY_ID["intel-xeon-amx"].profile.engines[0], recorded("intel-xeon-amx"))
    assert (xeon.streams, xeon.threads) == (2, 32)


def test_more_threads_than_cores_are_refused():
    with pytest.raises(ProfileMismatchError, match="4 threads pinned, 2 CPUs usable"):
        plan(engine(V3_TEXT.replace("threads = 1", "threads = 2")), HOST)


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_int8_on_the_cpu_needs_vnni(flag):
    quantised = engine(V3_TEXT.replace('"f32"', '"int8"'))
    bare = changed(HOST, cpu_flags=V3_HOST.cpu_flags)
    assert plan(quantised, changed(bare, cpu_flags=bare.cpu_flags | {flag})).precision == "int8"
    with pytest.raises(ProfileMismatchError, match="int8 needs one of the CPU flags"):
        plan(quantised, bare)
    assert plan(BY_ID["amd-ryzen-ai"].profile.engines[0], bare).device == "VitisAI"


def test_a_copy_for_latency_never_takes_more_than_the_board_has():
    wide = engine(V3_TEXT.replace("latency_threads = 2", "latency_threads = 8"))
    seen = [plan(wide, changed(HOST, cores=cores)).latency_threads for cores in (1, 2, 12)]
    assert seen == [1, 2, 8]


def test_every_property_is_read_back_too():
    made = plan(V4.profile.engines[0], HOST)
    assert made.properties == {"ENABLE_CPU_PINNING": False}
    assert made.readback == {
        "ENABLE_CPU_PINNING": "false",
        "EXECUTION_DEVICES": "CPU",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    assert [as_text(value) for value in (True, 2, "LATENCY")] == ["true", "2", "LATENCY"]


@dataclass(frozen=True)
class Seen:
    engine: str = "openvino"
    device: str = "CPU"
    precision: str = "f32"
    threads: int = 1


PINNED = EnginePlan(
    kind="openvino",
    device="CPU",
    precision="f32",
    streams=2,
    threads=1,
    latency_threads=0,
    readback={"INFERENCE_PRECISION_HINT": "f32"},
)
TOLD = {"INFERENCE_PRECISION_HINT": "f32"}


def test_a_read_back_as_pinned_passes():
    check_readback(PINNED, 1, Seen(), TOLD)


@pytest.mark.parametrize(
    ("field", "value"),
    [("engine", "onnxruntime"), ("device", "GPU"), ("precision", "bf16"), ("threads", 2)],
)
def test_each_value_that_differs_is_named(field, value):
    with pytest.raises(ProfileMismatchError, match=f"{field} {value} instead of"):
        check_readback(PINNED, 1, Seen(**{field: value}), TOLD)


def test_all_differences_are_told_at_once():
    told = {"INFERENCE_PRECISION_HINT": "dynamic"}
    with pytest.raises(ProfileMismatchError, match=r"precision bf16 .*, threads 2 .*HINT dynamic"):
        check_readback(PINNED, 1, Seen(precision="bf16", threads=2), told)


def test_a_key_that_is_not_told_is_a_difference():
    with pytest.raises(ProfileMismatchError, match="PRECISION_HINT nothing instead of f32"):
        check_readback(PINNED, 1, Seen(), {})
