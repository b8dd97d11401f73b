"""Boxes, helpers and a hub over durable stores, every message as bytes, any of them killed."""

import contextlib
import itertools
import os

import numpy as np
import pytest

from bedside_core.errors import (
    BedsideError,
    HubRefusedError,
    ManifestRefusedError,
    RoundRefusedError,
)
from bedside_sync.box import HEARD, TOLD, BoxKeys, BoxRole
from bedside_sync.calls import HubCalls
from bedside_sync.helper import HelperKeys, HelperRole
from bedside_sync.hub.server import HubServer
from bedside_sync.hub.service import HubKeys, HubService
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.journal import FileJournal
from bedside_sync.secagg import tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.machines import Box, Helper, Hub
from bedside_sync.secagg.manifest import Purpose, SitePolicy
from bedside_sync.secagg.ring import from_ring
from bedside_sync.wire import Message, read_message, write_message
from support.consortium import CODE, NOW, Consortium, Round, public


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


class Line:
    """Carries messages as bytes; `die_at` breaks it before or after the n-th one."""

    def __init__(self, server, peer):
        self.server, self.peer = server, peer

    def ask(self, request: Message) -> Message:
        asked = read_message(write_message(request))
        try:
            return read_message(write_message(self.server.handle(self.peer, asked)))
        except BedsideError as refused:
            raise HubRefusedError(refused.code, str(refused)) from refused


class Vector:
    """A source with a known vector; counts how often patients were charged."""

    def __init__(self, values):
        self.values, self.charged = values, []

    def permit(self, manifest, cost):
        if manifest.round not in self.charged:
            self.charged.append(manifest.round)

    def vector(self, manifest):
        return self.values


