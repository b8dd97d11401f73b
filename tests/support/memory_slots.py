"""A simulator of KeySlots: a dictionary that survives as long as its `SlotsDisk`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bedside_core.errors import NotFoundError
from bedside_edge.ports import KeyStore, RandomBytes
from bedside_edge.ports.slots import SlotsMark


@dataclass
class SlotsDisk:
    """What survives a restart."""

    secrets: dict[int, bytes] = field(default_factory=dict)
    destroyed: set[int] = field(default_factory=set)
    records: int = 0


class MemorySlots:
    """`KeySlots` over a dictionary."""

    def __init__(self, disk: SlotsDisk, keys: KeyStore, random: RandomBytes) -> None:
        self._disk, self._keys, self._random = disk, keys, random

    def wrap(self, key: bytes, context: bytes) -> tuple[int, bytes]:
        slot = self.highest() + 1
        self._disk.secrets[slot] = self._random(32)
        return slot, self._keys.wrap_with(self._disk.secrets[slot], key, self._bound(slot, context))

    def unwrap(self, slot: int, wrapped: bytes, context: bytes) -> bytes:
        if slot not in self._disk.secrets:
            raise NotFoundError("the key was destroyed")
        secret = self._disk.secrets[slot]
        return self._keys.unwrap_with(secret, wrapped, self._bound(slot, context))

    def destroy(self, slots: Iterable[int], at: int) -> None:
        wanted = set(slots)
        if not all(0 < slot <= self.highest() for slot in wanted):
            raise NotFoundError("no slot of that number")
        self._disk.records += bool(wanted - self._disk.destroyed)
        self._disk.destroyed |= wanted
        for slot in wanted:
            self._disk.secrets.pop(slot, None)

    def is_destroyed(self, slot: int) -> bool:
        return slot in self._disk.destroyed

    def highest(self) -> int:
        return max([*self._disk.secrets, *self._disk.destroyed], default=0)

    def mark(self) -> SlotsMark:
        return SlotsMark(file="memory", records=self._disk.records, head=str(self._disk.destroyed))

    def close(self) -> None:
        """Nothing to close."""

    @staticmethod
    def _bound(slot: int, context: bytes) -> bytes:
        return b"%d " % slot + context
