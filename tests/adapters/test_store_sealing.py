"""The format of an encrypted object: readable for ever, and no change to it goes unnoticed."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import DamagedObjectError, InvalidInputError
from bedside_edge.store import sealing
from bedside_edge.store.objects import DiskLimits, FileObjects
from support.fake_clock import FakeClock, SeededBytes

KEY = bytes(range(32))
CHUNK = 64  # small chunks through the same functions; the header says their size


def seal(data: bytes, key: bytes = KEY, chunk: int = CHUNK) -> bytes:
    """The format written out a second time, plainly, as the reader of the document would."""
    head = b"BEDSIDE\x01" + chunk.to_bytes(4, "big") + bytes(4)
    parts = [data[i : i + chunk] for i in range(0, len(data), chunk)] or [b""]
    out = head
    for index, part in enumerate(parts):
        last = b"\x01" if index == len(parts) - 1 else b"\x00"
        out += AESGCM(key).encrypt(bytes(7) + index.to_bytes(4, "big") + last, part, head)
    return out


def test_a_sealed_object_of_release_one_stays_readable():
    sealed = bytes.fromhex(
        "4245445349444501001000000000000065bfc79928877bffd5683fd3c24a320114aaa8ed105f"
    )
    assert sealing.open_object(sealed, KEY) == b"pixels"


def test_the_sink_writes_exactly_the_documented_format(tmp_path):
    store = FileObjects(
        tmp_path / "objects", SeededBytes(), DiskLimits(min_free_bytes=0), FakeClock()
    )
    data = SeededBytes("data")(2 * sealing.CHUNK + 5)
    sink = store.create()
    sink.write(data[:700_000])
    sink.write(data[700_000:])
    done = sink.seal("d")
    store.close()
    on_disk = (tmp_path / "objects" / done.name[:2] / done.name).read_bytes()
    assert on_disk == seal(data, done.object_key, sealing.CHUNK)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=4 * CHUNK))
def test_whatever_was_sealed_comes_back(data):
    assert sealing.open_object(seal(data), KEY) == data


@settings(max_examples=150, deadline=None)
@given(data=st.data(), size=st.integers(0, 4 * CHUNK))
def test_no_changed_cut_extended_or_reordered_object_opens(data, size):
    plain = SeededBytes("plain")(size)
    sealed = seal(plain)
    step = CHUNK + sealing.TAG
    head, body = sealed[: sealing.HEADER_BYTES], sealed[sealing.HEADER_BYTES :]
    chunks = [body[i : i + step] for i in range(0, len(body), step)]
    kind = data.draw(st.sampled_from(["flip", "cut", "extend", "swap", "drop", "repeat"]))
    position = data.draw(st.integers(0, len(sealed) - 1))
    first = data.draw(st.integers(0, len(chunks) - 1))
    second = data.draw(st.integers(0, len(chunks) - 1))
    if kind == "flip":
        flip = data.draw(st.integers(1, 255))
        broken = sealed[:position] + bytes([sealed[position] ^ flip]) + sealed[position + 1 :]
    elif kind == "cut":
        broken = sealed[:position]
    elif kind == "extend":
        broken = sealed + data.draw(st.binary(min_size=1, max_size=2 * step))
    else:
        moved = list(chunks)
        if kind == "swap":
            moved[first], moved[second] = moved[second], moved[first]
        elif kind == "drop":
            del moved[first]
        else:
            moved.insert(second, moved[first])
        broken = head + b"".join(moved)
        if broken == sealed:
            return
    with pytest.raises(DamagedObjectError):
        sealing.open_object(broken, KEY)


def test_a_chunk_of_another_object_does_not_fit():
    one, two = seal(b"a" * 100), seal(b"b" * 100, bytes(32))
    cut = sealing.HEADER_BYTES + CHUNK + sealing.TAG
    with pytest.raises(DamagedObjectError):
        sealing.open_object(one[:cut] + two[cut:], KEY)


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 200, b"BEDSIDE\x02" + bytes(100)])
def test_what_is_no_object_is_damaged(content):
    with pytest.raises(DamagedObjectError):
        sealing.open_object(content, KEY)


def test_a_header_cannot_ask_for_absurd_chunks():
    head = b"BEDSIDE\x01" + (2**31).to_bytes(4, "big") + bytes(4)
    with pytest.raises(DamagedObjectError):
        sealing.open_object(head + bytes(100), KEY)


def test_nonces_never_repeat_within_an_object():
    nonces = {sealing.nonce(i, last) for i in range(1000) for last in (False, True)}
    assert len(nonces) == 2000
    assert {len(n) for n in nonces} == {12}
    with pytest.raises(InvalidInputError):
        sealing.nonce(2**32, last=False)


def test_a_row_blob_is_bound_to_its_row_and_key():
    box = sealing.Box(KEY)
    blob = box.seal(b"header", "header i1", bytes(12))
    assert box.open(blob, "header i1") == b"header"
    for attempt in (
        lambda: box.open(blob, "header i2"),
        lambda: sealing.Box(bytes(32)).open(blob, "header i1"),
        lambda: box.open(blob[:-1], "header i1"),
        lambda: box.open(b"", "header i1"),
    ):
        with pytest.raises(DamagedObjectError):
            attempt()
    assert "0001" not in repr(box)
