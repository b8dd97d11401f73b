"""No tracked file names a registry host, a path of one machine, or holds what may not be shared."""

import pytest

from support.repository import ROOT, tracked_files

# Written in two halves so that this file does not find itself.
FORBIDDEN = [
    "/wo" + "rk/",
    "/ro" + "ot/",
    "pypi" + ".org",
    "files.python" + "hosted",
    "deb.deb" + "ian.org",
    "registry.npm" + "js",
    "--extra-index" + "-url",
]
IMAGES_OF_PEOPLE = {".dcm", ".dicom", ".ima"}
LARGEST_FILE = 24 << 20  # bytes; a model's weights fit, a data set does not


@pytest.fixture(scope="module")
def files():
    listed = tracked_files()
    if listed is None:
        pytest.skip("needs git and a git checkout to know which files are tracked")
    assert len(listed) > 20
    return listed


def forbidden_in(content: bytes) -> list[str]:
    return [word for word in FORBIDDEN if word.encode() in content]


def test_no_tracked_file_names_a_host_or_a_path_of_one_machine(files):
    named = {path.relative_to(ROOT).as_posix(): forbidden_in(path.read_bytes()) for path in files}
    assert {path: words for path, words in named.items() if words} == {}


@pytest.mark.parametrize("word", FORBIDDEN)
def test_a_planted_word_is_seen(word):
    assert forbidden_in(f"see {word}x".encode()) == [word]


def test_no_dicom_object_and_no_label_table_is_tracked(files):
    names = [path.relative_to(ROOT).as_posix() for path in files]
    assert [name for name in names if name.lower().endswith(tuple(IMAGES_OF_PEOPLE))] == []
    assert [name for name in names if name.endswith("labels.csv")] == []


def test_no_tracked_file_is_large(files):
    assert [path.name for path in files if path.stat().st_size > LARGEST_FILE] == []
