"""A release's document says only what follows from its question and its integers."""

import json
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedside_core.accounting import MAX_UNITS, cap_units, epsilon
from bedside_core.errors import (
    BedsideError,
    InvalidInputError,
    InvalidReleaseError,
    UntrustedSignatureError,
)
from bedside_core.evidence.checkpoint import signed_note
from bedside_core.evidence.entry import Entry, Kind, TimeSource
from bedside_core.evidence.merkle import inclusion_proof
from bedside_core.evidence.proof import ProofFile
from bedside_core.ledger.entries import Scope, ScopeKind
from bedside_core.planner import DELTA, Schedule
from bedside_core.release import Prepared, ReleaseRequest, prepare
from bedside_core.release_check import (
    MAX_FILE,
    answer_digest,
    check_document,
    device_keys,
    parse_file,
    read_document,
    release_file,
    verify_nights,
    verify_release,
)
from bedside_core.release_document import (
    PAYLOAD_TYPE,
    UNPROTECTED,
    Standing,
    Surroundings,
    canonical,
    gaussian_view,
    noise_part,
    reading,
    release_document,
)
from bedside_core.release_page import (
    estimand_words,
    noise_words,
    pictures,
    price_words,
    release_page,
    unprotected,
)
from bedside_core.release_picture import MOST_ROWS, Row, escaped, release_picture, said
from bedside_core.release_words import UNPROTECTED_ZH, WORDS
from bedside_core.signatures import seal_envelope
from bedside_core.statistics.catalogue import CATALOGUE, spec_of
from bedside_core.statistics.measure import gaussian_law
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.running import running
from bedside_core.statistics.spec import Weight
from bedside_core.statistics.strata import prices
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN, head, tree
from support.statistics import PUBLIC, specs

UNITS = 24_355_000_000
AROUND = Surroundings(
    origin=ORIGIN,
    seq=7,
    starts=1_700_000_000_000,
    ends=1_702_000_000_000,
    standings=(
        Standing(scope=Scope(ScopeKind.DATASET_EPOCH, "chest#1"), cap=10**12, spent=UNITS),
        Standing(scope=Scope(ScopeKind.LIFETIME, "chest"), cap=UNITS, spent=UNITS),
    ),
    views={"gaussian-exact": 0.93},
)


def request(*names, weight=Weight.STUDY, **changes):
    base = ReleaseRequest(
        specs=tuple(spec_of(name, PUBLIC, weight) for name in names),
        units=UNITS,
        snapshot="s1",
        dataset="chest",
        epoch=1,
        policy="p1",
        purpose="quality",
    )
    return replace(base, **changes)


def values_of(prepared, value=500):
    if prepared.query is None:
        return [min(value, len(prepared.choice.values) - 1)] * prepared.choice_law.draws
    return [
        value * unit // step
        for unit, step in zip(prepared.query.units, prepared.query.grid_steps(), strict=True)
    ]


PREPARED = prepare(request("prevalence", "device-counts"))
VALUES = [5000, 700, 1000, 3900, 10, 100]
DOCUMENT = release_document(PREPARED, VALUES, AROUND)


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: f"{spec.name}-{spec.weight}")
def test_every_statistic_has_a_document_that_checks_and_a_page(spec):
    prepared = prepare(request("volume", specs=(spec,)))
    data = release_document(prepared, values_of(prepared), AROUND)
    checked = check_document(data)
    assert checked.prepared == prepared
    assert checked.around == AROUND
    assert list(checked.values) == values_of(prepared)
    assert checked.complete
    for language in WORDS:
        page = release_page(checked.document, language)
        assert (
            page.count("<svg")
            == len(pictures(checked.document, language))
            >= (spec.name != "bound-hits")
        )
        assert "<script" not in page
        assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.integers(-(10**6), 10**6), min_size=6, max_size=6))
def test_any_integers_have_a_document_that_checks(values):
    data = release_document(PREPARED, values, AROUND)
    assert list(check_document(data).values) == values
    assert release_page(json.loads(data))


