"""Bench 2 and 3: instances taken in per second, by C-STORE and by STOW-RS, durable first.

CT slices: the chest model refuses them from the header, so that analysis does not share the cores
with what is measured. Between rounds the box finishes its jobs.
"""

import itertools
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.objects import SIZES, Template, ct_template, serials
from bench.plan import Plan
from bench.processes import (
    BoxProcess,
    Helper,
    Peer,
    box,
    find_program,
    media,
    nagle,
    orthanc,
    scratch,
    storescp,
)
from bench.report import Row, limit_row, median, ratio_row

CSTORE, STOW = "cstore", "stow"
SENDERS = ("default", "TCP_NODELAY=1")
ASSOCIATIONS = (1, 4)
GATED = next(iter(SIZES))  # the targets speak of 512 x 512 x 16
CONNECTIONS = 4
_OURS = "Bedside"


def run_cstore(plan: Plan, notes: list[str]) -> list[Row]:
    """Every size, sender, number of associations and medium; receivers in turn."""
    program = find_program("storescu")
    if program is None:
        notes.append("cstore skipped: DCMTK's storescu is not installed (Debian: dcmtk)")
        return []
    rows: list[Row] = []
    templates = {name: ct_template(*shape) for name, shape in SIZES.items()}
    for medium, parent in _media(plan, notes).items():
        with ExitStack() as stack:
            folder = stack.enter_context(scratch(parent))
            outgoing = stack.enter_context(scratch(media().get("ram")))
            ours = stack.enter_context(box(folder))
            us = Peer(_OURS, ours.dicom_port, ours.ae_title)
            receivers = {
                sender: [us, *_peers(stack, folder, notes, nodelay=sender != SENDERS[0])]
                for sender in SENDERS
            }
            for size, sender, associations in itertools.product(SIZES, SENDERS, ASSOCIATIONS):
                if plan.quick and size != GATED:
                    continue
                run = _Sending(plan, program, templates[size], outgoing, sender, associations)
                rates = run.rates(receivers[sender], ours)
                case = f"{size}, {sender}, {associations} assoc, {medium}"
                rows += _cstore_rows(case, rates, sender, gated=size == GATED)
    return rows


def _peers(stack: ExitStack, folder: Path, notes: list[str], *, nodelay: bool) -> list[Peer]:
    """Start what is installed; where the sender has Nagle off, the peers answer without it too."""
    found = []
    for start, package in ((storescp, "dcmtk"), (orthanc, "orthanc")):
        peer = stack.enter_context(start(folder, nodelay=nodelay))
        if peer is None:
            notes.append(f"cstore: {start.__name__} is not installed (Debian: {package})")
        else:
            found.append(peer)
    return found


@dataclass(frozen=True, slots=True)
class _Sending:
    """One case: what is sent, how, and on how many associations at once."""

    plan: Plan
    program: str
    template: Template
    outgoing: Path
    sender: str
    associations: int

    def rates(self, receivers: list[Peer], ours: BoxProcess) -> dict[str, float]:
        """Return images per second of every receiver: medians over rounds that take turns."""
        found: dict[str, list[float]] = {peer.name: [] for peer in receivers}
        for _ in range(self.plan.rounds):
            for peer in receivers:
                found[peer.name].append(self._round(peer))
                if peer.name == _OURS:
                    ours.settle()
        return {name: median(rates) for name, rates in found.items()}

    def _round(self, peer: Peer) -> float:
        stalls = peer.name != _OURS and self.sender == SENDERS[0]
        count = self.plan.stalled_images * self.associations if stalls else self.plan.images
        groups = self.template.write(self.outgoing, count, self.associations)
        try:
            return self._send(peer, groups)
        finally:
            for path in itertools.chain(*groups):
                path.unlink()

    def _send(self, peer: Peer, groups: list[list[Path]]) -> float:
        """Send the groups at once; return images per second until all are acknowledged."""
        env = nagle(off=self.sender != SENDERS[0])
        command = [self.program, "-aec", peer.ae_title, "127.0.0.1", str(peer.dicom_port)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        began = time.perf_counter()
        senders = [
            subprocess.Popen([*command, *map(str, files)], env=env, **pipes) for files in groups
        ]
        said = [process.communicate(timeout=120)[0] for process in senders]
        taken = time.perf_counter() - began
        for process, words in zip(senders, said, strict=True):
            if process.returncode:
                tail = words.decode(errors="replace")[-500:]
                raise RuntimeError(f"storescu to {peer.name}: {tail}")
        return sum(len(files) for files in groups) / taken


def _cstore_rows(case: str, rates: dict[str, float], sender: str, *, gated: bool) -> list[Row]:
    mine = rates.pop(_OURS)
    targets = {"Orthanc": 10.0 if sender == SENDERS[0] else 1.0} if gated else {}
    if not rates:
        return [limit_row(CSTORE, case, mine, "/s")]
    return [
        ratio_row(CSTORE, case, mine, "/s", name, rate, at_least=targets.get(name))
        for name, rate in rates.items()
    ]


def run_stow(plan: Plan, notes: list[str]) -> list[Row]:
    """1, 10 and 50 instances per request, both sizes, both media."""
    rows: list[Row] = []
    for medium, parent in _media(plan, notes).items():
        with ExitStack() as stack:
            folder = stack.enter_context(scratch(parent))
            client = stack.enter_context(Helper("bench.client"))
            ours = stack.enter_context(box(folder))
            peer = stack.enter_context(orthanc(folder))
            if peer is None or not peer.http_port:
                notes.append("stow: Orthanc with DICOMweb is not installed (orthanc-dicomweb)")
            for size, shape in SIZES.items():
                template = ct_template(*shape)
                paths = _template_files(template, folder)
                for per_request in (10,) if plan.quick else (1, 10, 50):
                    mine, theirs = [], []
                    for _ in range(plan.rounds):
                        mine.append(_stow(plan, client, ours.http_port, paths, per_request))
                        ours.settle()
                        if peer is not None and peer.http_port:
                            share = plan.images // 2
                            theirs.append(
                                _stow(plan, client, peer.http_port, paths, per_request, share)
                            )
                    case = f"{size}, {per_request} a request, {CONNECTIONS} connections, {medium}"
                    limit = 1000.0 if per_request == 10 else None
                    rows.append(limit_row(STOW, case, median(mine), "/s", at_least=limit))
                    if theirs:
                        rows.append(
                            ratio_row(STOW, case, median(mine), "/s", "Orthanc", median(theirs))
                        )
    return rows


def _stow(
    plan: Plan, client: Helper, port: int, paths: list[str], per_request: int, images: int = 0
) -> float:
    least = CONNECTIONS * per_request
    count = max(least, (images or 2 * plan.images) // least * least)
    answer = client.ask(
        "stow",
        port=port,
        template=paths,
        first=serials(count),
        requests=count // per_request,
        per_request=per_request,
        connections=CONNECTIONS,
    )
    client.ask("hang_up", port=port)
    if answer["statuses"] != [200]:
        raise RuntimeError(f"STOW was answered with {answer['statuses']}")
    return float(answer["per_s"])


def _template_files(template: Template, folder: Path) -> list[str]:
    head, tail = folder / "head", folder / "tail"
    head.write_bytes(template.head)
    tail.write_bytes(template.tail)
    return [str(head), str(tail)]


def _media(plan: Plan, notes: list[str]) -> dict[str, Path]:
    found = media()
    for name in ("disk", "ram"):
        if name not in found:
            notes.append(f"this machine has no {name} medium to measure on")
    return {"disk": found["disk"]} if plan.quick and "disk" in found else found
