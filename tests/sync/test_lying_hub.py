"""A hub that lies, floods or invents: what the box keeps, asks and computes is not its to say."""

import hashlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bedside_core.errors import (
    BedsideError,
    HubRefusedError,
    HubUnavailableError,
    InvalidMessageError,
    RoundRefusedError,
)
from bedside_sync import calls, helper, transport_nng
from bedside_sync.agent import SETTINGS
from bedside_sync.calls import HubCalls
from bedside_sync.helper import DIGEST
from bedside_sync.hub import server, upcoming
from bedside_sync.secagg.bodies import canonical
from bedside_sync.secagg.manifest import KEY_WAITS_S, SignedManifest
from bedside_sync.wire import Message, join_parts, split_parts, write_message
from support.nights import SETTINGS as TRUE
from support.nights import Line, World

EVIL = b'{"cells":41}'


class Says:
    """A hub that gives the same answer to everything and counts how often it was asked."""

    def __init__(self, **answer):
        self.answer, self.asked = Message(kind="any", **answer), 0

    def ask(self, request):
        self.asked += 1
        assert self.asked < 5000, "the box asks without end"
        return self.answer


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def told(house, step, name=""):
    return [(e.outcome, e.code) for e in house.events() if e.step == step and e.round == name]


def lie(world, kind, changed):
    """Let the hub change its answers of one kind; `changed(answer)` is None for the truth."""
    handle = world.server.handle

    def lying(peer, request):
        answer = handle(peer, request)
        return (changed(answer) or answer) if request.kind == kind else answer

    world.server.handle = lying
    return lambda: setattr(world.server, "handle", handle)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda c: c.settings(bytes(32)), {"fields": {"size": 1 << 29}, "payload": bytes(1 << 20)}),
        (lambda c: c.settings(bytes(32)), {"fields": {"size": 1 << 20}, "payload": b"x"}),
        (lambda c: c.record("r-1"), {"fields": {"size": 2**53 - 1}, "payload": bytes(4096)}),
        (lambda c: c.digest("r-1"), {"fields": {"size": 4000}, "payload": bytes(8000)}),
        (lambda c: c.upcoming(), {"payload": b"[" * 100_000}),
        (lambda c: c.states(), {"payload": b"[" * 100_000}),
        (lambda c: c.asked("r-1"), {"fields": {"state": "x"}, "payload": b"[" * 100_000}),
        (lambda c: c.upcoming(), {"payload": canonical(["<b>\x1b[2J"])}),
        (lambda c: c.upcoming(), {"payload": canonical([f"r-{n}" for n in range(1001)])}),
        (lambda c: c.records(0), {"payload": canonical(["a" * 65])}),
        (lambda c: c.candidates("r-1", 9), {"payload": join_parts(b"{}")}),
    ],
)
def test_answers_without_end_or_measure_are_cut_short(call, answer):
    hub = Says(**answer)
    with pytest.raises(InvalidMessageError):
        call(HubCalls(hub))
    assert hub.asked <= 5


def test_a_roster_and_candidates_that_go_on_for_ever_end(world, monkeypatch):
    monkeypatch.setattr(calls, "_MOST_ENTRIES", 500)
    world.open_round("r-1")
    world.visit()
    world.clock.advance(3_601_000)
    world.hub.go_on_all()
    entry = Says(fields={"size": 2**53 - 1}, payload=join_parts(*world.store.roster()[:1] * 200))
    with pytest.raises(InvalidMessageError):
        HubCalls(entry).roster(0)
    page = world.hub.candidates("box-0", "r-1", "")
    parts = [part for report, envelope in page for part in (report.encode(), envelope)]
    for payload in (join_parts(*parts), join_parts(*parts[:2], *parts[:2])):
        with pytest.raises(InvalidMessageError):
            HubCalls(Says(payload=payload)).candidates("r-1", 9)


def test_a_forged_manifest_leaves_nothing_that_the_signed_one_would_find(world):
    """Its settings would else decide what the signed round computes."""
    manifest = world.open_round("r-1")
    house = world.houses["box-0"]
    digest = hashlib.sha256(EVIL).hexdigest()
    world.store.keep_settings(EVIL)
    for changes in ({"roster_size": manifest.roster_size + 1}, {"sigma2": 100}):
        forged = manifest.model_copy(update={"settings": digest, **changes})
        body = SignedManifest(manifest=forged, signatures=[]).encode()
        stop = lie(world, "rounds", lambda a, b=body: Message(kind="rounds", payload=join_parts(b)))
        house.sync.visit()
        stop()
        assert not house.state.sync.facts.has("r-1", SETTINGS)
    assert {outcome for outcome, _ in told(house, "join", "r-1")} == {"refused"}
    house.sync.visit()
    assert house.box_state("r-1") == "acked"  # the name was not spoilt for the signed round
    assert house.state.sync.facts.read("r-1", SETTINGS) == TRUE


