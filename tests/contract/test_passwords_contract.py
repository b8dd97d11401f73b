"""Every `Passwords` keeps the same promises."""

import pytest

from bedside_edge.system.passwords_argon2 import LANES, MEMORY_KIB, PASSES, Argon2Passwords
from support.memory_access import QuickPasswords


@pytest.fixture(params=[Argon2Passwords, QuickPasswords])
def passwords(request):
    return request.param()


def test_the_right_password_and_no_other_is_right(passwords):
    encoded = passwords.hash("violet otter climbs")
    assert passwords.verify(encoded, "violet otter climbs")
    assert not passwords.verify(encoded, "violet otter climbS")
    assert not passwords.outdated(encoded)
    assert "otter" not in encoded


def test_the_same_password_is_hashed_differently_each_time(passwords):
    assert passwords.hash("violet otter climbs") != passwords.hash("violet otter climbs")


@pytest.mark.parametrize("damaged", ["", "x", "$argon2id$v=19$m=1,t=1,p=1$AAAA$AAAA", "quick$1"])
def test_a_damaged_hash_is_like_a_wrong_password(passwords, damaged):
    assert not passwords.verify(damaged, "violet otter climbs")


def test_argon2_uses_what_owasp_asks_for():
    encoded = Argon2Passwords().hash("x")
    assert encoded.startswith(f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}$")
    assert (MEMORY_KIB, PASSES) >= (19_456, 2)
    weaker = "$argon2id$v=19$m=8192,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43
    assert Argon2Passwords().outdated(weaker)
