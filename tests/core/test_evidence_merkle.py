"""The Merkle tree: every proof of every size holds, and no changed one does."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidProofError
from bedside_core.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root_at,
    root_of,
)
from support.evidence_log import tree

ENTRIES = [b"entry %d" % number for number in range(300)]
READ = tree(ENTRIES)
SIZES = st.integers(1, len(ENTRIES))


def defined_root(entries: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word and slow."""
    if not entries:
        return hashlib.sha256().digest()
    if len(entries) == 1:
        return leaf_hash(entries[0])
    k = max(1 << bit for bit in range(len(entries).bit_length()) if 1 << bit < len(entries))
    return node_hash(defined_root(entries[:k]), defined_root(entries[k:]))


ROOTS = [defined_root(ENTRIES[:size]) for size in range(len(ENTRIES) + 1)]


def test_roots_are_those_of_the_definition_for_every_size():
    assert [root_at(size, READ) for size in range(len(ENTRIES) + 1)] == ROOTS
    assert root_of(ENTRIES[:77]) == ROOTS[77]
    assert ROOTS[0] == EMPTY_ROOT


def test_every_entry_of_every_small_tree_is_proven():
    for size in range(1, 66):
        for index in range(size):
            proof = inclusion_proof(index, size, READ)
            assert inclusion_holds(index, size, leaf_hash(ENTRIES[index]), proof, ROOTS[size])


def test_every_pair_of_small_sizes_is_consistent():
    for new in range(1, 66):
        for old in range(1, new + 1):
            assert consistency_holds(
                old, new, ROOTS[old], ROOTS[new], consistency_proof(old, new, READ)
            )


@given(size=SIZES, data=st.data())
def test_inclusion_holds_for_its_entry_and_place_only(size, data):
    index, other = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size - 1))
    proof, leaf = inclusion_proof(index, size, READ), leaf_hash(ENTRIES[index])
    assert inclusion_holds(index, size, leaf, proof, ROOTS[size])
    assert inclusion_holds(other, size, leaf, proof, ROOTS[size]) == (other == index)
    assert inclusion_holds(index, size, leaf_hash(ENTRIES[other]), proof, ROOTS[size]) == (
        other == index
    )


@given(size=SIZES, data=st.data(), bit=st.integers(0, 255))
def test_any_flipped_bit_breaks_inclusion(size, data, bit):
    index = data.draw(st.integers(0, size - 1))
    parts = [leaf_hash(ENTRIES[index]), ROOTS[size], *inclusion_proof(index, size, READ)]
    place = data.draw(st.integers(0, len(parts) - 1))
    parts[place] = flipped(parts[place], bit)
    assert not inclusion_holds(index, size, parts[0], parts[2:], parts[1])


@given(new=SIZES, data=st.data(), bit=st.integers(0, 255))
def test_any_flipped_bit_breaks_consistency(new, data, bit):
    old = data.draw(st.integers(1, new))
    parts = [ROOTS[old], ROOTS[new], *consistency_proof(old, new, READ)]
    assert consistency_holds(old, new, parts[0], parts[1], parts[2:])
    place = data.draw(st.integers(0, len(parts) - 1))
    parts[place] = flipped(parts[place], bit)
    assert not consistency_holds(old, new, parts[0], parts[1], parts[2:])


@given(new=SIZES, data=st.data())
def test_a_rewritten_past_has_no_consistency_proof(new, data):
    old = data.draw(st.integers(1, new))
    changed = data.draw(st.integers(0, old - 1))
    forked = [*ENTRIES[:changed], b"rewritten", *ENTRIES[changed + 1 : new]]
    proof = consistency_proof(old, new, tree(forked))
    assert not consistency_holds(old, new, ROOTS[old], root_of(forked), proof)


@given(new=SIZES, data=st.data())
def test_a_proof_with_a_hash_more_or_less_fails(new, data):
    index, old = data.draw(st.integers(0, new - 1)), data.draw(st.integers(1, new))
    leaf = leaf_hash(ENTRIES[index])
    for proof in lengthened_and_shortened(inclusion_proof(index, new, READ)):
        assert not inclusion_holds(index, new, leaf, proof, ROOTS[new])
    for proof in lengthened_and_shortened(consistency_proof(old, new, READ)):
        assert not consistency_holds(old, new, ROOTS[old], ROOTS[new], proof)


def test_what_is_no_hash_or_outside_the_tree_is_in_no_proof():
    leaf = leaf_hash(ENTRIES[0])
    for case in [(-1, 1, leaf, [], leaf), (1, 1, leaf, [], leaf), (0, 1, leaf[:31], [], leaf)]:
        assert not inclusion_holds(*case)
    for old, new in [(2, 4), (3, 4)]:
        assert not consistency_holds(old, new, ROOTS[old], ROOTS[new], [])
    assert not consistency_holds(3, 3, ROOTS[3], ROOTS[2], [])
    assert not consistency_holds(3, 3, ROOTS[3][:31], ROOTS[3][:31], [])


def test_from_the_empty_tree_nothing_is_shown():
    assert consistency_proof(0, 5, READ) == []
    assert not consistency_holds(0, 5, EMPTY_ROOT, ROOTS[5], [])
    assert not consistency_holds(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])


def test_a_frontier_resumed_from_the_store_goes_on_as_the_first_would():
    whole = Frontier()
    for size, entry in enumerate(ENTRIES[:70]):
        resumed = Frontier.resume(size, READ)
        assert resumed.root() == whole.root()
        assert resumed.append(leaf_hash(entry)) == whole.append(leaf_hash(entry))
        assert resumed.size == size + 1


def test_appending_completes_each_perfect_subtree_once_and_rising():
    frontier, seen = Frontier(), set()
    for entry in ENTRIES[:64]:
        completed = frontier.append(leaf_hash(entry))
        assert all(right.level == left.level + 1 for left, right in pairwise(completed))
        seen.update((node.level, node.n) for node in completed)
    assert seen == {(level, n) for level in range(7) for n in range(64 >> level)}


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_an_entry_outside_the_tree_has_no_proof(index, size):
    with pytest.raises(InvalidProofError):
        inclusion_proof(index, size, READ)


@pytest.mark.parametrize(("old", "new"), [(-1, 3), (4, 3)])
def test_sizes_out_of_order_have_no_proof(old, new):
    with pytest.raises(InvalidProofError):
        consistency_proof(old, new, READ)


def flipped(digest: bytes, bit: int) -> bytes:
    return (int.from_bytes(digest, "big") ^ 1 << bit).to_bytes(32, "big")


def lengthened_and_shortened(proof: list[bytes]) -> list[list[bytes]]:
    changed = [[*proof, EMPTY_ROOT], [EMPTY_ROOT, *proof]]
    return changed + ([proof[:-1], proof[1:]] if proof else [])
