"""Starts the box from the slot that serves, and lets a new one prove itself first.

It lies outside of the slots and needs the standard library alone, so that no software it starts
can break it. The rows decide (docs/flashing.md): a trial is charged, durably, before anything of
it runs; its own health gate confirms it in the box's database; whatever does not is bad after
three starts or when its time is up, and what served before serves on. What the launcher wrote the
box tells the evidence log when it starts.

    python -m bedside_flash.launcher --state /var/lib/bedside [--config FILE] [--dry-run]
"""

import argparse
import fcntl
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

ACTOR: Final = "service:launcher"
EX_UNAVAILABLE: Final = 69  # sysexits.h: no slot may serve
EX_TEMPFAIL: Final = 75  # the folder is in use
SITE: Final = "site"  # folder of the packages in an app slot
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR)
PROGRAM: Final = (sys.executable, "-P", "-m", "bedside_edge")  # never from the working directory


@dataclass(frozen=True)
class Slot:
    """The row of one app slot."""

    name: str
    state: str
    digest: str
    release_counter: int
    tries: int
    deadline: int
    begun: int  # seconds at which its trial began, 0 when no step says so


@dataclass(frozen=True)
class Rows:
    """Both app slots; `active` is empty while what the box came with serves."""

    active: str
    lowest: int
    slots: dict[str, Slot]

    @property
    def trial(self) -> Slot | None:
        """The slot on trial."""
        found = [slot for slot in self.slots.values() if slot.state == "trial"]
        return found[0] if found else None

    @property
    def serving(self) -> Slot | None:
        """The slot that may serve."""
        slot = self.slots.get(self.active)
        good = slot is not None and slot.state == "good" and slot.release_counter >= self.lowest
        return slot if good else None


