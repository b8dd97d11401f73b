"""The wheel holds the five packages with all their data, and nothing else."""

import subprocess
import sys
import tomllib
import zipfile

import pytest

from support.repository import PACKAGES, ROOT, package_folder

# what a source folder may hold that no wheel should
CACHES = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel with the installed build backend: no isolation, so no network."""
    folder = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        return archive.namelist()


def inside(names, folder):
    return {name.split(folder, 1)[1] for name in names if folder in name}


def test_the_top_level_is_the_five_packages_and_the_metadata(wheel):
    top = {name.split("/")[0] for name in wheel}
    assert {name for name in top if "." not in name} == set(PACKAGES)
    assert all(name.endswith((".dist-info", ".data")) for name in top - set(PACKAGES))


def test_every_source_file_is_in_the_wheel(wheel):
    """A file that git ignores is left out of a wheel without a word; this is the word."""
    for package in PACKAGES:
        folder = package_folder(package)
        sources = {
            path.relative_to(folder.parent).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not CACHES & set(path.parts)
        }
        assert f"{package}/py.typed" in sources
        assert sources <= set(wheel)


def test_no_test_and_no_cache_is_in_the_wheel(wheel):
    assert [name for name in wheel if "/tests/" in name or name.startswith("tests/")] == []
    assert [name for name in wheel if CACHES & set(name.split("/"))] == []


def test_schema_templates_profiles_and_model_packages_are_in_the_wheel(wheel):
    assert any(name.startswith("bedside_edge/store/") and name.endswith(".sql") for name in wheel)
    policies = "bedside_edge/system/policies/"
    assert {f"{policies}{name}" for name in ("policy.cedar", "policy.toml", "grading.toml")} <= set(
        wheel
    )
    assert any("/templates/" in name and name.startswith("bedside_edge/") for name in wheel)
    assert "generic/x86-64-v3.toml" in inside(wheel, "share/bedside/hw_profiles/")
    assert "generic/x86-64-v4.toml" in inside(wheel, "share/bedside/hw_profiles/")
    assert "verify_tlog_proof.py" in inside(wheel, "share/bedside/")
    packaged = inside(wheel, "share/bedside/models/")
    assert "cxr-opacity/1.0.0/manifest.json" in packaged
    folder = ROOT / "models" / "packages"
    assert packaged == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }


def test_every_declared_command_has_its_function(wheel):
    """A script whose module is missing installs fine and fails at the user's prompt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for target in project["scripts"].values():
        module, _, function = target.partition(":")
        path = module.replace(".", "/")
        assert f"{path}.py" in wheel or f"{path}/__init__.py" in wheel
        package = module.split(".")[0]
        root = package_folder(package).parent
        source = next(p for p in (root / f"{path}.py", root / path / "__init__.py") if p.exists())
        assert f"def {function}(" in source.read_text(encoding="utf-8")
