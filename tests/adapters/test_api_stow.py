import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bedside_core.errors import DiskFullError, StoreUnavailableError
from support.asgi_client import in_pieces
from support.http_box import HERE, HttpBox, multipart, related
from support.synthetic import CR, data_set, noise, part10, uid

PATH = "/dicom-web/studies"
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
REASON, INSTANCE, RETRIEVE = "00081197", "00081155", "00081190"


def made(number, study=1, seed=None):
    return part10(data_set(noise(16, 16, seed=seed or number), number=number, study=study))


@pytest.fixture
def box():
    with HttpBox(max_body_bytes=1 << 20, max_parts=20) as box:
        yield box


def send(box, objects, path=PATH, **options):
    return box.client.post(path, content=multipart(objects), headers=related(), **options)


def uids(answer, sequence):
    return [item[INSTANCE]["Value"][0] for item in answer.json().get(sequence, {}).get("Value", [])]


def reasons(answer, sequence=FAILED):
    return [item[REASON]["Value"][0] for item in answer.json()[sequence]["Value"]]


def test_every_instance_is_stored_as_it_came_and_named_in_the_answer(box):
    objects = [made(1), made(2), made(3)]
    answer = send(box, objects)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert box.ingest.stored == objects
    assert uids(answer, REFERENCED) == [uid(1, 1, number) for number in (1, 2, 3)]
    assert FAILED not in answer.json()
    assert answer.json()[RETRIEVE]["Value"] == [f"{HERE}/dicom-web/studies/{uid(1)}"]
    first = answer.json()[REFERENCED]["Value"][0]
    assert first["00081150"] == {"vr": "UI", "Value": [CR]}
    wanted = f"{HERE}/dicom-web/studies/{uid(1)}/series/{uid(1, 1)}/instances/{uid(1, 1, 1)}"
    assert first[RETRIEVE] == {"vr": "UR", "Value": [wanted]}


def test_the_instances_of_a_request_become_durable_together(box):
    calls = []
    plain = box.ingest.file
    box.ingest.file = lambda arrivals: calls.append(len(arrivals)) or plain(arrivals)
    send(box, [made(number) for number in range(1, 11)])
    assert calls == [10]


@pytest.mark.parametrize("boundary", ["cut", "a b", "----=_Part_1.2"])
def test_the_boundary_may_be_quoted(box, boundary):
    kind = f'multipart/related; boundary="{boundary}"; type="application/dicom"'
    body = multipart([made(1)], boundary)
    assert box.client.post(PATH, content=body, headers={"Content-Type": kind}).status_code == 200


def test_a_chunked_body_is_stored_too(box):
    body = multipart([made(1), made(2)])
    pieces = in_pieces(body[at : at + 333] for at in range(0, len(body), 333))
    answer = box.client.post(PATH, content=pieces, headers=related())
    assert len(uids(answer, REFERENCED)) == 2


def test_pixels_that_contain_the_boundary_are_stored_whole(box):
    pixels = data_set(noise(16, 16))
    pixels.PixelData = (b"\n--cut-here--\r--cut-here\r\n" * 20)[:512]
    send(box, [part10(pixels)])
    assert box.ingest.stored == [part10(pixels)]


def test_the_same_instance_again_is_stored_once_and_answered_alike(box):
    first, second = send(box, [made(1)]), send(box, [made(1)])
    assert first.json() == second.json()
    assert len(box.ingest.arrivals) == 1


def test_an_instance_of_another_study_than_the_path_fails_alone(box):
    answer = send(box, [made(1, study=1), made(2, study=2)], path=f"{PATH}/{uid(1)}")
    assert answer.status_code == 202
    assert uids(answer, REFERENCED) == [uid(1, 1, 1)]
    assert uids(answer, FAILED) == [uid(2, 1, 2)]
    assert reasons(answer) == [0xA900]
    assert len(box.ingest.arrivals) == 1
    assert box.ingest.aborted == 1


def test_what_is_no_dicom_fails_alone(box):
    answer = send(box, [made(1), b"GIF89a" * 100])
    assert answer.status_code == 202
    assert reasons(answer, OTHER) == [0xC000]
    assert uids(answer, REFERENCED) == [uid(1, 1, 1)]


def test_a_hostile_uid_fails_alone(box):
    honest = uid(1, 1, 2).encode()
    hostile = made(2).replace(honest, b"../../etc/passwd".ljust(len(honest), b"x"))
    answer = send(box, [made(1), hostile])
    assert answer.status_code == 202
    assert reasons(answer, OTHER) == [0xC000]


def test_no_instance_stored_is_a_conflict(box):
    answer = send(box, [b"not", b"dicom"])
    assert answer.status_code == 409
    assert reasons(answer, OTHER) == [0xC000, 0xC000]
    assert box.ingest.aborted == 2


