"""Tiles (c2sp.org/tlog-tiles): the tree and its entries as files an auditor fetches or copies.

A tile holds up to 256 neighbouring hashes eight levels apart from the next tile level; an entry
bundle holds the same 256 entries as a tile of level 0. A full one never changes. Everything else
- roots, proofs of any size - follows from them (`node_reader`).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bedside_core.errors import InvalidTileError
from bedside_core.evidence.checkpoint import MAX_SIZE
from bedside_core.evidence.entry import MAX_ENTRY
from bedside_core.evidence.merkle import HASH_BYTES, Frontier, ReadNode

WIDTH = 256
HEIGHT = 8  # levels of the tree from one tile level to the next
MAX_LEVEL = 63
_PATH = re.compile(
    r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*)([0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One file of the export.

    Attributes:
        level: tile level, 0 for leaf hashes; None for a bundle of entries.
        index: place within the level.
        width: hashes or entries in it, 1 to 256; below 256 it is partial.
    """

    level: int | None
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        placed = 0 <= self.index <= MAX_SIZE and (
            self.level is None or 0 <= self.level <= MAX_LEVEL
        )
        if not placed or not 1 <= self.width <= WIDTH:
            raise InvalidTileError("a tile has a level to 63, an index from 0, a width to 256")

    @property
    def path(self) -> str:
        """Its name below the log's prefix: `tile/<L>/<N>[.p/<W>]`, N in groups of three digits."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.insert(0, f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        partial = f".p/{self.width}" if self.width < WIDTH else ""
        return f"tile/{level}/{'/'.join(groups)}{partial}"


def parse_tile_path(path: str) -> Tile:
    """Return the tile a path names.

    Raises:
        InvalidTileError: not the one spelling of a tile's path.
    """
    found = _PATH.fullmatch(path)
    if found is None or len(path) > 64:
        raise InvalidTileError("not the path of a tile")
    level, outer, last, width = found.groups()
    tile = Tile(
        level=None if level == "entries" else int(level),
        index=int(outer.replace("x", "").replace("/", "") + last),
        width=WIDTH if width is None else int(width),
    )
    if tile.path != path:  # x000 in front, a width of 256 written out
        raise InvalidTileError("a tile's path has one spelling")
    return tile


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """Every tile and bundle of a tree of `size` entries that the tree of `since` had not.

    Bundles come first, then levels upwards; the rightmost of each may be partial.

    Raises:
        InvalidTileError: `since` is negative or above `size`.
    """
    if not 0 <= since <= size:
        raise InvalidTileError(f"a tree of {size} entries was never one of {since}")
    yield from _row(None, size, since)
    level = 0
    while size >> (HEIGHT * level):
        yield from _row(level, size >> (HEIGHT * level), since >> (HEIGHT * level))
        level += 1


def tile_bytes(tile: Tile, read: ReadNode) -> bytes:
    """The hashes of a tile, 32 bytes each: of full subtrees of 256^level entries.

    Raises:
        InvalidTileError: the tile is an entry bundle, which has no hashes.
    """
    if tile.level is None:
        raise InvalidTileError("an entry bundle holds entries, not hashes")
    first = tile.index * WIDTH
    return b"".join(read(HEIGHT * tile.level, first + place) for place in range(tile.width))


def bundle_bytes(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry after its length in two bytes, big-endian.

    Raises:
        InvalidTileError: none or more than 256 entries, or one above 65,535 bytes.
    """
    if not 1 <= len(entries) <= WIDTH or any(len(entry) > MAX_ENTRY for entry in entries):
        raise InvalidTileError("a bundle holds 1 to 256 entries of at most 65,535 bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(data: bytes) -> list[bytes]:
    """The entries of a bundle.

    Raises:
        InvalidTileError: the bytes end within an entry, or hold none or more than 256.
    """
    entries: list[bytes] = []
    place = 0
    while place < len(data):
        start = place + 2
        place = start + int.from_bytes(data[place:start], "big")
        if start > len(data) or place > len(data) or len(entries) == WIDTH:
            raise InvalidTileError("a bundle ends within an entry or holds more than 256")
        entries.append(data[start:place])
    if not entries:
        raise InvalidTileError("an empty bundle is never served")
    return entries


def node_reader(size: int, fetch: Callable[[Tile], bytes]) -> ReadNode:
    """Read the nodes of a tree of `size` entries from its tiles.

    What a tile says is worth what its bytes are worth: compare the root that follows with a
    checkpoint before trusting a proof made from it.

    Args:
        size: entries of the tree; names which tiles are partial and how wide.
        fetch: the bytes of a tile.

    Returns:
        A function that raises InvalidTileError for a node outside the tree, and for a tile that
        is not of its length.
    """

    def read(height: int, n: int) -> bytes:
        if height < 0 or n < 0 or (n + 1) << height > size:
            raise InvalidTileError(f"a tree of {size} entries has no node ({height}, {n})")
        level, rise = divmod(height, HEIGHT)
        first = n << rise
        index, place = divmod(first, WIDTH)
        width = min(WIDTH, (size >> (HEIGHT * level)) - index * WIDTH)
        data = fetch(Tile(level=level, index=index, width=width))
        if len(data) != width * HASH_BYTES:
            raise InvalidTileError(f"a tile of width {width} has {width * HASH_BYTES} bytes")
        inner = Frontier()
        for number in range(place, place + (1 << rise)):
            inner.append(data[number * HASH_BYTES : (number + 1) * HASH_BYTES])
        return inner.root()

    return read


def _row(level: int | None, count: int, since: int) -> Iterator[Tile]:
    if count == since:
        return
    for index in range(since // WIDTH, count // WIDTH):
        yield Tile(level=level, index=index)
    if count % WIDTH:
        yield Tile(level=level, index=count // WIDTH, width=count % WIDTH)
