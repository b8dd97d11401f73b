"""The secure sum: what a box, the hub and a helper pay, measured on a real hub process.

Everything that leaves a process leaves over mutual TLS and everything the hub answers is on its
disk. Boxes are played one after the other by this process, from reports made before.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from bedside_sync.calls import HubCalls
from bedside_sync.helper import HelperKeys, HelperRole
from bedside_sync.hub.authority import keep_issued, make_key, pem, private_pem
from bedside_sync.hub.folder import Place, make_hub
from bedside_sync.hub.process import now, open_service
from bedside_sync.hub.simulate import simulate
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.journal import FileJournal
from bedside_sync.secagg.gauss import draw_noise
from bedside_sync.secagg.manifest import SignedManifest
from bedside_sync.secagg.report import Sealed
from bedside_sync.system.random_os import random_long_words
from bedside_sync.transport_nng import Client, Identity, Server
from bedside_sync.wire import Message
from bench.plan import Plan
from bench.report import Row, limit_row, ratio_row
from support.consortium import Consortium, Round
from support.hub_child import HubProcess

BENCH = "secure-sum"
WORDS = 1_000_000
_CLIENT_MS, _UPLOAD_MB, _AFTER_S, _RAW, _MEMORY = 15.0, 4.1, 0.5, 0.8, 1.25
_OPEN_S = 3600
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from bench.secure_sum import raw_server;"
    "raw_server()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A hub's folder with members, and everybody's keys."""

    folder: Path
    among: Consortium
    identities: dict[str, Identity]

    @property
    def boxes(self) -> list[str]:
        """The members' names."""
        return list(self.identities)


def make_fleet(folder: Path, count: int) -> Fleet:
    """Make a hub with `count` members, signed and certified like any others."""
    among, identities = Consortium(sites=0), {}
    place = Place(url="tls+tcp://127.0.0.1:1", server_name="hub.test")
    hub = make_hub(folder, among.root, place, now())
    among.hub = hub.key
    store = HubStore(folder)
    service = open_service(hub, store)
    for number in range(count):
        name, key = f"box-{number:04d}", make_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, SHA256())
        certificate = hub.authority.issue_member(csr, now())
        keep_issued(store, name, certificate, now())
        digest = certificate.fingerprint(SHA256()).hex()
        among.join(name, f"hospital-{number}", certificate=digest)
        service.append(among.entries[-1])
        identities[name] = Identity(
            certificate=pem(certificate),
            key=private_pem(key),
            authority=pem(hub.authority.certificate),
        )
    store.close()
    return Fleet(folder=folder, among=among, identities=identities)


class Play:
    """One round of a fleet against a hub process."""

    def __init__(self, fleet: Fleet, hub: HubProcess, name: str, words: int = WORDS) -> None:
        self.fleet, self.hub, self.name = fleet, hub, name
        self.round = Round(fleet.among, length=words)
        self.helpers = {box: self._helper(box) for box in fleet.boxes[:4]}
        began = now()
        self.round.manifest = self.round.manifest_of(
            round=name,
            opens=began - 1,
            closes=began + _OPEN_S,
            expires=began + 2 * _OPEN_S,
            audit_until=began + 3 * _OPEN_S,
            helpers=[role.announce(name) for role in self.helpers.values()],
        )
        self.plain = np.zeros(words, np.int64)

    def _helper(self, box: str) -> HelperRole:
        keys = HelperKeys(
            box=box,
            sign=self.fleet.among.keys[box].sign,
            now=now,
            random=os.urandom,
            wrap=lambda secret, context: secret,
            unwrap=lambda stored, context: stored,
        )
        folder = self.fleet.folder.parent / "helpers" / box
        return HelperRole(FileJournal(folder), keys)

    @contextmanager
    def calls(self, box: str) -> Iterator[HubCalls]:
        """A box's line to the hub."""
        with Client(self.hub.url, self.fleet.identities[box], "hub.test") as client:
            yield HubCalls(client)

    def announce(self, closes_in: int | None = None) -> SignedManifest:
        """Open the round at the hub, which serves meanwhile."""
        if closes_in is not None:
            closes = now() + closes_in
            changes = {"closes": closes, "expires": closes + _OPEN_S}
            self.round.manifest = self.round.manifest.model_copy(update=changes)
        signed = self.round.signed
        with beside(self.fleet) as service:
            service.announce(signed)
        return signed

    def report(self, box: str) -> tuple[Sealed, float]:
        """Make a box's report; returns it and the seconds it took, noise not counted."""
        noisy = (np.frombuffer(os.urandom(4 * len(self.plain)), np.int32) >> 16).astype(np.int64)
        began = time.thread_time()  # own CPU: the machine is shared
        sealed = self.round.report(box, noisy)
        took = time.thread_time() - began
        self.plain += noisy
        return sealed, took

    def send(self, box: str, sealed: Sealed) -> float:
        """Upload and file it; returns the seconds the upload took."""
        with self.calls(box) as calls:
            began = time.perf_counter()
            calls.upload(self.round.manifest, "report", sealed.masked)
            took = time.perf_counter() - began
            calls.seal(self.name, sealed.report, sealed.envelopes)
        return took

    def help(self) -> tuple[float, float]:
        """Let all but the first helper go through the round, one after the other.

        Returns:
            the slowest one's CPU; the slowest one's time with every answer of the hub to it: what
            lies between close and record when each helper has a machine of its own.
        """
        spent = dict.fromkeys(list(self.helpers)[1:], 0.0)
        passed = dict(spent)
        while self.state() != "published":
            for box in spent:
                with self.calls(box) as calls:
                    began, since = time.process_time(), time.perf_counter()
                    try:
                        self.helpers[box].help(
                            self.round.manifest, self.fleet.among.roster, calls, own=frozenset
                        )
                    except Exception as error:  # not so far yet: the next turn
                        if type(error).__name__ != "HubRefusedError":
                            raise
                    spent[box] += time.process_time() - began
                    passed[box] += time.perf_counter() - since
        return max(spent.values()), max(passed.values())

    def state(self) -> str:
        """The round's state on the hub's disk."""
        with beside(self.fleet) as service:
            return service.store.state(self.name).value


