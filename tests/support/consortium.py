"""A consortium in one process: administrators, boxes, helpers, a hub, and a round between them."""

import os
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bedside_core.signatures import Algorithm, PublicKey
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.manifest import (
    Helper,
    Manifest,
    Purpose,
    Segment,
    SignedManifest,
    helper_message,
    local_sigma2,
)
from bedside_sync.secagg.prg import Tag, signed_bytes
from bedside_sync.secagg.report import Sealed, make_report, open_envelope
from bedside_sync.secagg.roster import (
    Administrator,
    Change,
    Entry,
    Root,
    Roster,
    Signature,
    SignedEntry,
    extend,
    read_roster,
)

CODE = "c0" * 32
MODEL = "11" * 32
NOW = 1_800_000_000


def raw(key) -> bytes:
    return key.public_key().public_bytes_raw()


def public(key: Ed25519PrivateKey) -> PublicKey:
    return PublicKey(algorithm=Algorithm.ED25519, raw=raw(key))


@dataclass
class Consortium:
    """Two administrators and as many sites as asked for; every private key is at hand."""

    sites: int = 5
    admins: dict = field(default_factory=lambda: {a: Ed25519PrivateKey.generate() for a in "ab"})
    keys: dict = field(default_factory=dict)
    hub: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    entries: list = field(default_factory=list)

    def __post_init__(self):
        self.root = Root(
            consortium="lungs",
            administrators={
                f"admin-{a}": Administrator(organisation=f"org-{a}", key=raw(key).hex())
                for a, key in self.admins.items()
            },
        )
        self.roster: Roster = read_roster(self.root, [])
        for number in range(self.sites):
            self.join(f"box-{number}", f"hospital-{number}")

    def sign(self, tag: Tag, body: bytes, by: str = "ab") -> list[Signature]:
        return [
            Signature(by=f"admin-{a}", signature=self.admins[a].sign(signed_bytes(tag, body)).hex())
            for a in by
        ]

    def entry(self, box: str, organisation: str, **changes) -> Entry:
        self.keys.setdefault(box, Ed25519PrivateKey.generate())
        given = {
            "seq": self.roster.size,
            "previous": self.roster.head.hex(),
            "change": Change.JOIN,
            "box": box,
            "organisation": organisation,
            "key": raw(self.keys[box]).hex(),
            "certificate": "ce" * 32,
            "helper": 1,
        }
        return Entry(**(given | changes))

    def signed(self, entry: Entry, by: str = "ab") -> SignedEntry:
        return SignedEntry(entry=entry, signatures=self.sign(Tag.ROSTER, entry.encode(), by))

    def join(self, box: str, organisation: str, **changes) -> None:
        signed = self.signed(self.entry(box, organisation, **changes))
        self.roster = extend(self.roster, signed)
        self.entries.append(signed)


@dataclass
class Round:
    """One round; `helpers` hold X25519 round keys."""

    among: Consortium
    length: int = 100
    helpers: int = 4
    missing: int = 1
    changes: dict = field(default_factory=dict)

    def __post_init__(self):
        boxes = list(self.among.roster.members)[: self.helpers]
        self.round_keys = {box: X25519PrivateKey.generate() for box in boxes}
        self.manifest = self.manifest_of(**self.changes)

    def manifest_of(self, **changes) -> Manifest:
        name = changes.get("round", "round-1")
        given = {
            "round": name,
            "task": "census",
            "purpose": Purpose.COLLECT,
            "model": MODEL,
            "code": CODE,
            "settings": "5e" * 32,
            "segments": [Segment(name="all", length=self.length)],
            "ring": 32,
            "scale": 64,
            "clip": (1, 1),
            "sensitivity2": 64 * 64,
            "largest": 64,
            "sigma2": local_sigma2(Fraction(2), 64 * 64, 3, 0),
            "least_boxes": 3,
            "most_boxes": 1000,
            "unhonest": 0,
            "patients_a_box": 100,
            "patients": 100_000,
            "opens": NOW,
            "closes": NOW + 3600,
            "expires": NOW + 7200,
            "audit_until": NOW + 86_400,
            "missing": self.missing,
            "helpers": [self.helper(name, box) for box in self.round_keys],
            "roster": self.among.roster.head.hex(),
            "roster_size": self.among.roster.size,
        }
        return Manifest(**(given | changes))

    def helper(self, name: str, box: str) -> Helper:
        key = raw(self.round_keys[box])
        signature = self.among.keys[box].sign(helper_message(name, key))
        return Helper(box=box, round_key=key.hex(), signature=signature.hex())

    @property
    def signed(self) -> SignedManifest:
        return self.sign(self.manifest)

    def sign(self, manifest: Manifest, by: str = "ab") -> SignedManifest:
        signatures = self.among.sign(Tag.MANIFEST, manifest.encode(), by)
        return SignedManifest(manifest=manifest, signatures=signatures)

    def report(self, box: str, noisy: np.ndarray, **changes) -> Sealed:
        given = {
            "box": box,
            "noisy": noisy,
            "seeds": [os.urandom(32) for _ in self.manifest.subsets],
            "code": bytes.fromhex(CODE),
            "sign": self.among.keys[box].sign,
        }
        return make_report(self.manifest, **(given | changes))

    def seeds_for(self, helper: str, sealed: list[Sealed]) -> dict:
        index = self.manifest.helper(helper)
        return {
            one.report.body.box: open_envelope(
                self.manifest,
                one.report,
                index,
                one.envelopes[index],
                self.round_keys[helper],
            )
            for one in sealed
        }

    def run(self, sealed: list[Sealed], *, silent: frozenset[str] = frozenset()):
        """Return the opened sum, the digest, cosignatures, tables and the tally."""
        manifest, roster = self.manifest, self.among.roster
        running = tally.Tally(manifest=manifest)
        for one in sealed:
            running.add(one.report, one.masked)
        helpers = [box for box in self.round_keys if box not in silent]
        wanted, signatures = None, []
        for helper in helpers:
            wanted = committee.check_set(
                manifest, roster, [one.report for one in sealed], receipts=frozenset()
            )
            signatures.append(
                committee.cosign(
                    manifest,
                    wanted,
                    helper=helper,
                    stored=None,
                    now=NOW + 3700,
                    sign=self.among.keys[helper].sign,
                )
            )
        signers = committee.check_quorum(manifest, roster, wanted, signatures)
        answers = {
            helper: committee.unmask(
                manifest,
                wanted,
                helper=helper,
                seeds=self.seeds_for(helper, sealed),
                sign=self.among.keys[helper].sign,
            )
            for helper in helpers
        }
        tables = [answer.table for answer in answers.values()]
        agreed = tally.collect_tables(manifest, roster, wanted, tables)
        names = [helper.box for helper in manifest.helpers]
        masks = {
            index: answers[names[owner]].masks[index]
            for index, owner in committee.owners(manifest, signers).items()
        }
        total = tally.open_sum(running, wanted, agreed, masks)
        return total, wanted, signatures, tables, running
