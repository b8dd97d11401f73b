"""Nights of real state folders against a hub: what is done, what is kept, what a kill changes."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from bedside_core.errors import (
    HubUnavailableError,
    LedgerLockedError,
    ManifestRefusedError,
    RoundRefusedError,
    SealedError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_edge.ports.sync import Caps, Price
from bedside_edge.services.sync_source import check_bounds
from bedside_sync.helper import ROUND_KEY
from bedside_sync.secagg.machines import Box
from bedside_sync.secagg.manifest import Purpose
from bedside_sync.secagg.ring import tail
from support.consortium import Consortium, Round
from support.nights import EACH, LENGTH, KilledError, World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def alone(tmp_path):
    made = World(tmp_path, boxes=1, patients=0)
    yield made
    made.close()


def told(house, step, round_name=""):
    return [
        (one.outcome, one.code)
        for one in house.events()
        if one.step == step and one.round == round_name
    ]


def near(world, name, patients):
    """The sum is the patients' and the boxes' noise, which ends at 12 sigma."""
    total = world.hub.opened(name)
    end = 4 * tail(world.store.manifest(name).manifest.sigma2)
    return abs(int(total[0]) - EACH * patients) <= end and abs(int(total[1])) <= end


def killed_at_every_write(house):
    """Visit, killed before and after the n-th durable write, until a visit outlives it."""
    kills, number = 0, 1
    while True:
        house.die_in, house.after = number, kills % 2 == 1
        try:
            house.sync.visit()
        except KilledError:
            number += kills % 2
            kills += 1
            house.kill()
        else:
            house.die_in = 0
            return kills


def test_a_night_from_the_announced_name_to_the_checked_record(world):
    world.open_round("r-1")
    world.visit()
    assert all(house.box_state("r-1") == "acked" for house in world.houses.values())
    world.close_round()
    assert near(world, "r-1", 20)
    for house in world.houses.values():
        assert house.box_state("r-1") == "included"
        assert told(house, "send", "r-1") == [("done", "")]
        assert told(house, "record", "r-1") == [("done", "")]
        (charge,) = house.sync.status().charges
        assert (charge.patients, charge.void) == (5, False)
        (view,) = house.sync.status().rounds
        assert view.honest == 3
        assert view.epsilon > 0
        what = [
            one.entry.refs["what"]
            for one in house.state.evidence.newest(kinds=[Kind.SYNC_ROUND], limit=100)
        ]
        assert {"charged", "box-manifest", "box-report", "box-receipt", "record-included"} <= set(
            what
        )
        assert not house.state.sync.help_facts.has("r-1", ROUND_KEY)
    world.visit()  # nothing is left to do, and nothing is told twice
    assert told(house, "record", "r-1") == [("done", "")]
    database = house.state.database
    for statement in (
        "DELETE FROM sync_charges",
        "UPDATE sync_charges SET patient = 'x'",
        "UPDATE sync_rounds SET cost = 1",
        "DELETE FROM sync_rounds",
        "UPDATE sync_facts SET digest = x'00'",
    ):
        with database._turn, pytest.raises(sqlite3.IntegrityError):
            database._writer.execute(statement)


@pytest.mark.slow
def test_a_box_killed_at_every_write_sends_one_report_and_charges_once(world):
    world.open_round("r-1")
    others = [name for name in world.houses if name != "box-0"]
    victim = world.houses["box-0"]
    kills = killed_at_every_write(victim)
    world.visit(*others)
    world.clock.advance(3_601_000)
    while victim.box_state("r-1") != "included":
        world.hub.go_on_all()
        world.visit(*others)
        kills += killed_at_every_write(victim)
    assert kills >= 12
    assert victim.box_state("r-1") == "included"
    assert near(world, "r-1", 20)
    reports = [report.body.box for report in world.store.reports("r-1")]
    assert sorted(reports) == sorted(world.houses)
    (charge,) = victim.sync.status().charges
    assert charge.patients == 5


def test_one_task_that_fails_holds_up_no_other(world):
    victim = world.houses["box-1"]
    victim.other.broken = RuntimeError("a task with a fault")
    world.open_round("r-1", task="other")
    world.open_round("r-2")
    world.visit()
    assert told(victim, "join", "r-1") == [("failed", "internal")]
    assert victim.box_state("r-2") == "acked"
    assert world.houses["box-0"].box_state("r-1") == "acked"


@pytest.mark.slow
def test_a_box_that_was_away_for_days_checks_every_record_in_order(tmp_path):
    world = World(tmp_path, boxes=5, patients=1)
    present, absent = [f"box-{n}" for n in range(4)], world.houses["box-4"]
    for name in ("r-1", "r-2", "r-3"):
        world.open_round(name)
        world.visit(*present)
        world.close_round(*present)
        world.clock.advance(86_400_000)
    absent.sync.visit()
    records = [one.round for one in absent.events() if one.step == "record"]
    assert records == ["r-1", "r-2", "r-3"]
    assert absent.state.sync.records()[0] == 3
    world.open_round("r-4")  # late for three, in time for the next: a new report
    world.visit()
    assert absent.box_state("r-4") == "acked"
    world.close()


@pytest.mark.slow
def test_a_record_that_was_changed_stops_the_chain_and_nothing_else(world):
    world.open_round("r-1")
    world.visit()
    fresh = world.houses["box-3"]
    handle = world.server.handle

    def lying(peer, request):
        answer = handle(peer, request)
        if request.kind != "record" or peer != "box-3":
            return answer
        changed = answer.payload.replace(b'"rho":', b'"rho":1', 1)
        return type(answer)(
            kind="record", fields={"size": answer.integer("size") + 1}, payload=changed
        )

    world.server.handle = lying
    world.close_round()
    assert told(fresh, "record", "r-1") == [("refused", "untrusted-signature")]
    assert fresh.box_state("r-1") == "acked"
    assert told(fresh, "forget") == []


def test_a_dead_hub_is_visited_ever_more_rarely_and_told_once(alone):
    house = alone.houses["box-0"]
    alone.away = True
    waits = []
    for _ in range(8):
        house.sync.step()
        waits.append(house.sync.status().next_visit - alone.clock.now())
        alone.clock.advance(waits[-1])
    assert waits[0] < 46_000
    assert max(waits) <= 1800 * 1.5 * 1000
    assert waits[-1] > 10 * waits[0]
    assert told(house, "clock") == [("failed", "hub-unavailable")]
    alone.away = False
    house.sync.step()
    assert house.sync.status().failures == 0


def test_the_window_opens_with_jitter_and_outside_of_it_nobody_is_asked(alone):
    house = alone.houses["box-0"]
    house.settings = house.settings.model_copy(
        update={"window_start_minute": 1320, "window_minutes": 60, "jitter_minutes": 30}
    )
    house.open()
    noon = alone.clock.now() // 86_400_000 * 86_400_000 + 43_200_000 + 86_400_000
    alone.clock.jump(noon - alone.clock.now())
    house.sync.step()
    ahead = house.sync.status().next_visit - noon
    assert 10 * 3_600_000 <= ahead <= 10 * 3_600_000 + 30 * 60_000
    assert house.events() == []


@pytest.mark.slow
def test_a_clock_that_differs_from_the_hubs_does_nothing(world):
    house = world.houses["box-0"]
    world.open_round("r-1")
    ask = world.server.handle

    def ahead(peer, request):
        answer = ask(peer, request)
        if request.kind == "time":
            return type(answer)(kind="time", fields={"now": answer.integer("now") + 301})
        return answer

    world.server.handle = ahead
    assert house.sync.visit().failed
    assert told(house, "clock") == [("failed", "clock-differs")]
    assert house.box_state("r-1") == "idle"


def test_no_agreement_no_round_and_the_answer_stands(world):
    house = world.houses["box-0"]
    house.state.sync.end_agreement("lungs", "system:console", world.clock.now())
    world.open_round("r-1")
    world.visit()
    assert told(house, "join", "r-1") == [("refused", "not-permitted")]
    assert house.box_state("r-1") == "vetoed"
    assert house.sync.status().rounds[0].code == "not-permitted"
    assert house.sync.status().charges == []
    assert world.houses["box-1"].box_state("r-1") == "acked"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"code": "c0" * 32}, "code of another version"),
        ({"purpose": Purpose.TRAIN}, "a purpose the hospital does not serve"),
        ({"task": "unknown"}, "a task the box does not have"),
    ],
)
def test_a_round_outside_the_sites_policy_is_refused(world, changes, why):
    world.open_round("r-1", **changes)
    world.houses["box-0"].sync.visit()
    assert told(world.houses["box-0"], "join", "r-1") == [("refused", ManifestRefusedError.code)]


@pytest.mark.slow
def test_a_person_vetoes_with_a_reason_that_is_evidence(world):
    house = world.houses["box-0"]
    house.sync.veto("r-1", "ethics board first", "person:ada")
    (entry,) = house.state.evidence.newest(kinds=[Kind.SYNC_ROUND], limit=1)
    assert entry.entry.actor == "person:ada"
    assert entry.entry.refs["what"] == "box-veto"
    world.open_round("r-1")
    world.visit()
    assert house.box_state("r-1") == "vetoed"
    assert house.sync.status().rounds[0].code == "person:ada: ethics board first"


@pytest.mark.slow
def test_a_withdrawal_is_told_when_the_hub_is_back_and_its_charge_becomes_void(world):
    extra = world.houses["box-3"]
    world.open_round("r-1")
    world.visit()
    world.away = True
    assert extra.sync.withdraw("r-1", "person:ada") is False
    world.away = False
    extra.sync.visit()
    assert told(extra, "withdraw", "r-1") == [("done", "")]
    world.close_round()
    assert near(world, "r-1", 15)
    assert extra.box_state("r-1") == "excluded"
    (charge,) = extra.sync.status().charges
    assert charge.void  # a quorum's digest without this box: nothing of it was ever opened
    with pytest.raises(RoundRefusedError):
        extra.sync.withdraw("r-1", "person:ada")


@pytest.mark.slow
@pytest.mark.parametrize("away", [False, True])
def test_a_withdrawal_that_came_too_late_leaves_the_box_included_and_charged(world, away):
    """Refused, or told to nobody before the sum: the record is checked all the same."""
    extra = world.houses["box-3"]
    world.open_round("r-1")
    world.visit()
    world.away = away
    if not away:
        world.clock.advance(3_601_000)
        world.hub.go_on_all()
    assert extra.sync.withdraw("r-1", "person:ada") is False
    if away:
        world.away = False
        world.clock.advance(3_601_000)
    for _ in range(6):
        world.hub.go_on_all()
        world.visit()
    assert extra.box_state("r-1") == "included"
    assert near(world, "r-1", 20)
    (charge,) = extra.sync.status().charges
    assert not charge.void
    assert extra.state.sync.records()[0] == 1


@pytest.mark.slow
def test_patients_without_room_are_left_out_and_unidentified_ones_always(world):
    house = world.houses["box-0"]
    house.settings = house.settings.model_copy(update={"patient_rho": 0.3})
    house.open()
    nobody = house.patient(77, identified=False)
    for number, name in enumerate(("r-1", "r-2", "r-3")):
        if number == 2:
            house.counting.subjects += [house.patient(99), nobody]
        world.open_round(name)
        world.visit()
        world.close_round()
        world.clock.advance(86_400_001)
    found = {one.round: one.patients for one in house.sync.status().charges}
    assert found == {"r-1": 5, "r-2": 5, "r-3": 1}


@pytest.mark.slow
def test_a_restored_box_loses_its_helper_keys_and_sits_out(world):
    house = world.houses["box-0"]
    backup = world.folder / "copy.db"
    house.state.database.copy_to(backup)
    world.open_round("r-1")
    world.visit()
    house.close()
    state = world.folder / "box-0" / "state"
    for name in ("bedside.db-wal", "bedside.db-shm"):
        (state / name).unlink(missing_ok=True)
    backup.replace(state / "bedside.db")
    house.open()
    with pytest.raises(LedgerLockedError):
        house.sync.visit()
    assert house.sync.status().locked
    house.sync.recover("person:ada", "person:bert")
    assert house.sync.visit() is not None
    assert house.box_state("r-1") == "sealed"  # the hub holds its report of before
    assert house.state.sync.help_facts.rounds() == []
    assert house.sync.status().charges[0].patients == 0


def set_back(house, then):
    """Do something, then bring yesterday's database back."""
    backup = house.world.folder / "copy.db"
    house.state.database.copy_to(backup)
    then()
    house.close()
    state = house.world.folder / house.name / "state"
    for name in ("bedside.db-wal", "bedside.db-shm"):
        (state / name).unlink(missing_ok=True)
    backup.replace(state / "bedside.db")
    house.open()