class World:
    """One consortium with stores in a folder; `restart` forgets everything not on the disk."""

    def __init__(self, folder, *, boxes=5, length=3000, changes=None):
        self.folder, self.clock = folder, Clock()
        self.among = Consortium(sites=boxes)
        rng = np.frombuffer(os.urandom(8 * boxes * length), np.int64) >> 44
        self.vectors = dict(zip(self.among.keys, rng.reshape(boxes, length), strict=True))
        self.sources = {box: Vector(values) for box, values in self.vectors.items()}
        self.policy = SitePolicy(
            purposes=frozenset({Purpose.COLLECT}),
            codes=frozenset({bytes.fromhex(CODE)}),
            models=frozenset(),
            least_boxes=3,
            longest=10_000_000,
            rho_a_round=10**12,
        )
        self.restart()
        for signed in self.among.entries:
            self.hub.append(signed)
        helpers = [self.helper(box).announce("round-1") for box in list(self.vectors)[:4]]
        self.round = Round(self.among, length=length)
        self.round.manifest = self.round.manifest_of(helpers=helpers, **(changes or {}))
        self.signed = self.round.signed
        self.hub.announce(self.signed)

    def restart(self):
        if hasattr(self, "store"):
            self.store.close()
        self.store = HubStore(self.folder / "hub")
        keys = HubKeys(sign=self.among.hub.sign, now=self.clock)
        self.hub = HubService(self.store, self.among.root, keys)
        self.server = HubServer(self.hub, self.clock)

    def calls(self, box):
        return HubCalls(Line(self.server, box))

    def box(self, name) -> BoxRole:
        keys = BoxKeys(
            box=name,
            sign=self.among.keys[name].sign,
            hub=public(self.among.hub),
            random=os.urandom,
            now=self.clock,
        )
        journal = FileJournal(self.folder / name / "box")
        return BoxRole(journal, keys, self.sources[name], self.policy)

    def helper(self, name) -> HelperRole:
        keys = HelperKeys(
            box=name,
            sign=self.among.keys[name].sign,
            now=self.clock,
            random=os.urandom,
            wrap=lambda secret, context: context + secret,
            unwrap=lambda stored, context: stored[len(context) :],
        )
        return HelperRole(FileJournal(self.folder / name / "helper"), keys)

    def report(self, name):
        role = self.box(name)
        if role.state("round-1") is Box.IDLE:
            role.open(self.signed, self.among.roster)
        if role.state("round-1") is Box.OPENED:
            role.seal("round-1")
        if role.state("round-1") is Box.SEALED:
            role.send("round-1", self.calls(name))

    def help(self, names, *, own=frozenset()):
        for name in names:
            with contextlib.suppress(HubRefusedError):
                self.helper(name).help(
                    self.round.manifest, self.among.roster, self.calls(name), own=lambda: own
                )

    def close(self):
        self.clock.now = NOW + 3600

    def run_helpers(self, names=None, rounds=4):
        names = names or list(self.vectors)[:4]
        for _ in range(rounds):
            self.help(names)

    def total(self):
        return self.hub.opened("round-1")

    def expected(self, *, without=()):
        return np.sum([v for box, v in self.vectors.items() if box not in without], axis=0)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_round_from_manifest_to_record(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.run_helpers()
    assert world.store.state("round-1") is Hub.PUBLISHED
    assert (world.total() == world.expected()).all()
    calls = world.calls("box-0")
    assert calls.records(0) == ["round-1"]
    record = calls.record("round-1")
    words = np.frombuffer(calls.total("round-1"), np.uint32)
    assert (from_ring(words, 32) == world.expected()).all()
    for box in world.vectors:
        role = world.box(box)
        assert role.finish("round-1", record, world.among.roster, bytes(32)) is Box.INCLUDED
        assert not (world.folder / box / "box" / "round-1" / "report").exists()


def test_everything_restarted_after_every_message_gives_the_same_sum(tmp_path):
    """Roles are made anew for every step anyway; here the hub is as well, between any two."""
    world = World(tmp_path)
    handle = HubServer.handle

    def restarting(server, peer, request):
        answer = handle(world.server, peer, request)
        world.restart()
        return answer

    HubServer.handle = restarting
    try:
        for box in world.vectors:
            world.report(box)
        world.close()
        world.run_helpers()
    finally:
        HubServer.handle = handle
    assert (world.total() == world.expected()).all()
    world.store.close()


def test_a_lost_answer_at_any_message_changes_nothing(tmp_path):
    """The hub did it, the answer never came, the box asks again: one report, one sum."""
    for lost in (0, 2, 5, 11, 23, 31):
        world = World(tmp_path / str(lost), length=100)
        counter = itertools.count()

        def ask(line, request, lost=lost, counter=counter, inner=Line.ask):
            answer = inner(line, request)
            if next(counter) == lost:
                raise HubRefusedError("lost", "the answer was lost")
            return answer

        original, Line.ask = Line.ask, ask
        try:
            for box in world.vectors:
                for _ in range(2):
                    try:
                        world.report(box)
                    except HubRefusedError:
                        continue
            world.close()
            world.run_helpers(rounds=6)
        finally:
            Line.ask = original
        assert (world.total() == world.expected()).all()
        assert all(source.charged == ["round-1"] for source in world.sources.values())
        world.store.close()


def test_one_helper_of_four_never_comes_and_the_round_ends(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.run_helpers(["box-0", "box-1", "box-2"])
    assert (world.total() == world.expected()).all()


def test_a_helper_that_dies_after_signing_is_replaced_by_the_others(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    four = list(world.vectors)[:4]
    for name in four:  # everybody looks
        world.help([name])
    world.run_helpers(four[1:], rounds=6)
    assert (world.total() == world.expected()).all()


def test_with_two_helpers_gone_nothing_opens_even_when_they_come_back_late(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.run_helpers(["box-0", "box-1"])
    assert world.store.state("round-1") is Hub.CLOSED
    world.clock.now = world.round.manifest.expires
    world.run_helpers()
    assert world.store.state("round-1") is Hub.EXPIRED
    record = world.calls("box-0").record("round-1")
    assert record.body.reports == []
    for box in world.vectors:
        state = world.box(box).finish("round-1", record, world.among.roster, bytes(32))
        assert state is Box.EXCLUDED
    assert all(source.charged == ["round-1"] for source in world.sources.values())


def test_too_few_hospitals_and_the_round_waits_then_expires(world):
    for box in ("box-0", "box-1"):
        world.report(box)
    world.close()
    world.run_helpers()
    assert world.store.state("round-1") is Hub.OPEN
    world.report("box-2")  # later than close, and still in time
    world.run_helpers()
    assert (world.total() == world.expected(without=("box-3", "box-4"))).all()


def test_a_late_report_is_told_so_and_changes_nothing(world):
    for box in ("box-0", "box-1", "box-2", "box-3"):
        world.report(box)
    role = world.box("box-4")
    role.open(world.signed, world.among.roster)
    role.seal("round-1")
    world.close()
    world.run_helpers(rounds=1)
    with pytest.raises(HubRefusedError, match="late"):
        role.send("round-1", world.calls("box-4"))
    world.run_helpers()
    assert (world.total() == world.expected(without=("box-4",))).all()
    record = world.calls("box-4").record("round-1")
    assert role.finish("round-1", record, world.among.roster, bytes(32)) is Box.EXCLUDED


def test_a_box_that_never_heard_its_receipt_gets_it_after_the_close(world):
    for box in world.vectors:
        world.report(box)
    (world.folder / "box-4" / "box" / "round-1" / "receipt").unlink()
    world.close()
    world.run_helpers(rounds=1)
    assert world.store.state("round-1") is not Hub.OPEN
    world.report("box-4")
    assert world.box("box-4").state("round-1") is Box.ACKED
    world.run_helpers()
    assert (world.total() == world.expected()).all()


def test_a_site_withdraws_before_close_and_not_after(world):
    for box in world.vectors:
        world.report(box)
    world.box("box-4").withdraw("round-1", world.calls("box-4"))
    world.box("box-4").withdraw("round-1", world.calls("box-4"))  # told twice, once is enough
    world.close()
    world.run_helpers(rounds=1)
    with pytest.raises(HubRefusedError, match="closed"):
        world.box("box-3").withdraw("round-1", world.calls("box-3"))
    world.run_helpers()
    assert (world.total() == world.expected(without=("box-4",))).all()
    record = world.calls("box-4").record("round-1")
    assert record.body.withdrawn == ["box-4"]
    state = world.box("box-4").finish("round-1", record, world.among.roster, bytes(32))
    assert state is Box.EXCLUDED
    # box-3 asked too late: it is in the sum and has paid
    state = world.box("box-3").finish("round-1", record, world.among.roster, bytes(32))
    assert state is Box.INCLUDED
    # a hub that takes a withdrawal and counts the box all the same is found out
    taken_back = world.box("box-2")
    taken_back.take_back("round-1")
    taken_back._journal.keep("round-1", HEARD, TOLD)
    with pytest.raises(RoundRefusedError, match="withdrew"):
        taken_back.finish("round-1", record, world.among.roster, bytes(32))


def test_a_report_is_never_made_twice_and_a_round_is_answered_once(world):
    world.report("box-0")
    role = world.box("box-0")
    for again in (
        lambda: role.open(world.signed, world.among.roster),
        lambda: role.seal("round-1"),
        lambda: role.send("round-1", world.calls("box-0")),
    ):
        with pytest.raises(RoundRefusedError):
            again()


def test_a_kill_between_charge_and_report_starts_again_with_fresh_seeds(world):
    role = world.box("box-0")
    role.open(world.signed, world.among.roster)
    world.box("box-0").seal("round-1")  # a new process
    assert world.sources["box-0"].charged == ["round-1"]


def test_a_box_that_says_no_says_it_again(world, tmp_path):
    world.policy = SitePolicy(
        purposes=frozenset(),
        codes=frozenset(),
        models=frozenset(),
        least_boxes=3,
        longest=1,
        rho_a_round=0,
    )
    with pytest.raises(ManifestRefusedError):
        world.box("box-0").open(world.signed, world.among.roster)
    assert world.box("box-0").state("round-1") is Box.VETOED
    with pytest.raises(RoundRefusedError):
        world.box("box-0").open(world.signed, world.among.roster)


def test_a_helper_whose_own_site_is_left_out_opens_nothing(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.store.take_out("round-1", "box-4", "dropped", b"")  # a hub that leaves a site out
    world.help(["box-1", "box-2", "box-3"])
    mine = {"own": lambda: frozenset({"box-4"})}
    manifest, roster, calls = world.round.manifest, world.among.roster, world.calls("box-0")
    with pytest.raises(RoundRefusedError, match="own site"):
        world.helper("box-0").help(manifest, roster, calls, **mine)


def test_a_restored_helper_loses_its_round_keys_and_signs_nothing(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    assert world.helper("box-0").lose_keys() == 1
    assert world.helper("box-0").state("round-1") is Helper.SPENT
    world.run_helpers()
    assert (world.total() == world.expected()).all()
    signed = world.store.said("round-1", "cosignature")
    assert "box-0" not in signed


def test_a_seed_other_than_committed_drops_the_box_and_the_sum_stays_exact(world):
    for box in list(world.vectors)[:4]:
        world.report(box)
    role = world.box("box-4")
    role.open(world.signed, world.among.roster)
    role.seal("round-1")
    report, envelopes, masked = role._report("round-1")
    calls = world.calls("box-4")
    calls.upload(world.round.manifest, "report", np.frombuffer(masked, np.uint32))
    from bedside_sync.secagg.prg import Tag, digest, signed_bytes
    from bedside_sync.secagg.report import Report

    wrong = [bytes(144), *envelopes[1:]]
    body = report.body.model_copy(
        update={"envelopes": [digest(Tag.ENVELOPE, e).hex() for e in wrong]}
    )
    key = world.among.keys["box-4"]
    forged = Report(body=body, signature=key.sign(signed_bytes(Tag.REPORT, body.encode())).hex())
    calls.seal("round-1", forged, wrong)
    world.close()
    world.run_helpers()
    assert (world.total() == world.expected(without=("box-4",))).all()
    findings = world.calls("box-0").record("round-1").body.findings
    assert any(signed.findings.bad == ["box-4"] for signed in findings)


def test_strangers_and_impostors_are_refused_and_kept(world):
    role = world.box("box-0")
    role.open(world.signed, world.among.roster)
    role.seal("round-1")
    with pytest.raises(HubRefusedError, match="roster"):
        role.send("round-1", world.calls("box-99"))
    with pytest.raises(HubRefusedError):
        world.calls("box-4").candidates("round-1", 9)
    report, envelopes, _ = role._report("round-1")
    with pytest.raises(HubRefusedError):
        world.calls("box-1").seal("round-1", report, envelopes)
    assert {code for _, _, _, code in world.store.refusals()} >= {"round-refused"}


def test_the_hub_holds_no_seed_no_key_and_no_clear_word(world):
    """Everything on the hub's disk is searched for the vectors and for the round's secrets."""
    for box in world.vectors:
        world.report(box)
    secrets = [
        (world.folder / box / "helper" / "round-1" / "round-key").read_bytes()[-32:]
        for box in list(world.vectors)[:4]
    ]
    stored = b"".join(
        path.read_bytes() for path in (world.folder / "hub").rglob("*") if path.is_file()
    )
    for values in world.vectors.values():
        clear = values.astype(np.uint32).tobytes()
        assert clear[:64] not in stored
    assert not any(secret in stored for secret in secrets)
    world.close()
    world.run_helpers()
    for box in list(world.vectors)[:4]:
        assert not (world.folder / box / "helper" / "round-1" / "round-key").exists()


def test_records_are_a_chain(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.run_helpers()
    first = decode(
        tally.Transcript, world.store.column("round-1", "transcript"), tally.MAX_TRANSCRIPT
    )
    assert first.body.previous == "00" * 32
    assert world.store.last_transcript() == first.body.hash
    with pytest.raises(RoundRefusedError, match="follow"):
        world.box("box-0").finish("round-1", first, world.among.roster, b"x" * 32)


def test_a_box_that_lost_its_report_goes_by_the_receipt(world):
    for box in world.vectors:
        world.report(box)
    world.close()
    world.run_helpers()
    record = world.calls("box-0").record("round-1")
    (world.folder / "box-0" / "box" / "round-1" / "report").write_bytes(b"\x00")
    role = world.box("box-0")
    assert role.finish("round-1", record, world.among.roster, bytes(32)) is Box.INCLUDED


def test_a_record_of_another_manifest_of_the_name_ends_nothing(world):
    """Two manifests of one name, both signed: what this box agreed to is what it believes."""
    role = world.box("box-4")
    role.open(world.signed, world.among.roster)
    other = world.round.manifest.model_copy(
        update={"audit_until": world.round.manifest.audit_until + 1}
    )
    journal = FileJournal(world.folder / "box-4" / "box")
    journal.destroy("round-1", "manifest")
    journal.keep("round-1", "manifest", world.round.sign(other).encode())
    for box in list(world.vectors)[:4]:
        world.report(box)
    world.close()
    world.run_helpers()
    record = world.calls("box-0").record("round-1")
    with pytest.raises(RoundRefusedError, match="another manifest"):
        world.box("box-4").finish("round-1", record, world.among.roster, bytes(32))
    assert world.box("box-4").state("round-1") is Box.OPENED
