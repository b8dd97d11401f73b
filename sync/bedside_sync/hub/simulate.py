"""A round of any size on one machine: the same pure parts, no network, no disk.

Boxes are made in shards on all cores; each shard's masked vectors are added where they are made
and forgotten, so memory holds one vector per core, whatever the number of boxes. The opened sum is
compared with the plain one: a simulation that is not exact fails.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from multiprocessing import get_context
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bedside_core.errors import InvalidInputError
from bedside_core.signatures import Algorithm, PublicKey
from bedside_sync.secagg import committee, tally
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.secagg.manifest import (
    Helper,
    Manifest,
    Purpose,
    Segment,
    helper_message,
    local_sigma2,
    round_cost,
)
from bedside_sync.secagg.prg import Words, word_type
from bedside_sync.secagg.report import Report, make_report, open_envelope
from bedside_sync.secagg.roster import Administrator, Member, Root, Roster
from bedside_sync.system.random_os import random_bytes, random_long_words

_SENSITIVITY2: Final = 4180
_MULTIPLIER: Final = Fraction(2)
_NOW: Final = 1_800_000_000
_SHARD: Final = 8  # boxes

Progress = Callable[[str, int, int], None]  # stage, done, of


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a simulated round came to. Bytes are per box.

    Times of a role are seconds of its own processor time, so a busy machine does not change them;
    `total_s` is wall clock.
    """

    boxes: int
    dropped: int
    words: int
    helpers: int
    exact: bool
    upload_bytes: int
    box_s: float  # median over boxes: mask, seal and digest one report
    hub_s: float  # adding all reports is inside the shards; this is opening the sum
    add_s: float  # adding and checking all vectors, summed over shards
    helper_s: float  # the slowest helper: open envelopes, check, unmask
    noise_variance: float  # measured, over the planned one; 0 without noise
    rho: int
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """What every process needs: public things, and the private keys of the simulation."""

    manifest: Manifest
    roster: Roster
    keys: dict[str, bytes] = field(repr=False)  # Ed25519 seeds by box
    noise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    reports: list[Report]
    envelopes: list[tuple[bytes, ...]]
    total: Words
    plain: "np.ndarray[tuple[int], np.dtype[np.int64]]"
    noise_square: float
    seconds: list[float]
    add_s: float
    upload: int


def simulate(
    boxes: int,
    *,
    words: int = 10_000,
    drop: float = 0.0,
    helpers: int = 4,
    missing: int = 1,
    ring: int = 32,
    noise: bool = True,
    progress: Progress | None = None,
) -> Outcome:
    """Run one round and return its figures.

    Args:
        boxes: how many are on the roster.
        words: length of the vector.
        drop: share of the boxes that never report; rounded down.
        helpers: size of the committee.
        missing: t: helpers that stay silent, and that the round survives.
        ring: bits of a word.
        noise: whether boxes draw their noise.
        progress: told how far it is.

    Raises:
        InvalidInputError: numbers that make no round.
    """
    told = progress or (lambda _stage, _done, _of: None)
    started = time.perf_counter()
    if boxes < max(3, helpers) or not 0 <= drop < 1 or helpers < 3 * missing + 1 or words < 1:
        raise InvalidInputError(
            "a round has at least 3 boxes, as many as helpers, and 3 t + 1 helpers"
        )
    world, round_keys = _world(boxes, words, helpers, missing, ring, noise)
    names = list(world.keys)[: boxes - int(boxes * drop)]
    shards = [names[at : at + _SHARD] for at in range(0, len(names), _SHARD)]
    total = np.zeros(words, word_type(ring))
    plain = np.zeros(words, np.int64)
    square, upload, add_s = 0.0, 0, 0.0
    seconds: list[float] = []
    reports: list[tuple[Report, tuple[bytes, ...]]] = []
    # a forked child of a process that has used nng dies: its threads are not there
    spawn = get_context("spawn")
    with ProcessPoolExecutor(mp_context=spawn, initializer=_start, initargs=(world,)) as pool:
        done = 0
        for shard in pool.map(_run_shard, shards):
            total += shard.total
            plain += shard.plain
            square += shard.noise_square
            seconds += shard.seconds
            add_s += shard.add_s
            upload = max(upload, shard.upload)
            reports += zip(shard.reports, shard.envelopes, strict=True)
            done += len(shard.reports)
            told("boxes", done, len(names))
        silent = set(list(round_keys)[:missing])
        present = [name for name in round_keys if name not in silent]
        asked = [(name, round_keys[name], reports) for name in present]
        answers = []
        for number, answer in enumerate(pool.map(_run_helper, asked), start=1):
            answers.append(answer)
            told("helpers", number, len(present))
    began = time.thread_time()
    opened = _open(world, reports, total, answers)
    hub_s = time.thread_time() - began
    planned = float(world.manifest.sigma2) * len(names) * words
    return Outcome(
        boxes=boxes,
        dropped=boxes - len(names),
        words=words,
        helpers=helpers,
        exact=bool((opened == plain).all()),
        upload_bytes=upload,
        box_s=float(np.median(seconds)),
        hub_s=hub_s,
        add_s=add_s,
        helper_s=max(answer.seconds for answer in answers),
        noise_variance=square / planned if noise else 0.0,
        rho=round_cost(world.manifest),
        total_s=time.perf_counter() - started,
    )


