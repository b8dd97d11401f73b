"""What every EvidenceLog promises, held against SQLite and the simulator."""

import pytest

from bedside_core.errors import (
    InvalidEntryError,
    InvalidNoteError,
    InvalidProofError,
    NotFoundError,
    NotReadyError,
)
from bedside_core.evidence.checkpoint import open_checkpoint, sign_checkpoint
from bedside_core.evidence.entry import Kind, TimeSource, commits_to, is_about
from bedside_core.evidence.merkle import consistency_holds, leaf_hash
from bedside_core.evidence.proof import parse_proof, verify_proof
from bedside_core.evidence.tiles import Tile, node_reader, parse_bundle
from bedside_edge.ports.evidence import Event
from support.evidence_houses import HOUSES, PATIENT, STUDY
from support.evidence_log import HUB_ED, HUB_ML, STRANGER

T0 = 1_700_000_000


@pytest.fixture(params=sorted(HOUSES))
def house(request, tmp_path):
    house = HOUSES[request.param](tmp_path)
    yield house
    house.close()


def event(number: int = 0, **changes) -> Event:
    fields = {"kind": Kind.ADMIN, "actor": "service:box", "refs": {"n": number}}
    return Event(**fields | changes)


def fill(log, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        log.append(event(number))


def head_of(log, note: bytes):
    return open_checkpoint(note, log.origin, log.keys).checkpoint


def test_a_new_log_is_empty_and_signs_that(house):
    log = house.open()
    assert (log.size(), log.latest_checkpoint(), log.newest(), log.entries(0, 9)) == (
        0,
        None,
        [],
        [],
    )
    assert head_of(log, log.checkpoint()).size == 0
    with pytest.raises(NotFoundError):
        log.entry(0)


def test_entries_survive_a_restart_in_their_order(house):
    fill(house.open(), 5)
    log = house.open()
    fill(log, 3, 5)
    assert [one.entry.refs["n"] for one in log.entries(0, 100)] == list(range(8))
    assert [one.index for one in log.newest(limit=3)] == [7, 6, 5]
    assert [one.index for one in log.newest(limit=2, before=4)] == [3, 2]


def test_what_an_entry_commits_to_is_kept_beside_it_and_shows_the_commitment(house):
    log = house.open()
    log.append(event(payload=b'{"score":1}', study_id=STUDY))
    kept = log.entry(0)
    assert (kept.study_id, kept.subject_id, kept.payload) == (STUDY, PATIENT, b'{"score":1}')
    assert commits_to(kept.entry, kept.salt, b'{"score":1}')
    assert not commits_to(kept.entry, kept.salt, b'{"score":0}')
    assert is_about(kept.entry, house.subject_key(), PATIENT.encode())
    assert b"score" not in kept.data
    assert STUDY.encode() not in kept.data


def test_two_entries_about_one_patient_share_nothing_but_their_kind(house):
    log = house.open()
    for _ in range(2):
        log.append(event(payload=b"same", study_id=STUDY, refs={}))
    one, two = log.entry(0).entry, log.entry(1).entry
    assert one.subject != two.subject
    assert one.payload != two.payload
    assert one.nonce != two.nonce


def test_an_empty_payload_is_not_no_payload(house):
    log = house.open()
    log.append(event(payload=b""))
    log.append(event())
    assert log.entry(0).payload == b""
    assert log.entry(0).entry.payload is not None
    assert log.entry(1).payload is None
    assert log.entry(1).entry.payload is None


def test_what_is_forgotten_is_gone_and_the_entries_still_prove(house):
    log = house.open()
    log.append(event(payload=b"of the patient", study_id=STUDY))
    log.append(event(payload=b"of nobody"))
    log.append(event(payload=b"no study", subject_id=PATIENT))
    before = head_of(log, log.checkpoint()).root
    assert log.about(study_id=STUDY) == [0]
    assert log.about(subject_id=PATIENT) == [0, 2]
    assert house.forget(log, study_id=STUDY, subject_id=PATIENT) == 2
    assert (log.about(study_id=STUDY), log.about(subject_id=PATIENT)) == ([], [])
    gone = log.entry(0)
    assert (gone.payload, gone.salt, gone.study_id, gone.subject_id) == (None, None, "", "")
    assert log.entry(1).payload == b"of nobody"
    assert verify_proof(log.proof(0), log.origin, log.keys).opened.checkpoint.root == before


def test_a_checkpoint_of_one_size_is_signed_once(house):
    log = house.open()
    fill(log, 3)
    first = log.checkpoint()
    log = house.open()
    assert log.checkpoint() == first, "ML-DSA signs with fresh randomness"
    assert log.latest_checkpoint() == first


def test_every_checkpoint_is_consistent_with_every_earlier_one(house):
    log, heads = house.open(), []
    for count in (1, 2, 3, 1, 5, 8):
        fill(log, count)
        heads.append(head_of(log, log.checkpoint()))
    for old in heads:
        for new in heads:
            if old.size <= new.size:
                proof = log.consistency(old.size, new.size)
                assert consistency_holds(old.size, new.size, old.root, new.root, proof)
    with pytest.raises((InvalidProofError, NotFoundError)):
        log.consistency(1, log.size() + 1)
    with pytest.raises(InvalidProofError):
        log.consistency(3, 2)


def test_every_entry_is_proven_by_one_file_and_the_public_keys(house):
    log = house.open()
    fill(log, 11)
    for index in range(11):
        proven = verify_proof(log.proof(index), log.origin, log.keys)
        assert (proven.index, proven.entry) == (index, log.entry(index).data)
    with pytest.raises(NotFoundError):
        log.proof(11)


def test_an_entry_younger_than_the_last_checkpoint_gets_a_new_one(house):
    log = house.open()
    fill(log, 2)
    log.checkpoint()
    fill(log, 1)
    assert verify_proof(log.proof(1), log.origin, log.keys).opened.checkpoint.size == 2
    assert verify_proof(log.proof(2), log.origin, log.keys).opened.checkpoint.size == 3


def test_cosignatures_stay_with_their_checkpoint_and_reach_the_proof(house):
    log = house.open()
    fill(log, 4)
    head = head_of(log, log.checkpoint())
    lines = [
        sign_checkpoint(head, pair.key, pair.sign, T0).line.encode() for pair in (HUB_ED, HUB_ML)
    ]
    log.cosigned(4, lines)
    log.cosigned(4, lines)
    fill(log, 3)
    log.checkpoint()
    log = house.open()
    proven = verify_proof(log.proof(1), log.origin, log.keys, [HUB_ED.key, HUB_ML.key])
    assert proven.opened.checkpoint.size == 4, "a cosigned checkpoint says more than a newer one"
    assert [one.key for one in proven.opened.signers] == [*log.keys, HUB_ED.key, HUB_ML.key]
    assert [one.time for one in proven.opened.signers][-2:] == [T0, T0]
    assert STRANGER.key not in [one.key for one in proven.opened.signers]
    with pytest.raises(NotFoundError):
        log.cosigned(5, lines)
    with pytest.raises(InvalidNoteError):
        log.cosigned(4, [b"no signature line\n"])


def test_without_its_keys_the_log_records_but_signs_nothing(house):
    log = house.open(signing=False)
    fill(log, 2)
    assert log.latest_checkpoint() is None
    for ask in (log.checkpoint, log.outgoing_checkpoint, lambda: log.proof(0)):
        with pytest.raises(NotReadyError):
            ask()
    assert log.size() == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"actor": "Ada Muster"},
        {"refs": {"patient": "1.2.840.113619.2"}},
        {"refs": {"Patient": "x"}},
        {"refs": {"n": -1}},
    ],
)
def test_what_may_not_stand_in_the_log_is_refused_and_leaves_nothing(house, wrong):
    log = house.open()
    with pytest.raises(InvalidEntryError):
        log.append(event(**wrong))
    assert log.size() == 0
    fill(log, 1)
    assert log.size() == 1


