"""Layout E: source roots are folders, packages have names of their own, nothing lies between."""

from pathlib import Path

from support.repository import PACKAGES, ROOT, SOURCE_ROOTS, copy_sources, package_folder

TOP_LEVEL = {
    *("edge", "models", "sync", "firmware_scripts", "hw_profiles", "tests", "docs"),
    *("pyproject.toml", "requirements.txt", "Makefile", "LICENSE"),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
}
# made by a make target, ignored by git
MADE = {"build", "dist", "demo-output", "bench-output", "uv.lock"}


def folders_without_init(package: Path) -> list[str]:
    """Folders that hold modules but are no package: import-linter and mypy would pass them by."""
    holders = {path.parent for path in package.rglob("*.py")}
    return sorted(
        folder.relative_to(package).as_posix()
        for folder in holders
        if not (folder / "__init__.py").exists()
    )


def test_a_source_root_is_never_a_package():
    assert [root for root in SOURCE_ROOTS if (ROOT / root / "__init__.py").exists()] == []


def test_every_folder_with_modules_is_a_package():
    found = {package: folders_without_init(package_folder(package)) for package in PACKAGES}
    assert {package: folders for package, folders in found.items() if folders} == {}


def test_a_folder_without_init_is_seen(tmp_path):
    core = package_folder("bedside_core", copy_sources(tmp_path))
    (core / "planted").mkdir()
    (core / "planted" / "rule.py").touch()
    assert folders_without_init(core) == ["planted"]


def test_the_top_level_holds_what_the_layout_names_and_nothing_else():
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - MADE <= TOP_LEVEL
    assert found >= TOP_LEVEL
