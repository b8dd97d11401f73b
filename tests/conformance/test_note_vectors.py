"""Signed notes, checkpoints and cosignatures that other programs made; DSSE's encoding example.

Sources: C2SP signed-note and tlog-checkpoint; golang.org/x/mod `sumdb/note` (BSD-3-Clause);
transparency-dev/tessera `testdata` (Apache-2.0), whose key is published for tests; for the files,
see vectors/README.md.
"""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedside_core.errors import InvalidKeyError, UntrustedSignatureError
from bedside_core.evidence.checkpoint import (
    Checkpoint,
    checkpoint_statement,
    open_checkpoint,
    parse_checkpoint_text,
    sign_checkpoint,
    signed_note,
    subtree_message,
)
from bedside_core.evidence.merkle import root_of
from bedside_core.evidence.note import parse_note, parse_verifier_key, verified_signatures
from bedside_core.signatures import Algorithm, PublicKey, pre_authentication

VECTORS = Path(__file__).parent / "vectors"

SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n"
    "\N{EM DASH} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOB"
    "H3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
PETER_LINE = (
    "\N{EM DASH} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqf"
    "qdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "\N{EM DASH} EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTG"
    "wnWLox33WWd1RvMc+QQ=\n"
)
GO_NOTE = f"{GO_TEXT}\n{PETER_LINE}{ENOCH_LINE}"

TESSERA_ORIGIN = "example.com/log/testdata"
TESSERA_KEY = f"{TESSERA_ORIGIN}+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
TESSERA_SEED = base64.b64decode("AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg")[1:]
TESSERA_LEAVES = (
    b"one two three four five six seven eit nain ten ileven twelf threeten fourten fivten".split()
)
TESSERA = {  # size: root, signature
    0: (
        "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "M9e0lhxJACzE1KoUdqKuPa+9p6R7dSW8BlEvrg/noo8FkGg6PbJoRNOcdjqjOq89wVvTA60eubCc4oufo5BvIVEgtQc=",
    ),
    8: (
        "bC+VwvrJbalNVjfkdI8kUgs7mJoXrqiXCE7bgnD28pY=",
        "M9e0lq1EK37dHtgv9O3UzPxisw5vwIPcJsX9ab0xt4mvVfbdUR1fbMjN6sBFYpBoBEmD4+cWhj/AVgI5MitCO5+mews=",
    ),
    11: (
        "Yok1cS5VdokGLBy73BC2I16b3atss6KBN9jnIi6Fz/A=",
        "M9e0lqbRtWirJwbUy4w3VrK2RyzfW8P+OIkc8t6b6AVG/tQd1Q2SN+uCLYzNNFnf/PhzeCdURSGQe1MRnohCxPu21wg=",
    ),
    15: (
        "rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=",
        "M9e0luh4jTG+UMBqOUo9/q+yAEvx1ilBEniMvjf1zfcBOhg+CKubMt53MvIt/uEWP6zdkdIQzd/fmwlM/dlPWF74ewI=",
    ),
}


def tessera_note(size: int) -> bytes:
    root, signature = TESSERA[size]
    text = f"{TESSERA_ORIGIN}\n{size}\n{root}\n"
    return f"{text}\n\N{EM DASH} {TESSERA_ORIGIN} {signature}\n".encode()


@pytest.mark.parametrize("text", [SPEC_KEY, PETER_KEY, ENOCH_KEY, TESSERA_KEY])
def test_a_published_key_is_read_and_written_back(text):
    assert parse_verifier_key(text).text == text


def test_every_published_key_with_one_character_changed_is_refused():
    for place in range(len(PETER_KEY)):
        changed = PETER_KEY[:place] + chr(ord(PETER_KEY[place]) + 1) + PETER_KEY[place + 1 :]
        with pytest.raises(InvalidKeyError):
            parse_verifier_key(changed)


def test_every_part_of_a_published_key_is_refused():
    for start in range(len(PETER_KEY)):
        for end in range(start + 1, len(PETER_KEY) + 1):
            if end - start < len(PETER_KEY):
                with pytest.raises(InvalidKeyError):
                    parse_verifier_key(PETER_KEY[start:end])


def test_the_example_of_the_note_text_verifies():
    note = parse_note(SPEC_NOTE.encode())
    key = parse_verifier_key(SPEC_KEY)
    assert note.text == "This is an example message.\n"
    assert [found for found, _ in verified_signatures(note, [key])] == [key]
    assert note.encode() == SPEC_NOTE.encode()


