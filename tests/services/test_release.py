"""Releases: charged before noise, final before answered, refused by code, never told twice."""

import contextlib
import json

import pytest

from bedside_core.errors import (
    BedsideError,
    BudgetExhaustedError,
    ClockAlarmError,
    ClosedEpochError,
    DiskFullError,
    InvalidInputError,
    InvalidReleaseError,
    LedgerLockedError,
    NotFoundError,
    NotPermittedError,
    PreconditionRequiredError,
    SealedError,
    StoreUnavailableError,
    UnknownStatisticError,
    UntrustedSignatureError,
    WitnessNeededError,
    WrongStateError,
)
from bedside_core.evidence.entry import Kind
from bedside_core.ledger.state import grade_scopes
from bedside_core.planner import Schedule
from bedside_core.privacy_policy import PAYLOAD_TYPE, version_of
from bedside_core.release import fingerprint, prepare
from bedside_core.release_check import check_document, verify_nights, verify_release
from bedside_core.signatures import seal_envelope
from bedside_core.statistics.rows import StudyRow, freeze
from bedside_core.uses import ActorKind, Asker, Incident
from bedside_edge.services.release import measured, released_values
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN
from support.privacy_house import DAY, EPOCH, OFFICER, ONE, Hospital, policy_text, rows, signed
from support.statistics import NoNoise

EVE = Asker(actor_id="person:eve", kind=ActorKind.PERSON, roles=frozenset({"privacy-officer"}))


@pytest.fixture
def house(tmp_path):
    made = Hospital(tmp_path).founded()
    yield made
    made.close()


# --- the way of a release ----------------------------------------------------------------------


def test_noise_by_grade_is_charged_once_at_the_mildest_price_and_verifies_offline(house):
    made = house.release("volume", "sex-counts", strata=True)
    found = verify_release(house.service.file(made.fingerprint), ORIGIN, [LOG_ED.key, LOG_ML.key])
    document = found.checked.document
    assert found.checked.values == released_values(made.document)
    costs = [one["cost"]["units"] for one in document["grades"]]
    assert costs == list(found.checked.prepared.strata.costs.values())
    assert house.spent == document["cost"]["units"] == max(costs) <= ONE // 100
    assert 14 * costs[4] < costs[0] < 17 * costs[4]  # SHARES: 16 to 1
    assert house.service.release(house.service._ledger.held(made.fingerprint).request, OFFICER)
    assert house.spent == max(costs)  # asked again: free


def test_a_charged_release_by_grade_is_finished_after_a_kill(house):
    request = house.ask("volume", strata=True)
    house.service._charge(prepare(request), "person:anna")
    house.open()
    assert house.service.resume() == 1
    made = house.service.replay(fingerprint(request))
    assert len(json.loads(made.document)["grades"]) == 5


def test_a_patient_keeps_the_grade_of_the_first_snapshot_for_the_epoch(house):
    def frozen(*grades):
        studies = [StudyRow(patient="p", arrival=n, grade=g) for n, g in enumerate(grades)]
        label = house.snapshot([*studies, StudyRow(patient=f"new {len(grades)}", grade=5)])
        house.snapshots._last = None  # read back from the disk
        found = house.snapshots.load(label)
        return dict(zip(found.patients, found.grades.tolist(), strict=True))

    assert frozen(2, 3) == {"p": 3, "new 2": 5}
    assert frozen(2, 3, 5)["p"] == 3  # regraded meanwhile: from the next epoch on
    house.open()
    assert frozen(1)["p"] == 3
    with pytest.raises(StoreUnavailableError):
        house.database.write(lambda c: c.execute("UPDATE privacy_grades SET grade = 1"))
    with pytest.raises(StoreUnavailableError):
        house.database.write(lambda c: c.execute("DELETE FROM privacy_grades"))
    house.clock.advance(400 * DAY)
    house.budget.close_epoch("person:anna")
    ends = EPOCH[1] + 365 * DAY
    house.budget.open_epoch(EPOCH[1], ends, "person:anna", "person:bela")
    assert frozen(1, 5)["p"] == 5
    count = house.database.read(lambda c: c.execute("SELECT count(*) FROM privacy_grades"))
    assert count.fetchone()[0] == 2  # those of the epoch before are gone


