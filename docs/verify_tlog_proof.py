#!/usr/bin/env python3
"""Verify a Bedside proof file on a machine that has nothing of Bedside.

Needs Python 3.11 and the `cryptography` package (50 or newer, for ML-DSA). It shares no code with
the product, so it is a second opinion and not the same one twice.

    python verify_tlog_proof.py FILE --vkey KEY [--vkey KEY ...] [--witness KEY ...] [--quorum N]

FILE is a c2sp.org/tlog-proof@v1 file whose `extra` line holds the entry. KEY is a verifier key
(`name+id+base64`) or a file with one a line. Every --vkey must have signed the checkpoint, and
--quorum of the --witness keys. Exit status: 0 proven, 1 not proven, 2 the command was wrong.
"""

import argparse
import base64
import hashlib
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

LARGEST = 4 << 20  # bytes of a proof file
DASH = "\N{EM DASH} "


class NotProvenError(Exception):
    """The file does not prove what it should."""


def need(holds, why):
    """Stop with `why` unless `holds`."""
    if not holds:
        raise NotProvenError(why)


def unbase64(text):
    """Decode base64 that is the only spelling of its bytes."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise NotProvenError("something is not base64") from None
    need(base64.b64encode(data).decode() == text, "something is not base64 in its only spelling")
    return data


def number(text):
    """Read a decimal without sign or leading zero."""
    need(text.isascii() and text.isdigit() and len(text) < 20, "a number is not a number")
    need(str(int(text)) == text and int(text) < 2**63, "a number is not in its only spelling")
    return int(text)


# --- keys and signatures ---------------------------------------------------------------------


class Key:
    """A verifier key: name, id, type (1 Ed25519, 4 Ed25519 cosignature, 6 ML-DSA-44), bytes."""

    def __init__(self, text):
        parts = text.split("+", 2)
        need(len(parts) == 3 and parts[0] and not any(c.isspace() for c in parts[0]), "not a key")
        self.name, key_id, body = parts[0], parts[1], unbase64(parts[2])
        self.kind, self.raw = body[0], body[1:]
        need(self.kind in (1, 4, 6), f"key {self.name} is of an unknown type")
        need(len(self.raw) == (1312 if self.kind == 6 else 32), "a key has the wrong length")
        self.id = hashlib.sha256(self.name.encode() + b"\n" + body).digest()[:4]
        need(self.id.hex() == key_id, f"key {self.name} does not fit its id")

    def time_of(self, signature):
        """When a cosignature says it was made; 0 for the log's own plain signature."""
        return 0 if self.kind == 1 else int.from_bytes(signature[:8], "big")

    def verify(self, signature, origin, size, root, text):
        """Check one signature line over a checkpoint."""
        time = self.time_of(signature)
        if self.kind == 1:
            message, bare = text, signature
        else:
            need(len(signature) > 8 and 0 < time < 2**63, "a cosignature has no time")
            bare = signature[8:]
            message = f"cosignature/v1\ntime {time}\n".encode() + text
        if self.kind == 6:
            name, log = self.name.encode(), origin.encode()
            need(len(name) < 256 and len(log) < 256, "a name is too long")
            message = b"subtree/v1\n\0" + bytes([len(name)]) + name + time.to_bytes(8, "big")
            message += bytes([len(log)]) + log
            message += bytes(8) + size.to_bytes(8, "big") + root
        try:
            if self.kind == 6:
                MLDSA44PublicKey.from_public_bytes(self.raw).verify(bare, message)
            else:
                Ed25519PublicKey.from_public_bytes(self.raw).verify(bare, message)
        except (InvalidSignature, ValueError):
            raise NotProvenError(f"the signature of {self.name} fails") from None
        return time


def read_keys(given):
    """Keys given as text or as files with one a line."""
    lines = []
    for one in given:
        is_file = len(one) < 256 and Path(one).is_file()
        lines += Path(one).read_text(encoding="utf-8").split() if is_file else [one]
    return [Key(line) for line in lines]


# --- checkpoint ------------------------------------------------------------------------------


