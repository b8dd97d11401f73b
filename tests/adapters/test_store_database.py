"""The database: group commit, each function all or nothing, and honest about a disk that fails."""

import importlib.resources
import sqlite3
import threading
from pathlib import Path

import pytest

from bedside_core.errors import DiskFullError, NotFoundError, StoreUnavailableError
from bedside_edge.store.database import Database, opens_from


@pytest.fixture
def database(tmp_path: Path):
    opened = Database(tmp_path / "b.db")
    opened.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)"))
    yield opened
    opened.close()


def put(n: int, text: str = ""):
    return lambda c: c.execute("INSERT INTO t VALUES (?, ?)", (n, text)).lastrowid


def count(database: Database) -> int:
    return database.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0])


def stall(database: Database) -> threading.Event:
    """Hold the writing thread until the event is set, so that what follows forms one group."""
    go, inside = threading.Event(), threading.Event()

    def wait(_connection: sqlite3.Connection) -> None:
        inside.set()
        assert go.wait(10)

    database.submit(wait)
    assert inside.wait(10)
    return go


def test_what_write_returned_is_committed(database, tmp_path):
    assert database.write(put(7)) == 7
    with sqlite3.connect(tmp_path / "b.db") as other:
        assert other.execute("SELECT n FROM t").fetchall() == [(7,)]
    other.close()


def test_many_waiting_writers_share_one_commit(database):
    commits = []
    database.write(lambda c: c.set_trace_callback(commits.append))
    go = stall(database)
    futures = [database.submit(put(n)) for n in range(100)]
    commits.clear()
    go.set()
    assert [f.result(10) for f in futures] == list(range(100))
    assert commits.count("COMMIT") == 2  # the stalled one and the group
    assert count(database) == 100


def test_a_function_that_fails_takes_back_only_its_own_rows(database):
    def half(c: sqlite3.Connection) -> None:
        put(50)(c)
        raise NotFoundError("no")

    go = stall(database)
    futures = [database.submit(put(n)) for n in range(10)]
    bad = [database.submit(half), database.submit(put(3))]  # the second repeats a key
    more = [database.submit(put(n)) for n in range(10, 20)]
    go.set()
    with pytest.raises(NotFoundError):
        bad[0].result(10)
    with pytest.raises(StoreUnavailableError):
        bad[1].result(10)
    assert all(f.exception(10) is None for f in futures + more)
    assert count(database) == 20


def test_a_cancelled_write_is_not_run(database):
    go = stall(database)
    future = database.submit(put(1))
    assert future.cancel()
    go.set()
    database.write(put(2))
    assert count(database) == 1


def test_a_full_database_refuses_and_keeps_what_was_committed(database):
    database.write(put(1, "kept"))
    pages = database.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    database.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 4}").fetchone())
    go = stall(database)
    small = database.submit(put(2))
    large = database.submit(put(3, "x" * 200_000))
    after = database.submit(put(4))
    go.set()
    with pytest.raises(DiskFullError):
        large.result(10)
    for future, n in ((small, 2), (after, 4)):  # told the truth, whichever it is
        there = database.read(
            lambda c, n=n: c.execute("SELECT count(*) FROM t WHERE n = ?", (n,)).fetchone()[0]
        )
        assert there == (future.exception(10) is None)
    database.write(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
    database.write(put(5, "x" * 200_000))
    assert database.read(lambda c: c.execute("SELECT s FROM t WHERE n = 1").fetchone()) == ("kept",)
    assert database.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()) == ("ok",)


def test_every_connection_has_full_sync_and_foreign_keys(database):
    for pragma, wanted in (("synchronous", 2), ("foreign_keys", 1), ("journal_mode", "wal")):
        look = lambda c, p=pragma: c.execute(f"PRAGMA {p}").fetchone()[0]  # noqa: E731
        assert database.read(look) == wanted
        assert database.write(look) == wanted


def test_a_reader_cannot_write(database):
    with pytest.raises(StoreUnavailableError):
        database.read(put(1))


def test_a_reader_sees_one_committed_state(database):
    def look(c: sqlite3.Connection) -> tuple[int, int]:
        before = c.execute("SELECT count(*) FROM t").fetchone()[0]
        database.write(put(1))
        return before, c.execute("SELECT count(*) FROM t").fetchone()[0]

    assert database.read(look) == (0, 0)
    assert count(database) == 1


def test_readers_and_writers_from_many_threads_do_not_disturb_each_other(database):
    errors = []

    def work(base: int) -> None:
        try:
            for n in range(40):
                database.write(put(base + n))
                assert count(database) >= n + 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 800, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert count(database) == 320


def test_close_finishes_what_waits_and_refuses_what_comes_after(tmp_path):
    database = Database(tmp_path / "c.db")
    database.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, s TEXT)"))
    go = stall(database)
    futures = [database.submit(put(n)) for n in range(50)]
    closer = threading.Thread(target=database.close)
    closer.start()
    go.set()
    closer.join(10)
    assert not closer.is_alive()
    assert [f.result(0) for f in futures] == list(range(50))
    for late in (lambda: database.write(put(99)), lambda: count(database)):
        with pytest.raises(StoreUnavailableError):
            late()
    database.close()


def test_a_newer_database_is_refused_untouched(tmp_path):
    path = tmp_path / "n.db"
    Database(path).close()
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 999")
    other.execute("UPDATE meta SET value = x'000003e7' WHERE name = 'opens-from'")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="newer"):
        Database(path)
    assert path.read_bytes() == before


def test_a_newer_database_that_only_grew_still_opens(tmp_path):
    path = tmp_path / "n.db"
    Database(path).close()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE of_the_next_release (x INTEGER)")  # what `-- expand` may do
    other.execute("PRAGMA user_version = 999")
    other.close()
    database = Database(path)
    assert database.read(opens_from) < 999
    database.close()


def test_a_file_that_is_no_database_of_ours_is_refused(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("patients\n" * 500)
    with pytest.raises(StoreUnavailableError):
        Database(text)
    foreign = sqlite3.connect(tmp_path / "foreign.db")
    foreign.execute("PRAGMA user_version = 1")
    foreign.close()
    with pytest.raises(StoreUnavailableError):
        Database(tmp_path / "foreign.db")


def test_a_folder_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailableError):
        Database(tmp_path / "no" / "x.db")


def test_schema_files_are_numbered_without_a_gap_so_that_place_and_number_agree():
    folder = importlib.resources.files("bedside_edge.store") / "schema"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
