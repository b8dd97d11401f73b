"""A whole round between pure parts: exact sums, and every way to open what must stay closed."""

import itertools
import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.errors import (
    InvalidInputError,
    InvalidMessageError,
    ManifestRefusedError,
    RoundRefusedError,
    UntrustedSignatureError,
)
from bedside_sync.secagg import committee, machines, tally
from bedside_sync.secagg.bodies import decode
from bedside_sync.secagg.manifest import (
    Manifest,
    Purpose,
    Segment,
    SitePolicy,
    agree,
    check_manifest,
    round_cost,
)
from bedside_sync.secagg.prg import Tag, signed_bytes
from bedside_sync.secagg.report import Report, check_report, open_envelope
from bedside_sync.secagg.roster import Change, Entry, extend, read_roster
from support.consortium import CODE, NOW, Consortium, Round, public, raw

FIVE = Consortium()
POLICY = SitePolicy(
    purposes=frozenset({Purpose.COLLECT}),
    codes=frozenset({bytes.fromhex(CODE)}),
    models=frozenset(),
    least_boxes=3,
    longest=10_000_000,
    rho_a_round=10**12,
)


def vectors(count: int, length: int = 100) -> list[np.ndarray]:
    data = np.frombuffer(os.urandom(4 * count * length), np.int32).reshape(count, length)
    return [row.astype(np.int64) >> 8 for row in data]


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("silent", [set(), {"box-0"}, {"box-3"}])
def test_the_sum_is_exact_with_any_one_helper_silent(ring, silent):
    one = Round(FIVE, changes={"ring": ring})
    given_vectors = vectors(5)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(given_vectors)]
    total, *_ = one.run(sealed, silent=frozenset(silent))
    assert (total == np.sum(given_vectors, axis=0)).all()


def test_the_sum_is_exact_with_any_two_of_seven_helpers_silent():
    among = Consortium(sites=8)
    one = Round(among, helpers=7, missing=2)
    given_vectors = vectors(8)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(given_vectors)]
    for pair in [("box-0", "box-1"), ("box-2", "box-6"), ("box-4", "box-5")]:
        total, *_ = one.run(sealed, silent=frozenset(pair))
        assert (total == np.sum(given_vectors, axis=0)).all()


def test_with_more_helpers_silent_nothing_opens():
    one = Round(FIVE)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(vectors(5))]
    with pytest.raises(RoundRefusedError, match="3 are needed"):
        one.run(sealed, silent=frozenset({"box-0", "box-1"}))


def test_a_masked_vector_does_not_depend_on_what_it_masks():
    """Words of a masked vector of zeros and of large values both look uniform."""
    one = Round(FIVE, length=200_000)
    for value in (0, 1 << 30):
        masked = one.report("box-0", np.full(200_000, value, np.int64)).masked
        counts = np.bincount((masked >> 24).astype(np.int64), minlength=256)
        expected = len(masked) / 256
        chi2 = float(((counts - expected) ** 2 / expected).sum())
        assert 120 < chi2 < 450  # 255 degrees of freedom: p above 1e-9 both ways
        ones = [int(np.count_nonzero(masked >> bit & 1)) for bit in range(32)]
        assert all(abs(count - 100_000) < 7 * 224 for count in ones)


def test_messages_but_the_vector_are_as_long_whatever_the_data():
    one = Round(FIVE)
    empty, full = one.report("box-0", vectors(1)[0] * 0), one.report("box-0", vectors(1)[0])
    assert len(empty.report.encode()) == len(full.report.encode())
    assert [len(e) for e in empty.envelopes] == [len(e) for e in full.envelopes] == [144] * 4


def test_no_two_digests_can_both_reach_a_quorum():
    """Every way four helpers, one of them corrupt and signing both, can be split."""
    one = Round(FIVE)
    quorum = one.manifest.quorum
    for corrupt in range(4):
        honest = [n for n in range(4) if n != corrupt]
        for choice in itertools.product("AB-", repeat=3):
            votes = dict(zip(honest, choice, strict=True))
            reach = [1 + sum(v == side for v in votes.values()) >= quorum for side in "AB"]
            assert not all(reach)


# --- what a helper refuses -----------------------------------------------------------------------


def test_a_helper_signs_one_set_ever():
    one = Round(FIVE)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(vectors(5))]
    first = committee.digest_of(one.manifest, [s.report for s in sealed])
    other = committee.digest_of(one.manifest, [s.report for s in sealed[:4]])
    sign = FIVE.keys["box-0"].sign
    given = {"helper": "box-0", "now": NOW, "sign": sign}
    committee.cosign(one.manifest, first, stored=first.hash, **given)
    with pytest.raises(RoundRefusedError, match="another set"):
        committee.cosign(one.manifest, other, stored=first.hash, **given)


