"""States of the box, and clocks that never end later."""

import importlib.resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidRequestError, UnsealRefusedError, WrongStateError
from bedside_core.incident import (
    ALARMS,
    HOUR_MS,
    MARKS,
    MOVES,
    PARTS,
    STOPPED,
    Cause,
    Move,
    alarmed,
    allow,
    began,
    lost,
    missing,
    notice,
    parse_duties,
)
from bedside_core.uses import Incident

GREEN = {"evidence": True, "ledger": True}
TWO = ("person:a", "person:b")
SHIPPED = (
    importlib.resources.files("bedside_edge.system") / "regimes" / "incidents.toml"
).read_bytes()


def duty(**changes):
    values = {
        "id": "xx-1",
        "regime": "A law",
        "regions": ["xx"],
        "operators": [],
        "causes": [],
        "hours": 4,
        "words": "4 hours",
        "to": "an authority",
        "text": "verified text",
        "contents": ["types", "contact"],
    } | changes
    lines = [f"{key} = {value!r}".replace("'", '"') for key, value in values.items()]
    return ("[[duty]]\n" + "\n".join(lines)).encode()


@pytest.mark.parametrize("now", list(Incident))
@pytest.mark.parametrize("to", list(Incident))
def test_what_is_not_in_the_table_cannot_be_done(now, to):
    wish = Move(to=to, people=TWO, reason="why", remote=False, checks=GREEN)
    if (now, to) in MOVES:
        allow(now, wish)
    else:
        with pytest.raises(WrongStateError):
            allow(now, wish)


@pytest.mark.parametrize("now", sorted(STOPPED))
def test_one_person_alone_never_lets_a_stopped_box_work(now):
    for (before, to), need in MOVES.items():
        if before is now and to is not Incident.SHUTDOWN:
            assert need.people == 2
            for people in (("person:a",), ("person:a", "person:a"), ("person:a", "token:b")):
                wish = Move(to=to, people=people, reason="why", remote=False, checks=GREEN)
                with pytest.raises(UnsealRefusedError, match="two different persons"):
                    allow(now, wish)


@pytest.mark.parametrize("checks", [{}, {"evidence": False, "ledger": True}])
def test_nothing_red_or_unchecked_is_unsealed(checks):
    with pytest.raises(UnsealRefusedError, match="not green"):
        allow(Incident.SEALED, Move(to=Incident.NORMAL, people=TWO, reason="why", checks=checks))


def test_unsealing_needs_a_reason():
    with pytest.raises(UnsealRefusedError, match="reason"):
        allow(Incident.SEALED, Move(to=Incident.NORMAL, people=TWO, reason=" ", checks=GREEN))


def test_the_box_seals_itself_and_never_opens_itself():
    allow(Incident.NORMAL, Move(to=Incident.SEALED))
    with pytest.raises(UnsealRefusedError, match="person"):
        allow(Incident.SEALED, Move(to=Incident.NORMAL, checks=GREEN))


def test_a_box_is_shut_down_from_afar_by_two_and_opened_at_the_box_only():
    with pytest.raises(UnsealRefusedError, match="two"):
        allow(Incident.NORMAL, Move(to=Incident.SHUTDOWN, people=("person:a",)))
    allow(Incident.NORMAL, Move(to=Incident.SHUTDOWN, people=("person:a",), remote=False))
    allow(Incident.NORMAL, Move(to=Incident.SHUTDOWN, people=TWO, reason="why"))
    with pytest.raises(UnsealRefusedError, match="at the box"):
        allow(Incident.SHUTDOWN, Move(to=Incident.SEALED, people=TWO, reason="why"))


def test_shipped_duties_are_readable_and_every_one_is_marked():
    duties = parse_duties(SHIPPED)
    assert {duty.mark for duty in duties} == MARKS
    hours = {duty.duty_id: duty.hours for duty in duties}
    assert hours["cn-incident-report-other"] == 4
    assert hours["eu-gdpr-33"] == 72
    assert hours["us-hipaa-164-404"] == 60 * 24


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense =",
        b"other = 1",
        b"\xff",
        duty(text="certainly"),
        duty(id="Not an id"),
        duty(hours=-1),
        duty(contents=["poem"]),
        duty(causes=["weather"]),
        duty(extra=1),
        duty() + b"\n" + duty(),
    ],
)
def test_what_is_no_duty_is_refused(data):
    with pytest.raises(InvalidRequestError):
        parse_duties(data)


def test_duties_apply_by_region_operator_and_cause():
    (one,) = parse_duties(duty(operators=["other"], causes=["leak"]))
    assert one.applies("xx", "other", Cause.LEAK)
    assert not one.applies("yy", "other", Cause.LEAK)
    assert not one.applies("xx", "central-organ", Cause.LEAK)
    assert not one.applies("xx", "other", Cause.LOSS)
    (everyone,) = parse_duties(duty())
    assert everyone.applies("xx", "any", Cause.OUTAGE)


@given(now=st.integers(1, 10**13), aware=st.integers(0, 10**13), earliest=st.integers(0, 10**13))
def test_clocks_begin_at_the_earliest_moment_known(now, aware, earliest):
    start = began(now, aware, earliest)
    assert start <= now
    assert all(start <= moment for moment in (aware, earliest) if moment)


@given(
    st.lists(
        st.tuples(st.integers(0, 10 * HOUR_MS), st.integers(-5 * HOUR_MS, 5 * HOUR_MS)), max_size=30
    )
)
def test_whatever_the_time_does_a_clock_never_ends_later(steps):
    """Steps of (time that really passed, jump of the box's time beyond it)."""
    wall, due = 10**12, 10**12 + 4 * HOUR_MS
    real, first = 0, due
    for passed, jump in steps:
        before, wall, real = wall, wall + passed + jump, real + passed
        due -= lost(before, wall, passed)
        assert due <= first
        assert due - wall <= 4 * HOUR_MS - real, "less is left than really is"


@given(st.integers(0, 500 * HOUR_MS), st.integers(-500 * HOUR_MS, 500 * HOUR_MS))
def test_alarms_come_at_50_80_and_100_per_cent(length, left):
    level = alarmed(length, left, 0)
    assert level in (0, *ALARMS)
    if left <= 0 or length == 0:
        assert level == 100
    elif left * 2 > length * 1.02:
        assert level == 0


def test_a_notice_holds_what_its_law_asks_for_and_says_what_is_missing():
    (one,) = parse_duties(duty(contents=list(PARTS), text="unverified - have it checked"))
    facts = {"types": "chest radiographs", "number": " "}
    text = notice(one, facts, incident="i1", aware="today", due="tomorrow")
    assert all(f"## {heading}" in text for heading in PARTS.values())
    assert "chest radiographs" in text
    assert "unverified - have it checked" in text
    assert text.count("[to be filled in by a person]") == len(PARTS) - 1
    assert missing(one, facts) == tuple(part for part in PARTS if part != "types")
    assert missing(one, dict.fromkeys(PARTS, "words")) == ()
