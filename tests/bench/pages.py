"""Server time of the pages: a worklist of 2,000 studies, and a picture in another window.

The worklist stands on a real state folder; every study has an encrypted header and an encrypted
result. Times are those of the whole request inside the application, without a socket.
"""

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bedside_core.imaging import Window
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.ports import Outcome
from bedside_edge.services.pictures import PictureService, View
from bedside_edge.store.state import State
from bedside_edge.system.picture_pillow import PillowPicture
from bench.plan import Plan
from bench.report import Row, limit_row, median
from support.chest import pydicom_data
from support.http_box import HttpBox
from support.sample_result import entry, result_body
from support.state_houses import T0, FolderHouse, arrival

BENCH = "pages"
STUDIES = 2_000
_PAGE_MS = 100.0
_PICTURE_MS = 150.0


def _fill(state: State) -> None:
    """File studies in a few transactions, and give each a result."""
    first = arrival(state)
    made = [
        replace(
            first,
            header=replace(
                first.header,
                sop_instance_uid=f"1.2.{number}.1",
                study_uid=f"1.2.{number}",
                patient_id=f"P{number}",
                patient_name=f"Muster{number}^Ada",
            ),
            at=T0 + number,
        )
        for number in range(STUDIES)
    ]
    for start in range(0, STUDIES, 500):
        state.studies.file(made[start : start + 500])
    now = T0 + 10_000_000
    body = json.dumps(result_body([entry("image-1")])).encode()
    while (job := state.jobs.lease(now)) is not None:
        state.jobs.finish(job, Outcome(refused=False, reason="", body=body), now)


def _timed(call: Callable[[], object], calls: int) -> tuple[float, float]:
    """Return the first time and the median of the following ones, in milliseconds."""
    taken = []
    for _ in range(calls + 1):
        began = time.perf_counter()
        call()
        taken.append((time.perf_counter() - began) * 1000)
    return taken[0], median(taken[1:])


def run(plan: Plan) -> list[Row]:
    """Measure worklist and picture."""
    with tempfile.TemporaryDirectory() as folder:
        state = FolderHouse(Path(folder)).open()
        try:
            _fill(state)
            return [*_worklist(state, plan), *_picture(plan)]
        finally:
            state.close()


def _worklist(state: State, plan: Plan) -> list[Row]:
    cases = {
        "page of 50, 2,000 studies": "/",
        "search for one name in 2,000": "/?q=muster1234",
        "all 2,000 rows in one page": "/?size=2000",
    }
    rows = []
    for case, path in cases.items():
        with HttpBox(work_rows=state.work_rows) as box:  # nothing decrypted is remembered yet

            def ask(box: HttpBox = box, path: str = path) -> None:
                answer = box.client.get(path, headers={"Accept": "text/html"})
                assert answer.status_code == 200, answer.text

            box.client.get("/models", headers={"Accept": "text/html"})  # templates are read
            first, usual = _timed(ask, plan.calls)
        limit = None if path.endswith("2000") else _PAGE_MS
        rows.append(limit_row(BENCH, f"worklist, {case}", usual, "ms", at_most=limit))
        rows.append(limit_row(BENCH, f"worklist, {case}, first time", first, "ms", at_most=None))
    return rows


class _Held:
    """One image in place of the stores: what they cost is measured elsewhere."""

    instance_id, study_id, digest, object_name, object_key = "image", "study", "digest", "name", b""

    def __init__(self) -> None:
        self._data = pydicom_data("RG1_UNCR.dcm").read_bytes()

    def instances(self, study_id: str) -> "list[_Held]":
        return [self]

    def read(self, name: str, object_key: bytes) -> bytes:
        return self._data


def _picture(plan: Plan) -> list[Row]:
    held: Any = _Held()
    reader = PydicomReader()
    turn = iter(range(1, 10_000))

    def fresh() -> PictureService:
        return PictureService(held, held, held, reader, PillowPicture())

    def ask(pictures: PictureService) -> None:
        window = Window(centre=15_000.0 + next(turn), width=20_000.0)
        pictures.image("study", "image", View(window=window))

    pictures = fresh()
    _, decoded = _timed(lambda: ask(fresh()), plan.calls)
    _, usual = _timed(lambda: ask(pictures), plan.calls)
    case = "picture of 1,536 pixels, 1955 x 1841"
    return [
        limit_row(BENCH, f"{case}, not seen before", decoded, "ms", at_most=_PICTURE_MS),
        limit_row(BENCH, f"{case}, another window", usual, "ms", at_most=_PICTURE_MS),
    ]
