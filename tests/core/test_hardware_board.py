"""A board is one JSON value: read back as written, levels as the ABI has them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.board import LEVELS, PROBE_LIMIT, Board, parse_board
from support.boards import FOLDER, IDS, changed, recorded

V4 = recorded("generic-x86-64-v4")
X86 = LEVELS["x86_64"]
V4_FLAGS = frozenset().union(*X86.values())


@pytest.mark.parametrize("name", IDS)
def test_a_recorded_board_reads_back_as_it_was_written(name):
    data = (FOLDER / f"{name}.json").read_bytes()
    board = parse_board(data)
    assert board.text().encode() == data
    assert parse_board(board.text().encode()).digest == board.digest


def test_every_fact_counts_in_the_digest():
    assert V4.digest.startswith("sha256:")
    assert changed(V4, kernel="6.1.0").digest != V4.digest


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"arch": "x86_64", "cores": 0, "memory_mib": 1}',
        b'{"arch": "x86_64", "cores": 1, "memory_mib": 1, "serial": "x"}',
        b'{"format": "bedside-probe/2", "arch": "x86_64", "cores": 1, "memory_mib": 1}',
        b" " * (PROBE_LIMIT + 1),
    ],
)
def test_what_is_no_probe_file_is_refused(data):
    with pytest.raises(InvalidProfileError):
        parse_board(data)


def test_levels_build_on_each_other():
    assert V4.level == "x86_64_v4"
    assert changed(V4, cpu_flags=V4_FLAGS - {"ssse3"}).level == "x86_64"
    assert changed(V4, cpu_flags=frozenset()).level == ""
    assert changed(V4, arch="riscv64").level == ""
    assert recorded("generic-aarch64").level == "aarch64"
    assert recorded("rpi5").level == "armv8.2a"


@given(st.sets(st.sampled_from(sorted(V4_FLAGS))))
def test_a_level_is_reached_exactly_when_nothing_is_missing(removed):
    some = Board(arch="x86_64", cores=1, memory_mib=1, cpu_flags=V4_FLAGS - removed)
    for level in X86:
        reached = bool(some.level) and list(X86).index(some.level) >= list(X86).index(level)
        assert reached == (some.missing(level) == [])


def test_the_text_is_json_for_other_programs():
    assert json.loads(V4.text())["cpu_flags"] == sorted(V4.cpu_flags)
