"""Two hospitals talk: each gets a count with the other's noise, and nothing crooked passes."""

import os
import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bedside_core.errors import BedsideError, InvalidInputError, RoundRefusedError
from bedside_core.errors import UntrustedSignatureError as Untrusted
from bedside_sync.secagg.ring import tail
from bedside_sync.tasks import overlap_talk as talk
from support.consortium import NOW, public

KEYS = {box: Ed25519PrivateKey.generate() for box in ("here", "there")}
HERE, THERE = (public(KEYS[box]) for box in ("here", "there"))
OURS = [f"p{n}".encode() for n in range(260)]
THEIRS = [f"p{n}".encode() for n in range(60, 330)]  # 200 in common


def tools(box):
    return talk.Tools(
        box=box,
        sign=KEYS[box].sign,
        random=os.urandom,
        randbelow=secrets.randbelow,
        words=lambda count: np.frombuffer(os.urandom(8 * count), np.uint64),
    )


def invited(**terms):
    given = {"answerer": "there", "purpose": "study 12", "expires": NOW + 60, "sigma2": 4}
    return talk.invite(tools("here"), **(given | terms))


@pytest.fixture(scope="module")
def session():
    """A whole session: its states and letters."""
    asker = invited()
    signed = talk.check_invitation(asker.signed.encode(), HERE, "there", NOW)
    answerer, second = talk.accept(signed, THEIRS, tools("there"))
    asker, third = talk.give_back(asker, second, OURS, tools("here"), THERE)
    told, fourth = talk.tell(answerer, third, tools("there"), HERE)
    return asker, answerer, second, third, told, fourth


def test_each_side_gets_the_count_with_the_other_s_noise(session):
    asker, _, _, _, told, fourth = session
    heard = talk.hear(asker, fourth, THERE)
    assert abs(heard - 200) <= tail(4)
    # what the answerer counted is exact but for the asker's dummies, which only the asker knows
    assert told - 200 == asker.dummies - tail(4)


def test_noise_of_both_sides_has_the_agreed_spread():
    pool = tail(4)
    draws = talk.draw_noise(4, 20_000, tools("here").words)
    assert abs(draws.std() - 2) < 0.1
    assert -pool <= draws.min() <= draws.max() <= pool  # never more dummies than there are


def test_the_relay_and_a_stranger_learn_nothing_but_lengths(session):
    asker, _, second, third, _, fourth = session
    for letter in (second, third, fourth):
        assert b"p100" not in letter
        stranger = talk.Asker(signed=asker.signed, secret=os.urandom(32), opener=os.urandom(32))
        with pytest.raises(BedsideError):
            talk.hear(stranger, letter, THERE)
    # no point is seen twice: neither side can compare what came with what went
    again = talk.accept(asker.signed, THEIRS, tools("there"))[1]
    assert len(again) == len(second)
    assert again != second


def test_small_sets_doubled_ids_and_old_or_foreign_invitations_are_refused():
    asker = invited()
    with pytest.raises(RoundRefusedError):
        talk.accept(asker.signed, THEIRS[:199], tools("there"))
    with pytest.raises(InvalidInputError):
        talk.accept(asker.signed, [*THEIRS, THEIRS[0]], tools("there"))
    for box, now in (("third", NOW), ("there", NOW + 60)):
        with pytest.raises(RoundRefusedError):
            talk.check_invitation(asker.signed.encode(), HERE, box, now)
    with pytest.raises(Untrusted):
        talk.check_invitation(asker.signed.encode(), THERE, "there", NOW)
    with pytest.raises(ValueError, match="least"):
        invited(least=10)


def test_a_letter_of_another_step_session_or_sender_is_refused(session):
    asker, answerer, second, third, _, fourth = session
    for wrong in (third, fourth, second[:-1], second[:4]):
        with pytest.raises(BedsideError):
            talk.give_back(asker, wrong, OURS, tools("here"), THERE)
    with pytest.raises(Untrusted):
        talk.give_back(asker, second, OURS, tools("here"), HERE)
    other = invited()
    with pytest.raises(RoundRefusedError):
        talk.give_back(other, second, OURS, tools("here"), THERE)
    flipped = bytearray(third)
    flipped[-1] ^= 1
    with pytest.raises(Untrusted):
        talk.tell(answerer, bytes(flipped), tools("there"), HERE)


def test_identifiers_are_compared_in_one_spelling():
    assert talk.normalised(" ab1 ", "", "patient-id") == b"AB1"
    assert talk.normalised("ab1", "19800101", "patient-id+birth-date") == b"AB1|19800101"
    assert talk.normalised("ab1", "1980", "patient-id+birth-date") is None
    assert talk.normalised("", "19800101", "patient-id") is None
