"""The Merkle tree of RFC 6962 section 2.1 with SHA-256: roots, proofs, and their checks.

Only perfect subtrees are stored: node (level, n) is the tree hash of entries [n * 2^level,
(n + 1) * 2^level). Such a node never changes once it exists, and every root and every proof of
every size is built from them. A check takes (index, size, proof, root) and no tree, so it runs on
a machine that has nothing but one file.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bedside_core.errors import InvalidProofError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
ReadNode = Callable[[int, int], bytes]  # (level, n) -> hash of that perfect subtree


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A perfect subtree: entries [n * 2^level, (n + 1) * 2^level) and their tree hash."""

    level: int
    n: int
    digest: bytes


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: one perfect subtree for each 1 bit of its size.

    Appending costs two hashes on average and the whole state is at most 63 hashes, so a million
    entries are checked without holding a tree.
    """

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []  # widest subtree first

    @classmethod
    def resume(cls, size: int, read: ReadNode) -> "Frontier":
        """The frontier of a stored tree of `size` entries."""
        frontier = cls()
        frontier.size = size
        frontier._edge = [
            read(level, (size >> level) - 1)
            for level in reversed(range(size.bit_length()))
            if size >> level & 1
        ]
        return frontier

    def append(self, leaf: bytes) -> list[Node]:
        """Add one leaf hash; return the nodes it completes, the leaf first, for the store."""
        n, level, digest = self.size, 0, leaf
        completed = [Node(level=0, n=n, digest=leaf)]
        while n & 1:  # a right child: with its left neighbour it completes the parent
            digest = node_hash(self._edge.pop(), digest)
            n, level = n >> 1, level + 1
            completed.append(Node(level=level, n=n, digest=digest))
        self._edge.append(digest)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root hash over everything appended."""
        if not self._edge:
            return EMPTY_ROOT
        root = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            root = node_hash(left, root)
        return root


def root_of(entries: Iterable[bytes]) -> bytes:
    """The root hash over entries, from nothing but their bytes."""
    frontier = Frontier()
    for entry in entries:
        frontier.append(leaf_hash(entry))
    return frontier.root()


def root_at(size: int, read: ReadNode) -> bytes:
    """The root hash the stored tree had when it held `size` entries."""
    return Frontier.resume(size, read).root()


# --- proofs ----------------------------------------------------------------------------------


def inclusion_proof(index: int, size: int, read: ReadNode) -> list[bytes]:
    """The hashes that lead from entry `index` to the root at `size`, the leaf's sibling first.

    Raises:
        InvalidProofError: the tree of that size has no such entry.

    Source: RFC 6962 section 2.1.1, PATH.
    """
    if not 0 <= index < size:
        raise InvalidProofError(f"a tree of {size} entries has no entry {index}")
    start, end, siblings = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((start, middle))
            start = middle
    return [_subtree_hash(*span, read) for span in reversed(siblings)]


def consistency_proof(old: int, new: int, read: ReadNode) -> list[bytes]:
    """The hashes that show that the tree at `new` begins with the tree at `old`.

    Empty when the sizes are equal, and from the empty tree, which proves nothing.

    Raises:
        InvalidProofError: `old` is negative or above `new`.

    Source: RFC 6962 section 2.1.2, PROOF.
    """
    if not 0 <= old <= new:
        raise InvalidProofError(f"no consistency proof leads from {old} to {new} entries")
    if old == 0:
        return []
    start, end, parts = 0, new, []
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            parts.append((middle, end))
            end = middle
        else:
            parts.append((start, middle))
            start = middle
    if start:  # the old root is not among the parts the verifier already has
        parts.append((start, end))
    return [_subtree_hash(*span, read) for span in reversed(parts)]


def inclusion_holds(
    index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` shows that `leaf` is entry `index` of the tree (size, root).

    Args:
        index: zero-based place in the log.
        size: number of entries of the tree that has `root`.
        leaf: 32 bytes, `leaf_hash` of the entry.
        proof: 32 bytes each, the leaf's sibling first.
        root: 32 bytes, from a checkpoint whose signatures were checked.

    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < size or not _are_hashes(leaf, root, *proof):
        return False
    position, last, digest = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            digest = node_hash(sibling, digest)
            while not position & 1 and position:  # levels at which the right edge has no sibling
                position, last = position >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and digest == root


def consistency_holds(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the tree (new, new_root) begins with (old, old_root).

    From the empty tree (`old` = 0) nothing can be shown and the answer is False: a caller who
    knows no earlier checkpoint has none to compare.

    Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 < old <= new or not _are_hashes(old_root, new_root, *proof):
        return False
    if old == new:
        return not proof and old_root == new_root
    # A perfect old tree is itself the first hash, so the proof leaves it out.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not proof:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    old_digest = new_digest = path[0]
    for part in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old_digest, new_digest = node_hash(part, old_digest), node_hash(part, new_digest)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_digest = node_hash(new_digest, part)
        position, last = position >> 1, last >> 1
    return last == 0 and old_digest == old_root and new_digest == new_root


def _are_hashes(*values: bytes) -> bool:
    return all(len(value) == HASH_BYTES for value in values)


def _split(width: int) -> int:
    """The largest power of two below `width`; RFC 6962's k."""
    return 1 << ((width - 1).bit_length() - 1)


def _subtree_hash(start: int, end: int, read: ReadNode) -> bytes:
    """Tree hash of entries [start, end), a span that the halving of some tree meets."""
    width = end - start
    if width & (width - 1) == 0:
        level = width.bit_length() - 1
        return read(level, start >> level)
    middle = start + _split(width)
    return node_hash(_subtree_hash(start, middle, read), _subtree_hash(middle, end, read))
