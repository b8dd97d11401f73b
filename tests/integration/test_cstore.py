"""C-STORE and C-ECHO over real associations, proper and hostile, against the receiver alone."""

import threading
import time

import pytest
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE, build_context

from bedside_core.errors import (
    DiskFullError,
    InvalidInputError,
    StoreUnavailableError,
    UnavailableError,
)
from bedside_edge.dicom import part10
from bedside_edge.dicom.dimse import Status
from bedside_edge.dicom.scp import StorageScp
from bedside_edge.dicom.scu import keep_answers
from bedside_edge.dicom.ul import AcceptorSettings
from bedside_edge.ports import Way
from support import dicom_scu as scu
from support.dicom_files import bundled
from support.dicom_ingest import MemoryIngest
from support.dicom_scu import RawScu, SystemClock, receiver
from support.synthetic import CR, bytes_of, data_set, noise, uid
from support.synthetic import part10 as file_of


def bare(made) -> bytes:
    """The data set of an instance as DIMSE carries it."""
    whole = file_of(made)
    return whole[part10.locate(whole).start :]


def wait_for(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.005)


def association_threads():
    return [t for t in threading.enumerate() if t.name == "dicom-association"]


def test_a_proper_sender_is_served():
    ingest = MemoryIngest()
    small, large = data_set(noise(140, 140), number=1), data_set(noise(512, 512), number=2)
    with receiver(ingest) as scp:
        ae = AE(ae_title="MODALITY")
        ae.requested_contexts = [build_context(CR), build_context(scu.VERIFICATION)]
        association = ae.associate("127.0.0.1", scp.acceptor.port, ae_title="BEDSIDE")
        assert association.is_established
        keep_answers(association)
        assert association.send_c_echo().Status == 0
        for made in (small, large):
            assert association.send_c_store(made).Status == 0
        association.release()
        wait_for(lambda: ingest.completed)
    assert [a.header.sop_instance_uid for a in ingest.arrivals] == [
        *(small.SOPInstanceUID, large.SOPInstanceUID)
    ]
    assert {a.way for a in ingest.arrivals} == {Way.DIMSE}
    assert {a.source for a in ingest.arrivals} == {"MODALITY"}
    assert len(ingest.completed[0]) == 1  # one study, completed by the release


def test_an_answer_the_librarys_reactor_takes_first_still_reaches_the_caller():
    """The race of pynetdicom's pause, made certain: its reactor always wins the first time."""
    ingest = MemoryIngest()
    with receiver(ingest) as scp:
        ae = AE(ae_title="MODALITY")
        ae.dimse_timeout = 5
        ae.requested_contexts = [build_context(CR)]
        association = ae.associate("127.0.0.1", scp.acceptor.port, ae_title="BEDSIDE")
        keep_answers(association)
        taken = []
        waiting = association.dimse.get_msg

        def reactor_first(block=False):
            context_id, message = waiting(block)
            if message is not None and not taken:
                taken.append(message)
                association._serve_request(message, context_id)
                return waiting(block)
            return context_id, message

        association.dimse.get_msg = reactor_first
        assert association.send_c_store(data_set(noise(140, 140))).Status == 0
        assert taken
        association.release()


def test_what_is_kept_is_what_was_sent_byte_for_byte():
    ingest = MemoryIngest()
    made = data_set(noise(300, 200))
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    sent = bare(made)
    wanted = scu.context(5, CR, JPEG2000Lossless, scu.EXPLICIT_LE)
    with receiver(ingest) as scp, RawScu(scp.acceptor.port, associate=False) as raw:
        raw.send(scu.associate_rq(wanted))
        assert raw.receive()[0] == 2
        raw.message(5, scu.store_rq(made.SOPInstanceUID), sent)
        assert raw.status() == Status.SUCCESS
    (kept,) = ingest.objects.values()
    assert kept[part10.locate(kept).start :] == sent
    assert part10.locate(kept).transfer_syntax_uid == JPEG2000Lossless