def test_who_comes_after_a_restored_backup_owes_what_the_lost_rounds_can_have_cost(alone):
    """A patient whom the backup does not know, or who was erased and sent again, pays once."""
    house, caps = alone.houses["box-0"], Caps(lifetime=10, day=6)

    def charge(name, patient, cost=5):
        price = Price(round=name, cost=cost, honest=3, most=10)
        return house.state.sync.charge(price, [patient], caps)

    def lost():
        assert charge("lost", house.patient(1)) == 1
        for fact in ("manifest", "report"):
            house.state.sync.facts.keep("lost", fact, b"x")

    house.state.sync.facts.keep("before", "veto", b"x")
    set_back(house, lost)
    with pytest.raises(LedgerLockedError):
        charge("r-1", house.patient(2))
    house.state.sync.recover("person:ada", "person:bert", caps)
    alone.clock.advance(1)
    again = house.patient(1)  # the archive sends the study again
    assert charge("r-1", again) == 0  # 5 lost and 5 now and a day's cap of 6
    assert charge("r-2", again, cost=4) == 1
    assert charge("r-3", again, cost=1) == 0


def test_a_round_that_became_void_or_costs_something_else_is_not_charged_again(alone):
    house, caps = alone.houses["box-0"], Caps(lifetime=10, day=10)
    patient, sync = house.patient(1), house.state.sync
    price = Price(round="r-1", cost=3, honest=3, most=10)
    alone.clock.advance(1)
    assert sync.charge(price, [patient], caps) == sync.charge(price, [patient], caps) == 1
    with pytest.raises(WrongStateError):
        sync.charge(replace(price, cost=2), [patient], caps)
    sync.file_record(0, "r-1", bytes(32), Box.EXCLUDED)
    with pytest.raises(WrongStateError):
        sync.charge(price, [patient], caps)