def test_the_document_holds_what_a_reader_needs():
    found = json.loads(DOCUMENT)
    assert canonical(found) == DOCUMENT
    by_cell = {one["cell"]: one for one in found["cells"]}
    assert by_cell["studies"]["value"] == 5000
    assert by_cell["device other"]["low"] == 0.0  # clamped where it is shown
    assert by_cell["device other"]["estimate"] == 10.0
    assert by_cell["device other"]["grey"] is True
    assert by_cell["studies"]["high"] == 5000 + PREPARED.law.half_width(0.05)
    assert found["figures"]["share decided present"]["shown"] == 0.14
    assert found["noise"] == {"law": "discrete-gaussian", "sigma2": 575, "l2sq": 28}
    assert found["cost"]["units"] == PREPARED.cost
    assert found["cost"]["epsilon"] == pytest.approx(epsilon(PREPARED.cost, DELTA))
    assert [one["left"]["units"] for one in found["remaining"]] == [10**12 - UNITS, 0]
    assert found["remaining"][1]["left"]["epsilon"] == 0.0
    assert found["truncation"]["c"] == 3
    assert found["truncation"]["note"] == "the interval covers noise, not truncation"
    assert found["truncation"]["patients_at_the_bound"]["shown"] == 100.0
    assert {one["code"] for one in found["unprotected"]} == set(UNPROTECTED) == set(UNPROTECTED_ZH)
    assert found["not_the_gate"] == {"gaussian-exact": 0.93}


def test_a_negative_count_is_released_as_it_is_and_shown_as_zero():
    found = json.loads(release_document(PREPARED, [5000, -7, 0, 0, 0, 0], AROUND))
    positives = found["cells"][1]
    assert (positives["value"], positives["estimate"], positives["shown"]) == (-7, -7.0, 0.0)
    assert found["cells"][2]["relative"] is None  # of a zero


def test_a_ratio_over_nearly_nothing_is_not_reported():
    found = json.loads(release_document(PREPARED, [3, 1, 0, 0, 0, 0], AROUND))
    share = found["figures"]["share decided present"]
    assert share["shown"] is None
    assert share["low"] is None
    page = release_page(found)
    assert "not reported" in page
    assert WORDS["en"]["why_not_reported"] in page


def test_pure_noise_and_quantiles_say_their_law():
    pure = prepare(request("volume", pure=True))
    law = json.loads(release_document(pure, [10, 1], AROUND))["noise"]
    assert law["law"] == "discrete-laplace"
    assert Fraction(law["epsilon"]) == pure.law.epsilon
    quantile = prepare(request("turnaround-quantiles"))
    found = json.loads(release_document(quantile, [10, 20, 30, 60], AROUND))
    assert found["noise"]["law"] == "exponential"
    assert [one["shown"] for one in found["cells"]] == [10.0, 20.0, 30.0, 60.0]
    assert found["truncation"] == {"c": 3, "note": "the interval covers noise, not truncation"}
    page = release_page(found, "zh")
    assert WORDS["zh"]["rank"] in page
    assert "not reported" not in page


SHARES = {1: 16, 2: 16, 3: 8, 4: 4, 5: 1}
GRADED = prepare(request("prevalence", "device-counts", strata=prices(UNITS, SHARES)))
BY_GRADE = [value * part for part in (1, 2, 3, 4, 5) for value in VALUES]


def test_noise_by_grade_shows_every_grade_and_their_sum():
    data = release_document(GRADED, BY_GRADE, AROUND)
    found, checked = json.loads(data), check_document(data)
    assert checked.prepared == GRADED
    assert list(checked.values) == BY_GRADE
    assert [one["cell"] for one in found["cells"]] == [
        one["cell"] for one in found["grades"][4]["cells"]
    ]
    assert [one["value"] for one in found["cells"]] == [15 * value for value in VALUES]
    assert found["cells"][0]["high"] == 15 * 5000 + GRADED.strata.half_width(0.05)
    assert found["cost"]["units"] == GRADED.cost == found["grades"][0]["cost"]["units"]
    costs = [one["cost"]["units"] for one in found["grades"]]
    assert costs == list(GRADED.strata.costs.values())
    assert found["noise"]["law"] == "discrete-gaussian by grade"
    assert list(found["noise"]["sigma2"]) == ["1", "2", "3", "4", "5"]
    widths = [one["cells"][0]["high"] - one["cells"][0]["value"] for one in found["grades"]]
    assert widths[0] == widths[1] < widths[2] < widths[3] < widths[4]
    assert found["cells"][0]["high"] - found["cells"][0]["value"] < sum(widths)
    assert "discrete-gaussian by grade: l2sq 28, sigma2 575 (1) / " in noise_words(found["noise"])
    for language, title in (("en", "By grade of data"), ("zh", "按数据分级")):
        assert title in release_page(found, language)
    assert "By grade of data" not in release_page(json.loads(DOCUMENT))


