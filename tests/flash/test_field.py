"""`bedside-flash` in the field runs the box's own program and ends as it does."""

import subprocess
import sys
from pathlib import Path

from bedside_core.errors import NotFoundError


def test_it_ends_with_the_boxs_own_words_and_exit_code(tmp_path):
    program = Path(sys.executable).with_name("bedside-flash")
    done = subprocess.run(
        [program, "rollback", "profile", "--dry-run", "--state", tmp_path / "none"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == NotFoundError.exit_code
    assert "bedside-edge: there is no bedside.db" in done.stderr
