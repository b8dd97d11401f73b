"""Boards that are not here: for each built-in profile the facts its board would show.

Written from data sheets, the 2023 PCI id list and kernels' own documentation; only the two x86-64
ones were ever probed. They stand under tests/support/boards as probe files.
"""

import json
from pathlib import Path

from bedside_core.hardware.board import Board, parse_board

FOLDER = Path(__file__).with_name("boards")
PROFILES = Path(__file__).resolve().parents[2] / "hw_profiles"
IDS = sorted(path.stem for path in FOLDER.glob("*.json"))


def recorded(name: str) -> Board:
    """Return the board that selects the profile with this id."""
    return parse_board((FOLDER / f"{name}.json").read_bytes())


def changed(board: Board, **facts: object) -> Board:
    """Return the board with some facts replaced, checked again."""
    return parse_board(json.dumps(board.model_dump(mode="json") | facts, default=sorted).encode())
