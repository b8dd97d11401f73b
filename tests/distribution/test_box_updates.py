"""A box remembers its repository over restarts and power cuts, and every refusal is evidence."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bedside_core.errors import (
    BedsideError,
    HubUnavailableError,
    InvalidConfigError,
    MetadataRollbackError,
    NotReadyError,
    StoreUnavailableError,
    UpdateRunningError,
)
from bedside_edge.cli import cli
from bedside_edge.config import Config, load_config
from bedside_edge.services.updates import Place, UpdateService
from bedside_edge.state_folder import open_folder
from bedside_edge.store.database import Database
from bedside_edge.store.distribution import SqliteDistribution
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from bedside_edge.updating import Updating
from bedside_sync.distribution.assignment import Running
from bedside_sync.distribution.chunks import ChunkStore
from bedside_sync.distribution.disk import alone
from bedside_sync.distribution.manifest import CHUNK
from bedside_sync.distribution.sources import HubSource
from support.fake_clock import FakeClock
from support.package_houses import DAY, START, Direct, House, noise

ROOT = Path(__file__).parents[1]
CHILD = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from support.update_child import main; main()"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    house = House(tmp_path_factory.mktemp("house")).begin()
    house.add_vendor("acme")
    profile = {"kind": "profile", "name": "board", "version": "1", "vendor": "acme"}
    house.assign(
        house.publish({"profile.toml": b"one"}, **profile),
        house.publish({"model.onnx": noise(CHUNK + 10), "card.md": b"card"}),
    )
    return house


@pytest.fixture
def house(built, tmp_path):
    shutil.copytree(built.folder, tmp_path / "house")
    return House(tmp_path / "house", now=built.now, keys=dict(built.keys))


class Box:
    """A box's updates over a real database; `again` is a restart."""

    def __init__(self, folder: Path, house: House, *, quota: int = 0, site: str = "s0001"):
        folder.mkdir(exist_ok=True)
        self.folder, self.house, self.quota = folder, house, quota
        self.place = Place(root=house.root, site=site, folder=folder / "updates")
        self.clock = FakeClock(house.now * 1000)
        self.events, self.floors, self.denied = [], {}, {}
        self.open()

    def open(self):
        self.database = Database(self.folder / "bedside.db")
        self.chunks = ChunkStore(self.folder / "chunks", quota=self.quota)
        self.store = SqliteDistribution(self.database, self.record)
        self.service = UpdateService(
            self.store,
            self.chunks,
            lambda: self.place,
            self.clock,
            running=lambda: Running(counters={}, floors=self.floors),
            proven=lambda: 0,
            denied=lambda manifest: self.denied.get(manifest.path, ""),
        )

    def record(self, connection, event):
        self.events.append({"actor": event.actor, **event.refs})
        return len(self.events)

    def again(self):
        self.database.close()
        self.open()

    def source(self):
        return HubSource(Direct(self.house.gateway))


@pytest.fixture
def box(house, tmp_path):
    made = Box(tmp_path / "box", house)
    yield made
    made.database.close()


def told(box):
    return [(e["what"], e.get("code", "")) for e in box.events]


def test_a_night_looks_fetches_and_says_so_in_the_evidence(house, box):
    seen = box.service.fetch(box.source(), "person:anna")
    assert [item.code for item in seen.items] == ["", ""]
    assert seen.checked_at == START
    assert [one.slot for one in box.service.ready()] == ["profile", "model/chest"]
    assert told(box) == [("refresh", ""), ("fetched", ""), ("fetched", "")]
    assert {event["actor"] for event in box.events} == {"person:anna"}
    box.again()
    assert box.service.looked() == seen
    box.service.fetch(box.source())
    assert told(box)[3:] == [("refresh", "")]  # nothing came, nothing is said to have come


def test_a_restart_forgets_neither_versions_nor_the_time(house, box):
    old = (house.repository.folder / "metadata" / "timestamp.json").read_bytes()
    house.repository.assign("s0001", [], START)
    box.clock.advance(DAY * 1000)
    box.service.check(box.source())
    box.again()
    (house.repository.folder / "metadata" / "timestamp.json").write_bytes(old)
    with pytest.raises(MetadataRollbackError):
        box.service.check(box.source())
    box.clock.jump(-2 * DAY * 1000)
    with pytest.raises(BedsideError, match="clock"):
        box.service.check(box.source())
    assert told(box) == [
        *[("refresh", ""), ("refused", "metadata-rollback"), ("refused", "time-floor")]
    ]
    assert box.service.looked().code == "time-floor"


def test_a_clock_before_the_root_was_made_is_refused_on_a_new_box(house, box):
    box.clock.jump(-400 * DAY * 1000)
    with pytest.raises(BedsideError) as refused:
        box.service.check(box.source())
    assert refused.value.code == "time-floor"


def test_what_was_looked_at_long_ago_is_not_installed_any_more(house, box):
    """Whoever keeps a stop or a revocation from a box gains nothing by it."""
    box.service.fetch(box.source())
    box.clock.jump(5 * DAY * 1000)
    assert len(box.service.ready()) == 2
    box.clock.jump(2000)
    assert box.service.ready() == []


