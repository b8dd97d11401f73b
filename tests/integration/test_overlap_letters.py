"""Two hospitals count the patients they share, with the commands, over two real folders."""

import json

import pytest
from click.testing import CliRunner

from bedside_edge.cli import cli
from bedside_edge.config import Config
from bedside_edge.ports import Way
from bedside_edge.state_folder import open_folder
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from bedside_sync.secagg.ring import tail
from support.fake_clock import FakeClock
from support.outputs import Box
from support.state_houses import T0
from support.synthetic import data_set, noise, part10

PATIENTS, SHARED = 205, 200
PIXELS = noise(16, 12, seed=1)


def hospital(folder, first):
    """A folder with a study of each of so many patients; return the log's keys."""
    box = Box(folder, clock=FakeClock(T0 + first))  # another clock, another name
    try:
        for number in range(first, first + PATIENTS):
            receiving = box.ingest.begin(Way.HTTP, "test")
            receiving.write(part10(data_set(PIXELS, study=number)))
            box.ingest.file([receiving.finish()])
    finally:
        box.close()
    state = open_folder(Config(), folder, SystemClock(), OsRandom())
    try:
        return [key.text for key in state.evidence.keys]
    finally:
        state.close()


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    base = tmp_path_factory.mktemp("overlap")
    for name, first in (("here", 1), ("there", PATIENTS - SHARED + 1)):
        keys = hospital(base / name, first)
        (base / f"{name}.vkeys").write_text("\n".join(keys) + "\n")
    return base


def run(base, side, *words, code=0):
    other = "there" if side == "here" else "here"
    given = [*words, "--state", str(base / side)]
    if words[0] != "list":
        given += ["--vkey", str(base / f"{other}.vkeys")]
    done = CliRunner().invoke(cli, ["overlap", *given], input="n\n")
    assert (done.exit_code == 0) is (code == 0), (done.output, done.exception)
    return done


@pytest.mark.slow
def test_four_letters_give_both_sides_a_count_with_the_other_s_noise(houses):
    base = houses
    letters = [str(base / f"{number}.letter") for number in range(5)]
    run(base, "here", "invite", "--purpose", "study 12", "--sigma2", "4", "-o", letters[1])
    refused = run(base, "there", "answer", letters[1], "-o", letters[2], code=1)
    assert "study 12" in refused.output
    run(base, "there", "answer", letters[1], "-o", letters[2], "--yes")
    run(base, "here", "answer", letters[2], "-o", letters[3])
    theirs = json.loads(run(base, "there", "answer", letters[3], "-o", letters[4], "--json").stdout)
    ours = json.loads(run(base, "here", "answer", letters[4], "--json").stdout)
    for found in (theirs, ours):
        assert abs(found["count"] - SHARED) <= tail(4)
    # the same letter again draws nothing anew; the other side's letters are not for us
    again = str(base / "again.letter")
    run(base, "there", "answer", letters[3], "-o", again)
    assert (base / "again.letter").read_bytes() == (base / "4.letter").read_bytes()
    run(base, "there", "answer", letters[4], code=1)
    listed = run(base, "here", "list").output
    assert "shared" in listed
    # a third session in a month is refused
    run(base, "here", "invite", "--purpose", "again", "-o", again)
    third = run(base, "here", "invite", "--purpose", "more", "-o", again, code=1)
    assert "a month" in str(third.exception)
