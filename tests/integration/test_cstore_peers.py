"""The receiver against DCMTK, the senders hospitals really have."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bedside_edge.dicom.part10 import locate
from support.dicom_files import bundled_path
from support.dicom_ingest import MemoryIngest
from support.dicom_scu import receiver
from support.synthetic import CT, data_set, noise, part10

pytestmark = pytest.mark.peer


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/bin:/usr/local/bin")  # pynetdicom has namesakes in venvs
    if found is None:
        pytest.skip(f"needs {name} of the Debian package dcmtk")
    return found


def run(name: str, *arguments: str, nodelay: bool = False) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "TCP_NODELAY"}
    if nodelay:
        environment["TCP_NODELAY"] = "1"
    return subprocess.run(
        [program(name), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Twenty CT of 39 KB and of 525 KB."""
    made = {}
    for name, side in (("small", 140), ("large", 512)):
        made[name] = tmp_path_factory.mktemp(name)
        pixels = noise(side, side)
        for number in range(20):
            instance = data_set(pixels, number=number + 1, SOPClassUID=CT, Modality="CT")
            (made[name] / f"{number}.dcm").write_bytes(part10(instance))
    return made


def test_echoscu_is_answered_and_a_wrong_title_refused():
    with receiver() as scp:
        port = str(scp.acceptor.port)
        assert run("echoscu", "-aec", "BEDSIDE", "127.0.0.1", port).returncode == 0
        wrong = run("echoscu", "-aec", "WRONG", "127.0.0.1", port)
        assert wrong.returncode != 0
        assert "Called AE Title Not Recognized" in wrong.stdout + wrong.stderr


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("nodelay", [False, True])
@pytest.mark.parametrize("max_pdu", [(), ("-pdu", "131072")])
def test_storescu_stores_every_image(folders, size, nodelay, max_pdu):
    ingest = MemoryIngest()
    with receiver(ingest) as scp:
        port, folder = str(scp.acceptor.port), str(folders[size])
        sent = run(
            "storescu",
            "-aec",
            "BEDSIDE",
            *max_pdu,
            "+sd",
            "127.0.0.1",
            port,
            folder,
            nodelay=nodelay,
        )
    assert sent.returncode == 0, sent.stderr
    assert len(ingest.arrivals) == 20


def test_a_sender_with_nagle_is_not_slowed_down(folders):
    """Delayed acknowledgement would cost 40 ms per image: 0.8 s for twenty."""
    program("storescu")
    best = 9.0
    for _ in range(3):
        with receiver(MemoryIngest()) as scp:
            began = time.monotonic()
            port = str(scp.acceptor.port)
            folder = str(folders["small"])
            assert (
                run("storescu", "-aec", "BEDSIDE", "+sd", "127.0.0.1", port, folder).returncode == 0
            )
            best = min(best, time.monotonic() - began)
    assert best < 0.5


def test_four_associations_at_once(folders):
    ingest, codes = MemoryIngest(), []
    with receiver(ingest) as scp:
        port, folder = str(scp.acceptor.port), str(folders["large"])

        def send():
            codes.append(
                run("storescu", "-aec", "BEDSIDE", "+sd", "127.0.0.1", port, folder).returncode
            )

        threads = [threading.Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert codes == [0] * 4
    assert len(ingest.arrivals) == 20  # the same instances four times are held once


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("SC_rgb_jpeg_gdcm", "-xs"),
        ("MR_small_jp2klossless", "-xv"),
        ("RG3_J2KI", "-xw"),
        ("MR_small_jpeg_ls_lossless", "-xt"),
        ("MR_small_RLE", "-xr"),
        ("MR_small_bigendian", "-xb"),
        ("image_dfl", "-xd"),
    ],
)
def test_compressed_objects_come_in_as_they_are(name, option):
    ingest = MemoryIngest()
    with receiver(ingest) as scp:
        path = str(bundled_path(name))
        port = str(scp.acceptor.port)
        sent = run("storescu", "-aec", "BEDSIDE", option, "127.0.0.1", port, path)
    assert sent.returncode == 0, sent.stderr
    held = ingest.arrivals[0].header
    assert held.transfer_syntax_uid == _syntax_of(path)


def test_dcmsend_with_many_contexts(folders):
    ingest = MemoryIngest()
    with receiver(ingest) as scp:
        port = str(scp.acceptor.port)
        files = [str(bundled_path(n)) for n in ("RG1_UNCR", "MR_small_RLE", "test-SR", "US1_J2KR")]
        files.append(str(folders["small"] / "0.dcm"))
        sent = run("dcmsend", "-aec", "BEDSIDE", "127.0.0.1", port, *files)
    assert sent.returncode == 0, sent.stderr
    assert len(ingest.arrivals) == 5


def _syntax_of(path: str) -> str:
    return locate(Path(path).read_bytes()).transfer_syntax_uid