def test_a_changed_integer_of_a_grade_or_of_the_sum_is_found():
    whole = json.loads(release_document(GRADED, BY_GRADE, AROUND))
    for change in (
        lambda d: d["grades"][2]["cells"][0].update(value=1),
        lambda d: d["grades"][2].update(grade=4),
        lambda d: d["grades"].pop(),
        lambda d: d.pop("grades"),
        lambda d: d["cells"][0].update(value=1),
        lambda d: d["identity"].pop("strata"),
        lambda d: d["identity"]["strata"].__setitem__(4, 5),
        lambda d: d["noise"]["sigma2"].update({"5": 1}),
    ):
        changed = json.loads(canonical(whole))
        change(changed)
        with pytest.raises(InvalidReleaseError):
            check_document(canonical(changed))
    with pytest.raises(InvalidInputError, match="cells"):
        release_document(GRADED, BY_GRADE[:-1], AROUND)


def test_a_running_total_is_read_from_all_its_nights():
    prepared = prepare(request("volume", schedule=Schedule.RUNNING, nights=30))
    nights = [[40 * 4096, 4096], [38 * 4096, 0], [44 * 4096, 0]]
    around = replace(AROUND, night=2)
    data = release_document(prepared, nights[2], around, nights[:2])
    total = running(prepared.query, 30).totals(nights)[0]
    assert json.loads(data)["cells"][0]["shown"] == round(total)
    alone, whole = check_document(data), check_document(data, nights[:2])
    assert (alone.complete, whole.complete) == (False, True)
    with pytest.raises(InvalidReleaseError, match="cells"):
        check_document(data, [nights[0], [0, 0]])
    first = release_document(prepared, nights[0], AROUND)
    assert check_document(first).complete
    assert ", 3 / 30" in release_page(json.loads(data)).replace("running-total", "")
    with pytest.raises(InvalidInputError, match="all nights before"):
        release_document(prepared, nights[2], around)


def test_a_nightly_schedule_reads_each_night_alone():
    prepared = prepare(request("volume", schedule=Schedule.NIGHTLY, nights=30))
    data = release_document(prepared, [40, 1], replace(AROUND, night=29))
    assert check_document(data).complete


def test_what_does_not_fit_has_no_document():
    with pytest.raises(InvalidInputError, match="integers"):
        release_document(PREPARED, [True] * 6, AROUND)
    with pytest.raises(InvalidInputError, match="6 cells"):
        release_document(PREPARED, [1], AROUND)
    quantile = prepare(request("turnaround-quantiles"))
    for values in ([1], [1, 2, 3, 601], [-1, 2, 3, 4]):
        with pytest.raises(InvalidInputError, match="place of its grid"):
            release_document(quantile, values, AROUND)
    empty = Prepared(request=PREPARED.request, cost=1, fingerprint="f")
    with pytest.raises(InvalidInputError, match="without a law"):
        noise_part(empty)
    with pytest.raises(InvalidInputError, match="only a vector"):
        reading(empty, [], 0, ())


CHANGES = [
    ("cells", lambda d: d["cells"][0].update(shown=5001.0)),
    ("cells", lambda d: d["cells"][0].update(value=5001)),
    ("cells", lambda d: d["cells"][0].update(cell="patients")),
    ("cells", lambda d: d["cells"][4].update(grey=False)),
    ("cells", lambda d: d["cells"][0].update(extra=1)),
    ("figures", lambda d: d["figures"].pop("share decided present")),
    ("cost", lambda d: d["cost"].update(units=1)),
    ("cost", lambda d: d["cost"].update(epsilon=0.5)),
    ("noise", lambda d: d["noise"].update(sigma2=1)),
    ("identity", lambda d: d["identity"].update(fingerprint="0" * 64)),
    ("identity", lambda d: d["identity"].update(policy="p2")),
    ("estimand", lambda d: d.update(estimand="people")),
    ("unprotected", lambda d: d["unprotected"].pop()),
    ("remaining", lambda d: d["remaining"][0]["left"].update(units=0)),
    ("truncation", lambda d: d["truncation"].update(note="")),
    ("surprise", lambda d: d.update(surprise=1)),
    ("statistics", lambda d: d["statistics"][0].update(weight="patient")),
    ("question", lambda d: d["statistics"][0].pop("weight")),
    ("question", lambda d: d["statistics"][0].update(c=0)),
    ("question", lambda d: d["identity"].update(units=-1)),
    ("question", lambda d: d["identity"].update(arrivals=None)),
    ("question", lambda d: d["identity"].update(schedule="hourly")),
    ("question", lambda d: d.update(cells=[{"value": 1}])),
]


