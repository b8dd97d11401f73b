"""Each guard is shown to fail: green on a copy of the sources, red by name on one planted line.

A guard that nobody has seen red may have stopped looking: a renamed folder, a contract without
modules, a rule no longer selected. So every kind of breach is planted here once.
"""

import shutil
import tomllib

import pytest

from support.core_rules import violations
from support.repository import (
    PACKAGES,
    ROOT,
    SOURCE_ROOTS,
    copy_sources,
    package_folder,
    run_tool,
)

ONE_WAY = "packages depend one way"
LAYERS = "the service is layered"
PURE = "the rules touch nothing"
NO_TRAINING = "no training side on the box"

PURE_ELSEWHERE = [
    ("bedside_sync", "secagg"),
    ("bedside_sync", "wire"),
    ("bedside_flash", "plan"),
]

# (package, module, planted line, contract that must break)
IMPORT_BREACHES = [
    ("bedside_core", "ledger", "import sqlite3", PURE),
    ("bedside_core", "imaging", "import pydicom", PURE),
    ("bedside_core", "noise", "import secrets", PURE),
    ("bedside_core", "findings", "import time", PURE),
    ("bedside_core", "release", "import bedside_edge", ONE_WAY),
    ("bedside_core", "hardware/profile", "import bedside_models", ONE_WAY),
    ("bedside_sync", "wire", "import bedside_edge", ONE_WAY),
    ("bedside_models", "train", "import bedside_edge", ONE_WAY),
    ("bedside_flash", "plan", "import bedside_edge", ONE_WAY),
    ("bedside_edge", "services/ingest", "import bedside_edge.store.planted", LAYERS),
    ("bedside_edge", "dicom/scp", "import bedside_edge.store.planted", LAYERS),
    ("bedside_edge", "ports", "import bedside_edge.services.planted", LAYERS),
    ("bedside_edge", "api/routes", "import bedside_edge.wiring", LAYERS),
    ("bedside_edge", "config", "import bedside_edge.ports", LAYERS),
    ("bedside_edge", "stray_module", "import json", LAYERS),  # exhaustive: no unlisted module
    ("bedside_edge", "engine/planted", "import torch", NO_TRAINING),
    ("bedside_edge", "services/infer", "import bedside_models", NO_TRAINING),
    ("bedside_sync", "wire", "import nncf", NO_TRAINING),
    ("bedside_flash", "slots", "import onnx", NO_TRAINING),
]

# (package, module, planted code, ruff rule)
RUFF_BREACHES = [
    ("bedside_sync", "prg", "import numpy as np\n\nMASK = np.random.normal(size=3)", "TID251"),
    ("bedside_core", "noise", "import random", "TID251"),
    ("bedside_edge", "services/ingest", "from random import randbytes", "TID251"),
    ("bedside_edge", "wiring", "from edge.bedside_core import errors", "TID251"),
    ("bedside_edge", "wiring", "from models.bedside_models import card", "TID251"),
    ("bedside_sync", "client", "from sync.bedside_sync import wire", "TID251"),
    ("bedside_edge", "wiring", "from unittest import mock", "TID251"),
    ("bedside_edge", "services/publish", "from diffprivlib import tools", "TID251"),
    ("bedside_edge", "system/clock", "from diffprivlib.mechanisms import Laplace", "TID251"),
    ("bedside_edge", "wiring", "from . import config", "TID252"),
    ("bedside_edge", "logs", "import logging\n\nlogging.info(f'{__name__}')", "G004"),
    ("bedside_edge", "store/studies", "import hashlib\n\nhashlib.md5(b'')", "S324"),
    ("bedside_edge", "api/app", "try:\n    x = 1\nexcept Exception:\n    pass", "S110"),
]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return copy_sources(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def copy(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "copy")


def plant(root, package, module, code):
    """Append `code` to a module of the copy, made with its package where it does not exist yet."""
    folder = package_folder(package, root)
    path = (folder / module).with_suffix(".py")
    if (folder / module / "__init__.py").exists():
        path = folder / module / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in [path.parent, *path.parent.parents]:
        if parent == folder:
            break
        (parent / "__init__.py").touch()
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{code}\n", encoding="utf-8")


def contracts(root):
    """Run the import contracts on a copy: (exit code, everything printed)."""
    done = run_tool("lint-imports", "--no-cache", folder=root)
    return done.returncode, done.stdout + done.stderr


def test_every_import_contract_is_kept_by_the_sources(pristine):
    code, printed = contracts(pristine)
    assert code == 0, printed
    for name in (ONE_WAY, LAYERS, PURE, NO_TRAINING):
        assert f"{name} KEPT" in printed


@pytest.mark.parametrize(("package", "module", "line", "contract"), IMPORT_BREACHES)
def test_a_planted_import_breaks_the_contract_that_forbids_it(
    copy, package, module, line, contract
):
    target, _, inner = line.removeprefix("import ").partition(".")
    if target in PACKAGES and inner:  # it has to exist, or the contract cannot see it
        plant(copy, target, inner.replace(".", "/"), "")
    plant(copy, package, module, line)
    code, printed = contracts(copy)
    assert code == 1, printed
    assert f"{contract} BROKEN" in printed


@pytest.mark.parametrize(("package", "module", "code", "rule"), RUFF_BREACHES)
def test_a_planted_line_is_caught_by_the_ruff_rule_that_bans_it(copy, package, module, code, rule):
    select = ("check", "--no-cache", "--select", rule, *SOURCE_ROOTS)
    green = run_tool("ruff", *select, folder=copy)
    assert green.returncode == 0, green.stdout
    plant(copy, package, module, code)
    red = run_tool("ruff", *select, folder=copy)
    assert red.returncode == 1
    assert rule in red.stdout


def test_every_planted_rule_is_among_those_lint_runs(copy):
    settings = run_tool("ruff", "check", "--show-settings", "edge", folder=copy)
    for rule in {rule for *_, rule in RUFF_BREACHES}:
        assert f"({rule})" in settings.stdout, f"{rule} is no longer selected in pyproject.toml"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        ("import urllib.request", "import urllib.request"),
        ("def read(path):\n    return open(path)", "builtin open"),
        ("import numpy as np\n\nTABLE = np.load('table.npy')", "numpy.load"),
    ],
)
def test_a_planted_way_out_of_the_core_is_named(copy, code, named):
    core = package_folder("bedside_core", copy)
    assert violations(core) == []
    plant(copy, "bedside_core", "imaging", code)
    assert any(breach.startswith("imaging:") and named in breach for breach in violations(core))


def test_a_planted_type_error_stops_mypy(copy):
    """One package is enough to see that strict mode is on and the copied path is the one read."""
    plant(copy, "bedside_sync", "untyped", "def update(value):\n    return value")
    done = run_tool("mypy", "--cache-dir", str(copy / ".mypy"), "-p", "bedside_sync", folder=copy)
    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout


def test_a_pure_module_that_appears_later_joins_the_contract():
    """These are to be as pure as the core; import-linter cannot list a module before it exists."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    listed = {
        name for entry in contracts if entry["name"] == PURE for name in entry["source_modules"]
    }
    for package, module in PURE_ELSEWHERE:
        path = package_folder(package) / module
        exists = path.is_dir() or path.with_suffix(".py").exists()
        assert not exists or f"{package}.{module}" in listed


def test_the_guards_look_at_every_package():
    found = {path.parent.name for root in SOURCE_ROOTS for path in (ROOT / root).glob("*/*.py")}
    assert set(PACKAGES) == found