def test_other_pixels_under_a_held_uid_fail_alone_and_are_kept(box):
    send(box, [made(1)])
    box.ingest.conflict = True
    answer = send(box, [made(1, seed=99), made(2)])
    assert answer.status_code == 202
    assert uids(answer, FAILED) == [uid(1, 1, 1)]
    assert reasons(answer) == [0x0111]
    assert len(box.ingest.arrivals) == 3


def test_another_encoding_of_held_pixels_is_stored(box):
    send(box, [made(1)])
    answer = send(box, [made(1, seed=99)])
    assert answer.status_code == 200
    assert [receipt.outcome for receipt in box.ingest.settled] == ["second"]


def test_a_full_disk_is_507_and_says_when_to_come_again(box):
    box.ingest.fail_begin = DiskFullError("above the high watermark")
    answer = send(box, [made(1), made(2)])
    assert answer.status_code == 507
    assert answer.json()["type"] == "urn:bedside:error:disk-full"
    assert int(answer.headers["retry-after"]) > 0


def test_a_store_that_fails_keeps_nothing_and_says_so_per_instance(box):
    box.ingest.fail_file = StoreUnavailableError("cannot be written")
    answer = send(box, [made(1), made(2)])
    assert answer.status_code == 409
    assert reasons(answer) == [0x0110, 0x0110]
    assert box.ingest.aborted == 2


@pytest.mark.parametrize(
    "kind",
    [
        "application/dicom",
        "application/json",
        "multipart/form-data; boundary=cut-here",
        "multipart/related",
        'multipart/related; type="application/dicom+json"; boundary=cut-here',
        'multipart/related; type="application/dicom+xml"; boundary=cut-here',
        "",
    ],
)
def test_a_body_of_another_kind_is_refused(box, kind):
    answer = box.client.post(PATH, content=multipart([made(1)]), headers={"Content-Type": kind})
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:bedside:error:unsupported-media-type"
    assert box.ingest.begun == 0


def test_a_part_of_another_kind_is_refused_and_nothing_is_kept(box):
    body = multipart([made(1)])[: -len(b"--cut-here--\r\n")]
    body += multipart([b"%PDF"], part_type="application/pdf")
    answer = box.client.post(PATH, content=body, headers=related())
    assert answer.status_code == 415
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == 1


@pytest.mark.parametrize("body", [b"", b"--cut-here--\r\n", b"no boundary at all"])
def test_a_request_without_an_instance_is_refused(box, body):
    assert box.client.post(PATH, content=body, headers=related()).status_code == 400


def test_a_body_that_ends_early_keeps_nothing(box):
    answer = box.client.post(PATH, content=multipart([made(1), made(2)])[:-30], headers=related())
    assert answer.status_code == 400
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == box.ingest.begun == 2


def test_a_body_over_the_limit_is_refused_and_keeps_nothing(box):
    large = [part10(data_set(noise(512, 512)))] * 3
    assert send(box, large).status_code == 413
    assert box.ingest.begun == 0
    pieces = in_pieces([multipart(large)])
    assert box.client.post(PATH, content=pieces, headers=related()).status_code == 413
    assert box.ingest.arrivals == []


def test_too_many_parts_are_refused_and_keep_nothing(box):
    answer = send(box, [b"x"] * 21)
    assert answer.status_code == 413
    assert box.ingest.arrivals == []
    assert box.ingest.aborted == box.ingest.begun


def test_instances_are_counted_by_outcome(box):
    send(box, [made(1), b"not dicom"])
    send(box, [made(1)])
    text = box.client.get("/metrics").text
    for outcome in ("stored", "duplicate", "not-dicom"):
        assert (
            f'bedside_instances_received_total{{outcome="{outcome}",way="stow"}} 1.0' in text
            or f'bedside_instances_received_total{{way="stow",outcome="{outcome}"}} 1.0' in text
        )


def test_more_uploads_than_there_is_room_for_are_told_to_come_again():
    with HttpBox(max_uploads=1) as box:
        begun, go_on = threading.Event(), threading.Event()
        body = multipart([made(1)])

        async def slow():
            yield body[:100]
            begun.set()
            await asyncio.to_thread(go_on.wait, 10)
            yield body[100:]

        with ThreadPoolExecutor() as threads:
            first = threads.submit(box.client.post, PATH, content=slow(), headers=related())
            assert begun.wait(10)
            second = send(box, [made(2)])
            kind = {"Content-Type": "application/dicom"}
            third = box.client.post("/api/v1/studies:analyze", content=made(3), headers=kind)
            go_on.set()
            assert first.result(10).status_code == 200
        for refused in (second, third):
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "queue-full" in refused.text
        assert send(box, [made(2)]).status_code == 200
        assert box.ingest.stored == [made(1), made(2)]
