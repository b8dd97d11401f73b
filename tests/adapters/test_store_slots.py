"""The slots files: what is refused, and what a disk that fails leaves behind."""

import errno
import os
from pathlib import Path

import pytest

from bedside_core.errors import DamagedObjectError, DiskFullError, StoreUnavailableError
from bedside_edge.store.slots import BLOCK, FileSlots, open_slots
from bedside_edge.system.keys import open_box_keys
from bedside_edge.system.random_os import OsRandom
from support.ram import ram_folder

KEY = bytes(range(32))
AT = 1_700_000_000_000


@pytest.fixture
def folder():
    with ram_folder() as ram:
        open_box_keys(ram / "keys", OsRandom(), create=True)
        yield ram / "keys"


def opened(folder: Path, *, create: bool = False) -> FileSlots:
    return open_slots(folder, open_box_keys(folder, OsRandom(), create=False), OsRandom(), create)


def filled(folder: Path, count: int = 3) -> list[tuple[int, bytes]]:
    """Make slots in `folder` and return what was wrapped."""
    slots = opened(folder, create=True)
    made = [slots.wrap(KEY, b"c") for _ in range(count)]
    slots.close()
    return made


def test_both_files_are_closed_to_others(folder):
    filled(folder)
    for name in ("slots", "slots.journal"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
        (folder / name).chmod(0o640)
        with pytest.raises(StoreUnavailableError):
            opened(folder)
        (folder / name).chmod(0o600)
    opened(folder).close()


@pytest.mark.parametrize("name", ["slots", "slots.journal"])
def test_a_missing_file_is_refused_and_never_replaced(folder, name):
    filled(folder)
    (folder / name).unlink()
    with pytest.raises(StoreUnavailableError, match="missing"):
        opened(folder)
    assert not (folder / name).exists()


def test_a_link_another_box_or_a_changed_header_is_refused(folder, tmp_path):
    filled(folder)
    content = (folder / "slots").read_bytes()
    (folder / "slots").rename(folder / "elsewhere")
    (folder / "slots").symlink_to(folder / "elsewhere")
    with pytest.raises(StoreUnavailableError):
        opened(folder)
    (folder / "slots").unlink()
    for place in (0, 20, 40):
        changed = bytearray(content)
        changed[place] ^= 1
        (folder / "slots").write_bytes(changed)
        (folder / "slots").chmod(0o600)
        with pytest.raises(StoreUnavailableError):
            opened(folder)
    (folder / "slots").write_bytes(content)
    other = open_box_keys(tmp_path / "other", OsRandom(), create=True)
    with pytest.raises(StoreUnavailableError, match="do not belong"):
        open_slots(folder, other, OsRandom(), create=False)


def test_taking_a_slot_costs_a_sync_only_once_in_a_block(folder, monkeypatch):
    slots, synced = opened(folder, create=True), []
    monkeypatch.setattr(os, "fsync", synced.append)
    for _ in range(BLOCK + 1):
        slots.wrap(KEY, b"c")
    assert len(synced) == 2
    slots.close()


def test_a_full_disk_takes_no_slot_and_leaves_the_file_as_it_was(folder, monkeypatch):
    slots = opened(folder, create=True)
    before = (folder / "slots").read_bytes()

    def full(fd, data, place):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(DiskFullError):
            slots.wrap(KEY, b"c")
    assert (folder / "slots").read_bytes() == before
    slot, wrapped = slots.wrap(KEY, b"c")
    assert slots.unwrap(slot, wrapped, b"c") == KEY
    slots.close()


def test_a_failed_sync_shuts_destruction_until_the_files_are_opened_again(folder, monkeypatch):
    ((slot, _),) = filled(folder, 1)
    slots = opened(folder)

    def broken(fd):
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(StoreUnavailableError):
            slots.destroy([slot], AT)
    with pytest.raises(StoreUnavailableError):
        slots.destroy([slot], AT)
    slots.close()
    slots = opened(folder)
    slots.destroy([slot], AT)
    assert slots.is_destroyed(slot)
    slots.close()


def test_an_older_copy_of_the_slots_is_overwritten_again_from_the_journal(folder):
    made = filled(folder)
    old = (folder / "slots").read_bytes()
    slots = opened(folder)
    slots.destroy([made[0][0], made[2][0]], AT)
    slots.close()
    (folder / "slots").write_bytes(old)
    slots = opened(folder)
    assert slots.is_destroyed(made[0][0])
    content = (folder / "slots").read_bytes()
    assert [content[s * 32 : s * 32 + 32] == bytes(32) for s, _ in made] == [True, False, True]
    slots.close()


def test_an_older_slots_file_never_hands_out_a_number_that_its_journal_knows(folder):
    filled(folder)
    old = (folder / "slots").read_bytes()
    slots = opened(folder)
    slot, _ = slots.wrap(KEY, b"c")
    slots.destroy([slot], AT)
    slots.close()
    (folder / "slots").write_bytes(old)
    slots = opened(folder)
    assert slots.is_destroyed(slot)
    assert slots.highest() < slot, "what it does not hold shows against the database"
    assert slots.wrap(KEY, b"c")[0] > slot
    slots.close()
    slots = opened(folder)
    assert slots.is_destroyed(slot)
    slots.close()


def test_a_journal_changed_in_the_middle_or_with_a_record_left_out_is_refused(folder):
    made = filled(folder)
    slots = opened(folder)
    for slot, _ in made:
        slots.destroy([slot], AT)
    slots.close()
    journal = (folder / "slots.journal").read_bytes()
    size = len(journal) // 3
    changed = bytearray(journal)
    changed[size // 2] ^= 1
    for wrong in (bytes(changed), journal[size:], journal[:size] + journal[2 * size :]):
        (folder / "slots.journal").write_bytes(wrong)
        with pytest.raises(StoreUnavailableError, match="journal"):
            opened(folder)


def test_a_slot_lost_to_a_bad_sector_is_damage_and_not_an_erasure(folder):
    ((slot, wrapped),) = filled(folder, 1)
    content = bytearray((folder / "slots").read_bytes())
    content[slot * 32 : slot * 32 + 32] = bytes(32)
    (folder / "slots").write_bytes(content)
    slots = opened(folder)
    assert not slots.is_destroyed(slot)
    with pytest.raises(DamagedObjectError):
        slots.unwrap(slot, wrapped, b"c")
    slots.close()
