"""Unpredictable bytes have one source a package, its `system`; everyone else is handed them.

ruff bans `random` and `numpy.random`. What is left are the ways to the system's own generator: used
anywhere else, a key or a mask could not be replayed in a test nor reviewed in one place.
"""

import ast
from pathlib import Path

import pytest

from support.repository import PACKAGES, package_folder

SOURCES = {
    "secrets": {"*"},
    "os": {"urandom", "getrandom"},
    "uuid": {"uuid1", "uuid4"},
    "ssl": {"RAND_bytes"},
}
KEY_MAKERS = {"generate_key"}  # cryptography draws by itself
ALLOWED = [package_folder(name) / "system" for name in ("bedside_edge", "bedside_sync")]


def draws(path: Path) -> list[str]:
    """Every place in a module that reaches for randomness, as `name:line what`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used = [name.name for name in node.names if "*" in SOURCES.get(name.name, ())]
        elif isinstance(node, ast.ImportFrom):
            banned = SOURCES.get(node.module or "", set())
            used = [f"{node.module}.{n.name}" for n in node.names if banned & {"*", n.name}]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            banned = SOURCES.get(node.value.id, set()) | KEY_MAKERS
            used = [f"{node.value.id}.{node.attr}"] if node.attr in banned else []
        else:
            continue
        found += [f"{path.name}:{node.lineno} {what}" for what in used]
    return found


def test_only_the_system_adapter_draws_random_bytes():
    found = []
    for package in PACKAGES:
        for path in sorted(package_folder(package).rglob("*.py")):
            if not any(path.is_relative_to(folder) for folder in ALLOWED):
                found += draws(path)
    assert found == []


def test_the_system_adapter_is_where_they_come_from():
    for folder in ALLOWED:
        assert [line for path in folder.rglob("*.py") for line in draws(path)]


@pytest.mark.parametrize(
    "code",
    [
        "import secrets",
        "from secrets import token_bytes",
        "import os\nKEY = os.urandom(32)",
        "from os import urandom",
        "import uuid\nNAME = uuid.uuid4()",
        "KEY = AESGCM.generate_key(256)",
    ],
)
def test_a_planted_draw_is_seen(tmp_path, code):
    path = tmp_path / "mask.py"
    path.write_text(code + "\n")
    assert draws(path)
