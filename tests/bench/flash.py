"""Packages from a real hub over mutual TLS, against the bare transfer of the same bytes.

Ours is everything up to the trial: signed metadata checked, content fetched and made durable piece
by piece, files assembled with every file synced, and all of it read back from the disk.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bedside_sync.distribution.assignment import Running, decide
from bedside_sync.distribution.chunks import ChunkStore, check_folder
from bedside_sync.distribution.gateway import site_of
from bedside_sync.distribution.manifest import CHUNK, TargetManifest
from bedside_sync.distribution.memory import Memory
from bedside_sync.distribution.sources import HubSource
from bedside_sync.distribution.updater import fetch_chunks
from bedside_sync.hub.authority import pem
from bedside_sync.hub.folder import read_hub
from bedside_sync.transport_nng import Client, _client_tls
from bench.flash_switch import switched
from bench.plan import Plan
from bench.report import Row, ratio_row
from bench.secure_sum import Fleet, make_fleet
from support.hub_child import HubProcess
from support.package_houses import House, look, noise

BENCH = "flash"
FILES, FILE_BYTES = 5, 10_000_000  # 50 MB
_BOX = "box-0000"
# Bytes go over the network and through TLS once in both, but ours also lie on the disk twice,
# synced, and are hashed three times: on arrival, when assembled, when read back
_COLD, _RESUMED, _DELTA = 2.5, 1.5, 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A hub with two versions of a package: one file of five differs."""

    fleet: Fleet
    house: House
    versions: tuple[TargetManifest, TargetManifest]


def publish(folder: Path) -> Published:
    """Make the hub's folder, its repository and both versions."""
    fleet = make_fleet(folder / "hub", 1)
    house = House(fleet.folder, now=int(time.time())).begin()
    files = {f"part-{n}.bin": noise(FILE_BYTES, n) for n in range(FILES)}
    first = house.publish(files)
    files["part-2.bin"] = noise(FILE_BYTES, 99)
    second = house.publish(files, version="2.0.0", release_counter=2)
    return Published(fleet=fleet, house=house, versions=(first, second))


def install(made: Published, url: str, box: Path, manifest: TargetManifest) -> float:
    """Return the seconds from asking for the timestamp to files read back from the disk."""
    site = site_of(made.fleet.among.keys[_BOX].public_key().public_bytes_raw().hex())
    made.house.assign(manifest, site=site)
    target = box / "slot"
    shutil.rmtree(target, ignore_errors=True)
    began = time.perf_counter()
    with Client(url, made.fleet.identities[_BOX], "hub.test") as client:
        source = HubSource(client)
        seen = look(
            source, Memory(), root=made.house.root, now=int(time.time()), folder=box, site=site
        )
        (verdict,) = decide(seen.assignment, seen.signed, Running(counters={}, floors={}))
        store = ChunkStore(box / "chunks")
        fetch_chunks(source, store, verdict.manifest)
    store.assemble(verdict.manifest, target)
    check_folder(verdict.manifest, target)
    return time.perf_counter() - began


def bare(made: Published, size: int) -> Callable[[], float]:
    """Return a function that times `size` bytes over bare pynng, in messages of one piece."""
    import pynng

    hub = read_hub(made.fleet.folder)
    told = {"certificate": hub.certificate, "key": hub.certificate_key, "size": CHUNK}
    told["authority"] = pem(hub.authority.certificate)
    process = subprocess.Popen(
        [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write(json.dumps(told) + "\n")
    process.stdin.flush()
    url = process.stdout.readline().strip()
    config = _client_tls(made.fleet.identities[_BOX], "hub.test")

    def transfer() -> float:
        began = time.perf_counter()
        limit = CHUNK + 256
        with pynng.Req0(tls_config=config, recv_timeout=10_000, recv_max_size=limit) as socket:
            socket.dial(url, block=True)
            left = size
            while left > 0:
                socket.send(b"next")
                left -= len(socket.recv())
        return time.perf_counter() - began

    transfer.process = process
    return transfer


_BARE = """
import json, os, sys, pynng
told = json.loads(sys.stdin.readline())
T = pynng.TLSConfig
config = T(T.MODE_SERVER, own_cert_string=told["certificate"], own_key_string=told["key"],
           auth_mode=T.AUTH_MODE_REQUIRED)
config.set_ca_chain(told["authority"], None)
piece = os.urandom(told["size"])
with pynng.Rep0(tls_config=config) as socket:
    listener = socket.listen("tls+tcp://127.0.0.1:0")
    print(listener.url, flush=True)
    while True:
        socket.recv()
        socket.send(piece)
"""


def fetched(plan: Plan, folder: Path) -> list[Row]:
    """Return the rows of fetching: cold, resumed at 60 %, and one changed file of five."""
    made = publish(folder)
    first, second = made.versions
    hub = HubProcess(made.fleet.folder)
    whole = bare(made, first.size)
    cold, resumed, delta, raw = [], [], [], []
    try:
        for number in range(plan.rounds):
            box = folder / f"box-{number}"
            raw.append(whole())
            cold.append(install(made, hub.url, box, first))
            store = ChunkStore(box / "chunks")
            held = list(first.chunk_sizes())
            store.prune(held[: len(held) * 6 // 10])
            resumed.append(install(made, hub.url, box, first))
            delta.append(install(made, hub.url, box, second))
            shutil.rmtree(box)
    finally:
        whole.process.kill()
        whole.process.wait()
        hub.close()
    against = "the same 50 MB over bare pynng, mutual TLS"
    cases = (
        ("50 MB package from the hub, cold, to the trial", cold, _COLD),
        ("the same, resumed at 60 %", resumed, _RESUMED),
        ("the next version, one file of five changed", delta, _DELTA),
    )
    return [
        ratio_row(BENCH, case, median(ours), "s", against, median(raw), at_most=most)
        for case, ours, most in cases
    ]


def run(plan: Plan) -> list[Row]:
    """Return the rows."""
    with TemporaryDirectory(prefix="bedside-bench-") as name:
        return [
            *fetched(plan, Path(name)),
            *switched(BENCH, plan, Path(name) / "switch"),
        ]
