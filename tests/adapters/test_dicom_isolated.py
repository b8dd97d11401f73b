"""Native codecs in processes of their own: what may go wrong there stays there."""

import os
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest
from pydicom.uid import JPEG2000Lossless

from bedside_core.errors import CorruptPixelsError, TimedOutError
from bedside_edge.dicom import decoder
from bedside_edge.dicom.isolated import DecodingProcesses
from bedside_edge.dicom.read import PydicomReader
from support.dicom_files import bundled
from support.synthetic import data_set, noise, picture
from support.synthetic import part10 as file_of


def decoders():
    return [c for c in psutil.Process().children() if "bedside_edge.dicom.decoder" in c.cmdline()]


@pytest.fixture
def processes():
    before = {c.pid for c in decoders()}
    made = DecodingProcesses(most=2)
    yield made
    made.close()
    assert {c.pid for c in decoders()} <= before


@pytest.fixture
def reader(processes):
    return PydicomReader(processes=processes)


def own(processes):
    return [process._process.pid for process in processes._idle]


def test_a_process_serves_many_frames(processes, reader):
    for name in ("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "JPEG-LL", "693_J2KI"):
        assert reader.frame(bundled(name)).pixels.dtype.isnative
    assert len(own(processes)) == 1


def test_uncompressed_and_rle_frames_need_no_process(processes, reader):
    for name in ("MR_small", "MR_small_RLE", "MR_small_bigendian", "image_dfl"):
        reader.frame(bundled(name))
    assert own(processes) == []


def test_a_process_that_died_while_waiting_is_replaced_unseen(processes, reader):
    data = bundled("MR_small_jp2klossless")
    first = reader.frame(data).pixels
    (pid,) = own(processes)
    os.kill(pid, signal.SIGKILL)
    np.testing.assert_array_equal(reader.frame(data).pixels, first)
    assert own(processes) != [pid]


def test_a_silent_process_is_a_matter_of_time_not_of_the_frame():
    processes = DecodingProcesses(most=1)
    reader = PydicomReader(processes=processes)
    data = bundled("MR_small_jp2klossless")
    reader.frame(data)
    (waiting,) = processes._idle
    waiting._socket.settimeout(0.2)
    os.kill(waiting._process.pid, signal.SIGSTOP)
    with pytest.raises(TimedOutError):
        reader.frame(data)
    assert waiting._process.poll() is not None
    assert reader.frame(data).pixels.shape == (64, 64)
    processes.close()


@pytest.mark.slow
def test_a_frame_that_burns_its_processor_time_is_corrupt_however_busy_the_box():
    processes = DecodingProcesses(most=1, cpu_s=1)
    reader = PydicomReader(processes=processes)
    slow = data_set(noise(3000, 3000, bits=16), bits=16)
    slow.compress(JPEG2000Lossless, generate_instance_uid=False)
    with pytest.raises(CorruptPixelsError):
        reader.frame(file_of(slow))
    assert reader.frame(bundled("MR_small_jp2klossless")).pixels.shape == (64, 64)
    processes.close()


def test_a_failing_codec_is_a_refusal_and_its_process_goes_on(processes, reader):
    made = data_set(picture(64, 64))
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    data = bytearray(file_of(made))
    start = data.index(b"\xff\x93")  # start of data: the packets behind it become noise
    data[start + 2 : start + 40] = b"\xff" * 38
    reader.frame(bundled("MR_small_jp2klossless"))
    before = own(processes)
    try:
        reader.frame(bytes(data))
    except CorruptPixelsError:
        assert own(processes) == before
    assert reader.frame(bundled("MR_small_jp2klossless")).pixels.shape == (64, 64)


def test_the_service_does_not_work_while_a_radiograph_is_decoded(reader):
    """In-process the codec would burn 0.4 s of this process and stop its threads as long."""
    reader.frame(bundled("MR_small_jp2klossless"))
    began = time.process_time()
    reader.frame(bundled("RG1_J2KR"))
    assert time.process_time() - began < 0.2


def test_more_threads_than_processes_take_turns(processes, reader):
    wanted = reader.frame(bundled("MR_small")).pixels
    right = []

    def work():
        for _ in range(3):
            decoded = reader.frame(bundled("MR_small_jp2klossless")).pixels
            right.append(np.array_equal(decoded, wanted))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 18
    assert 1 <= len(own(processes)) <= 2


def test_closed_processes_are_gone_and_new_frames_start_new_ones(processes, reader):
    reader.frame(bundled("MR_small_jp2klossless"))
    (pid,) = own(processes)
    processes.close()
    assert not psutil.pid_exists(pid)
    reader.frame(bundled("MR_small_jp2klossless"))
    assert len(own(processes)) == 1


def test_the_program_ends_with_its_socket_even_in_the_middle_of_a_request():
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=decoder.serve, args=(theirs, lambda: None))
    with theirs, ours:
        thread.start()
        ours.shutdown(socket.SHUT_WR)
        thread.join(5.0)
        assert not thread.is_alive()


def test_nothing_but_the_frame_and_its_numbers_crosses():
    seen = []

    class Spy(DecodingProcesses):
        def decode(self, coded, **description):
            seen.append((coded, description))
            return super().decode(coded, **description)

    processes = Spy()
    made = data_set(picture(32, 32), PatientName="Secret^Person")
    made.compress(JPEG2000Lossless, generate_instance_uid=False)
    PydicomReader(processes=processes).frame(file_of(made))
    processes.close()
    ((coded, description),) = seen
    assert b"Secret" not in coded
    assert set(description) == {
        *("transfer_syntax_uid", "rows", "columns", "samples_per_pixel", "bits_allocated"),
        *("bits_stored", "pixel_representation", "photometric_interpretation"),
        "planar_configuration",
    }
