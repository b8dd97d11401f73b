"""Tiles and proof files against the values of their C2SP texts and of transparency-dev/formats."""

import base64
import hashlib

import pytest

from bedside_core.errors import InvalidProofError
from bedside_core.evidence.proof import ProofFile, parse_proof
from bedside_core.evidence.tiles import Tile, parse_tile_path, tiles_of


def test_the_index_of_the_tiles_text_is_written_and_read():
    assert Tile(level=0, index=1234067).path == "tile/0/x001/x234/067"
    assert parse_tile_path("tile/0/x001/x234/067") == Tile(level=0, index=1234067)


def test_a_tree_of_70000_has_the_tiles_of_the_text():
    levels = {}
    for tile in tiles_of(70_000):
        levels.setdefault(tile.level, []).append(tile)
    assert [tile.width for tile in levels[0]] == [256] * 273 + [112]
    assert [tile.width for tile in levels[1]] == [256, 17]
    assert [tile.width for tile in levels[2]] == [1]
    assert [tile.width for tile in levels[None]] == [256] * 273 + [112]
    assert set(levels) == {None, 0, 1, 2}
    named = {tile.path for tile in tiles_of(70_000)}
    assert named >= {"tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"}


def test_a_tree_of_256_has_a_full_tile_and_one_hash_above():
    assert [tile.path for tile in tiles_of(256)] == [
        "tile/entries/000",
        "tile/0/000",
        "tile/1/000.p/1",
    ]


H1, H2 = (hashlib.sha256(text).digest() for text in (b"hash1", b"hash2"))
H1_TEXT, H2_TEXT = (base64.b64encode(each).decode() for each in (H1, H2))
EXTRA = base64.b64encode(b"extra information").decode()


@pytest.mark.parametrize(
    ("proof", "text"),
    [  # transparency-dev/formats `proof/tlog_proof_test.go` (Apache-2.0)
        (
            ProofFile(index=5, path=(H1, H2), checkpoint=b"test checkpoint\n"),
            f"c2sp.org/tlog-proof@v1\nindex 5\n{H1_TEXT}\n{H2_TEXT}\n\ntest checkpoint\n",
        ),
        (
            ProofFile(
                index=10, path=(H1,), checkpoint=b"checkpoint data\n", extra=b"extra information"
            ),
            f"c2sp.org/tlog-proof@v1\nextra {EXTRA}\nindex 10\n{H1_TEXT}\n\ncheckpoint data\n",
        ),
        (
            ProofFile(index=0, path=(), checkpoint=b"checkpoint\n"),
            "c2sp.org/tlog-proof@v1\nindex 0\n\ncheckpoint\n",
        ),
    ],
)
def test_a_published_proof_file_is_written_and_read(proof, text):
    assert proof.encode() == text.encode()
    assert parse_proof(text.encode()) == proof


@pytest.mark.parametrize(
    "text",
    [
        "wrong-header\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n",
        f"c2sp.org/tlog-proof@v1\nindex 0\n{base64.b64encode(bytes(64)).decode()}\n\ncheckpoint\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n" + "a" * 65 * 1024 + "\n",
    ],
)
def test_the_published_malformed_proof_files_are_refused(text):
    with pytest.raises(InvalidProofError):
        parse_proof(text.encode())