@pytest.mark.parametrize("name", ["JPGExtended", "examples_ybr_color", "test-SR", "MR_small_expb"])
def test_every_syntax_and_class_is_stored_as_it_came(name):
    ingest = MemoryIngest()
    whole = bundled(name)
    where = part10.locate(whole)
    sop_class, instance = (part10.text(where.meta[tag]) for tag in (0x00020002, 0x00020003))
    wanted = scu.context(1, sop_class, where.transfer_syntax_uid)
    with receiver(ingest) as scp, RawScu(scp.acceptor.port, associate=False) as raw:
        raw.send(scu.associate_rq(wanted))
        assert raw.receive()[0] == 2
        raw.message(1, scu.store_rq(instance, sop_class), whole[where.start :])
        assert raw.status() == Status.SUCCESS
    assert ingest.arrivals[0].header.transfer_syntax_uid == where.transfer_syntax_uid


@pytest.mark.parametrize("piece", [1, 7, 100, 5000])
def test_fragments_of_any_size_and_any_grouping_into_pdus(piece):
    ingest = MemoryIngest()
    made = data_set(noise(20, 20))
    sent = bare(made)
    fragments = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    stream, group = b"", scu.pdv(3, 1, scu.store_rq(made.SOPInstanceUID)[:50])
    group += scu.pdv(3, 3, scu.store_rq(made.SOPInstanceUID)[50:])  # command and data in one PDU
    for number, fragment in enumerate(fragments, 1):
        group += scu.pdv(3, 2 if number == len(fragments) else 0, fragment)
        if len(group) > 900 or number == len(fragments):
            stream, group = stream + scu.pdu(4, group), b""
    with receiver(ingest, max_pdu_bytes=6000) as scp, RawScu(scp.acceptor.port) as raw:
        for at in range(0, len(stream), 333):
            raw.send(stream[at : at + 333])
        assert raw.status() == Status.SUCCESS
    (kept,) = ingest.objects.values()
    assert kept.endswith(sent)


def test_the_same_instance_from_two_senders_at_once_is_held_once():
    ingest = MemoryIngest()
    made = data_set(noise(512, 512))
    sent, start, answers = bare(made), threading.Barrier(2), []

    def send():
        with RawScu(scp.acceptor.port) as raw:
            start.wait()
            raw.message(3, scu.store_rq(made.SOPInstanceUID), sent)
            answers.append(raw.status())

    with receiver(ingest) as scp:
        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == [Status.SUCCESS, Status.SUCCESS]
    assert len(ingest.arrivals) == 1


@pytest.mark.parametrize(
    ("refusal", "status", "comment"),
    [
        (DiskFullError("full"), Status.OUT_OF_RESOURCES, b"disk-full "),
        (StoreUnavailableError("gone"), Status.OUT_OF_RESOURCES, b"store-unavailable "),
        (UnavailableError("no"), Status.PROCESSING_FAILURE, b"unavailable "),
        (InvalidInputError("no"), Status.PROCESSING_FAILURE, b"invalid-input "),
        (ZeroDivisionError("a bug"), Status.PROCESSING_FAILURE, b"internal"),
    ],
)
@pytest.mark.parametrize("where", ["fail_begin", "fail_file"])
def test_an_error_becomes_a_status_and_the_association_goes_on(refusal, status, comment, where):
    ingest = MemoryIngest(**{where: refusal})
    made = data_set()
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.store_rq(made.SOPInstanceUID), bare(made))
        answer = raw.response()
        assert (answer[0x0900], answer[0x0902]) == (status, comment)
        setattr(ingest, where, None)
        raw.message(3, scu.store_rq(made.SOPInstanceUID), bare(made))
        assert raw.status() == Status.SUCCESS
        assert raw.release() == 6
    assert scp.acceptor.counts.stored == scp.acceptor.counts.refused == 1