def test_settings_other_than_the_signed_ones_are_never_computed_with(world):
    world.open_round("r-1")
    house = world.houses["box-0"]
    house.state.sync.facts.keep("r-1", SETTINGS, EVIL)
    house.sync.visit()
    assert told(house, "join", "r-1") == [("refused", "manifest-refused")]
    assert house.sync.status().charges == []


def test_a_forged_expired_manifest_does_not_spend_a_helper_s_key(world):
    manifest = world.open_round("r-1")
    world.visit()
    house = world.houses["box-0"]
    now = world.clock.now() // 1000
    forged = manifest.model_copy(
        update={"opens": now - 30, "closes": now - 20, "expires": now - 10}
    )
    body = SignedManifest(manifest=forged, signatures=[]).encode()
    stop = lie(world, "rounds", lambda _: Message(kind="rounds", payload=join_parts(body)))
    house.sync.visit()
    stop()
    assert not house.state.sync.help_facts.has("r-1", DIGEST)
    assert ("refused", "manifest-refused") in told(house, "help", "r-1")
    world.close_round()
    assert house.box_state("r-1") == "included"


def test_a_record_told_again_at_another_place_is_refused(world):
    world.open_round("r-1")
    world.visit()
    world.close_round()
    house = world.houses["box-0"]
    assert house.state.sync.records()[0] == 1
    lie(world, "records", lambda _: Message(kind="records", payload=json.dumps(["r-1"]).encode()))
    house.sync.visit()
    assert house.state.sync.records()[0] == 1
    assert told(house, "record", "r-1")[-1] == ("refused", "round-refused")


def test_a_box_sealed_in_the_middle_of_a_visit_sends_nothing(world):
    world.open_round("r-1")
    house = world.houses["box-0"]
    seal = "INSERT INTO box_states VALUES (2, 'sealed', 'i', 'person:a', '', 0)"
    vector = house.counting.vector

    def sealed_now(*given):
        house.state.database.write(lambda c: c.execute(seal))
        return vector(*given)

    house.counting.vector = sealed_now
    house.sync.visit()
    assert house.box_state("r-1") == "opened"  # charged; a sealed box makes no report
    assert ("failed", "sealed") in [(e.outcome, e.code) for e in house.events()]
    assert world.store.report_of("r-1", "box-0") is None

    house.counting.vector = vector
    opened = "INSERT INTO box_states VALUES (3, 'normal', 'i', 'person:a', 'person:b', 0)"
    house.state.database.write(lambda c: c.execute(opened))
    charged = house.sync.status().charges
    house.sync.visit()
    assert world.store.report_of("r-1", "box-0") is not None
    assert house.sync.status().charges == charged


def test_a_box_sealed_while_it_sends_asks_nothing_more(world):
    world.open_round("r-1")
    house = world.houses["box-0"]
    seal = "INSERT INTO box_states VALUES (2, 'sealed', 'i', 'person:a', '', 0)"
    lie(world, "begin", lambda _: house.state.database.write(lambda c: c.execute(seal)) and None)
    with pytest.raises(HubUnavailableError):
        house.sync.visit()
    assert house.box_state("r-1") == "sealed"  # the round's word: the report lies on the disk
    assert world.store.report_of("r-1", "box-0") is None


def test_a_clock_that_ran_ahead_does_not_put_visits_off_for_years(world):
    house = world.houses["box-0"]
    world.clock.jump(9 * 365 * 86_400_000)
    house.sync.step()
    world.clock.jump(-9 * 365 * 86_400_000)
    house.sync.step()
    assert house.sync.status().next_visit - world.clock.now() < 86_400_000


def test_the_hub_s_words_reach_no_terminal_and_no_table():
    bad = write_message(
        Message(
            kind="refused",
            fields={"code": "\x1b[31m" + "x" * 9000, "text": "a\x1b[2J\nb", "later": 0},
        )
    )
    with pytest.raises(HubRefusedError) as refused:
        transport_nng._answered(bad)
    assert refused.value.reason == "invalid-message"
    assert str(refused.value) == "a [2J b"


def test_every_refusal_of_a_verified_peer_is_kept_whatever_it_asked(world):
    for kind in ("no-such-thing", "candidates"):
        with pytest.raises(BedsideError):
            world.server.handle("box-0", Message(kind=kind, fields={"round": "r-9", "after": ""}))
    assert len(world.store.refusals()) == 2


