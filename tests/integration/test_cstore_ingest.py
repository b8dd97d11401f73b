"""C-STORE into the real store: durable before the answer, nothing left of what broke off."""

import threading
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest

from bedside_edge.dicom import part10
from bedside_edge.dicom.dimse import Status
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.dicom.scp import StorageScp
from bedside_edge.dicom.ul import AcceptorSettings
from bedside_edge.ports import InstanceState, JobState
from bedside_edge.services.ingest import IngestService
from bedside_edge.store.objects import DiskLimits
from bedside_edge.store.state import State, open_state
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support import dicom_scu as scu
from support.dicom_files import bundled
from support.dicom_scu import RawScu
from support.synthetic import CR, data_set, noise
from support.synthetic import part10 as file_of

pytestmark = pytest.mark.filterwarnings("error")


@contextmanager
def box(folder: Path, disk: DiskLimits | None = None):
    """Receiver, ingest service and store as `serve` wires them, without a model."""
    clock, reader = SystemClock(), PydicomReader()
    state = open_state(folder / "state", clock, OsRandom(), open_box_keys, disk=disk)
    ingest = IngestService(
        objects=state.objects,
        studies=state.studies,
        queue=state.jobs,
        reader=reader,
        clock=clock,
        wrap=part10.head,
        wake=lambda: None,
        max_object_bytes=1 << 26,
    )
    settings = AcceptorSettings(host="127.0.0.1", port=0, ae_title="BEDSIDE")
    scp = StorageScp(settings, ingest, clock)
    scp.start()
    try:
        yield scp.acceptor.port, state, ingest
    finally:
        scp.stop(2.0)
        state.close()


def bare(made) -> bytes:
    whole = file_of(made)
    return whole[part10.locate(whole).start :]


def send(port, made, data=None, sop_class=CR, syntax=scu.EXPLICIT_LE, release=True):
    """Store one instance in its own association; the status."""
    instance = made if isinstance(made, str) else made.SOPInstanceUID
    with RawScu(port, associate=False) as raw:
        raw.send(scu.associate_rq(scu.context(3, sop_class, syntax)))
        assert raw.receive()[0] == 2
        raw.message(3, scu.store_rq(instance, sop_class), data or bare(made))
        status = raw.status()
        if release:
            raw.release()
        return status


def files(folder: Path) -> list[Path]:
    return [p for p in (folder / "state" / "objects").rglob("*") if p.is_file()]


def held(state: State):
    """All instances with their objects opened."""
    studies = {job.study_id for job in state.jobs.jobs()}
    instances = [i for study in studies for i in state.studies.instances(study)]
    return [(i, state.objects.read(i.object_name, i.object_key)) for i in instances]


