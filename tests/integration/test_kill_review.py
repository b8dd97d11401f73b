"""A process is killed around a rejection: what it confirmed is retracted everywhere, once."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bedside_edge.ports.review import PublicationState, Retraction, ReviewState
from bedside_edge.services.outputs import Kind, Occasion
from support import review_child
from support.repository import ROOT


def run_and_kill(folder: Path, run: int, delay_s: float) -> list[str]:
    """Start a child, let it work for `delay_s`, SIGKILL; return the results it said were signed."""
    command = [sys.executable, str(Path(review_child.__file__)), str(folder), str(run)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    with (folder / "errors").open("w+") as errors:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        late = threading.Timer(60, child.kill)
        late.start()
        try:
            assert child.stdout is not None
            first = child.stdout.readline()
            threading.Event().wait(delay_s)
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read()
            child.wait(30)
        finally:
            late.cancel()
            child.kill()
            child.stdout.close()
        errors.seek(0)
        assert (first, child.returncode) == ("open\n", -signal.SIGKILL), errors.read()
    whole = rest[: rest.rfind("\n") + 1]
    return [line.split()[1] for line in whole.splitlines()]


def kills(folder: Path, rounds: int) -> int:
    confirmed: list[str] = []
    for run in range(1, rounds + 1):
        confirmed += run_and_kill(folder, run, delay_s=(run * 37 % 101) / 600)
    opened, archive = review_child.open_box(folder, rounds + 1)
    with opened as box:
        box.writer.made = (rounds + 1) * 1_000
        box.settle()
        signed = box.reviews.labels()
        assert set(confirmed) <= {label.result_id for label in signed}
        held = archive.held()
        for label in signed:  # also those whose confirmation nobody heard
            check(box, label.result_id, held)
    return len(confirmed)


def check(box, result: str, held: dict[str, bytes]) -> None:
    (record,) = box.reviews.reviews(result)
    found = box.reviews.state(result)
    assert (found.state, record.publication) == (ReviewState.REJECTED, PublicationState.DONE)
    retracting = [o for o in box.outputs(result) if o.occasion is Occasion.REJECTED]
    assert [output.kind for output in retracting] == [Kind.KO, Kind.SR]
    assert found.retracted in (Retraction.ARRIVED, Retraction.NOT_SENT)
    if found.retracted is Retraction.ARRIVED:
        assert {output.sop_instance_uid for output in retracting} <= held.keys()


def test_what_was_signed_is_retracted_once_over_some_kills(tmp_path):
    assert kills(tmp_path, 6) > 0


@pytest.mark.slow
def test_what_was_signed_is_retracted_once_over_many_kills(tmp_path):
    assert kills(tmp_path, 60) > 30