def test_one_owner_s_expired_metadata_stops_what_it_owns_and_nothing_else(house, box):
    later = START + 20 * DAY
    house.now = later
    for role in ("models", "targets"):  # all but acme go on signing
        house.repository.renew(role, later)
    house.commit("trainer", "safety", "di", "ed")
    house.now += 15 * DAY
    house.repository.keep_fresh(house.now)
    box.clock.advance((house.now - START) * 1000)
    seen = box.service.fetch(box.source())
    assert [item.code for item in seen.items] == ["metadata-expired", ""]
    assert [one.slot for one in box.service.ready()] == ["model/chest"]
    assert ("refused", "metadata-expired") in told(box)
    box.service.fetch(box.source())
    assert told(box).count(("refused", "metadata-expired")) == 1  # told once, not every night


def test_what_the_floor_or_the_site_s_policy_forbids_is_not_fetched(house, box):
    box.floors = {"model/chest": 2}
    box.denied = {"hw_profiles/acme/board-1.json": "the site runs no profiles of acme"}
    seen = box.service.fetch(box.source())
    assert [item.code for item in seen.items] == ["not-permitted", "rollback-refused"]
    assert box.chunks.held() == {}


def test_a_fetch_that_was_cut_goes_on_and_pieces_held_are_not_fetched_again(house, box):
    class Cut(HubSource):
        def chunks(self, wanted):
            for number, one in enumerate(super().chunks(wanted)):
                if number == 1:
                    raise HubUnavailableError("the line went away")
                yield one

    with pytest.raises(HubUnavailableError):
        box.service.fetch(Cut(Direct(house.gateway)))
    assert told(box) == [("refresh", ""), ("fetched", "")]  # the profile
    box.again()
    carrier = Direct(house.gateway)
    box.service.fetch(HubSource(carrier))
    asked = {path for path in carrier.asked if path.startswith("chunks/")}
    assert len(asked) == 2  # of the model's three chunks one was here
    # the next version shares all but one piece with this one
    newer = house.publish(
        {"model.onnx": noise(CHUNK) + b"changed!!!", "card.md": b"card"},
        version="2",
        release_counter=2,
    )
    house.assign(newer)
    carrier = Direct(house.gateway)
    box.service.fetch(HubSource(carrier))
    assert len([path for path in carrier.asked if path.startswith("chunks/")]) == 1


def test_pieces_nobody_is_assigned_make_room_for_what_is(house, tmp_path):
    small = Box(tmp_path / "small", house, quota=CHUNK + 100)
    try:
        small.service.fetch(small.source())
        newer = house.publish({"model.onnx": noise(CHUNK, 2)}, version="2", release_counter=2)
        house.assign(newer)
        small.service.fetch(small.source())
        assert small.service.ready() == [newer]
        large = house.publish({"model.onnx": noise(2 * CHUNK, 3)}, version="3", release_counter=3)
        house.assign(large)
        with pytest.raises(BedsideError) as refused:
            small.service.fetch(small.source())
        assert refused.value.code == "update-too-large"
    finally:
        small.database.close()


def test_one_look_at_a_time_and_none_without_a_root_or_a_site(house, box):
    with alone(box.folder / "updates" / "lock"), pytest.raises(UpdateRunningError):
        box.service.check(box.source())
    box.place = Place(root=b"", site="s0001", folder=box.folder)
    with pytest.raises(NotReadyError):
        box.service.check(box.source())
    box.place = Place(root=house.root, site="", folder=box.folder)
    with pytest.raises(InvalidConfigError):
        box.service.check(box.source())
    assert box.events == []


def test_a_hub_that_is_down_is_no_evidence_and_changes_nothing(house, box):
    box.service.check(box.source())
    before = box.service.looked()

    class Down:
        def read(self, path):
            raise HubUnavailableError("no answer")

    with pytest.raises(HubUnavailableError):
        box.service.check(Down())
    assert box.service.looked() == before
    assert told(box) == [("refresh", "")]


def test_the_rows_cannot_be_set_back(house, box):
    box.service.check(box.source())
    for statement in (
        "UPDATE tuf_seen SET serial = 0",
        "UPDATE tuf_seen SET time_floor = 0",
        "UPDATE tuf_floors SET version = 0",
        "DELETE FROM tuf_floors",
    ):
        with pytest.raises(StoreUnavailableError):
            box.database.write(lambda c, statement=statement: c.execute(statement))


# --- power -----------------------------------------------------------------------------------


def _stick(house, folder):
    def copy():
        for name in ("metadata", "targets", "chunks"):
            shutil.copytree(house.repository.folder / name, folder / name)

    house.repository.stick(house.now, 7, copy)
    return folder


def _fetch(stick, box, root, die_at=0):
    box.mkdir(exist_ok=True)
    words = [sys.executable, "-c", CHILD, str(ROOT), stick, box, root, str(START), str(die_at)]
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=60)


