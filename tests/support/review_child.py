"""A process that analyses, signs and delivers until it is killed.

Run as `python review_child.py FOLDER ROUND`. A line on standard output is a promise: it is written
after the call it names has returned.
"""

import sys
from pathlib import Path

from pydicom import dcmread

from bedside_core.access import Action, Actor
from bedside_core.review import ReviewKind
from support.fake_clock import FakeClock
from support.outputs import MemoryArchive, publishing_box
from support.state_houses import T0

READER = Actor(actor_id="person:ada", name="Lovelace^Ada", actions=frozenset({Action.REVIEW}))


class FolderArchive(MemoryArchive):
    """Keeps what it is sent as files by UID, over the life of several processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def send(self, data: bytes) -> None:
        super().send(data)
        (self.folder / self.arrived[-1]).write_bytes(data)

    def held(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in self.folder.iterdir()
            if dcmread(path).SOPInstanceUID == path.name
        }


def open_box(folder: Path, run: int):
    """Open the same state as the processes before, with ids and UIDs of its own."""
    archive = FolderArchive(folder / "archive")
    return publishing_box(folder / "state", archive, clock=FakeClock(T0 + run * 1_000_000)), archive


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main() -> None:
    folder, run = Path(sys.argv[1]), int(sys.argv[2])
    opened, _ = open_box(folder, run)
    with opened as box:
        box.writer.made = run * 1_000
        say("open")
        for number in range(1, 1_000):
            result = box.analysed(run * 1_000 + number)
            box.settle()
            box.reviews.sign(
                result, reader=READER, kind=ReviewKind.REJECT, reason="rib", expected=0
            )
            say("signed", result)
            box.settle()


if __name__ == "__main__":
    main()
