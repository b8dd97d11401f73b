"""Where the repository's parts lie, and how the architecture tests run its tools on a copy."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# import package -> its source root; the fixed folders themselves are never imported
PACKAGES = {
    "bedside_core": "edge",
    "bedside_edge": "edge",
    "bedside_models": "models",
    "bedside_sync": "sync",
    "bedside_flash": "firmware_scripts",
}
SOURCE_ROOTS = tuple(dict.fromkeys(PACKAGES.values()))


def package_folder(package: str, root: Path = ROOT) -> Path:
    """The folder of an import package inside a checkout, or inside a copy of one."""
    return root / PACKAGES[package] / package


def copy_sources(target: Path) -> Path:
    """Copy the five packages and pyproject.toml to `target`; the guards then run on the copy."""
    for package in PACKAGES:
        shutil.copytree(
            package_folder(package),
            package_folder(package, target),
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def run_tool(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment in `folder`, with only that folder's source roots."""
    program = Path(sys.executable).with_name(name)
    roots = os.pathsep.join(str(folder / root) for root in SOURCE_ROOTS)
    return subprocess.run(
        [str(program), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": roots, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def tracked_files() -> list[Path] | None:
    """Every file git tracks, or None outside a git checkout."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        return None
    listed = subprocess.run(
        [git, "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in paths if path.is_file()]