def test_candidates_of_many_helpers_come_in_pages_that_fit_a_message(world, monkeypatch):
    """With ten helpers a hundred reports are longer than a message may be."""
    world.open_round("r-1")
    world.visit()
    world.clock.advance(3_601_000)
    world.hub.go_on_all()
    monkeypatch.setattr(server, "_WINDOW", 1)
    first = Message(kind="candidates", fields={"round": "r-1", "after": ""})
    assert len(split_parts(world.server.handle("box-0", first).payload)) == 2
    found = HubCalls(Line(world, "box-0")).candidates("r-1", 9)
    assert [report.body.box for report, _ in found] == [f"box-{n}" for n in range(4)]


def test_rounds_announced_and_never_opened_do_not_use_up_a_helper_for_ever(world, monkeypatch):
    monkeypatch.setattr(helper, "MOST_KEYS", 2)
    house, roster = world.houses["box-0"], world.hub.roster
    keys = house.state.sync.help_facts

    def announce(*names):
        now = world.clock.now() // 1000
        for name in names:
            upcoming.announce(world.store, roster, name, list(world.houses), now)

    announce("r-1", "r-2", "r-3")
    house.sync.visit()
    assert told(house, "key", "r-3") == [("refused", "round-refused")]
    world.clock.jump(29 * 86_400_000)
    house.sync.visit()
    assert keys.has("r-1", helper.ROUND_KEY)  # its manifest may still come
    world.clock.jump(2 * 86_400_000)
    house.sync.visit()
    assert not keys.has("r-1", helper.ROUND_KEY)
    assert told(house, "forget", "r-1") == [("done", "")]
    announce("r-4")
    house.sync.visit()
    assert keys.has("r-4", helper.ROUND_KEY)
    lie(world, "upcoming", lambda _: Message(kind="upcoming", payload=canonical(["r-1"])))
    house.sync.visit()  # no second key for the name
    assert not keys.has("r-1", helper.ROUND_KEY)
    assert ("refused", "round-refused") in told(house, "key", "r-1")


def test_no_round_is_opened_of_a_name_whose_keys_may_be_gone(world):
    now = world.clock.now() // 1000
    upcoming.announce(world.store, world.hub.roster, "r-1", ["box-0"], now)
    world.visit("box-0")
    last = now + KEY_WAITS_S
    assert len(upcoming.keys(world.store, "r-1", last)) == 1
    with pytest.raises(RoundRefusedError, match="another name"):
        upcoming.keys(world.store, "r-1", last + 1)
    upcoming.announce(world.store, world.hub.roster, "r-2", ["box-0"], now)
    assert upcoming.asked_of(world.store, "box-0", last) == ["r-2"]
    assert upcoming.asked_of(world.store, "box-0", last + 1) == []


def test_the_key_of_an_open_round_is_kept_however_long_it_takes(world):
    now = world.clock.now() // 1000
    long = {"closes": now + 40 * 86_400, "expires": now + 50 * 86_400}
    world.open_round("r-1", **long, audit_until=now + 60 * 86_400)
    world.clock.jump(35 * 86_400_000)
    world.visit("box-0")
    assert world.houses["box-0"].state.sync.help_facts.has("r-1", helper.ROUND_KEY)


@pytest.mark.parametrize("decision", ["veto", "withdraw"])
def test_a_person_does_not_wait_for_a_slow_hub(world, decision):
    world.open_round("r-1")
    house = world.houses["box-0"]
    if decision == "withdraw":
        house.sync.visit()
    asked, go_on, kinds = threading.Event(), threading.Event(), []
    handle = world.server.handle

    def slow(peer, request):
        kinds.append(request.kind)
        if request.kind == "records" and not asked.is_set():
            asked.set()
            assert go_on.wait(20)
        return handle(peer, request)

    world.server.handle = slow
    with ThreadPoolExecutor(2) as pool:
        night = pool.submit(house.sync.visit)
        assert asked.wait(20)
        if decision == "veto":
            person = pool.submit(house.sync.veto, "r-1", "no", "system:console")
        else:
            person = pool.submit(house.sync.withdraw, "r-1", "system:console")
        deadline = time.monotonic() + 20
        while not house.sync._people:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        go_on.set()
        assert person.result(20) in (None, True)  # the hub has heard a withdrawal at once
        with pytest.raises(HubUnavailableError):
            night.result(20)
    if decision == "veto":
        assert kinds == ["time", "roster", "records"]  # nothing was asked after that question
    world.server.handle = handle
    house.sync.visit()
    assert house.box_state("r-1") == ("vetoed" if decision == "veto" else "withdrawn")
    assert (world.store.report_of("r-1", "box-0") is None) == (decision == "veto")


def test_the_settings_of_a_finished_round_are_destroyed(world):
    world.open_round("r-1")
    world.visit()
    house = world.houses["box-0"]
    assert house.state.sync.facts.has("r-1", SETTINGS)
    world.close_round()
    assert house.box_state("r-1") == "included"
    assert not house.state.sync.facts.has("r-1", SETTINGS)