def test_no_patient_loses_more_than_the_price_of_one_grade_over_all_graded_releases(house):
    """The losses of a patient over two releases with a regrade between, from what was measured."""
    made, prepared = [], []
    for grade in (3, 5):
        label = house.snapshot([*rows(), StudyRow(patient="p", arrival=99, grade=grade)])
        request = house.ask("volume", strata=True, snapshot=label)
        snapshot, noise = house.snapshots.load(label), NoNoise()
        measured(prepare(request), snapshot, noise)
        without = freeze(rows(), "s")
        other = NoNoise()
        measured(prepare(request), without, other)
        made.append((noise.calls, other.calls))
        prepared.append(prepare(request))
        house.service.release(request, OFFICER)
    loss, size = 0.0, len(prepared[0].query.cells)
    for calls, others in made:
        pairs = list(zip(calls, others, strict=True))
        moved = {place // size for place, (a, b) in enumerate(pairs) if a != b}
        assert moved == {2}  # grade 3 both times
        for (_, (l2sq, units), value), (_, _, before) in pairs:
            loss += (value - before) ** 2 / l2sq * units
    assert loss <= 2 * prepared[0].request.strata[2] < house.spent


GRADES = b"[grades]\n" + b"\n".join(
    b"%d = %d" % (grade, ONE // part) for grade, part in ((1, 1), (2, 1), (3, 2), (4, 4), (5, 8))
)


def left_of_grades(house):
    ledger = house.ledger.ledger()
    return [ledger.budget(one).left for one in grade_scopes("studies", 1)]


def test_every_grade_has_a_budget_that_its_own_noise_pays_from(house):
    first = house.release("prevalence")
    spent = house.spent
    looser = policy_text() + GRADES
    with pytest.raises(PreconditionRequiredError):  # less noise for a grade: two people
        house.budget.activate(signed(looser, "anna"), "person:anna")
    house.budget.activate(signed(looser), "person:anna")
    assert left_of_grades(house) == [ONE // n - spent for n in (1, 1, 2, 4, 8)]
    made = house.release("volume", strata=True, units=ONE // 4)
    document = json.loads(made.document)
    costs = [one["cost"]["units"] for one in document["grades"]]
    assert 7.8 < costs[0] / costs[4] < 8.2  # in the proportion of the budgets
    before = [ONE // n - spent for n in (1, 1, 2, 4, 8)]
    assert left_of_grades(house) == [a - b for a, b in zip(before, costs, strict=True)]
    kinds = [one["kind"] for one in document["remaining"]]
    assert kinds == ["dataset-epoch", "lifetime", "requester", "purpose", *["grade"] * 5]
    assert check_document(made.document)
    with pytest.raises(BudgetExhaustedError):  # the strictest grade cannot pay it
        house.release("volume", units=ONE // 4)
    assert house.spent == spent + max(costs)
    house.release("volume", strata=True, units=ONE // 4)
    assert house.service.replay(first.fingerprint) == first
    assert house.ledger.verify() > 0
    state = house.ledger.ledger()
    house.open()
    assert house.ledger.ledger() == state
    with pytest.raises(StoreUnavailableError):
        house.database.write(
            lambda c: c.execute("UPDATE privacy_scopes SET spent = cap + 1 WHERE kind = 'grade'")
        )


def test_a_release_is_one_file_that_verifies_offline(house):
    made = house.release("volume", "device-counts")
    found = verify_release(house.service.file(made.fingerprint), ORIGIN, [LOG_ED.key, LOG_ML.key])
    assert found.entry.kind is Kind.RELEASE
    assert found.checked.document["identity"]["fingerprint"] == made.fingerprint
    assert found.checked.values == released_values(made.document)
    assert [one["kind"] for one in found.checked.document["remaining"]] == [
        "dataset-epoch",
        "lifetime",
        "requester",
        "purpose",
    ]


def test_asked_again_by_anybody_the_same_bytes_come_and_nothing_is_charged(house):
    request = house.ask("volume")
    first, spent = house.service.release(request, OFFICER), house.spent
    for asker in (OFFICER, EVE):
        assert house.service.release(request, asker) == first
    house.open()
    assert house.service.replay(first.fingerprint) == first
    assert house.spent == spent == house.ledger.held(first.fingerprint).cost


class Watching:
    """Noise that says when the first random byte was asked for, and what was durable then."""

    def __init__(self, noise, look):
        self._noise, self._look, self.seen = noise, look, []

    def __getattr__(self, name):
        def drawn(*values, **parameters):
            self.seen.append(self._look())
            return getattr(self._noise, name)(*values, **parameters)

        return drawn


def test_the_charge_is_on_the_disk_before_a_random_byte_is_read(house):
    house.noise = watching = Watching(house.noise, lambda: house.ledger.unfinished())
    house.wire()
    made = house.release("volume")
    assert watching.seen
    assert set(watching.seen) == {(made.fingerprint,)}


def test_a_quantile_is_released_too(house):
    made = house.release("turnaround-quantiles")
    assert len(released_values(made.document)) == 4


# --- crashes --------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


def killing(house, name: str) -> None:
    """Let the next call of a ledger method end the process, before or after its commit."""

    def dies(*args, **kwargs):
        raise Killed

    setattr(house.ledger, name, dies)


def test_charged_and_not_answered_is_finished_at_the_next_start_without_a_second_charge(house):
    request = house.ask("volume")
    killing(house, "finish")
    with pytest.raises(Killed):
        house.service.release(request, OFFICER)
    house.open()
    spent = house.spent
    assert spent > 0
    assert house.service.resume() == 1
    (name,) = [one.fingerprint for one in house.ledger.releases()]
    assert house.service.release(request, OFFICER) == house.service.replay(name)
    assert house.spent == spent
    assert house.service.resume() == 0


def test_a_charge_whose_snapshot_is_gone_is_void_and_stays_spent(house):
    request = house.ask("volume")
    killing(house, "finish")
    with pytest.raises(Killed):
        house.service.release(request, OFFICER)
    house.open()
    house.snapshots.drop(request.snapshot)
    spent = house.spent
    assert house.service.resume() == 1
    assert house.ledger.releases()[0].state == "void"
    assert house.spent == spent
    with pytest.raises(BedsideError):
        house.service.release(request, OFFICER)
    assert house.ledger.verify() > 0


@pytest.mark.parametrize("step", range(6))
def test_a_disk_that_is_full_at_any_write_releases_nothing_and_loses_nothing(house, step):
    request, entries = house.ask("volume"), house.evidence.size()
    left = [step]
    real = house.database.write

    def full(fn):
        def write(c):
            found = fn(c)
            if left[0] == 0:
                raise DiskFullError("the disk is full; nothing was written")
            left[0] -= 1
            return found

        return real(write)

    house.database.write = full
    answered = None
    with contextlib.suppress(DiskFullError):
        answered = house.service.release(request, OFFICER)
    house.open()
    if answered is None:
        assert house.evidence.size() - entries <= step
        stored = house.ledger.releases()
        assert all(one.answered == () for one in stored)
    finished = house.service.release(request, OFFICER)
    assert answered in (None, finished)
    assert house.spent == house.ledger.held(finished.fingerprint).cost
    assert house.ledger.verify() > 0


# --- time and backups ----------------------------------------------------------------------------


def test_a_clock_set_back_400_days_renews_nothing_and_stops_releases(house):
    house.release("volume")
    spent = house.spent
    request = house.ask("prevalence")
    house.clock.jump(-400 * DAY)
    with pytest.raises(ClockAlarmError):
        house.service.release(request, OFFICER)
    with pytest.raises(ClockAlarmError):
        house.budget.open_epoch(EPOCH[1], EPOCH[1] + DAY, "person:anna", "person:bela")
    assert house.spent == spent
    assert house.service.replay(house.ledger.releases()[0].fingerprint)


def test_a_clock_set_forward_renews_nothing_without_a_second_person(house):
    house.clock.jump(400 * DAY)
    house.budget.close_epoch("person:anna")
    span = (EPOCH[1], EPOCH[1] + 365 * DAY)
    for second in ("", "person:anna"):
        with pytest.raises(ClosedEpochError):
            house.budget.open_epoch(*span, "person:anna", second)
    assert house.budget.open_epoch(*span, "person:anna", "person:bela").number == 2


def test_a_witness_that_saw_the_time_pass_is_as_good_as_a_second_person(house):
    house.clock.advance(400 * DAY)
    house.budget.close_epoch("person:anna")
    house.budget.witnessed(house.clock.now())
    assert house.budget.open_epoch(EPOCH[1], EPOCH[1] + DAY, "person:anna").number == 2


def test_yesterdays_backup_is_locked_until_two_people_write_the_epoch_off(house):
    house.release("volume")
    house.close()
    backup = house.path.read_bytes()
    house.open()
    house.release("prevalence")
    house.close()
    for end in ("-wal", "-shm"):
        house.path.with_name(house.path.name + end).unlink(missing_ok=True)
    house.path.write_bytes(backup)
    house.open()
    request = house.ask("volume")
    with pytest.raises(LedgerLockedError):
        house.service.release(request, OFFICER)
    with pytest.raises(LedgerLockedError):
        house.budget.close_epoch("person:anna")
    with pytest.raises(PreconditionRequiredError):
        house.budget.unlock("person:anna", "person:anna")
    house.budget.unlock("person:anna", "person:bela")
    with pytest.raises(WrongStateError):
        house.budget.unlock("person:anna", "person:bela")
    with pytest.raises(BedsideError):  # nothing of the epoch is left
        house.service.release(request, OFFICER)
    assert house.ledger.verify() > 0
    house.clock.advance(400 * DAY)
    house.budget.close_epoch("person:anna")
    with pytest.raises(InvalidInputError):
        house.budget.freeze(EPOCH[0])


def test_only_five_percent_is_spent_while_no_witness_sees_it(house):
    house.witness_ready = False
    house.release("volume", units=ONE // 25)
    with pytest.raises(WitnessNeededError):
        house.release("volume", units=ONE // 50)
    house.budget.witnessed(house.clock.now())
    house.release("volume", units=ONE // 50)


# --- bad requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda h: h.ask("select * from studies"), UnknownStatisticError),
        (lambda h: h.ask("volume", strata=True, pure=True), InvalidInputError),
        (lambda h: h.ask("volume", strata=True, units=10**30), BudgetExhaustedError),
        (lambda h: h.ask("volume", units=-1), InvalidInputError),
        (lambda h: h.ask("volume", units=float("nan")), InvalidInputError),
        (lambda h: h.ask("volume", units=True), InvalidInputError),
        (lambda h: h.ask("volume", units=10**30), BudgetExhaustedError),
        (lambda h: h.ask("volume", "turnaround-quantiles"), InvalidInputError),
        (lambda h: h.ask("volume", snapshot="0" * 32), NotFoundError),
    ],
)
@pytest.mark.parametrize("studies", [[], rows(200)], ids=["no studies", "many studies"])
def test_a_bad_request_is_refused_by_code_in_words_that_no_data_changes(
    tmp_path, make, error, studies
):
    house = Hospital(tmp_path).founded()
    house.snapshot(studies)
    try:
        with pytest.raises(error) as refused:
            house.service.release(make(house), OFFICER)
        assert "studies" not in str(refused.value)
        assert not any(number in str(refused.value) for number in ("200", "100"))
        assert house.spent == 0
    finally:
        house.close()


def test_who_may_not_is_told_so_and_pays_nothing(house):
    reader = Asker(actor_id="person:r", kind=ActorKind.PERSON, roles=frozenset({"radiologist"}))
    with pytest.raises(NotPermittedError):
        house.service.release(house.ask("volume"), reader)
    with pytest.raises(BudgetExhaustedError):  # permitted, and without a budget
        house.service.release(house.ask("volume"), EVE)
    assert house.spent == 0


def test_a_sealed_box_releases_nothing(house):
    request = house.ask("volume")
    house.governance.gate.incident = lambda: Incident.SEALED
    with pytest.raises((SealedError, NotPermittedError)):
        house.service.release(request, OFFICER)
    assert house.spent == 0


def test_the_store_of_a_sealed_box_charges_nothing_whoever_asks(house):
    request = house.ask("volume")
    house.database.write(
        lambda c: c.execute(
            "INSERT INTO box_states (state, incident_id, actor, second, at)"
            " VALUES ('sealed', '', 'service:box', '', 1)"
        )
    )
    with pytest.raises(SealedError):
        house.service.release(request, OFFICER)
    assert house.spent == 0


def test_a_closed_epoch_charges_nothing(house):
    request = house.ask("volume")
    house.budget.close_epoch("person:anna")
    with pytest.raises(ClosedEpochError):
        house.service.release(request, OFFICER)
    assert house.spent == 0


def test_another_policy_than_the_one_in_force_is_not_charged(house):
    request = house.ask("volume")
    house.budget.activate(signed(policy_text(epoch=ONE - 1)), "person:anna")
    with pytest.raises(WrongStateError):
        house.service.release(request, OFFICER)


# --- policy --------------------------------------------------------------------------------


def test_a_policy_that_loosens_needs_two_people_and_spend_is_carried_over(house):
    house.release("volume")
    spent = house.spent
    looser, tighter = policy_text(epoch=2 * ONE), policy_text(epoch=ONE // 2)
    with pytest.raises(PreconditionRequiredError):
        house.budget.activate(signed(looser, "anna"), "person:anna")
    house.budget.activate(signed(tighter, "bela"), "person:anna")
    assert house.budget.policy.ledger.version == version_of(tighter)
    with pytest.raises(PreconditionRequiredError):  # a wider bound is looser too
        house.budget.activate(signed(policy_text(epoch=ONE // 2, c=5), "anna"), "person:anna")
    house.budget.activate(signed(looser), "person:anna")
    assert house.spent == spent
    house.open()
    assert house.budget.policy.ledger.epoch_cap == 2 * ONE


def test_a_policy_nobody_trusted_signed_is_refused(house):
    stranger = seal_envelope(PAYLOAD_TYPE, policy_text(epoch=1), {"eve": LOG_ED.sign})
    with pytest.raises(UntrustedSignatureError):
        house.budget.activate(stranger, "person:eve")


def test_a_role_has_a_budget_where_the_policy_lists_it(house):
    assert house.budget.requester("person:anna", ["auditor"]) == "person:anna"
    assert house.budget.requester("person:carl", ["auditor"]) == "role:auditor"
    assert house.budget.requester("person:eve", ["vendor"]) == "person:eve"


# --- nights --------------------------------------------------------------------------------


def frozen(house, nightly):
    """Let each night's window hold these studies."""
    real = house.snapshots.keep
    calls = []

    def freeze(window):
        studies = nightly[len(calls) % len(nightly)]
        calls.append(window)
        return real(window, studies)

    house.snapshots.freeze = freeze
    return calls


@pytest.mark.parametrize("schedule", [Schedule.RUNNING, Schedule.NIGHTLY])
def test_a_year_of_nights_is_one_charge_and_each_night_one_answer(house, schedule):
    calls = frozen(house, [rows(10), rows(4)])
    request = house.ask("volume", snapshot="year", schedule=schedule, nights=5, units=ONE // 2)
    name = house.service.open_schedule(request, OFFICER)
    spent = house.spent
    assert house.service.nights() == 0
    house.clock.advance(DAY)
    assert house.service.nights() == 1
    house.open()
    calls += frozen(house, [rows(4), rows(10)])
    house.clock.advance(10 * DAY)
    assert house.service.nights() == 4
    assert house.service.nights() == 0
    assert house.spent == spent
    assert house.ledger.held(name).state == "final"
    documents = [house.service.replay(name, night).document for night in range(5)]
    earlier = []
    for document in documents:
        checked = check_document(document, earlier if schedule is Schedule.RUNNING else None)
        assert checked.complete
        earlier.append(checked.values)
    assert house.snapshots.labels() == []
    assert house.ledger.verify() > 0
    windows = [json.loads(one)["identity"]["arrivals"] for one in documents]
    assert all(one["ends"] - one["starts"] == DAY for one in windows)
    assert [one["starts"] for one in windows[1:]] == [one["ends"] for one in windows[:-1]]
    files, keys = [house.service.file(name, night) for night in range(5)], [LOG_ED.key, LOG_ML.key]
    if schedule is Schedule.RUNNING:
        assert not verify_release(files[4], ORIGIN, keys).checked.complete
        assert verify_nights(files, ORIGIN, keys).checked.complete
    else:  # each night stands alone
        assert verify_release(files[4], ORIGIN, keys).checked.complete
        with pytest.raises(InvalidReleaseError):
            verify_nights(files, ORIGIN, keys)


def test_a_patient_counts_at_most_c_times_in_all_nights_together(house):
    class Exact:
        """Noise of zero, to see what is counted."""

        def gaussian(self, value, **_):
            return value

    house.noise = Exact()
    house.wire()
    one_patient = [row for row in rows(2) if row.patient == "p0"]
    frozen(house, [one_patient])
    request = house.ask("volume", snapshot="d", schedule=Schedule.NIGHTLY, nights=4, units=ONE // 2)
    name = house.service.open_schedule(request, OFFICER)
    house.clock.advance(5 * DAY)
    assert house.service.nights() == 4
    counted = [
        json.loads(house.service.replay(name, night).document)["cells"][0] for night in range(4)
    ]
    assert [cell["value"] // cell["unit"] for cell in counted] == [2, 1, 0, 0]


def test_a_schedule_stays_inside_its_epoch(house):
    request = house.ask(
        "volume", snapshot="d", schedule=Schedule.NIGHTLY, nights=400, units=ONE // 2
    )
    with pytest.raises(InvalidInputError):
        house.service.open_schedule(request, OFFICER)
    with pytest.raises(InvalidInputError):
        house.service.release(request, OFFICER)
    with pytest.raises(InvalidInputError):
        house.service.open_schedule(house.ask("volume"), OFFICER)
    assert house.spent == 0


def test_a_snapshot_of_another_epoch_is_not_charged_to_this_one(house):
    old = house.snapshot()
    house.clock.advance(400 * DAY)
    house.budget.close_epoch("person:anna")
    house.budget.open_epoch(EPOCH[1], EPOCH[1] + 365 * DAY, "person:anna", "person:bela")
    with pytest.raises(InvalidInputError):
        house.service.release(house.ask("volume", snapshot=old), OFFICER)
    assert house.budget.sweep(DAY) == 1
    assert house.snapshots.labels() == []
