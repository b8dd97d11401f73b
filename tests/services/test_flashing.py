"""Installing, trying, confirming and taking back, over real rows and real folders."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bedside_core.errors import (
    ChunkMismatchError,
    EvidenceDamagedError,
    FlashRefusedError,
    GoldenMismatchError,
    NoSlotError,
    NotFoundError,
    ProfileMismatchError,
    RequiresUnmetError,
    RollbackRefusedError,
    StaleRevisionError,
    StoreUnavailableError,
    TrialFailedError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.slots import SlotState, begin
from bedside_edge.config import Model
from bedside_edge.flashing import _settings, slots_folder
from bedside_edge.services.flashing import BAD, GOOD, RESTART, WAITING
from bedside_sync.distribution.manifest import Requirement
from support.flash_house import TRIAL_S, FlashHouse, files_in
from support.ram import ram_folder


@pytest.fixture
def house():
    with ram_folder() as folder:
        made = FlashHouse(folder)
        yield made
        made.close()


def what(house):
    return [step.what for step in reversed(house.store.steps())]


def test_a_package_that_passes_serves_and_its_record_is_evidence(house):
    service = house.open()
    manifest = house.package(1)
    told = []
    outcome = service.install(manifest, "person:ada", lambda *at: told.append(at))
    assert (outcome.state, outcome.version) == (GOOD, "1.0.0")
    assert told[-1] == (2 * manifest.size, 2 * manifest.size)
    assert house.gate.seen == [files_in(house.folders.place("model/chest", "a"))]
    assert house.use.versions == ["1.0.0"]
    assert what(house) == ["staging", "staged", "verified", "trial", "good"]
    good = house.store.steps()[0]
    assert json.loads(good.body)["golden_cases"] == 2
    assert house.events[good.entry].kind is Kind.ACCEPTANCE
    assert house.events[good.entry].payload == good.body
    assert {e.actor for e in house.events} == {"person:ada"}
    link = house.folder / "slots" / "model" / "chest" / "current"
    assert str(link.readlink()) == "a"
    assert service.running().counters == {"model/chest": 1}


def test_one_that_flips_a_decision_is_bad_and_the_old_one_was_never_touched(house):
    service = house.open()
    service.install(house.package(1))
    before = files_in(house.folders.place("model/chest", "a"))
    house.gate.answers = [GoldenMismatchError("case waves decides absent, present is known")]
    outcome = service.install(house.package(2))
    assert (outcome.state, outcome.code) == (BAD, "golden-mismatch")
    assert files_in(house.folders.place("model/chest", "a")) == before
    assert house.use.versions == ["1.0.0"]
    pair = house.store.pair("model/chest")
    assert (pair.active, pair.floor, pair.b.state, pair.b.reason) == (
        "a",
        1,
        SlotState.BAD,
        "golden-mismatch",
    )
    told = house.events[-1]
    assert (told.kind, told.refs["code"]) == (Kind.UPDATE_STEP, "golden-mismatch")
    assert service.install(house.package(3)).state == GOOD  # the bad slot takes the next


def test_a_trial_that_only_crashes_has_three_starts_with_rests_between(house):
    service = house.open()
    house.gate.answers = [TrialFailedError("killed")] * 5
    seen = []
    house.gate.on_call = lambda: seen.append(house.store.pair("model/chest").idle.tries)
    outcome = service.install(house.package(1))
    assert (outcome.state, outcome.code) == (WAITING, "trial-failed")
    assert "starts left: 2" in outcome.detail
    service.step()
    assert seen == [2]  # whatever killed it may still be there
    for _ in range(2):
        house.clock.advance(TRIAL_S * 1000 // 5)
        service.step()
    assert seen == [2, 1, 0]  # charged, durably, before each
    slot = house.store.pair("model/chest").idle
    assert (slot.state, slot.reason) == (SlotState.BAD, "tries-used-up")


def test_what_died_of_a_full_disk_serves_once_there_is_room(house):
    service = house.open()
    manifest = house.package(1)
    house.gate.answers = [TrialFailedError("disk-full: no room")]
    assert service.install_ready([manifest])[0].state == WAITING
    assert [one.state for one in service.install_ready([manifest])] == [WAITING]  # it rests
    assert len(house.gate.seen) == 1
    house.clock.advance(TRIAL_S * 1000 // 5)
    assert service.install_ready([manifest])[0].state == GOOD


def test_what_was_left_under_way_goes_on_when_asked_again(house):
    service = house.open()
    manifest = house.package(1)

    def killed():
        raise KeyboardInterrupt

    house.gate.on_call = killed
    with pytest.raises(KeyboardInterrupt):
        service.install(manifest)
    house.close()
    house.gate.on_call = lambda: None
    service = house.open()
    assert house.store.pair("model/chest").idle.state is SlotState.TRIAL
    assert service.install_ready([manifest])[0].state == GOOD


def test_what_was_found_bad_is_tried_again_when_a_person_says_so_and_that_is_evidence(house):
    service = house.open()
    manifest = house.package(1)
    house.gate.answers = [GoldenMismatchError("a disk that forgot")]
    assert service.install(manifest).state == BAD
    assert service.install_ready([manifest]) == []
    assert service.install_ready([manifest], "person:ada", again=True)[0].state == GOOD
    told = [(e.actor, e.refs["what"], e.refs.get("code")) for e in house.events]
    assert ("person:ada", "staging", "again") in told


def test_no_confirmation_in_time_and_it_falls_back_by_itself(house):
    service = house.open()
    service.install(house.package(1))
    house.gate.on_call = lambda: house.clock.advance(TRIAL_S * 1000)
    outcome = service.install(house.package(2))
    assert (outcome.state, outcome.code) == (BAD, "not-confirmed-in-time")
    assert house.whole() == ["model/chest 1.0.0"]


def test_nothing_is_confirmed_on_a_box_whose_log_is_damaged(house):
    service = house.open()

    def check():
        raise EvidenceDamagedError("entry 3 is not what was written")

    house.check = check
    manifest = house.package(1)
    outcome = service.install(manifest)
    assert (outcome.state, outcome.code) == (WAITING, "evidence-damaged")
    for _ in range(2):
        house.clock.advance(TRIAL_S * 1000 // 5)
        (outcome,) = service.install_ready([manifest])
    assert (outcome.state, outcome.code) == (BAD, "tries-used-up")
    assert house.store.pair("model/chest").active == ""


def test_counters_never_fall_not_even_by_the_back_door(house):
    service = house.open()
    service.install(house.package(5, min_counter=5))
    with pytest.raises(RollbackRefusedError):
        service.install(house.package(4))
    refused = house.store.steps()[0]
    assert (refused.what, refused.reason) == ("refused", "rollback-refused")
    assert house.events[refused.entry].refs["code"] == "rollback-refused"
    with pytest.raises(NoSlotError):
        service.roll_back("model/chest")
    for statement in (
        "UPDATE flash_pairs SET floor = 4",
        "UPDATE flash_pairs SET lowest = 4",
        "DELETE FROM flash_pairs",
        "UPDATE flash_slots SET digest = 'x' WHERE name = 'a'",
        "UPDATE flash_pairs SET active = 'b'",
    ):
        with pytest.raises(StoreUnavailableError):
            house.database.write(lambda c, s=statement: c.execute(s))


def test_going_back_lets_the_other_good_one_serve_and_then_what_the_box_came_with(house):
    service = house.open()
    service.install(house.package(1))
    service.install(house.package(2))
    assert service.roll_back("model/chest", "person:ada").version == "1.0.0"
    assert house.use.versions == ["1.0.0", "2.0.0", "1.0.0"]
    assert house.whole() == ["model/chest 1.0.0"]
    with pytest.raises(RollbackRefusedError):  # what was in service sets the floor
        service.install(house.package(1, files={"model.bin": b"another"}))
    service.install(house.package(3))
    house.gate.answers = [GoldenMismatchError("no")]
    service.install(house.package(4))
    assert service.roll_back("model/chest").version == ""
    assert house.use.versions[-1] == ""
    assert service.running().counters == {}
    assert service.running().floors == {"model/chest": 3}


def test_a_running_trial_can_be_called_off(house):
    service = house.open()
    assert service.install(house.package(1, kind="app", name="bedside")).state == RESTART
    assert service.roll_back("app").code == "withdrawn"
    with pytest.raises(WrongStateError):
        service.try_out("app")


def test_what_does_not_fit_this_box_is_refused_before_the_first_file(house):
    service = house.open()
    needs = {"requires": (Requirement(kind="app", least=7),)}
    with pytest.raises(RequiresUnmetError):
        service.install(house.package(1, **needs))
    assert house.store.pairs() == []
    assert not house.folders.place("model/chest", "a").exists()
    service.install(house.package(2))
    with pytest.raises(FlashRefusedError):
        service.install(house.package(2))


def test_the_slot_a_rollout_still_reads_with_is_not_overwritten(house):
    service = house.open()
    service.install(house.package(1))
    service.install(house.package(2))
    house.use.needed = {"1.0.0"}  # a person went back by hand
    with pytest.raises(FlashRefusedError, match="still used"):
        service.install(house.package(3))
    assert house.store.pair("model/chest").a.state is SlotState.GOOD


def test_a_file_that_changed_on_the_disk_is_found_before_anything_runs(house, monkeypatch):
    service = house.open()
    fill = house.folders.fill

    def damaged(kind, slot, manifest, progress=None):
        fill(kind, slot, manifest, progress)
        path = house.folders.place(kind, slot) / "model.bin"
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    monkeypatch.setattr(house.folders, "fill", damaged)
    outcome = service.install(house.package(1))
    assert (outcome.state, outcome.code) == (BAD, ChunkMismatchError.code)
    assert house.gate.seen == []


def test_a_missing_piece_is_no_verdict_on_the_package(house):
    service = house.open()
    manifest = house.package(1)
    for path in (house.folder / "slots" / "chunks").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(NotFoundError):
        service.install(manifest)
    assert what(house) == ["staging", "emptied"]
    assert house.store.pair("model/chest").idle.state is SlotState.EMPTY


def test_what_cannot_be_used_now_is_used_later(house):
    service = house.open()
    house.use.error = WrongStateError("4 packages are loaded")
    assert service.install(house.package(1)).state == GOOD
    assert service.waiting == {"model/chest": "wrong-state"}
    house.use.error = None
    service.step()
    assert (house.use.versions, service.waiting) == (["1.0.0"], {})


def test_a_profile_is_in_force_from_the_next_start(house):
    service = house.open()
    profile = house.package(1, kind="profile", name="board", vendor="acme")
    assert service.install(profile).state == GOOD
    assert service.waiting == {"profile": RESTART}
    house.close()
    assert house.open().waiting == {}
    house.close()
    service = FlashHouse.open(house)
    service.start([ProfileMismatchError.code])  # the start could not serve with it
    assert house.store.pair("profile").active == ""
    assert house.store.steps()[0].reason == "profile-mismatch"


def test_a_restored_box_writes_its_slots_anew_from_pieces_that_are_here(house):
    service = house.open()
    for counter in (1, 2):
        service.install(house.package(counter))
    house.close()
    shutil.rmtree(house.folder / "slots")  # what a backup does not hold
    (house.folder / "slots" / "chunks").mkdir(parents=True)
    service = house.open()
    assert service.waiting == {"model/chest": "files-missing: not-found"}
    house.close()
    for counter in (1, 2):
        house.package(counter)  # fetched again
    service = house.open()
    assert (house.whole(), service.waiting) == (["model/chest 2.0.0"], {})
    assert service.roll_back("model/chest").version == "1.0.0"


def test_two_that_change_a_pair_at_once_do_not_overwrite_each_other(house):
    house.open()
    pair = house.store.pair("model/chest")
    one = begin(pair, "11" * 32, 1)
    step = house.store.steps
    assert step() == []
    service = house.open()
    service.install(house.package(1))
    with pytest.raises(StaleRevisionError):
        house.store.charge(pair, one)


def test_a_launchers_steps_get_their_evidence_when_the_box_starts(house):
    house.open()
    house.database.write(
        lambda c: (
            c.execute(
                "INSERT INTO flash_steps (kind, name, what, digest, release_counter, reason,"
                " actor, at)"
                " VALUES ('app', 'b', 'bad', ?, 3, 'tries-used-up', 'service:launcher', 5)",
                ("ab" * 32,),
            )
            and None
        )
    )
    house.close()
    house.open()
    told = house.events[-1]
    assert told.actor == "service:launcher"
    assert told.refs == {
        "what": "bad",
        "slot": "app/b",
        "counter": 3,
        "package": "ab" * 32,
        "code": "tries-used-up",
    }
    assert house.store.tell() == 0


def test_a_clock_set_back_makes_no_trial_longer(house):
    service = house.open()
    house.gate.answers = [TrialFailedError("hangs")]
    house.gate.on_call = lambda: house.clock.jump(-400 * 86_400_000)
    service.install(house.package(1))
    assert max(house.gate.seconds) <= TRIAL_S


def test_a_state_folder_named_from_here_is_found_from_where_a_trial_runs():
    """`--state box`: a trial runs in its own folder, from where `box` would be another."""
    assert slots_folder(Path("box")) == Path.cwd() / "box" / "slots"


def test_relative_paths_of_the_settings_hold_in_a_trials_own_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = _settings(Model(package="models/ours", repository="more"), {"profile": "board.toml"})
    here = {name: made[name] for name in ("package", "repository", "profile")}
    assert here == {
        "package": str(tmp_path / "models/ours"),
        "repository": str(tmp_path / "more"),
        "profile": str(tmp_path / "board.toml"),
    }
    assert _settings(Model(), {})["package"] == ""


def test_two_who_ask_at_once_install_once_and_neither_is_told_of_a_failure(house):
    service = house.open()
    manifest = house.package(1)
    with ThreadPoolExecutor(1) as pool:
        second = []

        def meanwhile():
            second.append(pool.submit(service.install_ready, [manifest]))
            with pytest.raises(TimeoutError):
                second[0].result(0.2)  # it waits for its turn

        house.gate.on_call = meanwhile
        assert [one.state for one in service.install_ready([manifest])] == [GOOD]
        assert second[0].result(10) == []
    assert what(house).count("good") == 1