def test_after_expiry_only_the_empty_set_is_signed_and_before_it_never():
    one = Round(FIVE)
    some = committee.digest_of(one.manifest, [one.report("box-0", vectors(1)[0]).report])
    none = committee.digest_of(one.manifest, [])
    sign = FIVE.keys["box-0"].sign
    late = {"helper": "box-0", "stored": None, "now": one.manifest.expires, "sign": sign}
    with pytest.raises(RoundRefusedError, match="expired"):
        committee.cosign(one.manifest, some, **late)
    committee.cosign(one.manifest, none, **late)
    with pytest.raises(RoundRefusedError, match="only once"):
        committee.cosign(one.manifest, none, **(late | {"now": NOW}))


def test_a_helper_refuses_a_set_without_its_own_site():
    one = Round(FIVE)
    reports = [one.report(f"box-{n}", v).report for n, v in enumerate(vectors(4))]
    with pytest.raises(RoundRefusedError, match="own site"):
        committee.check_set(one.manifest, FIVE.roster, reports, receipts=frozenset({"box-4"}))


def test_boxes_of_one_organisation_count_once():
    among = Consortium(sites=4)
    for number in range(4, 9):
        among.join(f"box-{number}", "hospital-0")
    one = Round(among)
    chosen = ["box-0", *[f"box-{n}" for n in range(4, 9)]]
    reports = [one.report(box, v).report for box, v in zip(chosen, vectors(6), strict=True)]
    with pytest.raises(RoundRefusedError, match="1 organisations"):
        committee.check_set(one.manifest, among.roster, reports, receipts=frozenset())


def test_invented_and_doubled_boxes_are_refused():
    one = Round(FIVE)
    report = one.report("box-0", vectors(1)[0]).report
    with pytest.raises(RoundRefusedError, match="twice"):
        committee.check_set(one.manifest, FIVE.roster, [report, report], receipts=frozenset())
    FIVE.keys["box-x"] = Ed25519PrivateKey.generate()
    invented = one.report("box-x", vectors(1)[0]).report
    with pytest.raises(RoundRefusedError, match="not on the roster"):
        committee.check_set(one.manifest, FIVE.roster, [invented], receipts=frozenset())
    forged = one.report("box-1", vectors(1)[0], sign=FIVE.keys["box-2"].sign).report
    with pytest.raises(UntrustedSignatureError):
        committee.check_set(one.manifest, FIVE.roster, [forged], receipts=frozenset())


def test_an_envelope_opens_only_where_it_belongs():
    one, other = Round(FIVE), Round(FIVE, changes={"round": "round-2"})
    other.round_keys = one.round_keys
    other.manifest = other.manifest_of(round="round-2")
    sealed = one.report("box-0", vectors(1)[0])
    key = one.round_keys["box-0"]
    assert len(open_envelope(one.manifest, sealed.report, 0, sealed.envelopes[0], key)) == 3
    copied = sealed.report.model_copy(
        update={"body": sealed.report.body.model_copy(update={"box": "box-1"})}
    )
    for manifest, report, helper in [
        (other.manifest, sealed.report, 0),
        (one.manifest, copied, 0),
        (one.manifest, sealed.report, 1),
    ]:
        with pytest.raises(RoundRefusedError):
            open_envelope(manifest, report, helper, sealed.envelopes[0], key)


def test_a_seed_that_is_not_the_committed_one_is_a_complaint_and_the_sum_stays_exact():
    one = Round(FIVE)
    given_vectors = vectors(5)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(given_vectors)]
    bad = sealed[2]
    wrong = bad.report.body.model_copy(update={"commitments": ["00" * 32] * 4})
    forged = Report(
        body=wrong,
        signature=FIVE.keys["box-2"].sign(signed_bytes(Tag.REPORT, wrong.encode())).hex(),
    )
    check_report(one.manifest, forged, public(FIVE.keys["box-2"]))
    with pytest.raises(RoundRefusedError):
        open_envelope(one.manifest, forged, 0, bad.envelopes[0], one.round_keys["box-0"])
    running = tally.Tally(manifest=one.manifest)
    for s in sealed:
        running.add(s.report, s.masked)
    running.drop(bad.report, bad.masked)
    left = [s for s in sealed if s is not bad]
    total, *_, fresh = one.run(left)
    assert (running.total == fresh.total).all()
    kept = [v for n, v in enumerate(given_vectors) if n != 2]
    assert (total == np.sum(kept, axis=0)).all()