def test_a_sealed_box_does_not_visit_and_charges_nobody(alone):
    house = alone.houses["box-0"]
    house.state.database.write(
        lambda c: c.execute("INSERT INTO box_states VALUES (2, 'sealed', 'i', 'person:a', '', 0)")
    )
    with pytest.raises(SealedError):
        house.sync.visit()
    house.sync.step()
    assert house.events() == []
    price = Price(round="r-1", cost=1, honest=3, most=10)
    with pytest.raises(SealedError):
        house.state.sync.charge(price, [], Caps(lifetime=10, day=10))


@pytest.mark.parametrize(
    "vector",
    [
        np.full(LENGTH, 4 * EACH, np.int64),  # every word may be, their norm may not
        np.eye(1, LENGTH, dtype=np.int64)[0] * (4 * EACH + 1),
        np.full(LENGTH, 2**62, np.int64),  # squares that would wrap
        np.zeros(LENGTH - 1, np.int64),
        np.zeros(LENGTH, np.int32),
    ],
)
def test_a_task_that_adds_more_than_its_patients_may_sends_nothing(vector):
    manifest = Round(Consortium(), length=LENGTH).manifest
    check_bounds(np.eye(1, LENGTH, dtype=np.int64)[0] * 4 * EACH, manifest, 4)
    with pytest.raises(ManifestRefusedError):
        check_bounds(vector, manifest, 4)


def test_a_box_that_was_not_approved_does_not_visit(alone):
    house = alone.houses["box-0"]
    member = house.state.sync.member()
    house.state.sync.keep_member(
        type(member)(
            box=member.box,
            organisation=member.organisation,
            helper=True,
            identity=member.identity,
            transport=member.transport,
        ),
        "system:console",
        "join-asked",
    )
    with pytest.raises(WrongStateError):
        house.sync.visit()


@pytest.mark.slow
def test_a_hub_that_goes_away_in_the_middle_leaves_what_was_done(world):
    house = world.houses["box-0"]
    world.open_round("r-1")
    handle = world.server.handle

    def dying(peer, request):
        if request.kind == "begin":
            world.away = True
        return handle(peer, request)

    world.server.handle = dying
    with pytest.raises(HubUnavailableError):
        house.sync.visit()
    assert house.box_state("r-1") == "sealed"
    world.away, world.server.handle = False, handle
    house.sync.visit()
    assert house.box_state("r-1") == "acked"