@contextmanager
def beside(fleet: Fleet) -> Iterator:
    """The rules over the folder, opened beside the serving process."""
    from bedside_sync.hub.folder import read_hub

    store = HubStore(fleet.folder)
    try:
        yield open_service(read_hub(fleet.folder), store)
    finally:
        store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What one round cost. Seconds of CPU, bytes."""

    client_s: float
    upload_bytes: int
    taking_s: float  # hub, a report: chunks, digests, disk
    hub_s: float  # hub, from the close to the record
    helper_s: float  # the slowest helper
    after_s: float  # wall: close to record, the slowest helper and the hub's answers to it
    peak: int  # resident memory of the hub's process
    exact: bool


def night(folder: Path, boxes: int, dropped: int, words: int = WORDS) -> Night:
    """Run one round of `boxes` on a fresh hub, `dropped` of them silent."""
    fleet = make_fleet(folder / "hub", boxes)
    hub = HubProcess(fleet.folder)
    process = psutil.Process(hub.process.pid)
    try:
        play = Play(fleet, hub, "night", words)
        there = fleet.boxes[dropped:] if dropped < boxes - 4 else fleet.boxes
        there = [*fleet.boxes[:4], *fleet.boxes[4 + dropped :]]
        # the close must come after the last upload: about a tenth of a second each
        play.announce(closes_in=5 + len(there) // 2)
        clients, sizes, before = [], [], _cpu(process)
        for box in there:
            sealed, took = play.report(box)
            clients.append(took)
            sizes.append(
                sealed.masked.nbytes + len(sealed.report.encode()) + sum(map(len, sealed.envelopes))
            )
            play.send(box, sealed)
        taking = _cpu(process) - before
        time.sleep(max(0.0, play.round.manifest.closes - time.time()))
        before = _cpu(process)
        helper_s, after_s = play.help()
        hub_s = _cpu(process) - before
        with beside(fleet) as service:
            exact = bool((service.opened("night") == play.plain).all())
        peak = int(_status(process.pid, "VmHWM"))
    finally:
        hub.close()
    return Night(
        client_s=median(clients),
        upload_bytes=max(sizes),
        taking_s=taking / len(there),
        hub_s=hub_s,
        helper_s=helper_s,
        after_s=after_s,
        peak=peak,
        exact=exact,
    )


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise LookupError(name)


# --- upload rate ---------------------------------------------------------------------------------


def raw_server() -> None:
    """Answer 256 KiB requests with nothing, over the same mutual TLS, until the pipe closes."""
    told = json.loads(sys.stdin.readline())
    answer = Message(kind="taken")
    with Server("tls+tcp://127.0.0.1:0", Identity(**told), lambda _n, _m: answer) as server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        sys.stdin.read()


def rates(folder: Path, rounds: int, words: int = 2 * WORDS) -> tuple[list[float], list[float]]:
    """Return megabytes a second of chunk uploads to a hub, and of bare pynng with mutual TLS.

    Bare means pynng's own sockets on both ends: same certificates, same 256 KiB, no messages of
    ours, no digests, no disk. Alternating.
    """
    import pynng

    from bedside_sync.hub.folder import read_hub
    from bedside_sync.transport_nng import _client_tls

    fleet = make_fleet(folder / "rate", 5 + rounds)
    made = read_hub(fleet.folder)
    hub = HubProcess(fleet.folder)
    told = {"certificate": made.certificate, "key": made.certificate_key}
    told["authority"] = pem(made.authority.certificate)
    bare = subprocess.Popen(
        [sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    ours, raw = [], []
    try:
        bare.stdin.write(json.dumps(told) + "\n")
        bare.stdin.flush()
        url = bare.stdout.readline().strip()
        play = Play(fleet, hub, "rate", words)
        play.announce()
        chunk = os.urandom(256 << 10)
        count = words * 4 // len(chunk)
        config = _client_tls(fleet.identities[fleet.boxes[0]], "hub.test")
        with pynng.Req0(tls_config=config, recv_timeout=10_000, send_timeout=10_000) as socket:
            socket.dial(url, block=True)
            for box in fleet.boxes[5:]:
                sealed, _ = play.report(box)
                for _ in range(4):
                    socket.send(chunk)
                    socket.recv()
                began = time.perf_counter()
                for _ in range(count):
                    socket.send(chunk)
                    socket.recv()
                raw.append(count * len(chunk) / 1e6 / (time.perf_counter() - began))
                ours.append(words * 4 / 1e6 / play.send(box, sealed))
    finally:
        bare.kill()
        bare.wait()
        hub.close()
    return ours, raw


_BARE = """
import json, sys, pynng
told = json.loads(sys.stdin.readline())
T = pynng.TLSConfig
config = T(T.MODE_SERVER, own_cert_string=told["certificate"], own_key_string=told["key"],
           auth_mode=T.AUTH_MODE_REQUIRED)