# --- what the hub refuses ------------------------------------------------------------------------


def test_a_second_report_of_a_box_is_refused_and_the_same_again_is_no_news():
    one = Round(FIVE)
    first, second = (one.report("box-0", v) for v in vectors(2))
    running = tally.Tally(manifest=one.manifest)
    assert running.add(first.report, first.masked)
    assert not running.add(first.report, first.masked)
    with pytest.raises(RoundRefusedError, match="another report"):
        running.add(second.report, second.masked)
    with pytest.raises(RoundRefusedError, match="not the one"):
        tally.Tally(manifest=one.manifest).add(first.report, second.masked)
    with pytest.raises(RoundRefusedError, match="not in the sum"):
        running.drop(second.report, second.masked)


def test_one_false_mask_is_seen():
    one = Round(FIVE)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(vectors(5))]
    _, wanted, _, tables, running = one.run(sealed)
    liar = tables[1].table
    masks = dict.fromkeys(liar.masks, "00" * 32)
    lie = liar.model_copy(update={"masks": masks})
    sign = FIVE.keys["box-1"].sign
    signed = committee.SignedMaskTable(
        table=lie, signature=sign(signed_bytes(Tag.UNMASK, lie.encode())).hex()
    )
    with pytest.raises(RoundRefusedError, match="disagree"):
        tally.collect_tables(one.manifest, FIVE.roster, wanted, [tables[0], signed, tables[2]])
    unsigned = committee.SignedMaskTable(table=lie, signature="00" * 64)
    with pytest.raises(UntrustedSignatureError):
        tally.collect_tables(one.manifest, FIVE.roster, wanted, [tables[0], unsigned, tables[2]])
    agreed = tally.collect_tables(one.manifest, FIVE.roster, wanted, tables)
    false = {index: np.zeros(100, np.uint32) for index in range(4)}
    with pytest.raises(RoundRefusedError, match="agreed"):
        tally.open_sum(running, wanted, agreed, false)


# --- what a box refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sigma2": 24}, "sigma 5"),
        ({"unhonest": 3}, "no honest box"),
        ({"ring": 32, "patients": 2**31, "patients_a_box": 1}, "overflow"),
        ({"patients_a_box": 1000}, "more patients"),
        ({"largest": 65}, "whole norm"),
        ({"closes": NOW}, "times"),
        ({"audit_until": NOW + 7199}, "times"),
        ({"roster": "00" * 32}, "another roster"),
        ({"roster_size": 4}, "another roster"),
        ({"missing": 2}, "3 t"),
        ({"most_boxes": 2, "patients_a_box": 1}, "more boxes"),
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(changes, why):
    one = Round(FIVE)
    with pytest.raises(ManifestRefusedError, match=why):
        check_manifest(one.sign(one.manifest_of(**changes)), FIVE.roster)


def test_a_manifest_needs_two_organisations_and_helpers_of_different_ones():
    one = Round(FIVE)
    check_manifest(one.signed, FIVE.roster)
    with pytest.raises(ManifestRefusedError, match="two organisations"):
        check_manifest(one.sign(one.manifest, by="a"), FIVE.roster)
    signed = one.signed
    bad = [s.model_copy(update={"signature": "00" * 64}) for s in signed.signatures]
    with pytest.raises(UntrustedSignatureError):
        check_manifest(signed.model_copy(update={"signatures": bad}), FIVE.roster)
    among = Consortium(sites=3)
    among.join("box-3", "hospital-2")
    among.join("box-4", "hospital-4", helper=0)
    with pytest.raises(ManifestRefusedError, match="one organisation"):
        check_manifest(Round(among).signed, among.roster)
    among = Consortium(sites=3)
    among.join("box-3", "hospital-3", helper=0)
    with pytest.raises(ManifestRefusedError, match="as one"):
        check_manifest(Round(among).signed, among.roster)
    helpers = one.manifest.helpers
    swapped = [helpers[0].model_copy(update={"signature": helpers[1].signature}), *helpers[1:]]
    with pytest.raises(UntrustedSignatureError, match="round key"):
        check_manifest(one.sign(one.manifest_of(helpers=swapped)), FIVE.roster)
    doubled = [helpers[0], helpers[0], *helpers[2:]]
    with pytest.raises(ManifestRefusedError, match="twice"):
        check_manifest(one.sign(one.manifest_of(helpers=doubled)), FIVE.roster)


