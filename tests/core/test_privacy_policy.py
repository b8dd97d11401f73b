"""The privacy policy: whole or refused, nothing with a default, and the text is its version."""

import hashlib
import json

import pytest

from bedside_core.errors import InvalidPolicyError, UnknownStatisticError
from bedside_core.planner import Schedule
from bedside_core.privacy_policy import MAX_BYTES, parse_privacy_policy, version_of
from bedside_core.release import ReleaseRequest, request_document
from bedside_core.release_check import parse_request
from bedside_core.statistics.catalogue import CATALOGUE
from bedside_core.statistics.spec import Weight

TEXT = b"""format = "bedside-privacy-policy/1"
dataset = "studies"
[caps]
epoch = 24355000000
lifetime = 100000000000
local = 4000000
[requesters]
"person:anna" = 5
[purposes]
quality = 7
[public]
c = 3
devices = ["a", "b"]
age_bands = ["0-17", "18+"]
findings = ["opacity"]
minutes = 600
bins = 10
l2_cells = 1
"""


def test_a_policy_says_caps_bounds_and_its_own_digest():
    policy = parse_privacy_policy(TEXT)
    assert (policy.dataset, policy.local) == ("studies", 4_000_000)
    assert policy.ledger.version == version_of(TEXT) == hashlib.sha256(TEXT).hexdigest()
    assert policy.ledger.epoch_cap == 24_355_000_000
    assert dict(policy.ledger.requesters) == {"person:anna": 5}
    assert policy.public.devices == ("a", "b")
    assert {policy.spec(name).c for name in CATALOGUE} == {3}
    with pytest.raises(UnknownStatisticError):
        policy.spec("select *")


GRADES = b"[grades]\n" + b"\n".join(b"%d = %d" % (g, 60 // g) for g in range(1, 6)) + b"\n"


def test_grades_may_have_budgets_of_their_own():
    assert parse_privacy_policy(TEXT).ledger.grades == {}
    policy = parse_privacy_policy(TEXT + GRADES)
    assert policy.ledger.grades == {"1": 60, "2": 30, "3": 20, "4": 15, "5": 12}
    for wrong in (GRADES[:-7], GRADES + b"6 = 1\n", GRADES.replace(b"5 = 12", b"5 = 16"),
                  GRADES.replace(b"= 12", b"= 0"), GRADES.replace(b"= 12", b"= 1.5"),
                  b"[grades]\n"):  # fmt: skip
        with pytest.raises(InvalidPolicyError):
            parse_privacy_policy(TEXT + wrong)
    with pytest.raises(InvalidPolicyError):
        parse_privacy_policy(b"grades = 5\n" + TEXT)


LINES = [line for line in TEXT.splitlines() if b"=" in line and b"person" not in line]


@pytest.mark.parametrize("line", [line for line in LINES if b"quality" not in line])
def test_nothing_has_a_default(line):
    with pytest.raises(InvalidPolicyError):
        parse_privacy_policy(TEXT.replace(line + b"\n", b""))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"policy/1", b"policy/2"),
        (b'"studies"', b'""'),
        (b'"studies"', b"3"),
        (b"[caps]", b"caps = 1\n[capped]"),
        (b"epoch = 24355000000", b"epoch = nan"),
        (b"epoch = 24355000000", b"epoch = 1.0"),
        (b"epoch = 24355000000", b"epoch = -1"),
        (b"epoch = 24355000000", b"epoch = true"),
        (b"epoch = 24355000000", b"epoch = 99999999999999999999999"),
        (b"quality = 7", b'quality = "7"'),
        (b'"person:anna" = 5', b'"person:anna" = -5'),
        (b"[purposes]", b"more = 1\n[purposes]\nx = 1\n[other]"),
        (b"c = 3", b"c = 0"),
        (b"c = 3", b"c = 99999999"),
        (b'devices = ["a", "b"]', b'devices = ["a", "a"]'),
        (b'devices = ["a", "b"]', b'devices = ["a", ""]'),
        (b'devices = ["a", "b"]', b'devices = "a"'),
        (b'devices = ["a", "b"]', b"devices = [1]"),
        (b"[public]", b"[public]\nextra = 1"),
        (TEXT, b"\xff"),
        (TEXT, b"[" * 5000),
        (TEXT, b"#" * (MAX_BYTES + 1)),
    ],
)
def test_what_is_wrong_is_refused_with_one_error(old, new):
    changed = TEXT.replace(old, new)
    assert changed != TEXT
    with pytest.raises(InvalidPolicyError):
        parse_privacy_policy(changed)


def test_a_request_survives_a_restart_as_it_was():
    policy = parse_privacy_policy(TEXT)
    for names, more in {
        ("volume", "device-counts", "brier"): {"schedule": Schedule.RUNNING, "nights": 365},
        ("turnaround-quantiles",): {},
        ("finding-counts-by-sex",): {"pure": True},
    }.items():
        made = ReleaseRequest(
            specs=tuple(policy.spec(name) for name in names),
            units=10**9,
            snapshot="s",
            dataset="studies",
            epoch=2,
            policy=policy.ledger.version,
            purpose="quality",
            **more,
        )
        assert read(request_document(made)) == made
    weighted = policy.spec("score-histogram", Weight.PATIENT)
    assert weighted.weight is Weight.PATIENT


def read(data: bytes) -> ReleaseRequest:
    return parse_request(json.loads(data))