class Launcher:
    """Chooses and starts. `now` is seconds since 1970."""

    def __init__(self, state: Path, config: Path | None) -> None:
        self._state, self._config = state, config

    # --- the rows ---------------------------------------------------------------------------

    def rows(self) -> Rows:
        """Return both slots; none when the box was never flashed, or its database is none.

        Raises:
            sqlite3.Error: the rows are there and cannot be read now: what may serve is not known.
        """
        database = self._state / "bedside.db"
        if not database.is_file():
            return Rows("", 0, {})
        try:
            with closing(self._open()) as db:
                pair = db.execute(
                    "SELECT active, lowest FROM flash_pairs WHERE kind = 'app'"
                ).fetchone()
                found = db.execute(
                    "SELECT name, state, digest, release_counter, tries, deadline,"
                    " coalesce((SELECT max(at) / 1000 FROM flash_steps AS step WHERE"
                    " step.kind = slot.kind AND step.name = slot.name AND what = 'trial'), 0)"
                    " FROM flash_slots AS slot WHERE kind = 'app'"
                ).fetchall()
        except sqlite3.Error as error:  # an older box, or a damaged one: the box itself says so
            if error.sqlite_errorcode & 0xFF in _BUSY:
                raise
            return Rows("", 0, {})
        if pair is None:
            return Rows("", 0, {})
        return Rows(pair[0], pair[1], {row[0]: Slot(*row) for row in found})

    def charge(self, slot: Slot) -> None:
        """Take one start from a trial; on the disk when this returns."""
        with closing(self._open()) as db:
            db.execute(
                "UPDATE flash_slots SET tries = tries - 1"
                " WHERE kind = 'app' AND name = ? AND state = 'trial' AND tries > 0",
                (slot.name,),
            )

    def give_up(self, slot: Slot, reason: str, now: int) -> None:
        """End a trial: the slot is bad, what served before was never touched."""
        with closing(self._open()) as db:
            db.execute("BEGIN IMMEDIATE")
            changed = db.execute(
                "UPDATE flash_slots SET state = 'bad', tries = 0, deadline = 0, reason = ?"
                " WHERE kind = 'app' AND name = ? AND state = 'trial'",
                (reason, slot.name),
            ).rowcount
            if changed:
                db.execute(
                    "INSERT INTO flash_steps (kind, name, what, digest, release_counter, reason,"
                    " actor, at) VALUES ('app', ?, 'bad', ?, ?, ?, ?, ?)",
                    (slot.name, slot.digest, slot.release_counter, reason, ACTOR, now * 1000),
                )
            db.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._state / "bedside.db", isolation_level=None, timeout=10)
        db.execute("PRAGMA synchronous = FULL")
        return db

    # --- starting ---------------------------------------------------------------------------

    def settle(self) -> Rows:
        """Let a trial have its starts; returns the rows when nothing is to be tried any more.

        A start that cannot be charged, on a full disk for one, is not given: what served before
        serves, and the trial waits for the next start.
        """
        while True:
            rows, now = self.rows(), int(time.time())
            slot = rows.trial
            if slot is None:
                return rows
            try:
                if slot.tries <= 0:
                    self.give_up(slot, "tries-used-up", now)
                    continue
                if now >= slot.deadline:
                    self.give_up(slot, "not-confirmed-in-time", now)
                    continue
                self.charge(slot)
            except sqlite3.Error as error:
                _say(f"the trial of slot {slot.name} waits: {error}")
                return rows
            # A clock that was set back makes no trial longer than it was given
            given = slot.deadline - slot.begun if slot.begun else slot.deadline - now
            self._try(slot, max(1, min(slot.deadline - now, given)))

    def _try(self, slot: Slot, seconds: float) -> None:
        """Run the health gate of the slot's own software; it confirms itself in the database."""
        command = [*PROGRAM, "update", "confirm", "app", "--started"]
        command += ["--state", str(self._state)]
        if self._config is not None:
            command += ["--config", str(self._config)]
        environment = self.environment(slot)
        environment.pop("NOTIFY_SOCKET", None)  # a trial is no service
        try:
            subprocess.run(command, timeout=seconds, check=False, env=environment)  # noqa: S603
        except (subprocess.TimeoutExpired, OSError) as cause:
            _say(f"slot {slot.name} did not confirm itself: {type(cause).__name__}")

    def environment(self, slot: Slot | None) -> dict[str, str]:
        """Return the environment in which a slot's packages come first; None: as the box came.

        Whatever the box starts by itself, a trial for one, is of the same software.
        """
        found = dict(os.environ)
        if slot is not None:
            place = self._state.absolute() / "slots" / "app" / slot.name / SITE
            found["PYTHONPATH"] = str(place)
        return found

    def serve(self, slot: Slot | None, arguments: Sequence[str]) -> NoReturn:
        """Become the box."""
        command = [*PROGRAM, "serve", "--state", str(self._state), *arguments]
        if self._config is not None:
            command += ["--config", str(self._config)]
        sys.stdout.flush()
        os.execve(command[0], command, self.environment(slot))  # noqa: S606  our own program

    def lock(self) -> bool:
        """Whether no box has the folder open; the lock is let go again for whom it starts."""
        path = self._state / "lock"
        if not path.exists():
            return True
        with path.open("rb+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True


def _say(words: str) -> None:
    print(f"bedside-flash: {words}", file=sys.stderr, flush=True)  # noqa: T201


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose and start; returns only when nothing was started."""
    parser = argparse.ArgumentParser(prog="bedside_flash.launcher", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dry-run", action="store_true", help="say what would be started")
    given, rest = parser.parse_known_args(arguments)
    launcher = Launcher(given.state, given.config)
    if given.dry_run:
        rows = launcher.rows()
        _say(f"trial {rows.trial.name if rows.trial else 'none'}, serves {_name(rows.serving)}")
        return 0
    if not launcher.lock():
        _say("a box has the state folder open")
        return EX_TEMPFAIL
    try:
        rows = launcher.settle()
    except sqlite3.Error as error:
        _say(f"the rows cannot be read now: {error}")
        return EX_TEMPFAIL
    if rows.serving is None and (rows.lowest or rows.active):
        _say("no slot holds software that may still serve")
        return EX_UNAVAILABLE
    _say(f"starting {_name(rows.serving)}")
    launcher.serve(rows.serving, rest)


def _name(slot: Slot | None) -> str:
    return f"slot {slot.name}" if slot else "what the box came with"


if __name__ == "__main__":
    sys.exit(main())