@pytest.mark.parametrize(("name", "change"), CHANGES, ids=range(len(CHANGES)))
def test_any_number_that_does_not_follow_is_seen(name, change):
    found = json.loads(DOCUMENT)
    change(found)
    with pytest.raises(InvalidReleaseError, match="follow"):
        check_document(canonical(found))


def test_only_the_canonical_spelling_is_read():
    for data in (
        b"",
        b"[]",
        b"\xff",
        b"NaN",
        json.dumps(json.loads(DOCUMENT)).encode(),
        DOCUMENT.replace(b"bedside-release-document/1", b"bedside-release-document/2"),
        b"[" * 100_000,
        b'{"a":NaN}',
    ):
        with pytest.raises(InvalidReleaseError):
            read_document(data)


# --- signed and logged ---------------------------------------------------------------------------


def logged(document, refs=None, kind=Kind.RELEASE):
    entry = Entry(
        kind=kind,
        ts=1_767_225_600,
        ts_src=TimeSource.LOCAL,
        actor="service:box",
        refs={"answer": answer_digest(document)} if refs is None else refs,
    ).encode()
    entries = [b"0", entry, b"2"]
    point = head(entries)
    note = signed_note(point, [LOG_ED.signs(point), LOG_ML.signs(point, 1_767_225_600)])
    path = tuple(inclusion_proof(1, 3, tree(entries)))
    return ProofFile(index=1, path=path, checkpoint=note, extra=entry).encode()


KEYS = [LOG_ED.key, LOG_ML.key]


def signed(document, kind=PAYLOAD_TYPE):
    return seal_envelope(kind, document, {LOG_ED.key.key_id.hex(): LOG_ED.sign})


FILE = release_file(signed(DOCUMENT), logged(DOCUMENT))


def test_one_file_and_the_keys_show_everything():
    found = verify_release(FILE, ORIGIN, KEYS)
    assert found.checked.values == tuple(VALUES)
    assert found.proven.index == 1
    assert found.entry.refs["answer"] == answer_digest(DOCUMENT)
    assert set(device_keys(KEYS)) == {key.key_id.hex() for key in KEYS}


def test_another_answer_log_or_key_shows_nothing():
    other = release_document(PREPARED, [5001, *VALUES[1:]], AROUND)
    elsewhere = release_document(PREPARED, VALUES, replace(AROUND, origin="other/log"))
    wrong = [
        (release_file(signed(other), logged(DOCUMENT)), InvalidReleaseError),
        (release_file(signed(DOCUMENT), logged(DOCUMENT, refs={})), InvalidReleaseError),
        (release_file(signed(DOCUMENT), logged(DOCUMENT, kind=Kind.ADMIN)), InvalidReleaseError),
        (release_file(signed(elsewhere), logged(elsewhere)), InvalidReleaseError),
        (FILE.replace(b'"sig": "', b'"sig": "AAAA'), UntrustedSignatureError),
    ]
    for data, error in wrong:
        with pytest.raises(error):
            verify_release(data, ORIGIN, KEYS)
    with pytest.raises(UntrustedSignatureError):
        verify_release(
            release_file(seal_envelope(PAYLOAD_TYPE, DOCUMENT, {"x": LOG_ED.sign}), b""),
            ORIGIN,
            KEYS,
        )


def test_a_running_total_is_derived_again_from_the_files_of_all_its_nights():
    prepared = prepare(request("volume", schedule=Schedule.RUNNING, nights=30))
    nights = [[40 * 4096, 4096], [38 * 4096, 0], [44 * 4096, 0]]

    def file(night, given=nights):
        around = replace(AROUND, night=night)
        document = release_document(prepared, given[night], around, given[:night])
        return release_file(signed(document), logged(document))

    files = [file(night) for night in range(3)]
    assert not verify_release(files[2], ORIGIN, KEYS).checked.complete
    for order in (files, files[::-1]):
        found = verify_nights(order, ORIGIN, KEYS)
        assert found.checked.complete
        assert found.checked.around.night == 2
        assert list(found.checked.values) == nights[2]
    other = file(1, [nights[0], [90 * 4096, 0], nights[2]])  # not what was summed up
    for wrong in (files[1:], files[:1] * 2, [files[0], files[2]], [files[0], other, files[2]], [],
                  [*files, FILE], [FILE]):  # fmt: skip
        with pytest.raises(InvalidReleaseError):
            verify_nights(wrong, ORIGIN, KEYS)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, len(FILE) - 2), byte=st.integers(32, 126))