def wait_for(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def test_an_acknowledged_instance_is_there_after_a_restart_as_it_was_sent(tmp_path):
    made = data_set(noise(200, 300), PatientName="Secret^Person")
    sent = bare(made)
    with box(tmp_path) as (port, _, _):
        assert send(port, made, sent) == Status.SUCCESS
    for path in files(tmp_path):
        assert b"Secret" not in path.read_bytes()
        assert made.SOPInstanceUID not in path.name
    with box(tmp_path) as (_, state, _):
        ((instance, data),) = held(state)
        assert instance.header.patient_name == "Secret^Person"
        assert data.endswith(sent)
        read = pydicom.dcmread(BytesIO(data))
        assert read.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID
        np.testing.assert_array_equal(PydicomReader().frame(data).pixels, noise(200, 300))


def test_a_header_longer_than_what_is_looked_at_on_arrival_is_read_whole(tmp_path):
    made = data_set(noise(300, 400))
    made.add_new(0x00210010, "LO", "ACME")
    made.add_new(0x00211001, "OB", bytes(1 << 18))
    with box(tmp_path) as (port, state, _):
        assert send(port, made) == Status.SUCCESS
        ((instance, _),) = held(state)
        assert (instance.header.rows, instance.header.columns) == (300, 400)


def test_the_release_makes_the_study_due_at_once(tmp_path):
    with box(tmp_path) as (port, state, _):
        assert send(port, data_set(), release=True) == Status.SUCCESS
        wait_for(lambda: state.jobs.lease(int(time.time() * 1000)) is not None)
        assert [job.state for job in state.jobs.jobs()] == [JobState.RUNNING]


def test_without_a_release_the_study_waits_for_its_quiet_time(tmp_path):
    with box(tmp_path) as (port, state, _):
        assert send(port, data_set(), release=False) == Status.SUCCESS
        assert state.jobs.lease(int(time.time() * 1000)) is None
        assert [job.state for job in state.jobs.jobs()] == [JobState.COLLECTING]


def test_the_same_instance_again_is_acknowledged_and_held_once(tmp_path):
    made = data_set()
    with box(tmp_path) as (port, state, _):
        assert [send(port, made) for _ in range(3)] == [Status.SUCCESS] * 3
        assert len(held(state)) == 1
        assert len(files(tmp_path)) == 1


def test_one_uid_with_other_pixels_is_kept_beside_the_first_and_alarmed(tmp_path):
    first, second = data_set(noise(50, 50, seed=1)), data_set(noise(50, 50, seed=2))
    with box(tmp_path) as (port, state, ingest):
        assert [send(port, made) for made in (first, second)] == [Status.SUCCESS] * 2
        (study,) = {instance.study_id for instance, _ in held(state)}
        states = [instance.state for instance in ingest.settle_study(study)]
        assert states == [InstanceState.HELD, InstanceState.CONFLICT]
        assert len(state.studies.alarms()) == 1


def test_one_image_in_two_encodings_is_one_image(tmp_path):
    """RG1_UNCI and RG1_J2KI of pydicom-data: one UID, the same pixels, plain and JPEG 2000."""
    with box(tmp_path) as (port, state, ingest):
        for name in ("RG1_UNCI", "RG1_J2KI"):
            whole = bundled(name)
            where = part10.locate(whole)
            uid = part10.text(where.meta[0x00020003])
            syntax = where.transfer_syntax_uid
            assert send(port, uid, whole[where.start :], syntax=syntax) == Status.SUCCESS
        (study,) = {instance.study_id for instance, _ in held(state)}
        states = [instance.state for instance in ingest.settle_study(study)]
        assert states == [InstanceState.HELD, InstanceState.SAME]
        assert not state.studies.alarms()


@pytest.mark.parametrize(
    "changed",
    [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"BodyPartExamined": "HAND"},
        {"Laterality": "L"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_the_same_pixels_described_anew_are_a_conflict(tmp_path, changed):
    pixels = noise(50, 50)
    with box(tmp_path) as (port, state, ingest):
        for made in (data_set(pixels), data_set(pixels, **changed)):
            assert send(port, made) == Status.SUCCESS
        (study,) = {instance.study_id for instance, _ in held(state)}
        states = [instance.state for instance in ingest.settle_study(study)]
        assert states == [InstanceState.HELD, InstanceState.CONFLICT]
        assert len(state.studies.alarms()) == 1


def test_two_senders_of_one_instance_at_the_same_moment(tmp_path):
    made, answers, start = data_set(noise(512, 512)), [], threading.Barrier(4)
    with box(tmp_path) as (port, state, _):

        def work():
            start.wait()
            answers.append(send(port, made))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [Status.SUCCESS] * 4
        assert len(held(state)) == 1
        assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("how", ["cut", "abort", "hostile uid", "other instance", "noise", "huge"])
def test_what_is_not_acknowledged_leaves_no_file(tmp_path, how):
    made = data_set(noise(512, 512))
    with box(tmp_path) as (port, state, _):
        if how in ("cut", "abort"):
            with RawScu(port) as raw:
                raw.send(scu.pdu(4, scu.pdv(3, 3, scu.store_rq(made.SOPInstanceUID))))
                raw.send(scu.pdu(4, scu.pdv(3, 0, bare(made)[:16000])))
                raw.send(scu.pdu(7, bytes(4)) if how == "abort" else b"\x04\x00\x00\x00")
        else:
            refused = {
                "hostile uid": ("../../x", bare(made), Status.CANNOT_UNDERSTAND),
                "other instance": ("1.2.3", bare(made), Status.DATA_SET_MISMATCH),
                "noise": (made.SOPInstanceUID, bytes(40_000), Status.CANNOT_UNDERSTAND),
                "huge": (made.SOPInstanceUID, bytes(70 << 20), Status.OUT_OF_RESOURCES),
            }
            uid, data, status = refused[how]
            assert send(port, uid, data) == status
        wait_for(lambda: files(tmp_path) == [])
        assert state.jobs.jobs() == []


def test_a_full_disk_is_out_of_resources(tmp_path):
    full = DiskLimits(high_watermark=1.0, min_free_bytes=1 << 60)
    with box(tmp_path, full) as (port, _, _):
        assert send(port, data_set()) == Status.OUT_OF_RESOURCES
    assert files(tmp_path) == []
