"""What a round leaves on the boxes' and the hub's disks and in the log: nothing it must not."""

import contextlib
import json
import logging
import os
import resource
import shutil
import subprocess

import pytest

from bedside_core.errors import DiskFullError, StoreUnavailableError
from bedside_edge.logs import SafeFormatter
from bedside_edge.store.sync_journal import write_file
from bedside_sync.secagg.machines import Hub
from support.nights import World

SEED = 32  # bytes, of mask seeds, round keys and identities


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def watched(house, drawn, vectors):
    """Keep what the box draws and computes, which its disk must not."""
    vector = house.sync._source.vector

    def random(count):
        drawn.append(os.urandom(count))
        return drawn[-1]

    def kept(manifest):
        vectors.append(vector(manifest))
        return vectors[-1]

    house.sync._random, house.sync._source.vector = random, kept


def spelt(secret):
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode()]


def leaks(folder, log, secrets):
    """Return where any of the secrets stands, in any of its spellings."""
    places = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(places) > 20
    places["log"] = log.encode()
    found = [way for secret in secrets for way in spelt(secret)]
    return [place for place, data in places.items() if any(one in data for one in found)]


def test_no_seed_key_or_vector_stays_on_a_disk_or_in_the_log(world, caplog):
    caplog.set_level(logging.DEBUG)
    drawn, vectors = [], []
    for house in world.houses.values():
        watched(house, drawn, vectors)
    manifest = world.open_round("r-1")
    world.visit()
    seeds = [one for one in drawn if len(one) == SEED]
    noisy = [v.astype(f"<i{size}").tobytes()[:64] for v in vectors for size in (4, 8)]
    identities = [key.private_bytes_raw() for key in world.among.keys.values()]
    assert len(vectors) == len(world.houses)
    assert len(seeds) == 4 + 4 * len(manifest.subsets)  # round keys and mask seeds
    sent = bytes.fromhex(world.store.report_of("r-1", "box-0").body.vector)
    assert leaks(world.folder, "", [sent])  # what is there is found

    def log():
        safe = [SafeFormatter().format(record) for record in caplog.records]
        return "\n".join(safe + [record.getMessage() for record in caplog.records])

    assert leaks(world.folder, log(), seeds + noisy + identities) == []
    world.close_round()
    assert {house.box_state("r-1") for house in world.houses.values()} == {"included"}
    assert leaks(world.folder, log(), seeds + noisy + identities) == []


def test_no_patient_is_named_in_what_is_kept_of_a_round_or_sent(world, caplog):
    caplog.set_level(logging.DEBUG)
    world.open_round("r-1")
    world.visit()
    world.close_round()
    for house in world.houses.values():
        names = [*house.counting.subjects]
        rows = house.state.database.read(
            lambda c: c.execute("SELECT subject_id, lookup FROM subjects").fetchall()
        )
        names += [lookup for _, lookup in rows]
        assert len(names) == 10
        tables = house.state.database.read(
            lambda c: c.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
                " AND (name LIKE 'sync%' OR name LIKE 'evidence%' OR name = 'events')"
            ).fetchall()
        )
        assert len(tables) > 8
        text = json.dumps(
            [
                house.state.database.read(
                    lambda c, t=table: c.execute(f"SELECT * FROM {t}").fetchall()  # noqa: S608
                )
                for (table,) in tables
            ],
            default=lambda data: data.decode("latin-1"),
        )
        hub = [path.read_bytes() for path in (world.folder / "hub").rglob("*") if path.is_file()]
        for name in names:
            assert name not in text
            assert name not in caplog.text
            assert not any(name.encode() in data for data in hub)


@pytest.fixture
def small_disk(tmp_path):
    """The state folder of box-0 on a disk of its own."""
    folder = tmp_path / "box-0"
    folder.mkdir()
    tools = [shutil.which("mount"), shutil.which("umount")]
    if not all(tools):
        pytest.skip("no mount here: a full disk is not tried")
    words = [tools[0], "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run([tools[1], "-l", str(folder)], check=True)


def fill(folder, leave):
    """Take all of a disk but so many bytes."""
    free = os.statvfs(folder)
    with (folder / "rest").open("wb") as rest:
        os.posix_fallocate(rest.fileno(), 0, max(1, free.f_bavail * free.f_bsize - leave))


def starved(house, disk):
    """Visit with ever more room, each time killed after it; return the states reached."""
    states = set()
    for leave in range(0, 100_000, 10_000):
        fill(disk, leave)
        with contextlib.suppress(DiskFullError):
            house.sync.visit()
        (disk / "rest").unlink()
        house.kill()
        states.add(house.box_state("r-1"))
    return states


@pytest.mark.slow
def test_a_disk_that_fills_in_the_middle_of_a_night_only_puts_it_off(tmp_path, small_disk):
    world = World(tmp_path)
    try:
        house = world.houses["box-0"]
        world.open_round("r-1")
        assert starved(house, small_disk) >= {"idle", "acked"}
        world.visit()
        world.clock.advance(3_601_000)
        while world.store.state("r-1") is not Hub.PUBLISHED:
            world.hub.go_on_all()
            world.visit("box-1", "box-2", "box-3")
            starved(house, small_disk)
        world.visit()
        assert house.box_state("r-1") == "included"
        assert {one.code for one in house.events()} <= {"", "disk-full"}
        (charge,) = house.sync.status().charges
        assert (charge.patients, charge.void) == (5, False)
        assert not house.sync.status().locked
        reports = [report.body.box for report in world.store.reports("r-1")]
        assert sorted(reports) == sorted(world.houses)
    finally:
        world.close()


@contextlib.contextmanager
def files_end_at(size):
    """Let no file of this process grow beyond a size, as if the disk ended there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_long_fact_that_does_not_fit_leaves_no_part_behind(tmp_path):
    """Each try of a night would else fill the disk a little more."""
    with files_end_at(1 << 20), pytest.raises(StoreUnavailableError):
        write_file(tmp_path / "sync", "report", bytes(2 << 20))
    assert list((tmp_path / "sync").iterdir()) == []


def test_a_long_fact_whose_row_does_not_fit_leaves_no_file(tmp_path):
    world = World(tmp_path, boxes=1, patients=0)
    try:
        house = world.houses["box-0"]
        house.state.database._writer.execute(
            "CREATE TRIGGER full BEFORE INSERT ON sync_facts BEGIN SELECT raise(ABORT, 'full'); END"
        )
        with pytest.raises(StoreUnavailableError):
            house.state.sync.facts.keep("r-1", "report", bytes(2 << 20))
        assert list((tmp_path / "box-0" / "state" / "sync").iterdir()) == []
    finally:
        world.close()