config.set_ca_chain(told["authority"], None)
with pynng.Rep0(tls_config=config, recv_max_size=(1 << 20) + 256) as socket:
    listener = socket.listen("tls+tcp://127.0.0.1:0")
    print(listener.url, flush=True)
    while True:
        socket.recv_msg()
        socket.send(b"taken")
"""


def run(plan: Plan) -> list[Row]:
    """Return the rows."""
    boxes = 20 if plan.quick else 100
    with TemporaryDirectory(prefix="bedside-bench-") as name:
        folder = Path(name)
        few = night(folder / "few", 10, 1)
        many = night(folder / "many", boxes, boxes // 10)
        ours, raw = rates(folder, 3 if plan.quick else 7)
    case = f"n = {boxes}, d = {WORDS}, {boxes // 10} dropped"
    began = time.perf_counter()
    draw_noise(16_384, WORDS, random_long_words)
    noise_ms = (time.perf_counter() - began) * 1000
    alone = simulate(boxes, words=WORDS, drop=0.1, noise=False)
    opening = alone.hub_s + alone.helper_s
    masked = f"box: mask and seal, {case}"
    rows = [
        limit_row(BENCH, masked, many.client_s * 1000, "ms CPU", at_most=_CLIENT_MS),
        Row(bench=BENCH, case=f"box: noise of {WORDS} words", ours=noise_ms, unit="ms"),
        limit_row(BENCH, "upload of a box", many.upload_bytes / 1e6, "MB", at_most=_UPLOAD_MB),
        limit_row(
            BENCH,
            f"hub + slowest helper, TLS and disk, {case}",
            many.after_s,
            "s",
            at_most=_AFTER_S,
        ),
        Row(bench=BENCH, case="the same, no network or disk", ours=opening, unit="s CPU"),
        Row(
            bench=BENCH, case="hub: taking a report, TLS and disk", ours=many.taking_s, unit="s CPU"
        ),
        Row(bench=BENCH, case="hub: close to record, the same", ours=many.hub_s, unit="s CPU"),
        Row(bench=BENCH, case="slowest helper, the same", ours=many.helper_s, unit="s CPU"),
        ratio_row(
            BENCH,
            f"hub: peak memory at n = {boxes}",
            many.peak / 1e6,
            "MB",
            "n = 10",
            few.peak / 1e6,
            at_most=_MEMORY,
        ),
        ratio_row(
            BENCH,
            "upload in chunks, digests and disk included",
            median(ours),
            "MB/s",
            "bare pynng, mutual TLS",
            median(raw),
            at_least=_RAW,
        ),
        limit_row(BENCH, "sums exact", float(few.exact and many.exact), "", at_least=1),
    ]
    if not plan.quick:
        outcome = simulate(1000, words=WORDS, drop=0.1)
        rows.append(
            Row(
                bench=BENCH,
                case=f"simulated, 1000 boxes x {WORDS}, "
                f"{'exact' if outcome.exact else 'NOT EXACT'}",
                ours=outcome.total_s,
                unit="s",
            )
        )
    return rows
