"""A process of its own that tries a candidate: a whole box over a throw-away folder.

Compiling reads back what was pinned and runs every golden case; then one made-up study goes all
the way, from C-STORE to a stored result. Nothing in here has a patient, a key of the box or a way
out: the folder is new, every address is loopback, and its parent deletes it. What a candidate does
to this process (memory, a crash) it does to nothing else.

    python -m bedside_edge.trial FOLDER     reads FOLDER/request.json, writes FOLDER/report.json
"""

import hashlib
import json
import resource
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from bedside_core.errors import (
    BedsideError,
    CandidateRefusedError,
    TrialFailedError,
    TrialMemoryError,
)
from bedside_core.golden import GoldenFrame
from bedside_core.result import Json
from bedside_edge.box import Box
from bedside_edge.config import Completion, Config, Dicom, Http, Model
from bedside_edge.dicom.scu import Peer
from bedside_edge.dicom.send import StoreScu
from bedside_edge.engine.package import Package
from bedside_edge.logs import set_up_logging
from bedside_edge.ports import Job, JobState

REQUEST: Final = "request.json"
REPORT: Final = "report.json"
_RESULT_S: Final = 60.0
_SOP_CLASSES: Final = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
}
_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"


def made_up_study(package: Package) -> tuple[str, bytes]:
    """Return SOP Class and file of a made-up image the package's model reads: a golden frame."""
    accepts, case = package.manifest.accepts, package.golden.cases[0]
    modality = accepts.modalities[0]
    sop_class = _SOP_CLASSES.get(modality, _SECONDARY_CAPTURE)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = _uid(package, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID = _uid(package, "study"), _uid(package, "series")
    made.PatientID, made.PatientName = "TRIAL", "Trial^Made up"
    made.Modality = modality
    made.BodyPartExamined = (accepts.body_parts or [""])[0]
    made.ViewPosition = (accepts.views or [""])[0]
    _pixels(made, case.frame, package.read(case.frame.path))
    out = BytesIO()
    pydicom.dcmwrite(out, made, enforce_file_format=True)
    return sop_class, out.getvalue()


def _pixels(made: FileDataset, frame: GoldenFrame, data: bytes) -> None:
    stored = frame.frame(data).pixels
    bits = 8 * stored.dtype.itemsize
    made.Rows, made.Columns, made.SamplesPerPixel = frame.rows, frame.columns, 1
    made.PhotometricInterpretation = "MONOCHROME1" if frame.monochrome1 else "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = bits, bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.RescaleSlope, made.RescaleIntercept = frame.slope, frame.intercept
    if frame.window is not None:
        made.WindowCenter, made.WindowWidth = frame.window.centre, frame.window.width
        made.VOILUTFunction = str(frame.window.function)
    if frame.spacing is not None:
        made.PixelSpacing = list(frame.spacing)
    little = stored.astype(stored.dtype.newbyteorder("<"))
    made.PixelData = np.ascontiguousarray(little).tobytes()
    made["PixelData"].VR = "OB" if bits == 8 else "OW"


def _uid(package: Package, what: str) -> str:
    digest = hashlib.sha256(f"{package.digest} {what}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def try_candidate(model: Model, folder: Path) -> Json:
    """Return what was seen of a candidate that works on this machine.

    Raises:
        BedsideError: why it may not serve.
    """
    config = Config(
        model=model,
        http=Http(port=0),
        dicom=Dicom(port=0),
        completion=Completion(quiet_s=0.2, max_wait_s=5.0),
    )
    box = Box(config, folder)
    try:
        port = box.start()
        sop_class, data = made_up_study(box.loaded.package)
        peer = Peer(
            host=config.dicom.host,
            port=port,
            called_ae=config.dicom.ae_title,
            calling_ae="TRIAL",
        )
        with StoreScu("trial", peer, frozenset()).open([sop_class]) as session:
            session.send(data)
        job = _ended(box)
        return _report(box, job)
    finally:
        box.stop()


def _ended(box: Box) -> Job:
    deadline = time.monotonic() + _RESULT_S
    while time.monotonic() < deadline:
        for job in box.state.jobs.jobs(limit=1):
            if job.state in (JobState.DONE, JobState.REFUSED):
                return job
            if job.state is JobState.DEAD:
                raise CandidateRefusedError(f"the made-up study was not read: {job.reason}")
        time.sleep(0.02)
    raise TrialFailedError("the made-up study has no result in time")  # a busy box, perhaps


def _report(box: Box, job: Job) -> Json:
    stored = box.state.jobs.result(job.result_id)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    loaded, info = box.loaded, box.loaded.model.engine.info
    limit = loaded.profile.profile.limits.rss_mib
    if peak_mib > limit:
        raise TrialMemoryError(f"the trial took {peak_mib} MiB, the profile allows {limit}")
    return {
        "profile": loaded.profile.label,
        "profile_digest": loaded.profile.digest,
        "model": loaded.package.label,
        "model_digest": loaded.package.digest,
        "engine": f"{info.engine} {info.version}",
        "device": info.device,
        "precision": info.precision,
        "threads": info.threads,
        "golden_cases": loaded.opened.test.cases,
        "worst_logit": loaded.opened.test.worst_logit,
        "allowed_logit": loaded.opened.test.allowed_logit,
        "study": job.state.value if job.state is JobState.DONE else job.reason,
        "acceptance": box.hardware.serving.record.digest if box.hardware.serving else "",
        "result_sha256": hashlib.sha256(stored.body).hexdigest(),
        "peak_mib": peak_mib,
    }


def main() -> None:
    """Try what the request names; the report says what came of it."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / REQUEST).read_text())
    set_up_logging(level="error", style="plain")
    started = time.monotonic()
    try:
        report = try_candidate(Model.model_validate(request), folder / "state")
        report["seconds"] = round(time.monotonic() - started, 2)
    except BedsideError as why:
        report = {"code": why.code, "detail": str(why), "exit_code": why.exit_code}
    (folder / REPORT).write_text(json.dumps(report))


if __name__ == "__main__":
    main()