def test_outgoing_sizes_follow_the_schedule_whatever_was_done(house):
    log, sizes = house.open(nightly_quota=8), []
    for done in (3, 0, 5, 20, 8, 0):
        fill(log, done)
        sizes.append(head_of(log, log.outgoing_checkpoint()).size)
        fill(log, 1)
        log.checkpoint()  # signed for somebody inside: says nothing to those outside
    assert sizes == [8, 16, 24, 48, 64, 72]
    assert {one.entry.kind for one in log.entries(4, 8)} == {Kind.PAD}


def test_time_never_falls_and_says_when_it_is_in_doubt(house):
    log, clock = house.open(), house.clock
    fill(log, 1)
    clock.advance(10_000)
    fill(log, 1)
    clock.jump(-5_000)
    fill(log, 2)
    clock.advance(20_000)
    fill(log, 1)
    seen = [(one.entry.kind, one.entry.ts - T0, one.entry.ts_src) for one in log.entries(0, 99)]
    local, doubtful = TimeSource.LOCAL, TimeSource.DOUBTFUL
    assert seen == [
        (Kind.ADMIN, 0, local),
        (Kind.ADMIN, 10, local),
        (Kind.CLOCK, 10, doubtful),
        (Kind.ADMIN, 10, doubtful),
        (Kind.ADMIN, 10, doubtful),
        (Kind.ADMIN, 25, local),
    ]
    assert dict(log.entry(2).entry.refs) == {"last": T0 + 10, "clock": T0 + 5}


