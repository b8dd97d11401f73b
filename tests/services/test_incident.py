"""Clocks of incidents over a real store, with the time going wrong; drills; notices."""

import importlib.resources

import pytest

from bedside_core.errors import InvalidRequestError, UnsealRefusedError, WrongStateError
from bedside_core.incident import HOUR_MS, PARTS, Cause, parse_duties
from bedside_core.uses import Incident
from bedside_edge.services.incident import DRILL_MS, IncidentService
from support.state_houses import T0, FolderHouse, opened

DUTIES = parse_duties(
    (importlib.resources.files("bedside_edge.system") / "regimes" / "incidents.toml").read_bytes()
)
DUTY = "cn-incident-report-other"


class TwoClocks:
    """The box's time and the time that really passes."""

    def __init__(self):
        self.wall, self.real = T0, 0.0

    def now(self):
        return self.wall

    def monotonic(self):
        return self.real

    def passes(self, hours, jump=0.0):
        self.real += hours * 3600
        self.wall += int((hours + jump) * HOUR_MS)


@pytest.fixture
def desk(tmp_path):
    clock = TwoClocks()
    with opened(FolderHouse(tmp_path)) as state:
        service = IncidentService(
            state.incidents,
            DUTIES,
            clock,
            region="cn",
            operator="other",
            checks={"evidence": lambda: True},
        )
        yield service, clock


def clock_of(service, incident_id):
    clocks = service.store.incident(incident_id).clocks
    return next(one for one in clocks if one.duty_id == DUTY)


@pytest.mark.parametrize("jump", [0.0, -3.0, -100.0, 2.0])
def test_alarms_come_in_real_time_or_earlier_however_the_clock_is_set(desk, jump):
    service, clock = desk
    opened_one = service.open("person:a", cause=Cause.LEAK)
    first = clock_of(service, opened_one).due
    clock.passes(1.0, jump)
    service.step()
    for hours, least in ((1.0, 50), (1.25, 80), (0.75, 100)):
        clock.passes(hours)
        service.step()
        assert clock_of(service, opened_one).alarmed >= least
    assert clock_of(service, opened_one).due <= first


def test_noticing_earlier_starts_the_clock_earlier_and_never_later(desk):
    service, clock = desk
    early = service.open("person:a", cause=Cause.LEAK, aware_at=T0 - HOUR_MS)
    late = service.open("person:a", cause=Cause.LEAK, aware_at=T0 + HOUR_MS)
    assert clock_of(service, early).due == T0 + 3 * HOUR_MS
    assert clock_of(service, late).due == T0 + 4 * HOUR_MS
    assert clock.wall == T0


def test_a_drill_ends_by_itself_and_stops_nothing(desk):
    service, clock = desk
    service.move(Incident.DRILL, "person:a")
    assert service.store.state().state is Incident.DRILL
    clock.passes(DRILL_MS / HOUR_MS)
    service.step()
    assert service.store.state().state is Incident.NORMAL


def test_a_notice_of_a_drill_says_that_it_is_not_to_be_sent(desk):
    service, _ = desk
    drill = service.open("person:a", cause=Cause.LEAK, drill=True)
    assert service.notice(drill, DUTY).startswith("DRILL - not to be sent")


def test_a_notice_is_signed_once_by_a_person_and_complete(desk):
    service, _ = desk
    one = service.open("person:a", cause=Cause.OUTAGE)
    with pytest.raises(InvalidRequestError, match="lacks"):
        service.sign(one, DUTY, "person:a")
    service.learn(one, dict.fromkeys(PARTS, "words"), "person:a")
    with pytest.raises(UnsealRefusedError):
        service.sign(one, DUTY, "token:a")
    with pytest.raises(WrongStateError, match="not signed"):
        service.close(one, "person:a")
    assert len(service.sign(one, DUTY, "person:a")) == 64
    with pytest.raises(WrongStateError):
        service.sign(one, DUTY, "person:b")
    service.close(one, "person:a")


def test_the_second_person_comes_within_the_hour(desk):
    service, clock = desk
    service.seal("person:a")
    asked = service.ask(Incident.NORMAL, "person:a", "all is well")
    clock.passes(1.1)
    with pytest.raises(UnsealRefusedError, match="too long ago"):
        service.confirm(asked.ask_id, "person:b")
    assert service.store.state().state is Incident.SEALED


def test_the_box_seals_itself_once(desk):
    service, _ = desk
    assert service.trip("ledger chain broken")
    assert service.trip("and again") == ""
    assert service.store.state().actor == "service:box"