# --- the world -------------------------------------------------------------------------------


def _world(
    boxes: int, words: int, helpers: int, missing: int, ring: int, noise: bool
) -> tuple[_World, dict[str, bytes]]:
    keys = {f"box-{n:05d}": random_bytes(32) for n in range(boxes)}
    members = {
        name: Member(
            box=name,
            organisation=f"hospital-{name[4:]}",
            key=_public(seed),
            certificate=bytes(32),
            helper=True,
        )
        for name, seed in keys.items()
    }
    admins = {
        name: Administrator(organisation=name, key=_public(random_bytes(32)).raw.hex())
        for name in ("one", "two")
    }
    root = Root(consortium="simulated", administrators=admins)
    roster = Roster(root=root, head=bytes(32), size=boxes, members=members, gone=frozenset())
    chosen = list(keys)[:helpers]
    round_keys = {name: random_bytes(32) for name in chosen}
    least = max(3, boxes // 2)
    manifest = Manifest(
        round="simulated",
        task="simulate",
        purpose=Purpose.COLLECT,
        model="00" * 32,
        code="00" * 32,
        settings="00" * 32,
        segments=[Segment(name="all", length=words)],
        ring=32 if ring == 32 else 64,
        scale=64,
        clip=(1, 1),
        sensitivity2=_SENSITIVITY2,
        largest=64,
        sigma2=max(25, local_sigma2(_MULTIPLIER, _SENSITIVITY2, least, 0)),
        least_boxes=least,
        most_boxes=boxes,
        unhonest=0,
        patients_a_box=100,
        patients=100 * boxes,
        opens=_NOW,
        closes=_NOW + 1,
        expires=_NOW + 2,
        audit_until=_NOW + 3,
        missing=missing,
        helpers=[_announced(name, keys[name], round_keys[name]) for name in chosen],
        roster="00" * 32,
        roster_size=boxes,
    )
    return _World(manifest=manifest, roster=roster, keys=keys, noise=noise), round_keys


def _public(seed: bytes) -> PublicKey:
    raw = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PublicKey(algorithm=Algorithm.ED25519, raw=raw)


def _announced(name: str, seed: bytes, round_key: bytes) -> Helper:
    public = X25519PrivateKey.from_private_bytes(round_key).public_key().public_bytes_raw()
    sign = Ed25519PrivateKey.from_private_bytes(seed).sign
    signature = sign(helper_message("simulated", public))
    return Helper(box=name, round_key=public.hex(), signature=signature.hex())


# --- in the pool's processes -----------------------------------------------------------------

_here: list[_World] = []


def _start(world: _World) -> None:
    _here.append(world)


def _run_shard(names: list[str]) -> _Shard:
    world = _here[0]
    manifest = world.manifest
    running = tally.Tally(manifest=manifest)
    plain = np.zeros(manifest.length, np.int64)
    shard_reports: list[Report] = []
    envelopes: list[tuple[bytes, ...]] = []
    seconds: list[float] = []
    square, add_s, upload = 0.0, 0.0, 0
    for name in names:
        noisy = np.full(manifest.length, int(name[4:]) % 1000 - 500, np.int64)
        if world.noise:
            drawn = draw_noise(manifest.sigma2, manifest.length, random_long_words)
            square += float(np.dot(drawn, drawn))
            noisy += drawn
        plain += noisy
        started = time.thread_time()
        sealed = make_report(
            manifest,
            box=name,
            noisy=noisy,
            seeds=[random_bytes(32) for _ in manifest.subsets],
            code=bytes(32),
            sign=Ed25519PrivateKey.from_private_bytes(world.keys[name]).sign,
        )
        seconds.append(time.thread_time() - started)
        started = time.thread_time()
        running.add(sealed.report, sealed.masked)
        add_s += time.thread_time() - started
        size = sealed.masked.nbytes + len(sealed.report.encode()) + sum(map(len, sealed.envelopes))
        upload = max(upload, size)
        shard_reports.append(sealed.report)
        envelopes.append(sealed.envelopes)
    return _Shard(
        reports=shard_reports,
        envelopes=envelopes,
        total=running.total,
        plain=plain,
        noise_square=square,
        seconds=seconds,
        add_s=add_s,
        upload=upload,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    cosignature: committee.Cosignature
    unmasked: committee.Unmasked
    seconds: float


def _run_helper(asked: tuple[str, bytes, list[tuple[Report, tuple[bytes, ...]]]]) -> _Answer:
    name, round_key, reports = asked
    world = _here[0]
    manifest = world.manifest
    started = time.process_time()
    sign = Ed25519PrivateKey.from_private_bytes(world.keys[name]).sign
    only = [report for report, _ in reports]
    wanted = committee.check_set(manifest, world.roster, only, receipts=frozenset())
    cosignature = committee.cosign(manifest, wanted, helper=name, stored=None, now=_NOW, sign=sign)
    index = manifest.helper(name)
    private = X25519PrivateKey.from_private_bytes(round_key)
    seeds = {
        report.body.box: open_envelope(manifest, report, index, envelopes[index], private)
        for report, envelopes in reports
    }
    unmasked = committee.unmask(manifest, wanted, helper=name, seeds=seeds, sign=sign)
    spent = time.process_time() - started  # its threads are counted
    return _Answer(cosignature=cosignature, unmasked=unmasked, seconds=spent)


def _open(
    world: _World,
    reports: list[tuple[Report, tuple[bytes, ...]]],
    total: Words,
    answers: Iterable[_Answer],
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    manifest, found = world.manifest, list(answers)
    wanted = committee.digest_of(manifest, [report for report, _ in reports])
    signers = committee.check_quorum(
        manifest, world.roster, wanted, [answer.cosignature for answer in found]
    )
    tables = [answer.unmasked.table for answer in found]
    agreed = tally.collect_tables(manifest, world.roster, wanted, tables)
    by_name = {answer.unmasked.table.table.helper: answer.unmasked for answer in found}
    masks = {
        subset: by_name[manifest.helpers[owner].box].masks[subset]
        for subset, owner in committee.owners(manifest, signers).items()
    }
    running = tally.Tally(manifest=manifest)
    running.total = total
    running.boxes = {report.body.box: report.body.vector for report, _ in reports}
    return tally.open_sum(running, wanted, agreed, masks)
