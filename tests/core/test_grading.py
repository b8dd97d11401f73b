"""Grades: given by rules, highest of the sources, falling only on record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import GradeFallsError, InvalidGradingError, InvalidInputError
from bedside_core.grading import (
    EFFECTS,
    HIGHEST,
    Described,
    Graded,
    Lowering,
    Stratum,
    derived,
    parse_grading,
    regraded,
)

RHO = "[rho]\n1 = 50\n2 = 40\n3 = 30\n4 = 20\n5 = 10\n"
TEXT = """
format = "bedside-grading/1"
default = 4

[[rule]]
name = "special"
grade = 5
words = ["HIV", "Morbus  X"]

[[rule]]
name = "code"
grade = 5
codes = ["B20"]

[[rule]]
name = "child of the clinic"
grade = 4
age_below = 14
source = ["CLINIC"]

[[rule]]
name = "phantom"
grade = 1
modality = ["DX"]
body_part = ["PHANTOM"]
burned_in = false
"""


def grading(text: str = TEXT + RHO):
    return parse_grading(text.encode())


def wide(text: str) -> str:
    """The text in full-width letters, as a Chinese keyboard may write it."""
    return "".join("\u3000" if one == " " else chr(ord(one) + 0xFEE0) for one in text)


@pytest.mark.parametrize(
    ("seen", "grade", "rule"),
    [
        (Described(), 4, ""),
        (Described(texts=("Chest, hiv follow-up",)), 5, "special"),
        (Described(texts=("", "known morbus x")), 5, "special"),
        (Described(texts=(wide("HIV") + "随访",)), 5, "special"),
        (Described(texts=(wide("morbus x"),)), 5, "special"),
        (Described(codes=(wide("B20"),)), 5, "code"),
        (Described(codes=("A1", "b20")), 5, "code"),
        (Described(codes=("B201",)), 4, ""),
        (Described(age_years=13, source="CLINIC"), 4, "child of the clinic"),
        (Described(age_years=14, source="CLINIC"), 4, ""),
        (Described(age_years=None, source="CLINIC"), 4, ""),
        (Described(age_years=13, source="clinic"), 4, ""),
        (Described(modality="DX", body_part="Phantom"), 1, "phantom"),
        (Described(modality="DX", body_part="Phantom", burned_in="NO"), 1, "phantom"),
        (Described(modality="DX", body_part="Phantom", burned_in="YES"), 4, ""),
        (Described(modality="CT", body_part="Phantom"), 4, ""),
        (Described(modality="DX", body_part="PHANTOM", codes=("B20",)), 5, "code"),
    ],
)
def test_the_highest_rule_that_applies_gives_the_grade(seen, grade, rule):
    assert grading().grade(seen) == Graded(grade=grade, rule=rule)


def test_a_stratum_has_its_own_budget_and_a_stricter_one_never_more():
    assert [grading().stratum(grade) for grade in (1, 5)] == [
        Stratum(grade=1, rho=50),
        Stratum(grade=5, rho=10),
    ]
    with pytest.raises(InvalidInputError):
        grading().stratum(6)


def test_every_grade_has_its_effects():
    assert sorted(EFFECTS) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("found", "instead"),
    [
        ('format = "bedside-grading/1"', ""),
        ("bedside-grading/1", "bedside-grading/2"),
        ("default = 4", "default = 0"),
        ("default = 4", "default = 4.0"),
        ("default = 4", "default = true"),
        ("default = 4", "defualt = 4"),
        ("grade = 5", "grade = 6"),
        ("grade = 5\nwords", "words"),
        ('name = "special"', 'name = ""'),
        ('name = "special"', "name = 3"),
        ('name = "special"', 'name = "code"'),
        ("words =", "wrods ="),
        ('words = ["HIV", "Morbus  X"]', "words = []"),
        ('words = ["HIV", "Morbus  X"]', 'words = "HIV"'),
        ('words = ["HIV", "Morbus  X"]', 'words = ["HIV", " "]'),
        ('words = ["HIV", "Morbus  X"]', 'words = ["HIV", 3]'),
        ("age_below = 14", "age_below = 0"),
        ("age_below = 14", "age_below = true"),
        ("burned_in = false", 'burned_in = "no"'),
        ("5 = 10", ""),
        ("5 = 10", "6 = 10"),
        ("5 = 10", "5 = 100"),
        ("5 = 10", "5 = 0"),
        ("5 = 10", "5 = 1.5"),
        ("[rho]", "[rhos]"),
        ("default = 4", "default = "),
    ],
)
def test_rules_with_a_typo_are_refused(found, instead):
    with pytest.raises(InvalidGradingError):
        grading((TEXT + RHO).replace(found, instead, 1))


@pytest.mark.parametrize(
    "text",
    [
        'format = "bedside-grading/1"\nrule = 3\n' + RHO,
        'format = "bedside-grading/1"\nrule = [3]\n' + RHO,
        'format = "bedside-grading/1"\nrho = 3\n',
        "#" * (300 << 10),
    ],
)
def test_what_is_no_table_of_rules_is_refused(text):
    with pytest.raises(InvalidGradingError):
        grading(text)


@given(st.binary(max_size=100))
def test_any_bytes_are_refused(data):
    with pytest.raises(InvalidGradingError):
        parse_grading(data)


# --- falling ---------------------------------------------------------------------------------

GRADES = st.integers(1, 5)
ON_RECORD = Lowering(deidentification="d1", actor="person:a", second="person:b")


@given(sources=st.lists(GRADES, min_size=1), more=GRADES)
def test_what_is_derived_is_never_below_any_source(sources, more):
    assert derived(sources) == max(sources)
    assert derived([*sources, more]) >= derived(sources)


def test_of_nothing_comes_the_strictest():
    assert derived([]) == HIGHEST


@given(
    path=st.lists(
        st.tuples(
            GRADES,
            st.sampled_from(
                [
                    None,
                    Lowering(deidentification="", actor="person:a", second="person:b"),
                    Lowering(deidentification="d1", actor="person:a", second="person:a"),
                    Lowering(deidentification="d1", actor="person:a", second=""),
                    Lowering(deidentification="d1", actor="token:a", second="person:b"),
                    Lowering(deidentification="d1", actor="person:a", second="service:box"),
                ]
            ),
        ),
        max_size=20,
    ),
    start=GRADES,
)
def test_no_path_without_the_record_lowers_a_grade(path, start):
    grade = start
    for wanted, lowering in path:
        before = grade
        try:
            grade = regraded(grade, wanted, lowering)
        except GradeFallsError:
            assert wanted < before
        assert grade >= before


@given(before=GRADES, after=GRADES)
def test_on_record_and_by_two_people_a_grade_may_fall(before, after):
    assert regraded(before, after, ON_RECORD) == after


@pytest.mark.parametrize(("before", "after"), [(0, 3), (3, 0), (6, 3), (3, 6)])
def test_what_is_no_grade_is_refused(before, after):
    with pytest.raises(InvalidInputError):
        regraded(before, after, ON_RECORD)
