"""DICOMweb beside Orthanc's plugin: one instance, its picture, a search; same client, same run."""

import time
from contextlib import ExitStack
from io import BytesIO
from typing import Final

import httpx
from pydicom import dcmread

from bench.objects import SIZES, ct_template
from bench.plan import Plan
from bench.processes import TOKENS, box, media, orthanc, scratch
from bench.report import Row, median, ratio_row

BENCH: Final = "dicomweb"
_STUDIES: Final = 20
_STORED: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def run(plan: Plan, notes: list[str]) -> list[Row]:
    """Measure milliseconds per request, alternating; without Orthanc there is nothing to hold."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(next(iter(media().values()))))
        peer = stack.enter_context(orthanc(folder))
        if peer is None or not peer.http_port:
            notes.append("dicomweb: Orthanc with DICOMweb is not installed (orthanc-dicomweb)")
            return []
        ours = stack.enter_context(box(folder))
        token = {"Authorization": f"Bearer {TOKENS[ours.http_port]}"}
        mine = stack.enter_context(_client(ours.http_port, token))
        theirs = stack.enter_context(_client(peer.http_port, {}))
        rows = []
        for size, shape in SIZES.items():
            found = [dcmread(BytesIO(data)) for data in _stored(mine, theirs, shape)]
            ours.settle()
            paths = [
                f"/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
                f"/instances/{one.SOPInstanceUID}"
                for one in found
            ]
            searches = [f"/studies?StudyInstanceUID={one.StudyInstanceUID}" for one in found]
            pictures = [path + "/rendered" for path in paths]
            # small requests measure Python's way through a request, large ones what is done in it
            most = 1.0 if max(shape) > 500 else 2.5
            for case, asked, accept in (
                (f"WADO, one instance as stored, {size}", paths, _STORED),
                (f"WADO, rendered as PNG, {size}", pictures, "image/png"),
                (f"QIDO, a study by its UID, {size}", searches, "application/dicom+json"),
            ):
                limit = 2.5 if case.startswith("QIDO") else most
                times: tuple[list[float], list[float]] = ([], [])
                for _ in range(plan.rounds):
                    for client, taken in zip((mine, theirs), times, strict=True):
                        taken.append(_ms(client, asked, accept))
                rows.append(
                    ratio_row(
                        BENCH,
                        case,
                        median(times[0]),
                        "ms",
                        "Orthanc",
                        median(times[1]),
                        at_most=limit,
                    )
                )
        return rows


def _client(port: int, headers: dict[str, str]) -> httpx.Client:
    url = f"http://127.0.0.1:{port}/dicom-web"
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)


def _stored(mine: httpx.Client, theirs: httpx.Client, shape: tuple[int, int]) -> list[bytes]:
    """Store the same few instances on both sides."""
    template = ct_template(*shape)
    files = [template.copy() for _ in range(_STUDIES)]
    kind = 'multipart/related; type="application/dicom"; boundary=cut'
    for data in files:
        body = b"--cut\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--cut--\r\n"
        for client in (mine, theirs):
            answer = client.post("/studies", content=body, headers={"Content-Type": kind})
            answer.raise_for_status()
    return files


def _ms(client: httpx.Client, paths: list[str], accept: str) -> float:
    """Return the median milliseconds of a request, each path once."""
    taken = []
    for path in paths:
        began = time.perf_counter()
        answer = client.get(path, headers={"Accept": accept})
        taken.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200 or not answer.content:
            raise RuntimeError(f"{path.rpartition('/')[2]} was answered with {answer.status_code}")
    return median(taken)