def test_the_go_example_verifies_under_both_its_keys():
    note = parse_note(GO_NOTE.encode())
    keys = [parse_verifier_key(PETER_KEY), parse_verifier_key(ENOCH_KEY)]
    assert note.text == GO_TEXT
    assert [found for found, _ in verified_signatures(note, keys)] == keys
    assert note.encode() == GO_NOTE.encode()


def test_a_changed_letter_of_the_go_example_is_seen():
    note = parse_note(GO_NOTE.replace("answer", "Answer").encode())
    with pytest.raises(UntrustedSignatureError):
        verified_signatures(note, [parse_verifier_key(ENOCH_KEY)])


@pytest.mark.parametrize("size", TESSERA)
def test_a_checkpoint_of_tessera_verifies_and_its_root_is_ours(size):
    opened = open_checkpoint(tessera_note(size), TESSERA_ORIGIN, [parse_verifier_key(TESSERA_KEY)])
    assert opened.checkpoint.size == size
    assert opened.checkpoint.root == root_of(TESSERA_LEAVES[:size])


@pytest.mark.parametrize("size", TESSERA)
def test_our_checkpoint_is_tesseras_byte_for_byte(size):
    checkpoint = Checkpoint(origin=TESSERA_ORIGIN, size=size, root=root_of(TESSERA_LEAVES[:size]))
    sign = Ed25519PrivateKey.from_private_bytes(TESSERA_SEED).sign
    line = sign_checkpoint(checkpoint, parse_verifier_key(TESSERA_KEY), sign)
    assert signed_note(checkpoint, [line]) == tessera_note(size)


def test_the_example_of_the_checkpoint_text_is_read():
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert parse_checkpoint_text(text).size == 20852163
    assert parse_checkpoint_text(text).text == text


def test_both_cosignatures_of_a_public_witness_verify():
    note = parse_note((VECTORS / "navigli_checkpoint.txt").read_bytes())
    keys = [
        parse_verifier_key(line)
        for line in (VECTORS / "navigli_keys.txt").read_text(encoding="utf-8").splitlines()
    ]
    found = verified_signatures(note, keys, checkpoint_statement)
    assert [key for key, _ in found] == keys
    assert {int.from_bytes(line.signature[:8], "big") for _, line in found} == {0x6A6FB0F3}


def test_a_public_witness_did_not_cosign_another_size():
    data = (VECTORS / "navigli_checkpoint.txt").read_bytes()
    note = parse_note(data.replace(b"185550722", b"185550723"))
    for line in (VECTORS / "navigli_keys.txt").read_text(encoding="utf-8").splitlines():
        with pytest.raises(UntrustedSignatureError):
            verified_signatures(note, [parse_verifier_key(line)], checkpoint_statement)


def test_the_subtree_signature_of_torchwood_verifies():
    key_text, line = (VECTORS / "torchwood_ml_dsa_44.txt").read_text(encoding="utf-8").splitlines()
    key = parse_verifier_key(key_text)
    signed = parse_note(f"any\n\n{line}\n".encode()).signatures[0]
    root = base64.b64decode("E7ERCtFloiK1fdb+B6/dLG0pM1nmIR0ETKBSauCjtVw=")
    message = subtree_message(key.name, 0, "example.com/log", 8, 13, root)
    assert (signed.name, signed.key_id) == (key.name, key.key_id)
    assert key.public.accepts(message, signed.signature[8:])
    assert not key.public.accepts(message + b"\0", signed.signature[8:])


@pytest.mark.parametrize(
    ("key", "message", "signature"),
    [  # RFC 8032 section 7.1, tests 1 to 3
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_ed25519_accepts_the_signatures_of_rfc_8032(key, message, signature):
    public = PublicKey(algorithm=Algorithm.ED25519, raw=bytes.fromhex(key))
    assert public.accepts(bytes.fromhex(message), bytes.fromhex(signature))
    assert not public.accepts(bytes.fromhex(message) + b"x", bytes.fromhex(signature))


def test_dsse_covers_type_and_payload_as_its_protocol_shows():
    encoded = pre_authentication("http://example.com/HelloWorld", b"hello world")
    assert encoded == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