@pytest.mark.parametrize(
    ("policy", "now", "known", "why"),
    [
        ({}, NOW, ["round-1"], "before"),
        ({}, NOW - 1, [], "not open"),
        ({}, NOW + 7200, [], "not open"),
        ({"purposes": frozenset()}, NOW, [], "does not serve"),
        ({"codes": frozenset()}, NOW, [], "code"),
        ({"models": frozenset({b"x"})}, NOW, [], "model"),
        ({"least_boxes": 4}, NOW, [], "fewer hospitals"),
        ({"longest": 99}, NOW, [], "vector"),
        ({"rho_a_round": 10}, NOW, [], "more privacy"),
    ],
)
def test_a_box_says_no_and_why(policy, now, known, why):
    given = {name: getattr(POLICY, name) for name in POLICY.__dataclass_fields__}
    mine = SitePolicy(**(given | policy))
    with pytest.raises(ManifestRefusedError, match=why):
        agree(Round(FIVE).manifest, mine, now=now, known=known)


def test_a_box_that_agrees_is_told_the_price():
    manifest = Round(FIVE).manifest
    assert agree(manifest, POLICY, now=NOW, known=[]) == round_cost(manifest)
    assert abs(round_cost(manifest) / 1e12 - 1 / (2 * 4)) < 1e-4  # z = 2: rho = 1 / (2 z^2)


@settings(max_examples=60, deadline=None)
@given(
    boxes=st.integers(1, 50),
    patients=st.integers(1, 500),
    largest=st.integers(1, 2**20),
    sigma2=st.integers(25, 2**30),
)
def test_no_accepted_manifest_can_overflow(boxes, patients, largest, sigma2):
    one = Round(FIVE)
    manifest = one.manifest_of(
        most_boxes=boxes,
        least_boxes=min(3, boxes),
        patients_a_box=patients,
        patients=boxes * patients,
        largest=largest,
        sensitivity2=largest * largest,
        sigma2=sigma2,
    )
    try:
        check_manifest(one.sign(manifest), FIVE.roster)
    except ManifestRefusedError:
        return
    worst = boxes * (patients * largest + 12 * int(sigma2**0.5 + 1))
    assert worst - boxes * 24 <= 2**31 - 1


# --- the roster ----------------------------------------------------------------------------------


def test_a_roster_is_appended_to_by_two_organisations_only():
    among = Consortium(sites=4)
    entry = among.entry("box-9", "hospital-9")
    for by in ("", "a"):
        with pytest.raises(UntrustedSignatureError):
            extend(among.roster, among.signed(entry, by=by))
    grown = extend(among.roster, among.signed(entry))
    assert "box-9" in grown.members
    for wrong in (
        among.entry("box-9", "hospital-9", seq=9),
        among.entry("box-9", "hospital-9", previous="00" * 32),
        among.entry("box-1", "hospital-9"),
    ):
        with pytest.raises(InvalidMessageError):
            extend(among.roster, among.signed(wrong))
    taken = among.entry("box-9", "hospital-9", key=raw(among.keys["box-1"]).hex())
    with pytest.raises(InvalidMessageError, match="this key"):
        extend(among.roster, among.signed(taken))


def test_a_renewal_changes_the_certificate_and_a_revoked_name_never_returns():
    among = Consortium(sites=4)
    among.join("box-1", "hospital-1", change=Change.RENEW, certificate="aa" * 32)
    assert among.roster.members["box-1"].certificate == bytes.fromhex("aa" * 32)
    among.join("box-1", "hospital-1", change=Change.REVOKE)
    assert "box-1" not in among.roster.members
    among.keys.pop("box-1")
    with pytest.raises(InvalidMessageError, match="given once"):
        extend(among.roster, among.signed(among.entry("box-1", "hospital-1")))
    for change in (Change.RENEW, Change.REVOKE):
        with pytest.raises(InvalidMessageError, match="does not have"):
            extend(among.roster, among.signed(among.entry("box-7", "hospital-7", change=change)))
    with pytest.raises(InvalidMessageError, match="stays"):
        extend(among.roster, among.signed(among.entry("box-2", "other", change=Change.RENEW)))
    assert read_roster(among.root, among.entries) == among.roster


# --- the public record ---------------------------------------------------------------------------


def transcript(one: Round, sealed, **changes):
    total, _, cosignatures, tables, running = one.run(sealed)
    given = {
        "manifest": one.signed,
        "reports": [s.report for s in sealed],
        "cosignatures": cosignatures,
        "tables": tables,
        "findings": [],
        "withdrawn": [],
        "total": tally.sum_digest(one.manifest, total),
        "masked_total": tally.masked_digest(one.manifest, running.total),
        "rho": round_cost(one.manifest),
        "previous": "00" * 32,
    }
    body = tally.TranscriptBody(**(given | changes))
    return tally.publish(body, FIVE.hub.sign)


