"""Promises of every KeyStore: it wraps, unwraps and files, and tells boxes and contexts apart."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import DamagedObjectError
from support.memory_store import MemoryKeys
from support.ram import ram_folder
from support.state_houses import HOUSES, House


@pytest.fixture(params=HOUSES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with ram_folder() as folder:
        yield HOUSES[request.param](folder)


KEY = bytes(range(32))


def test_a_wrapped_key_comes_back_from_the_same_box(house):
    wrapped = house.keys("a").wrap(KEY, b"study 1")
    assert house.keys("a").unwrap(wrapped, b"study 1") == KEY


def test_a_wrapped_key_does_not_show_the_key_and_never_looks_the_same_twice(house):
    keys = house.keys("a")
    one, two = keys.wrap(KEY, b"study 1"), keys.wrap(KEY, b"study 1")
    assert one != two
    assert KEY not in one


def test_a_wrapped_key_is_bound_to_its_context(house):
    keys = house.keys("a")
    with pytest.raises(DamagedObjectError):
        keys.unwrap(keys.wrap(KEY, b"study 1"), b"study 2")


def test_a_wrapped_key_is_bound_to_its_box(house):
    with pytest.raises(DamagedObjectError):
        house.keys("b").unwrap(house.keys("a").wrap(KEY, b"x"), b"x")


def test_every_changed_byte_is_noticed(house):
    keys = house.keys("a")
    wrapped = keys.wrap(KEY, b"x")
    for position in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[position] ^= 0x10
        with pytest.raises(DamagedObjectError):
            keys.unwrap(bytes(changed), b"x")
    for length in range(len(wrapped)):
        with pytest.raises(DamagedObjectError):
            keys.unwrap(wrapped[:length], b"x")


def test_a_uid_is_filed_the_same_way_every_time_and_another_way_under_every_label(house):
    keys = house.keys("a")
    filed = keys.lookup("study", b"1.2.3")
    assert filed == house.keys("a").lookup("study", b"1.2.3")
    assert len(filed) == 32
    assert set(filed) <= set("0123456789abcdef")
    others = {keys.lookup("study", b"1.2.4"), keys.lookup("instance", b"1.2.3")}
    others |= {keys.lookup("stud", b"y1.2.3"), house.keys("b").lookup("study", b"1.2.3")}
    assert len(others | {filed}) == 5


def test_a_key_wrapped_with_a_secret_needs_box_context_and_that_secret(house):
    keys, secret = house.keys("a"), b"s" * 32
    wrapped = keys.wrap_with(secret, KEY, b"study 1")
    assert KEY not in wrapped
    assert keys.wrap_with(secret, KEY, b"study 1") != wrapped
    assert house.keys("a").unwrap_with(secret, wrapped, b"study 1") == KEY
    others = [
        (keys, b"t" * 32, b"study 1"),
        (keys, secret, b"study 2"),
        (keys, bytes(32), b"study 1"),
    ]
    for other, key, context in [*others, (house.keys("b"), secret, b"study 1")]:
        with pytest.raises(DamagedObjectError):
            other.unwrap_with(key, wrapped, context)
    with pytest.raises(DamagedObjectError):
        keys.unwrap(wrapped, b"study 1")
    for position in range(len(wrapped)):
        changed = bytearray(wrapped)
        changed[position] ^= 0x10
        with pytest.raises(DamagedObjectError):
            keys.unwrap_with(secret, bytes(changed), b"study 1")


def test_a_mac_is_of_one_box_one_label_and_one_value(house):
    keys = house.keys("a")
    mac = keys.mac("slots", b"x")
    assert len(mac) == 32
    assert mac == house.keys("a").mac("slots", b"x")
    others = {keys.mac("slots", b"y"), keys.mac("slot", b"sx"), house.keys("b").mac("slots", b"x")}
    assert len(others | {mac}) == 4


@settings(max_examples=30, deadline=None)
@given(key=st.binary(max_size=64), context=st.binary(max_size=40))
def test_the_simulator_keeps_its_promise_for_any_key_and_context(key, context):
    keys = MemoryKeys()
    assert keys.unwrap(keys.wrap(key, context), context) == key
