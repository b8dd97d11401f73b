"""Promises of every ObjectStore: what was sealed comes back, anything else is an error."""

from collections.abc import Iterator

import pytest

from bedside_core.errors import DamagedObjectError, NotFoundError, WrongStateError
from support.ram import ram_folder
from support.state_houses import HOUSES, House, arrival, opened, sealed


@pytest.fixture(params=HOUSES)
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    with ram_folder() as folder:
        yield HOUSES[request.param](folder)


MEBI = 1 << 20


@pytest.mark.parametrize("size", [0, 1, MEBI - 1, MEBI, MEBI + 1, 3 * MEBI])
def test_an_object_comes_back_whole_whatever_its_size(house, size):
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    with opened(house) as state:
        done = sealed(state, data)
        assert done.size == size
        assert state.objects.read(done.name, done.object_key) == data


def test_the_pieces_it_was_written_in_make_no_difference(house):
    data = bytes(range(256)) * 9000
    with opened(house) as state:
        sink = state.objects.create()
        for start in range(0, len(data), 99_991):
            sink.write(memoryview(data)[start : start + 99_991])
        done = sink.seal("d")
        state.objects.flush()
        assert done.digest == "d"
        assert state.objects.read(done.name, done.object_key) == data


def test_a_filed_object_is_there_after_a_restart(house):
    with opened(house) as state:
        filed = state.studies.file([arrival(state, data=b"kept")])[0]
    with opened(house) as state:
        held = state.studies.instances(filed.study_id)[0]
        assert state.objects.read(held.object_name, held.object_key) == b"kept"


def test_two_objects_of_the_same_bytes_are_two_files_under_two_keys(house):
    with opened(house) as state:
        one, two = sealed(state, b"same"), sealed(state, b"same")
        assert one.name != two.name
        assert one.object_key != two.object_key
        state.objects.delete(one.name)
        assert state.objects.read(two.name, two.object_key) == b"same"


def test_another_key_opens_nothing(house):
    with opened(house) as state:
        one, two = sealed(state, b"one"), sealed(state, b"two")
        with pytest.raises(DamagedObjectError):
            state.objects.read(one.name, two.object_key)


def test_a_damaged_object_is_an_error_and_never_other_bytes(house):
    with opened(house) as state:
        done = sealed(state, b"x" * 1000)
        house.damage(done.name)
        with pytest.raises(DamagedObjectError):
            state.objects.read(done.name, done.object_key)


@pytest.mark.parametrize(
    "name", ["0" * 64, "", "..", "../../keys/box.key", "tmp/x", "0" * 63 + "G"]
)
def test_a_name_that_is_not_there_or_no_name_at_all_is_not_found(house, name):
    with opened(house) as state, pytest.raises(NotFoundError):
        state.objects.read(name, bytes(32))


def test_an_aborted_object_leaves_nothing_at_any_moment(house):
    with opened(house) as state:
        state.objects.create().abort()
        written = state.objects.create()
        written.write(b"x" * 2_000_000)
        written.abort()
        finished = state.objects.create()
        finished.write(b"x")
        finished.seal("d")
        finished.abort()
        finished.abort()
        state.objects.flush()
        durable = state.objects.create()
        durable.seal("d")
        state.objects.flush()
        durable.abort()
        assert list(state.objects.names()) == []


def test_a_sink_ends_once(house):
    with opened(house) as state:
        sink = state.objects.create()
        sink.seal("d")
        with pytest.raises(WrongStateError):
            sink.write(b"more")
        with pytest.raises(WrongStateError):
            sink.seal("d")


def test_names_lists_sealed_objects_and_delete_is_idempotent(house):
    with opened(house) as state:
        unfinished = state.objects.create()
        unfinished.write(b"x")
        names = {sealed(state, bytes([n])).name for n in range(5)}
        assert set(state.objects.names()) == names
        for name in names:
            state.objects.delete(name)
            state.objects.delete(name)
        assert list(state.objects.names()) == []
        unfinished.abort()