def test_every_box_can_check_a_record_and_sees_what_was_changed():
    one = Round(FIVE)
    sealed = [one.report(f"box-{n}", v) for n, v in enumerate(vectors(5))]
    hub, previous = public(FIVE.hub), bytes(32)
    record = transcript(one, sealed)
    own = {"own": "box-1", "own_vector": sealed[1].report.body.vector}
    tally.verify_transcript(record, FIVE.roster, hub, previous=previous, **own)
    read = decode(tally.Transcript, record.encode())
    assert read == record
    wrong = [
        (record, {"own": "box-1", "own_vector": "00" * 32}, RoundRefusedError),
        (record, {"own": "box-1", "withdrew": True}, RoundRefusedError),
        (transcript(one, sealed, rho=1), own, RoundRefusedError),
        (transcript(one, sealed, cosignatures=[]), own, RoundRefusedError),
        (transcript(one, sealed, tables=[]), own, RoundRefusedError),
        (transcript(one, sealed, reports=[sealed[0].report]), own, RoundRefusedError),
        (record.model_copy(update={"signature": "00" * 64}), own, UntrustedSignatureError),
    ]
    for changed, mine, error in wrong:
        with pytest.raises(error):
            tally.verify_transcript(changed, FIVE.roster, hub, previous=previous, **mine)
    with pytest.raises(RoundRefusedError, match="follow"):
        tally.verify_transcript(record, FIVE.roster, hub, previous=b"x" * 32, **own)


def test_an_expired_round_is_recorded_as_empty_and_has_no_sum():
    one = Round(FIVE)
    wanted = committee.digest_of(one.manifest, [])
    cosignatures = [
        committee.cosign(
            one.manifest,
            wanted,
            helper=box,
            stored=None,
            now=one.manifest.expires,
            sign=FIVE.keys[box].sign,
        )
        for box in list(one.round_keys)[:3]
    ]
    given = {
        "manifest": one.signed,
        "reports": [],
        "cosignatures": cosignatures,
        "tables": [],
        "findings": [],
        "withdrawn": [],
        "masked_total": tally.NOTHING,
        "rho": round_cost(one.manifest),
        "previous": "00" * 32,
    }
    mine = {"own": "box-1", "own_vector": "11" * 32}  # its receipt stands: it reports again
    for total, error in ((tally.NOTHING, None), ("11" * 32, RoundRefusedError)):
        record = tally.publish(tally.TranscriptBody(total=total, **given), FIVE.hub.sign)
        check = {"hub": public(FIVE.hub), "previous": bytes(32), **mine}
        if error is None:
            tally.verify_transcript(record, FIVE.roster, **check)
        else:
            with pytest.raises(error, match="no sum"):
                tally.verify_transcript(record, FIVE.roster, **check)


def test_a_body_has_one_spelling():
    data = Round(FIVE).manifest.encode()
    assert decode(Manifest, data).encode() == data
    for wrong in (b" " + data, data[:-1], data.replace(b'"ring":32', b'"ring":32.0'), b"[]", b""):
        with pytest.raises(InvalidMessageError):
            decode(Manifest, wrong)
    with pytest.raises(InvalidMessageError, match="at most"):
        decode(Entry, b" " * (1 << 20) + b" ")


def test_a_report_takes_fresh_seeds_and_a_whole_vector():
    one = Round(FIVE)
    with pytest.raises(InvalidInputError, match="different"):
        one.report("box-0", vectors(1)[0], seeds=[bytes(32)] * 4)
    with pytest.raises(InvalidInputError, match="words"):
        one.report("box-0", vectors(1, 99)[0])
    assert (
        Round(FIVE, length=7)
        .manifest_of(segments=[Segment(name="a", length=3), Segment(name="b", length=4)])
        .length
        == 7
    )


def test_no_step_leads_back():
    """A state reached is never left for one before it."""
    for table in (machines.BOX, machines.HELPER, machines.HUB):
        order = list(type(next(iter(table))[0]))
        assert all(order.index(a) < order.index(b) for a, b in table)
    with pytest.raises(RoundRefusedError, match="released to keyed"):
        machines.step(machines.HELPER, machines.Helper.RELEASED, machines.Helper.KEYED)
    assert machines.step(machines.BOX, machines.Box.IDLE, machines.Box.OPENED).durable
