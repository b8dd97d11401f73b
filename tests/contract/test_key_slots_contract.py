"""Promises of every KeySlots: used once, durable, and gone for good when destroyed."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as StateBundle
from hypothesis.stateful import RuleBasedStateMachine, consumes, invariant, rule

from bedside_core.errors import DamagedObjectError, NotFoundError
from bedside_edge.ports.slots import KeySlots
from bedside_edge.store.slots import FileSlots, open_slots
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.fake_clock import SeededBytes
from support.memory_slots import MemorySlots, SlotsDisk
from support.memory_store import MemoryKeys
from support.ram import ram_folder

KEY = bytes(range(32))
AT = 1_700_000_000_000
Open = Callable[[], KeySlots]


def opener(kind: str, folder) -> Open:
    if kind == "memory":
        disk = SlotsDisk()
        return lambda: MemorySlots(disk, MemoryKeys(), SeededBytes("slots"))
    keys = open_box_keys(folder, OsRandom(), create=True)
    return lambda: open_slots(folder, keys, OsRandom(), create=True)


@pytest.fixture(params=["file", "memory"])
def open_again(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Every call is a restart: the one before is closed first."""
    with ram_folder() as folder:
        keys_folder = folder / "keys"
        start, held = opener(request.param, keys_folder), list[KeySlots]()

        def again() -> KeySlots:
            while held:
                held.pop().close()
            held.append(start())
            return held[0]

        yield again
        while held:
            held.pop().close()


def test_a_wrapped_key_opens_with_its_slot_after_a_restart(open_again):
    slot, wrapped = open_again().wrap(KEY, b"study a")
    assert KEY not in wrapped
    assert open_again().unwrap(slot, wrapped, b"study a") == KEY


def test_a_number_is_never_used_again_not_even_after_restarts(open_again):
    seen = []
    for _ in range(3):
        slots = open_again()
        seen += [slots.wrap(KEY, b"x")[0] for _ in range(5)]
        slots.destroy([seen[-1]], AT)
    assert len(set(seen)) == len(seen) == 15
    assert min(seen) >= 1
    assert open_again().highest() >= max(seen)


def test_another_slot_or_context_does_not_open_it(open_again):
    slots = open_again()
    one, wrapped = slots.wrap(KEY, b"study a")
    two, _ = slots.wrap(KEY, b"study a")
    for slot, context in ((two, b"study a"), (one, b"study b")):
        with pytest.raises(DamagedObjectError):
            slots.unwrap(slot, wrapped, context)
    for never in (0, -1, slots.highest() + 1, 1 << 40):
        with pytest.raises(NotFoundError):
            slots.unwrap(never, wrapped, b"study a")


def test_a_destroyed_slot_opens_nothing_and_stays_destroyed(open_again):
    slots = open_again()
    one, wrapped = slots.wrap(KEY, b"a")
    two, kept = slots.wrap(KEY, b"b")
    before = slots.mark()
    slots.destroy([one], AT)
    assert slots.mark() != before
    assert slots.mark().records == 1
    for state in (slots, open_again()):
        assert state.is_destroyed(one)
        assert not state.is_destroyed(two)
        assert state.mark().records == 1
        with pytest.raises(NotFoundError):
            state.unwrap(one, wrapped, b"a")
        assert state.unwrap(two, kept, b"b") == KEY


def test_destroying_again_changes_nothing_and_a_wrong_number_destroys_nothing(open_again):
    slots = open_again()
    one, _ = slots.wrap(KEY, b"a")
    two, kept = slots.wrap(KEY, b"b")
    slots.destroy([one], AT)
    mark = slots.mark()
    slots.destroy([one], AT + 1)
    slots.destroy([], AT + 1)
    assert slots.mark() == mark
    with pytest.raises(NotFoundError):
        slots.destroy([two, slots.highest() + 1], AT)
    assert slots.unwrap(two, kept, b"b") == KEY


class SlotsAgainstTheirModel(RuleBasedStateMachine):
    """Any order of taking, destroying, restarting and dying: the file does what a dict does."""

    keys_in_use = StateBundle("keys_in_use")

    def __init__(self) -> None:
        super().__init__()
        self._ram = ram_folder()
        self.folder = self._ram.__enter__() / "keys"
        self.keys = open_box_keys(self.folder, OsRandom(), create=True)
        self.slots: FileSlots = open_slots(self.folder, self.keys, OsRandom(), create=True)
        self.held: dict[int, bytes] = {}
        self.gone: dict[int, bytes] = {}

    def teardown(self) -> None:
        self.slots.close()
        self._ram.__exit__(None, None, None)

    @rule(target=keys_in_use)
    def take(self):
        slot, wrapped = self.slots.wrap(KEY, b"c")
        assert slot not in self.held
        assert slot not in self.gone
        self.held[slot] = wrapped
        return slot

    @rule(slot=consumes(keys_in_use))
    def destroy(self, slot):
        self.slots.destroy([slot], AT)
        self.gone[slot] = self.held.pop(slot)

    @rule(slot=consumes(keys_in_use), other=consumes(keys_in_use))
    def destroy_two(self, slot, other):
        self.slots.destroy([slot, other], AT)
        self.gone[slot], self.gone[other] = self.held.pop(slot), self.held.pop(other)

    @rule()
    def restart(self):
        self.slots.close()
        self.slots = open_slots(self.folder, self.keys, OsRandom(), create=False)

    @rule(cut=st.integers(1, 90))
    def die_while_a_record_is_written(self, cut):
        """The journal ends in part of a record; nothing was overwritten for it."""
        self.slots.close()
        journal = self.folder / "slots.journal"
        whole = len(journal.read_bytes())
        if self.held:
            copy = self.folder.parent / "copy"
            shutil.copytree(self.folder, copy)
            doomed = open_slots(copy, self.keys, OsRandom(), create=False)
            doomed.destroy([min(self.held)], AT)
            doomed.close()
            record = (copy / "slots.journal").read_bytes()[whole:]
            shutil.rmtree(copy)
            with journal.open("ab") as file:
                file.write(record[: min(cut, len(record) - 1)])
        self.slots = open_slots(self.folder, self.keys, OsRandom(), create=False)
        assert journal.stat().st_size == whole

    @rule(slot=consumes(keys_in_use))
    def die_before_the_slot_is_overwritten(self, slot):
        """The record is durable, the slot is not zero yet: opening finishes the work."""
        self.slots.close()
        before = (self.folder / "slots").read_bytes()
        self.slots = open_slots(self.folder, self.keys, OsRandom(), create=False)
        self.slots.destroy([slot], AT)
        self.slots.close()
        (self.folder / "slots").write_bytes(before)
        self.slots = open_slots(self.folder, self.keys, OsRandom(), create=False)
        self.gone[slot] = self.held.pop(slot)

    @invariant()
    def held_keys_open_and_destroyed_ones_are_zero(self):
        for slot, wrapped in self.held.items():
            assert self.slots.unwrap(slot, wrapped, b"c") == KEY
        content = (self.folder / "slots").read_bytes()
        for slot, wrapped in self.gone.items():
            assert content[slot * 32 : slot * 32 + 32] == bytes(32)
            with pytest.raises(NotFoundError):
                self.slots.unwrap(slot, wrapped, b"c")


class TestSlotsAgainstTheirModel(SlotsAgainstTheirModel.TestCase):
    settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
