"""RFC 6962 trees: the reference leaves of certificate-transparency, with each known wrong proof.

Values: transparency-dev/merkle `proof/verify_test.go` (Apache-2.0), which carries on the test data
of google/certificate-transparency.
"""

import pytest

from bedside_core.evidence.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_holds,
    consistency_proof,
    inclusion_holds,
    inclusion_proof,
    leaf_hash,
    root_of,
)

LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
G = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
H = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
L1 = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
R2 = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"

INCLUSION = [  # index from zero, size, proof
    (0, 1, []),
    (0, 8, [A, B, C]),
    (5, 8, [D, E, F]),
    (2, 3, [R2]),
    (1, 5, [L1, B, D]),
]
CONSISTENCY = [
    (1, 1, []),
    (1, 8, [A, B, C]),
    (6, 8, [G, E, F]),
    (2, 5, [B, D]),
    (6, 7, [G, H, F]),
]
SOME_HASH = bytes.fromhex("abacaba000000000000000000000000000000000000000000060061e00123456")


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


@pytest.fixture(scope="module")
def read():
    frontier, nodes = Frontier(), {}
    for leaf in LEAVES:
        nodes |= {(node.level, node.n): node.digest for node in frontier.append(leaf_hash(leaf))}
    return lambda level, n: nodes[level, n]


def test_the_empty_tree_has_the_hash_of_nothing():
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert root_of([]).hex() == EMPTY_ROOT.hex() == empty


@pytest.mark.parametrize("size", range(1, 9))
def test_every_size_has_the_published_root(size):
    assert root_of(LEAVES[:size]) == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "texts"), INCLUSION)
def test_the_published_inclusion_proof_is_made_and_holds(index, size, texts, read):
    proof, leaf = hashes(texts), leaf_hash(LEAVES[index])
    assert inclusion_proof(index, size, read) == proof
    assert inclusion_holds(index, size, leaf, proof, ROOTS[size - 1])


@pytest.mark.parametrize(("index", "size", "texts"), INCLUSION)
def test_every_wrong_inclusion_proof_of_the_published_set_fails(index, size, texts):
    proof, leaf, root = hashes(texts), leaf_hash(LEAVES[index]), ROOTS[size - 1]
    wrong = [
        (index - 1, size, leaf, proof, root),
        (index + 1, size, leaf, proof, root),
        (index ^ 2, size, leaf, proof, root),
        (index, size * 2, leaf, proof, root),
        (index, size // 2, leaf, proof, root),
        (index, size, b"WrongLeaf", proof, root),
        (index, size, leaf, proof, EMPTY_ROOT),
        (index, size, leaf, proof, SOME_HASH),
        (index, size, leaf, [*proof, b""], root),
        (index, size, leaf, [*proof, root], root),
        (index, size, leaf, [b"", *proof], root),
        (index, size, leaf, [root, *proof], root),
        (index, size, leaf, [*proof[:1], SOME_HASH, *proof[1:]], root),
    ]
    for place in range(len(proof)):
        flipped = bytes([proof[place][0] ^ 8]) + proof[place][1:]
        wrong.append((index, size, leaf, [*proof[:place], flipped, *proof[place + 1 :]], root))
    if proof:
        wrong.append((index, size, leaf, proof[:-1], root))
    assert [case for case in wrong if inclusion_holds(*case)] == []


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 1), (1, 0), (2, 1)])
def test_nothing_is_in_a_tree_without_a_proper_leaf_and_root(index, size):
    for leaf, root in [(SOME_HASH, b""), (b"", EMPTY_ROOT), (SOME_HASH, EMPTY_ROOT), (b"", b"")]:
        assert not inclusion_holds(index, size, leaf, [], root)


@pytest.mark.parametrize(("old", "new", "texts"), CONSISTENCY)
def test_the_published_consistency_proof_is_made_and_holds(old, new, texts, read):
    proof = hashes(texts)
    assert consistency_proof(old, new, read) == proof
    assert consistency_holds(old, new, ROOTS[old - 1], ROOTS[new - 1], proof)


@pytest.mark.parametrize(("old", "new", "texts"), [case for case in CONSISTENCY if case[2]])
def test_every_wrong_consistency_proof_of_the_published_set_fails(old, new, texts):
    proof, before, after = hashes(texts), ROOTS[old - 1], ROOTS[new - 1]
    wrong = [
        (old - 1, new, before, after, proof),
        (old + 1, new, before, after, proof),
        (old ^ 2, new, before, after, proof),
        (old, new * 2, before, after, proof),
        (old, new // 2, before, after, proof),
        (old, new, b"WrongRoot", after, proof),
        (old, new, before, b"WrongRoot", proof),
        (old, new, after, before, proof),
        (old, new, before, after, []),
        (old, new, before, after, [*proof, b""]),
        (old, new, before, after, [*proof, before]),
        (old, new, before, after, [*proof, after]),
        (old, new, before, after, [b"", *proof]),
        (old, new, before, after, [before, *proof]),
        (old, new, before, after, [after, *proof]),
        (old, new, before, after, [proof[0], *proof]),
        (old, new, before, after, proof[:-1]),
    ]
    for place in range(len(proof)):
        flipped = bytes([proof[place][0] ^ 16]) + proof[place][1:]
        wrong.append((old, new, before, after, [*proof[:place], flipped, *proof[place + 1 :]]))
    assert [case for case in wrong if consistency_holds(*case)] == []


@pytest.mark.parametrize(
    ("old", "new", "before", "after", "proof"),
    [
        (0, 0, SOME_HASH, EMPTY_ROOT, []),
        (0, 0, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
        (0, 1, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
        (1, 1, EMPTY_ROOT, EMPTY_ROOT, [EMPTY_ROOT]),
        (1, 0, SOME_HASH, EMPTY_ROOT, []),
        (2, 1, SOME_HASH, EMPTY_ROOT, []),
        (1, 2, SOME_HASH, EMPTY_ROOT, []),
        (1, 1, SOME_HASH, EMPTY_ROOT, []),
    ],
)
def test_the_edge_cases_of_the_published_set_fail(old, new, before, after, proof):
    assert not consistency_holds(old, new, before, after, proof)


def test_an_unchanged_tree_is_consistent_with_itself():
    assert consistency_holds(1, 1, SOME_HASH, SOME_HASH, [])
