"""Messages: what is written is read, and nothing else is."""

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidMessageError
from bedside_sync.wire import MAX_MESSAGE, Message, read_message, write_message

FIELDS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda n: n != "kind"),
    st.one_of(st.integers(0, 2**53 - 1), st.text(max_size=20)),
    max_size=6,
)


@given(fields=FIELDS, payload=st.binary(max_size=200))
def test_a_message_is_read_as_it_was_written(fields, payload):
    message = Message(kind="put", fields=fields, payload=payload)
    assert read_message(write_message(message)) == message


@given(data=st.binary(max_size=300))
def test_other_bytes_are_refused(data):
    with pytest.raises(InvalidMessageError):
        read_message(data)


@given(fields=FIELDS, at=st.integers(0, 400), value=st.integers(1, 255))
def test_a_changed_byte_before_the_payload_is_refused_or_is_another_message(fields, at, value):
    data = bytearray(write_message(Message(kind="put", fields=fields)))
    data[at % len(data)] ^= value
    with contextlib.suppress(InvalidMessageError):
        assert write_message(read_message(bytes(data))) == bytes(data)


@pytest.mark.parametrize(
    "header",
    [
        b'{"kind":"put","x":1.0}',
        b'{"kind":"put","x":null}',
        b'{"kind":"put","x":true}',
        b'{"kind":"put","x":-1}',
        b'{"kind":"put", "x":1}',
        b'{"x":1,"kind":"put"}',
        b'{"kind":"put","kind":"get"}',
        b'{"kind":1}',
        b'{"kind":"PUT"}',
        b"[]",
        b"{",
        b'{"kind":"put","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_another_spelling_is_refused(header):
    with pytest.raises(InvalidMessageError):
        read_message(b"BSY\x01" + len(header).to_bytes(4, "big") + header)


def test_a_message_ends_at_its_limit():
    fits = Message(kind="put", payload=bytes(MAX_MESSAGE - 8 - 14))
    assert len(write_message(fits)) == MAX_MESSAGE
    with pytest.raises(InvalidMessageError):
        write_message(Message(kind="put", payload=bytes(MAX_MESSAGE)))
    with pytest.raises(InvalidMessageError):
        read_message(b"BSY\x01" + bytes(MAX_MESSAGE))


def test_fields_are_asked_for_by_type():
    message = Message(kind="put", fields={"n": 3, "t": "x", "d": os.urandom(32).hex()})
    assert message.integer("n") == 3
    assert message.text("t") == "x"
    assert len(message.digest("d")) == 32
    for read, name in ((message.integer, "t"), (message.text, "n"), (message.digest, "t")):
        with pytest.raises(InvalidMessageError):
            read(name)
    for wrong in ({"n": 1.5}, {"n": True}, {"N": 1}, {"kind": "x"}, {"n": 2**53}):
        with pytest.raises(InvalidMessageError):
            Message(kind="put", fields=wrong)