@pytest.mark.parametrize("hostile", ["../../../etc/passwd", "1.2.03", "1." + "2" * 64, "", "1.2/3"])
def test_a_hostile_uid_is_not_understood(hostile):
    ingest = MemoryIngest()
    made = data_set()
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.store_rq(hostile), bare(made))
        assert raw.status() == Status.CANNOT_UNDERSTAND
    assert ingest.begun == 0


def test_a_data_set_other_than_announced_is_refused():
    ingest = MemoryIngest()
    made = data_set()
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.store_rq(uid(99)), bare(made))
        assert raw.status() == Status.DATA_SET_MISMATCH
        other_class = scu.store_rq(made.SOPInstanceUID, "1.2.840.10008.5.1.4.1.1.2")
        raw.message(3, other_class, bare(made))
        assert raw.status() == Status.DATA_SET_MISMATCH
        raw.message(3, scu.store_rq(made.SOPInstanceUID), bytes_of(4000))
        assert raw.status() == Status.CANNOT_UNDERSTAND
    assert not ingest.arrivals


def test_an_object_beyond_the_limit_is_refused_and_the_next_one_taken():
    ingest = MemoryIngest(max_object_bytes=100_000)
    large, small = data_set(noise(512, 512), number=1), data_set(number=2)
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.store_rq(large.SOPInstanceUID), bare(large))
        assert raw.status() == Status.OUT_OF_RESOURCES
        raw.message(3, scu.store_rq(small.SOPInstanceUID), bare(small))
        assert raw.status() == Status.SUCCESS
    assert ingest.aborted == 1


def test_an_object_of_many_megabytes_passes_through_a_small_buffer():
    ingest = MemoryIngest(keep=False)
    made = data_set(noise(6000, 5000))
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.store_rq(made.SOPInstanceUID), bare(made))
        assert raw.status() == Status.SUCCESS
    assert ingest.arrivals[0].sealed.size > 60_000_000


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        ({"called": "WRONG"}, (1, 1, 7)),
        ({"called": "bedside"}, (1, 1, 7)),
        ({"calling": "STRANGER"}, (1, 1, 3)),
        ({"calling": ""}, (1, 1, 3)),
        ({"calling": "\x07BELL"}, (1, 1, 3)),
        ({"version": 2}, (1, 2, 2)),
        ({"application": "1.2.3"}, (1, 1, 2)),
    ],
)
def test_an_association_that_is_not_for_us_is_rejected_with_the_reason(request_, answer):
    allowed = frozenset(("SENDER", "\x07BELL"))
    with receiver(allowed_calling_ae=allowed) as scp:
        with RawScu(scp.acceptor.port, associate=False) as raw:
            raw.send(scu.associate_rq(**request_))
            kind, body = raw.receive()
            assert kind == 3
            assert tuple(body[1:]) == answer
        with RawScu(scp.acceptor.port) as good:
            good.message(1, scu.echo_rq())
            assert good.status() == 0
    assert (scp.acceptor.counts.rejected, scp.acceptor.counts.accepted) == (1, 1)


def test_one_association_too_many_is_told_to_come_back():
    with receiver(max_associations=2) as scp:
        port = scp.acceptor.port
        with RawScu(port), RawScu(port), RawScu(port, associate=False) as third:
            third.send(scu.associate_rq())
            kind, body = third.receive()
            assert (kind, tuple(body[1:])) == (3, (2, 3, 2))
        wait_for(lambda: scp.acceptor.associations == 0)
        with RawScu(scp.acceptor.port) as later:
            assert later.release() == 6


def test_an_unknown_operation_is_answered_not_aborted():
    with receiver() as scp, RawScu(scp.acceptor.port) as raw:
        raw.message(3, scu.command(0x0020, sop_class=CR), bytes_of(100))  # C-FIND
        assert raw.status() == Status.UNRECOGNISED_OPERATION
        raw.message(1, scu.echo_rq())
        assert raw.status() == 0
        raw.message(3, scu.command(0x30, sop_class=CR, data_set=False))
        assert raw.status() == Status.SOP_CLASS_NOT_SUPPORTED