def _whole(box):
    """What is there is whole: no chunk by another name than its digest, the database opens."""
    chunks = ChunkStore(box / "chunks")
    for digest in chunks.held():
        chunks.read(digest)
    database = Database(box / "bedside.db")
    try:
        return SqliteDistribution(database, lambda c, e: 0).memory()
    finally:
        database.close()


def _kills(house, tmp_path, steps):
    """Kill at each of the steps in turn, on one box that never gets further than that."""
    stick, root = _stick(house, tmp_path / "stick"), tmp_path / "root.json"
    root.write_bytes(house.root)
    for step in steps:
        box = tmp_path / f"box-{step}"
        killed = _fetch(stick, box, root, step)
        assert killed.returncode == -9, killed.stderr
        first = _whole(box)
        again = _fetch(stick, box, root)
        assert again.returncode == 0, again.stderr
        memory = _whole(box)
        assert memory.serial == 1
        assert all(memory.floors[r].version >= f.version for r, f in first.floors.items())
        shutil.rmtree(box)


def test_a_kill_in_the_middle_leaves_a_box_that_goes_on(house, tmp_path):
    _kills(house, tmp_path, (30,))


@pytest.mark.slow
def test_a_kill_at_every_step_on_the_disk_leaves_a_box_that_goes_on(house, tmp_path):
    stick, root = _stick(house, tmp_path / "count"), tmp_path / "first.json"
    root.write_bytes(house.root)
    counted = _fetch(stick, tmp_path / "box", root)
    steps = json.loads(counted.stdout)
    assert steps > 40
    _kills(house, tmp_path, range(1, steps + 1))


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.slow
def test_every_piece_is_synced_renamed_and_its_folder_synced(house, tmp_path):
    stick, root = _stick(house, tmp_path / "stick"), tmp_path / "root.json"
    root.write_bytes(house.root)
    log = tmp_path / "log"
    (tmp_path / "box").mkdir()
    words = [sys.executable, "-c", CHILD, ROOT, stick, tmp_path / "box", root, START, 0]
    trace = ("strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename")
    ran = subprocess.run([*trace, *map(str, words)], capture_output=True, timeout=120)
    if b"Operation not permitted" in ran.stderr:
        pytest.skip("strace may not trace here")
    lines = log.read_text().splitlines()
    renames = [n for n, line in enumerate(lines) if "rename(" in line and "/chunks/" in line]
    assert len(renames) == 4
    for number in renames:
        part, place = lines[number].split('"')[1::2]
        assert any("fsync(" in line and part in line for line in lines[:number])
        folder = Path(place).parent
        assert any("fsync(" in line and f"{folder}>" in line for line in lines[number:])


# --- what people and the API use -----------------------------------------------------------------


def _ended(updating):
    deadline = time.monotonic() + 20
    while updating.look().running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return updating.told()


def test_a_look_in_the_background_tells_how_it_goes_and_ends_when_the_box_does(
    house, box, tmp_path
):
    stick = _stick(house, tmp_path / "media" / "usb")
    config = Config.model_validate({"update": {"media": str(tmp_path / "media")}})
    updating = Updating(box.service, config, None)
    updating.begin(stick, "person:anna", fetch=True)
    found = _ended(updating)
    assert (found["ended"], found["done"], found["total"]) == ("", CHUNK + 17, CHUNK + 17)
    assert [(item["kind"], item["here"]) for item in found["items"]] == [
        *(("profile", True), ("model/chest", True))
    ]
    updating.begin(tmp_path / "elsewhere", "person:anna", fetch=False)
    assert _ended(updating)["ended"] == "forbidden-path"
    (tmp_path / "media" / "link").symlink_to(house.repository.folder)
    updating.begin(tmp_path / "media" / "link", "person:anna", fetch=False)
    assert _ended(updating)["ended"] == "forbidden-path"
    updating.stop()
    with pytest.raises(NotReadyError):
        updating.begin(stick, "person:anna", fetch=False)


def test_the_command_fetches_from_a_stick_on_a_stopped_box_and_says_what_is_refused(tmp_path):
    folder = tmp_path / "box"
    house = House(tmp_path / "house", now=int(time.time())).begin()  # the command asks the clock
    house.assign(house.publish({"model.onnx": noise(1000)}))
    config = tmp_path / "box.toml"
    (tmp_path / "root.json").write_bytes(house.root)
    config.write_text(
        f'[update]\nroot = "{tmp_path / "root.json"}"\nsite = "s0001"\n', encoding="utf-8"
    )
    open_folder(load_config(config)[0], folder, SystemClock(), OsRandom()).close()
    stick = _stick(house, tmp_path / "stick")

    def run(*words):
        given_ = [*map(str, words), "--config", str(config), "--state", str(folder), "--json"]
        return CliRunner().invoke(cli, ["update", *given_])

    ran = run("fetch", "--from", stick)
    assert ran.exit_code == 0, ran.output
    assert all(item["here"] for item in json.loads(ran.output)["items"])
    (stick / "metadata" / "timestamp.json").write_bytes(b"{}")
    ran = run("check", "--from", stick)
    assert isinstance(ran.exception, BedsideError)
    assert ran.exception.code == "invalid-metadata"
    ran = run("check")
    assert ran.exception.code == "not-ready"