@pytest.mark.parametrize("years", [50, -50])
def test_a_clock_set_far_away_is_an_entry_of_its_own(house, years):
    log = house.open()
    fill(log, 1)
    house.clock.jump(years * 365 * 86_400_000)
    fill(log, 1)
    house.clock.jump(-years * 365 * 86_400_000)
    fill(log, 1)
    kinds = [one.entry.kind for one in log.entries(0, 99)]
    assert kinds == [Kind.ADMIN, Kind.CLOCK, Kind.ADMIN, Kind.CLOCK, Kind.ADMIN]
    times = [one.entry.ts for one in log.entries(0, 99)]
    assert times == sorted(times)
    log = house.open()
    after = log.append(event())
    assert log.entry(after).entry.ts >= times[-1]


def test_entries_are_found_by_kind_and_by_time(house):
    log = house.open()
    for number in range(12):
        log.append(event(number, kind=Kind.ALARM if number % 3 == 0 else Kind.ACCESS))
        house.clock.advance(1_000)
    alarms = log.newest(kinds=[Kind.ALARM])
    assert [one.index for one in alarms] == [9, 6, 3, 0]
    assert [one.index for one in log.newest(limit=1, before=9, kinds=[Kind.ALARM])] == [6]
    found = log.between(T0 + 4, T0 + 9, limit=99)
    assert [one.index for one in found] == [4, 5, 6, 7, 8]
    assert [one.index for one in log.between(T0 + 4, T0 + 9, limit=2, after=5)] == [6, 7]
    assert [one.index for one in log.between(0, T0 + 99, limit=9, kinds=[Kind.ALARM])] == [
        0,
        3,
        6,
        9,
    ]
    assert log.between(T0 + 99, T0 + 100, limit=9) == []


def test_the_tiles_are_the_log(house):
    log = house.open()
    fill(log, 259)
    bundle = parse_bundle(log.tile(Tile(level=None, index=0)))
    last = parse_bundle(log.tile(Tile(level=None, index=1, width=3)))
    assert [*bundle, *last] == [one.data for one in log.entries(0, 259)]
    assert log.tile(Tile(level=0, index=0))[:32] == leaf_hash(bundle[0])
    read = node_reader(259, log.tile)
    assert read(8, 0) == log.tile(Tile(level=1, index=0, width=1))
    for missing in (
        Tile(level=0, index=1, width=4),
        Tile(level=None, index=1, width=4),
        Tile(level=None, index=2, width=1),
        Tile(level=2, index=0, width=1),
        Tile(level=0, index=2**60),
    ):
        with pytest.raises(NotFoundError):
            log.tile(missing)


def test_a_proof_file_holds_the_entry_and_the_checkpoint_as_stored(house):
    log = house.open()
    fill(log, 2)
    note = log.checkpoint()
    file = parse_proof(log.proof(1))
    assert (file.checkpoint, file.extra, file.index) == (note, log.entry(1).data, 1)
