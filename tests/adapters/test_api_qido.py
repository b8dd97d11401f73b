"""QIDO-RS: what matches, what comes back, and what is said when it does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidInputError
from bedside_edge.dicom.qido import Level, parse, wildcard
from support.http_box import HttpBox
from support.synthetic import CT, data_set, part10, uid

JSON = "application/dicom+json"


@pytest.fixture(scope="module")
def box():
    with HttpBox() as box:
        add = box.memory.add
        for study, (name, day, modality) in enumerate(
            [
                ("Chan^Tai Man=陳^大文=", "20240105", "CR"),
                ("Chancellor^Ann", "20240210", "DX"),
                ("Müller^Jürgen", "20240211", "CT"),
            ],
            start=1,
        ):
            for number in (1, 2, 3):
                add(
                    part10(
                        data_set(
                            study=study,
                            number=number,
                            SpecificCharacterSet="ISO_IR 192",
                            PatientName=name,
                            StudyDate=day,
                            StudyTime=f"1{study}3000",
                            Modality=modality if number < 3 else "SR",
                            AccessionNumber=f"A{study}",
                            SeriesInstanceUID=uid(study, 1 if number < 3 else 2),
                            InstanceNumber=number,
                            SOPClassUID=CT if modality == "CT" else None or data_set().SOPClassUID,
                        )
                    )
                )
        yield box


def search(box, path, **headers):
    return box.client.get(f"/dicom-web{path}", headers=headers)


def values(answer, tag):
    return [row[tag]["Value"][0] for row in answer.json()]


STUDY, NAME, NUMBER = "0020000D", "00100010", "00200013"


@pytest.mark.parametrize(
    ("query", "studies"),
    [
        ("", [3, 2, 1]),
        (f"StudyInstanceUID={uid(1)}", [1]),
        (f"0020000D={uid(1)},{uid(3)}", [3, 1]),
        ("PatientID=T2", [2]),
        ("PatientName=chan*", [2, 1]),
        ("PatientName=Chan^*", [1]),
        ("PatientName=%E9%99%B3*", [1]),
        ("PatientName=m?ller^j*", [3]),
        ("PatientName=*", [3, 2, 1]),
        ("AccessionNumber=A2", [2]),
        ("StudyDate=20240105", [1]),
        ("StudyDate=20240101-20240210", [2, 1]),
        ("StudyDate=20240210-", [3, 2]),
        ("StudyDate=-20240105", [1]),
        ("StudyTime=12-", [3, 2]),
        ("ModalitiesInStudy=CT", [3]),
        ("ModalitiesInStudy=CT,DX", [3, 2]),
        ("Modality=DX", [2]),
        (f"SOPClassesInStudy={CT}", [3]),
        ("PatientID=T2&StudyDate=20240105", []),
        ("PatientID=", [3, 2, 1]),
    ],
)
def test_studies_are_found_by_every_standard_key(box, query, studies):
    answer = search(box, f"/studies?{query}")
    if not studies:
        assert (answer.status_code, answer.content) == (204, b"")
        return
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    assert values(answer, STUDY) == [uid(study) for study in studies]


def test_a_study_row_has_what_the_standard_asks_for(box):
    (row,) = search(box, "/studies?PatientID=T1").json()
    assert list(row) == sorted(row)
    assert row[NAME]["Value"] == [{"Alphabetic": "Chan^Tai Man", "Ideographic": "陳^大文"}]
    assert row["00080061"]["Value"] == ["CR", "SR"]
    assert row["00201206"]["Value"] == [2]
    assert row["00201208"]["Value"] == [3]
    assert row["00080056"]["Value"] == ["ONLINE"]
    assert row["00081190"]["Value"] == [f"http://127.0.0.1:8642/dicom-web/studies/{uid(1)}"]
    assert row["00080090"] == {"vr": "PN"}


def test_series_and_instances_are_found_below_and_across_studies(box):
    series = search(box, f"/studies/{uid(1)}/series?Modality=CR")
    assert values(series, "0020000E") == [uid(1, 1)]
    assert values(series, "00201209") == [2]
    assert NAME not in series.json()[0]
    assert values(search(box, "/series?Modality=SR&PatientID=T2"), NAME)
    instances = search(box, f"/studies/{uid(2)}/series/{uid(2, 1)}/instances")
    assert values(instances, NUMBER) == [1, 2]
    one = search(box, f"/instances?SOPInstanceUID={uid(3, 1, 2)}")
    assert values(one, STUDY) == [uid(3)]
    assert values(search(box, "/instances?SOPClassUID=" + CT), NUMBER) == [1, 2, 3]
    assert len(search(box, f"/studies/{uid(1)}/instances?Rows=64").json()) == 3


def test_includefield_brings_attributes_of_the_levels_above(box):
    plain = search(box, f"/studies/{uid(1)}/series").json()[0]
    rich = search(box, f"/studies/{uid(1)}/series?includefield=00100010").json()[0]
    assert NAME not in plain
    assert NAME in rich
    assert NAME in search(box, f"/studies/{uid(1)}/instances?includefield=all").json()[0]


def test_pages_join_without_gap_and_say_that_more_follows(box):
    first = search(box, "/studies?limit=2")
    rest = search(box, "/studies?limit=2&offset=2")
    assert values(first, STUDY) + values(rest, STUDY) == [uid(3), uid(2), uid(1)]
    assert first.headers["warning"].startswith("299 ")
    assert "Additional results can be requested" in first.headers["warning"]
    assert "warning" not in rest.headers


def test_fuzzy_matching_is_answered_literally_and_said(box):
    answer = search(box, "/studies?PatientName=Chan*&fuzzymatching=true")
    assert len(answer.json()) == 2
    assert "Only literal matching" in answer.headers["warning"]


@pytest.mark.parametrize(
    "query",
    [
        "PatientWeight=70",
        "00101030=70",
        "NoSuchKey=1",
        "SOPInstanceUID=1.2.3",
        "StudyDate=yesterday",
        "StudyDate=-",
        "StudyInstanceUID=1.2.*",
        "limit=many",
        "limit=-1",
        "fuzzymatching=perhaps",
        "PatientName=" + "x" * 2000,
        "&".join(f"PatientID={n}" for n in range(100)),
        "PatientID=%FF%FE",
    ],
)
def test_a_key_it_cannot_match_is_refused_and_never_ignored(box, query):
    answer = search(box, f"/studies?{query}")
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:bedside:error:invalid-input"


def test_a_client_that_takes_no_json_is_told_what_there_is(box):
    assert search(box, "/studies", Accept="application/dicom+xml").status_code == 406
    assert search(box, "/studies", Accept="application/json").status_code == 200
    assert search(box, "/studies?accept=text/html").status_code == 406


def test_an_erased_study_is_gone_with_the_next_question():
    with HttpBox() as box:
        kept = box.memory.add(part10(data_set(study=1)))
        gone = box.memory.add(part10(data_set(study=2)))
        assert len(search(box, "/studies").json()) == 2
        assert len(search(box, "/instances").json()) == 2
        box.memory.erase(gone.study_id)
        assert values(search(box, "/studies"), STUDY) == [kept.header.study_uid]
        assert values(search(box, "/instances"), STUDY) == [kept.header.study_uid]
        assert search(box, f"/studies/{gone.header.study_uid}/instances").status_code == 204


def test_a_new_instance_shows_with_the_next_question():
    with HttpBox() as box:
        box.memory.add(part10(data_set(study=1)))
        assert values(search(box, "/studies"), "00201208") == [1]
        assert len(search(box, "/instances").json()) == 1
        box.memory.add(part10(data_set(study=1, number=2)))
        assert values(search(box, "/studies"), "00201208") == [2]
        assert len(search(box, "/instances").json()) == 2


TEXT = st.text("ab^*?. [", max_size=12)


@given(pattern=TEXT, held=st.text("ab^. [", max_size=12))
def test_wildcards_mean_what_the_standard_says(pattern, held):
    def matches(p, h):
        if not p:
            return not h
        if p[0] == "*":
            return matches(p[1:], h) or (bool(h) and matches(p, h[1:]))
        return bool(h) and p[0] in ("?", h[0]) and matches(p[1:], h[1:])

    assert wildcard(pattern)(held) == matches(pattern, held)


def test_no_pattern_makes_the_search_slow():
    import time

    started = time.perf_counter()
    assert not wildcard("*a" * 400)("a" * 399 + "b")
    assert time.perf_counter() - started < 0.5


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), max_size=4))
def test_any_query_string_is_parsed_or_refused(pairs):
    try:
        query = parse(Level.STUDY, pairs, within=False)
    except InvalidInputError:
        return
    assert query.limit >= 0
