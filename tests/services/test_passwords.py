"""Passwords as NIST SP 800-63B wants them: long, and not what a guesser tries first."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import WeakPasswordError
from bedside_edge.services.passwords import LONGEST, SHORTEST, check_password, normal

WORDS = ("wang.min", "Wang^Min")


@pytest.mark.parametrize(
    "good",
    [
        "violet otter climbs stairs",
        "kqzmvwtyrplo",  # no digit, no sign, no capital: none is asked for
        "我爱吃苹果和梨还有香蕉和桃子",
        "dragon monday shadow princess",  # four words are a phrase, common as each may be
        "ho ho ho said the red man",
        "x7" * 5 + "!p",
        "5 green bottles hanging",
    ],
)
def test_a_long_password_is_good_whatever_it_is_made_of(good):
    assert check_password(good, *WORDS) == normal(good)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "short",
        "elevenchars",
        "x" * (LONGEST + 1),
        "aaaaaaaaaaaa",
        "abababababab",
        "abcabcabcabcab",
        "123456789012",
        "210987654321",
        "abcdefghijklm",
        "qwertyuiopas",
        "1qaz2wsx3edc",
        "password1234",
        "P@ssw0rd2024",
        "Passw0rd!!!!",
        "Bedside2026!",
        "hospital-radiology",
        "administrator",
        "correct horse battery staple",
        "wang.min2026",
        "WangMin123456",
        "min-wang-min-1980",
        "138123456789",
        "letmeinplease!",
        "woaini520520520",
    ],
)
def test_what_a_guesser_tries_first_is_refused(bad):
    with pytest.raises(WeakPasswordError):
        check_password(bad, *WORDS)


def test_the_refusal_never_repeats_the_password():
    with pytest.raises(WeakPasswordError) as refused:
        check_password("Bedside2026!", *WORDS)
    assert "2026" not in str(refused.value)


def test_two_keyboards_give_one_password():
    composed, decomposed = "für alle fälle gut", "fu\u0308r alle fa\u0308lle gut"
    assert check_password(composed) == check_password(decomposed)
    assert check_password("\uff46ullwidth \uff4beys ok") == "fullwidth keys ok"


@given(st.text(max_size=300))
def test_no_text_breaks_the_check(text):
    try:
        assert len(check_password(text, *WORDS)) >= SHORTEST
    except WeakPasswordError:
        return


@given(st.text(alphabet="ab1!", min_size=1, max_size=6), st.integers(2, 40))
def test_a_piece_over_and_over_is_refused(piece, times):
    with pytest.raises(WeakPasswordError):
        check_password(piece * times)
