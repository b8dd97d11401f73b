"""Four processes, one budget, SIGKILL at any moment: never overspent, never two answers."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bedside_edge.store.ledger_rows import digest
from bedside_edge.system.clock import SystemClock
from support import ledger_child
from support.privacy_house import Hospital
from support.repository import ROOT


def killed(folder: Path, kills: int, releases: int) -> list[list[str]]:
    """Let the four processes run; return what they said."""
    child = [sys.executable, str(Path(ledger_child.__file__)), str(folder), str(kills)]
    done = subprocess.run(
        [*child, str(releases)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("kills", "releases"), [(40, 60), pytest.param(300, 400, marks=pytest.mark.slow)]
)
def test_kills_never_overspend_a_cap_or_give_one_question_two_answers(tmp_path, kills, releases):
    said = killed(tmp_path, kills, releases)
    assert [line for line in said if line[0] == "failed"] == []
    assert ["killed", str(kills)] in said
    cost = int(next(line[1] for line in said if line[0] == "cost"))
    answers: dict[str, set[str]] = {}
    for _, fingerprint, hashed in (line for line in said if line[0] == "answer"):
        answers.setdefault(fingerprint, set()).add(hashed)
    assert all(len(found) == 1 for found in answers.values()), "two answers for one question"

    house = Hospital(tmp_path, SystemClock())
    house.service.resume()
    assert house.ledger.verify() > 0  # entries, budgets, answers and evidence agree
    ledger = house.ledger.ledger()
    assert max(ledger.spent.values()) == releases * cost, "not exactly what the cap allows"
    held = house.ledger.releases(limit=10 * releases)
    assert Counter(one.state for one in held) == {"final": releases}
    names = [one.fingerprint for one in held]
    stored = {name: digest(house.ledger.replay(name).document) for name in names}
    assert all(stored[name] == hashed for name, (hashed,) in answers.items())
    assert any(line[0] == "exhausted" for line in said), "nobody asked for more than there was"
    house.close()