def test_an_object_that_was_not_wholly_sent_is_forgotten_and_its_study_waits():
    ingest = MemoryIngest()
    first, second = data_set(number=1), data_set(noise(512, 512), number=2)
    with receiver(ingest) as scp:
        with RawScu(scp.acceptor.port) as raw:
            raw.message(3, scu.store_rq(first.SOPInstanceUID), bare(first))
            assert raw.status() == 0
            raw.send(scu.pdu(4, scu.pdv(3, 3, scu.store_rq(second.SOPInstanceUID))))
            raw.send(scu.pdu(4, scu.pdv(3, 0, bare(second)[:16000])))
            raw.send(scu.pdu(4, scu.pdv(3, 0, bare(second)[16000:32000]))[:9000])  # mid-PDU
        wait_for(lambda: ingest.aborted == 1)
        wait_for(lambda: scp.acceptor.associations == 0)
    assert len(ingest.arrivals) == 1
    assert not ingest.completed  # no release: the quiet timer decides


def test_an_abort_of_the_peer_ends_the_association_quietly():
    with receiver() as scp:
        with RawScu(scp.acceptor.port) as raw:
            raw.send(scu.pdu(7, bytes(4)))
            assert raw.receive() == (0, b"")
        wait_for(lambda: scp.acceptor.counts.aborted == 1)


def test_a_port_in_use_is_said_so():
    with receiver() as scp:
        second = StorageScp(
            AcceptorSettings(host="127.0.0.1", port=scp.acceptor.port, ae_title="BEDSIDE"),
            MemoryIngest(),
            SystemClock(),
        )
        with pytest.raises(UnavailableError):
            second.start()
        assert not second.acceptor.listening


def test_stopping_lets_a_transfer_finish_and_ends_idle_associations():
    ingest = MemoryIngest()
    made = data_set(noise(512, 512))
    sent = bare(made)
    with receiver(ingest) as scp:
        idle, busy = RawScu(scp.acceptor.port), RawScu(scp.acceptor.port)
        with idle, busy:
            busy.send(scu.pdu(4, scu.pdv(3, 3, scu.store_rq(made.SOPInstanceUID))))
            busy.send(scu.pdu(4, scu.pdv(3, 0, sent[:10000])))
            wait_for(lambda: ingest.begun == 1)
            stopping = threading.Thread(target=scp.stop, args=(5.0,))
            stopping.start()
            assert idle.receive()[0] == 7  # A-ABORT
            for at in range(10000, len(sent), 16000):
                last = at + 16000 >= len(sent)
                busy.send(scu.pdu(4, scu.pdv(3, 2 if last else 0, sent[at : at + 16000])))
            assert busy.status() == Status.SUCCESS
            assert busy.receive()[0] == 7
            stopping.join(5.0)
            assert not stopping.is_alive()
    assert len(ingest.arrivals) == 1
    assert not association_threads()


def test_stopping_breaks_off_what_does_not_finish():
    ingest = MemoryIngest()
    with receiver(ingest) as scp, RawScu(scp.acceptor.port) as raw:
        raw.send(scu.pdu(4, scu.pdv(3, 3, scu.store_rq(uid(5)))))
        raw.send(scu.pdu(4, scu.pdv(3, 0, b"x" * 100)))
        wait_for(lambda: ingest.begun == 1)
        began = time.monotonic()
        scp.stop(0.2)
        assert time.monotonic() - began < 3.0
    assert ingest.aborted == 1
    assert not association_threads()


def test_a_stopped_receiver_accepts_nothing():
    with receiver() as scp:
        port = scp.acceptor.port
    assert not scp.acceptor.listening
    with pytest.raises(ConnectionRefusedError):
        RawScu(port)
