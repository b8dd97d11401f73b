"""Tiles: one path each, everything of a tree in them, and nothing believed about their length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import InvalidTileError
from bedside_core.evidence.checkpoint import MAX_SIZE
from bedside_core.evidence.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_at,
)
from bedside_core.evidence.tiles import (
    Tile,
    bundle_bytes,
    node_reader,
    parse_bundle,
    parse_tile_path,
    tile_bytes,
    tiles_of,
)
from support.evidence_log import tree

ENTRIES = [b"%d" % number for number in range(66_000)]
READ = tree(ENTRIES)
TILES = st.builds(
    Tile,
    level=st.none() | st.integers(0, 63),
    index=st.integers(0, MAX_SIZE),
    width=st.integers(1, 256),
)


@given(tile=TILES)
def test_a_tiles_path_is_read_as_it_was_written(tile):
    assert parse_tile_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/1000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/300",
        "tile/0/000/",
        "/tile/0/000",
        "tile/entry/000",
        "tile/0/000\n",
        "tile/0/" + "x999/" * 7 + "999",
        "tile/0/" + "x999/" * 20 + "999",
    ],
)
def test_a_second_spelling_of_a_path_is_refused(path):
    with pytest.raises(InvalidTileError):
        parse_tile_path(path)


@pytest.mark.parametrize("fields", [{"level": 64}, {"index": -1}, {"width": 0}, {"width": 257}])
def test_what_is_no_tile_cannot_exist(fields):
    with pytest.raises(InvalidTileError):
        Tile(**{"level": 0, "index": 0} | fields)


@given(size=st.integers(0, 200_000), data=st.data())
def test_an_export_in_steps_has_every_tile_of_one_export(size, data):
    since = data.draw(st.integers(0, size))
    stepwise = {*tiles_of(since), *tiles_of(size, since)}
    assert stepwise >= set(tiles_of(size))
    assert set(tiles_of(size, since)) <= set(tiles_of(size))


def test_nothing_new_is_no_tile_and_time_does_not_go_back():
    assert list(tiles_of(300, 300)) == []
    for since in (-1, 301):
        with pytest.raises(InvalidTileError):
            list(tiles_of(300, since))


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, len(ENTRIES)), data=st.data())
def test_roots_and_proofs_follow_from_tiles_alone(size, data):
    files = {}
    reader = node_reader(size, lambda tile: files.setdefault(tile.path, tile_bytes(tile, READ)))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert root_at(size, reader) == root_at(size, READ)
    assert inclusion_proof(index, size, reader) == inclusion_proof(index, size, READ)
    assert consistency_proof(old, size, reader) == consistency_proof(old, size, READ)
    assert set(files) <= {tile.path for tile in tiles_of(size)}


def test_a_tree_of_three_levels_of_tiles_is_read():
    reader = node_reader(66_000, lambda tile: tile_bytes(tile, READ))
    assert reader(16, 0) == READ(16, 0)
    assert reader(9, 3) == READ(9, 3)


@pytest.mark.parametrize(("height", "n"), [(-1, 0), (0, -1), (0, 300), (2, 75), (9, 0), (8, 1)])
def test_a_node_outside_the_tree_is_refused(height, n):
    with pytest.raises(InvalidTileError):
        node_reader(300, lambda tile: tile_bytes(tile, READ))(height, n)


def test_a_tile_of_another_length_is_refused():
    with pytest.raises(InvalidTileError):
        node_reader(300, lambda tile: bytes(31))(0, 0)


def test_a_bundle_has_no_hashes():
    with pytest.raises(InvalidTileError):
        tile_bytes(Tile(level=None, index=0), READ)


@given(entries=st.lists(st.binary(max_size=40), min_size=1, max_size=256))
def test_a_bundle_is_read_as_it_was_written(entries):
    assert parse_bundle(bundle_bytes(entries)) == entries


def test_a_bundle_hashes_to_its_tile():
    bundle = parse_bundle(bundle_bytes(ENTRIES[256:300]))
    tile = tile_bytes(Tile(level=0, index=1, width=44), READ)
    assert b"".join(leaf_hash(entry) for entry in bundle) == tile


@given(data=st.binary(max_size=60))
def test_any_bytes_are_a_bundle_or_refused(data):
    try:
        entries = parse_bundle(data)
    except InvalidTileError:
        return  # the only error that hostile bytes may end in
    assert bundle_bytes(entries) == data


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\x02a", b"\0\0" * 257])
def test_a_torn_empty_or_overfull_bundle_is_refused(data):
    with pytest.raises(InvalidTileError):
        parse_bundle(data)


@pytest.mark.parametrize("entries", [[], [b""] * 257, [bytes(65_536)]])
def test_what_fits_no_bundle_is_not_written(entries):
    with pytest.raises(InvalidTileError):
        bundle_bytes(entries)
