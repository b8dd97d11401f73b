"""The commands about archives and deliveries, against a real box that has a dead destination."""

import subprocess
import sys
import time

import pytest

from support.chest import chest
from support.orthanc import free_port
from support.running_box import part10, running_box


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bedside_edge", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def settings():
    return f"""
[delivery]
first_wait_s = 0.1
longest_wait_s = 0.1
give_up_h = 0.0001
[destinations.dead]
host = "127.0.0.1"
port = {free_port()}
"""


def test_a_destination_that_does_not_answer_is_named(tmp_path, settings):
    path = tmp_path / "bedside.toml"
    path.write_text(settings)
    asked = command("destinations", "test", "--config", str(path))
    assert asked.returncode == 5
    assert "dead: the DICOM node does not answer [destination-unavailable]" in asked.stdout
    assert command("destinations", "test", "other", "--config", str(path)).returncode == 4


@pytest.mark.slow
def test_dead_letters_are_listed_and_sent_again(tmp_path, settings):
    with running_box(tmp_path / "box", settings) as box:
        assert box.analyze(part10(chest(601))).status_code == 200
        box_at = ("--url", box.url, "--token-file", str(tmp_path / "box" / "token"))
        until = time.monotonic() + 30
        listed = ""
        while "given-up" not in listed:
            assert time.monotonic() < until
            listed = command("deliveries", "list", "--state", "dead", *box_at).stdout
        identifier, state, destination, *_ = listed.split()
        assert (state, destination) == ("dead", "dead")
        again = command("deliveries", "retry", identifier, *box_at)
        assert (again.returncode, again.stdout) == (0, "1 sent again\n")
        assert command("deliveries", "retry", "nothing", *box_at).returncode == 4
        assert command("deliveries", "retry", *box_at).returncode == 2
        every = command("deliveries", "retry", "--all", *box_at)
        assert every.returncode == 0
        assert box.stop() == 0
