"""The wheel works where no checkout is: profiles and the model package come out of it too."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from support.repository import ROOT

pytestmark = pytest.mark.slow


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A new environment with our wheel in it; it borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("elsewhere")
    build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    built = run(*build, folder=ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    environment = folder / "env"
    venv.create(environment, with_pip=False, symlinks=True)
    borrowed = sysconfig.get_path("purelib")
    (own,) = environment.glob("lib/python*/site-packages")
    # the path alone: the editable install of this environment is a .pth file, which is not followed
    (own / "borrowed.pth").write_text(f"{borrowed}\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    done = run(*pip, "install", "--no-deps", "--no-index", "-q", wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    return environment


def test_the_packages_come_from_the_wheel(elsewhere, tmp_path):
    code = "import bedside_core, bedside_edge; print(bedside_core.__file__, bedside_edge.__file__)"
    done = run(elsewhere / "bin" / "python", "-c", code, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(elsewhere) for path in done.stdout.split())


def test_the_box_finds_its_profile_and_its_model_without_a_checkout(elsewhere, tmp_path):
    """`profile` matches the board, loads the shipped package and runs its golden cases."""
    done = run(elsewhere / "bin" / "bedside-edge", "profile", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert str(ROOT) not in done.stdout
    assert answer