def test_no_changed_byte_of_a_file_shows_another_answer(place, byte):
    data = FILE[:place] + bytes([byte]) + FILE[place + 1 :]
    try:
        found = verify_release(data, ORIGIN, KEYS)
    except BedsideError:
        return
    assert canonical(dict(found.checked.document)) == DOCUMENT


def test_what_is_no_release_file_is_refused():
    for data in (b"", b"[]", b"null", b'{"format": 1}', b"[" * 100_000, b"0" * (MAX_FILE + 1)):
        with pytest.raises(InvalidReleaseError):
            parse_file(data)
    with pytest.raises(InvalidReleaseError):
        parse_file(FILE.replace(b"release-file/1", b"release-file/2"))


# --- the other view, pictures, words -------------------------------------------------------------


@given(units=st.integers(1, cap_units(50.0, DELTA)))
def test_the_exact_gaussian_view_is_never_above_the_gate(units):
    assert 0 <= gaussian_view(units) <= epsilon(units, DELTA)


def test_the_exact_gaussian_view_agrees_with_the_page():
    # reference table 3a: 360 Gaussians of (.1, 1e-9): zCDP 1.784, exact 1.660
    units = next(u for u in [cap_units(1.784, DELTA)])
    assert gaussian_view(units) == pytest.approx(1.660, abs=2e-3)
    assert gaussian_view(28_014_481_913) == pytest.approx(1.0, abs=1e-3)  # section 5
    assert gaussian_view(MAX_UNITS // 10**6) > 0  # no overflow where the tail is 0


def test_a_picture_shows_intervals_greys_and_says_what_is_missing():
    rows = [
        Row(name="a & b", shown=10.0, low=5.0, high=15.0, grey=False),
        Row(name="x" * 50, shown=1.0, low=-3.0, high=9.0, grey=True),
        Row(name="none", shown=None, low=None, high=None, grey=True),
        Row(name="rank", shown=3.0, low=None, high=None, grey=False),
    ]
    svg = release_picture(rows, 'A "title"')
    assert "a &amp; b" in svg
    assert "&quot;title&quot;" in svg
    assert "not reported" in svg
    assert svg.count("<circle") == 3
    assert svg.count("v8M") == 2
    assert "x" * 37 + "\N{HORIZONTAL ELLIPSIS}" in svg
    assert not re.search(r"style=|<script|\bon\w+=", svg)
    many = release_picture(rows[:1] * (MOST_ROWS + 9), "many")
    assert many.count("<circle") == MOST_ROWS
    assert ">1<" in release_picture([Row(name="a", shown=0.0, low=0.0, high=0.0, grey=True)], "0")
    assert "<circle" not in release_picture([], "empty")


def test_numbers_and_laws_are_said_in_words():
    assert [said(x) for x in (5000.0, 0.14159265, 12345.6)] == ["5,000", "0.1416", "12,346"]
    assert escaped('<a href="x">&') == "&lt;a href=&quot;x&quot;&gt;&amp;"
    found = json.loads(DOCUMENT)
    assert noise_words(found["noise"]) == "discrete-gaussian: l2sq 28, sigma2 575"
    assert price_words(found["cost"]) == "epsilon 0.9998 (delta 1e-6), rho 0.0243478"
    assert estimand_words(found, "zh") == WORDS["zh"]["study"]
    assert unprotected(found, "zh")[1] == UNPROTECTED_ZH["root"]
    assert unprotected(found, "en")[1] == UNPROTECTED["root"]
    assert WORDS["en"].keys() == WORDS["zh"].keys()
    with pytest.raises(InvalidInputError, match="en, zh"):
        release_page(found, "fr")
    plain = json.loads(release_document(PREPARED, VALUES, replace(AROUND, views={})))
    assert WORDS["en"]["not_gate"] not in release_page(plain)


def test_a_vector_without_the_truncation_cell_says_so_on_its_page():
    query = compile_query(PREPARED.request.specs, truncation=False)
    bare = replace(PREPARED, query=query, law=gaussian_law(query, UNITS))
    found = json.loads(release_document(bare, VALUES[:5], AROUND))
    assert "patients_at_the_bound" not in found["truncation"]
    assert f"reached it: {WORDS['en']['not_reported']}" in release_page(found)
    assert len(CATALOGUE) == 25
