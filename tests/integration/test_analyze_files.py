"""`bedside-edge analyze`: files in, rows and pictures out, no server."""

from pathlib import Path

from bedside_edge.analyze import analyze_files
from bedside_edge.config import Model
from support.chest import chest
from support.running_box import part10


def two_patients(folder: Path) -> list[Path]:
    files = []
    for number, place in enumerate(("a", "b"), start=1):
        files.append(folder / place / "IM1.dcm")
        files[-1].parent.mkdir()
        files[-1].write_bytes(part10(chest(number, shift=900 * number)))
    return files


def test_files_of_one_name_in_two_folders_have_an_overlay_each(tmp_path):
    files = two_patients(tmp_path)
    files.append(tmp_path / "IM1-2.dcm")
    files[-1].write_bytes(part10(chest(3)))
    rows = analyze_files(files, Model(), tmp_path / "overlays")
    names = [Path(row["overlay"]).name for row in rows]
    assert names == ["IM1.png", "IM1-3.png", "IM1-2.png"]
    assert len({Path(row["overlay"]).read_bytes() for row in rows}) == 3


def test_an_overlay_that_cannot_be_written_is_an_error_of_its_row(tmp_path):
    files = two_patients(tmp_path)
    (tmp_path / "overlays").write_text("a file where the folder would be")
    rows = analyze_files(files, Model(), tmp_path / "overlays")
    assert [row["error"]["code"] for row in rows] == ["invalid-input"] * 2
    rows = analyze_files(files[:1], Model(), tmp_path)  # a folder where the file would be
    assert (rows[0]["exit_code"], rows[0]["error"]["code"]) == (4, "invalid-input")