def open_checkpoint(data, log_keys, witness_keys, quorum):
    """Return (origin, size, root, [(key, time)]) of a checkpoint that is signed as asked."""
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise NotProvenError("the checkpoint is not UTF-8") from None
    need(not any(ord(c) < 32 and c != "\n" for c in note), "the checkpoint holds a control")
    blank = note.rfind("\n\n")
    need(blank >= 0 and note.endswith("\n"), "the checkpoint has no signature lines")
    text, lines = note[: blank + 1], note[blank + 2 : -1].split("\n")
    need(len(lines) <= 64, "the checkpoint has too many signatures")
    fields = text.split("\n")
    need(len(fields) == 4 and not fields[3], "the checkpoint has not three lines")
    origin, size, root = fields[0], number(fields[1]), unbase64(fields[2])
    need(len(root) == 32, "the root hash has not 32 bytes")
    need(log_keys, "no key of the log was given: without one nothing is proven")
    need(all(key.name == origin for key in log_keys), f"the checkpoint is of {origin!r}")
    signed = {}
    for line in lines:
        need(line.startswith(DASH), "a line is no signature line")
        name, _, encoded = line[len(DASH) :].partition(" ")
        blob = unbase64(encoded)
        for key in (*log_keys, *witness_keys):
            if (key.name, key.id) == (name, blob[:4]):  # other lines are strangers': ignored
                signed[key] = key.verify(blob[4:], origin, size, root, text.encode())
    need(all(key in signed for key in log_keys), "the log did not sign with all its keys")
    found = {(key.name, key.raw) for key in witness_keys if key in signed}  # each once
    need(len(found) >= quorum, f"{len(found)} witness keys signed, {quorum} must have")
    return origin, size, root, list(signed.items())


# --- inclusion -------------------------------------------------------------------------------


def root_from(index, size, leaf, path):
    """The root that a leaf and its proof lead to (RFC 9162, 2.1.3.2)."""
    need(0 <= index < size, "the entry lies outside the tree")
    place, last, digest = index, size - 1, leaf
    for sibling in path:
        need(last > 0, "the proof is too long")
        if place & 1 or place == last:
            digest = hashlib.sha256(b"\x01" + sibling + digest).digest()
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            digest = hashlib.sha256(b"\x01" + digest + sibling).digest()
        place, last = place >> 1, last >> 1
    need(last == 0, "the proof is too short")
    return digest


def verify(data, log_keys, witness_keys=(), quorum=0):
    """Return what the file proves; NotProvenError otherwise."""
    need(len(data) <= LARGEST, "the file is too large")
    head, blank, checkpoint = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise NotProvenError("the proof is not ASCII") from None
    need(blank and lines.pop(0) == "c2sp.org/tlog-proof@v1", "not a proof file")
    need(lines and lines[0].startswith("extra "), "the file does not hold the entry")
    entry = unbase64(lines.pop(0)[len("extra ") :])
    need(lines and lines[0].startswith("index "), "the file names no index")
    index = number(lines.pop(0)[len("index ") :])
    path = [unbase64(line) for line in lines]
    need(all(len(each) == 32 for each in path) and len(path) <= 63, "a hash has not 32 bytes")
    origin, size, root, signed = open_checkpoint(checkpoint, log_keys, witness_keys, quorum)
    leaf = hashlib.sha256(b"\x00" + entry).digest()
    need(root_from(index, size, leaf, path) == root, "the entry is not in the tree that was signed")
    return {
        "origin": origin,
        "index": index,
        "size": size,
        "entry": entry.decode("ascii", "backslashreplace"),
        "signed": [[key.name, key.id.hex(), time] for key, time in signed],
    }


def main():
    """Read the command, verify, say it."""
    told = __doc__.partition("\n\n")[0]
    parser = argparse.ArgumentParser(description=told)
    parser.add_argument("file", type=Path)
    parser.add_argument("--vkey", action="append", required=True)
    parser.add_argument("--witness", action="append", default=[])
    parser.add_argument("--quorum", type=int, default=0)
    given = parser.parse_args()
    try:
        data = given.file.read_bytes()
        proven = verify(data, read_keys(given.vkey), read_keys(given.witness), given.quorum)
    except OSError as cause:
        print(f"cannot be read: {cause}", file=sys.stderr)
        return 2
    except NotProvenError as cause:
        print(f"NOT PROVEN: {cause}", file=sys.stderr)
        return 1
    print(json.dumps(proven, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
