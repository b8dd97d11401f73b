"""The privacy policy of a hospital: public bounds, budgets, who may spend them; signed by people.

TOML, because people write it; its SHA-256 is the version that every charge names. Nothing in it
comes from data, and nothing has a default: a bound that is missing is an error, never a minimum or
maximum of what the box holds.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bedside_core.errors import InvalidInputError, InvalidPolicyError
from bedside_core.ledger.entries import GRADES, LedgerPolicy
from bedside_core.statistics.catalogue import CATALOGUE, Public, spec_of
from bedside_core.statistics.spec import StatSpec, Weight

FORMAT = "bedside-privacy-policy/1"
PAYLOAD_TYPE = "application/vnd.bedside.privacy-policy+toml"  # of the DSSE envelope
MAX_BYTES = 256 << 10

_TOP = {"format", "dataset", "caps", "requesters", "purposes", "public"}
_GRADES = "grades"  # optional: what an epoch may cost the patients of each grade of data
_CAPS = {"epoch", "lifetime", "local"}
_WORDS = ("devices", "age_bands", "findings")
_NUMBERS = ("c", "minutes", "bins", "l2_cells")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyPolicy:
    """A policy that can be in force.

    Attributes:
        dataset: name of the data set whose epochs it budgets.
        ledger: caps in units of 1e-12 rho, under the document's digest as version.
        public: bounds, registries and c of the statistics.
        local: per study, epsilon of all randomised answers to outsiders together, in millionths.
    """

    dataset: str
    ledger: LedgerPolicy
    public: Public
    local: int

    def spec(self, name: str, weight: Weight = Weight.STUDY) -> StatSpec:
        """Return a statistic of the catalogue under these bounds; UnknownStatisticError."""
        return spec_of(name, self.public, weight)


def version_of(document: bytes) -> str:
    """Return the version of a policy document: SHA-256, hex."""
    return hashlib.sha256(document).hexdigest()


def parse_privacy_policy(document: bytes) -> PrivacyPolicy:
    """Return the policy.

    Raises:
        InvalidPolicyError: not TOML of this format, a key missing, unknown or of another type, or
            a bound that no statistic can have.
    """
    if len(document) > MAX_BYTES:
        raise InvalidPolicyError(f"a privacy policy has at most {MAX_BYTES} bytes")
    try:
        found = tomllib.loads(document.decode("utf-8"))
    except (ValueError, RecursionError) as cause:
        raise InvalidPolicyError("the privacy policy is not TOML in UTF-8") from cause
    _require(set(found) - {_GRADES} == _TOP and found["format"] == FORMAT, "top level")
    _require(type(found["dataset"]) is str and found["dataset"] != "", "dataset")
    caps, public = found["caps"], found["public"]
    _require(_table(caps) and set(caps) == _CAPS and _counts(caps), "caps")
    _require(_table(found["requesters"]) and _counts(found["requesters"]), "requesters")
    _require(_table(found["purposes"]) and _counts(found["purposes"]), "purposes")
    grades = found.get(_GRADES, {})
    _require(_table(grades) and _counts(grades), "grades")
    _require(
        _GRADES not in found or (set(grades) == set(GRADES) and min(grades.values()) > 0), "grades"
    )
    _require(_table(public) and set(public) == {*_WORDS, *_NUMBERS}, "public")
    try:
        policy = PrivacyPolicy(
            dataset=found["dataset"],
            ledger=LedgerPolicy(
                version=version_of(document),
                epoch_cap=caps["epoch"],
                lifetime_cap=caps["lifetime"],
                requesters=found["requesters"],
                purposes=found["purposes"],
                grades={grade: grades[grade] for grade in GRADES} if grades else {},
            ),
            public=_public(public),
            local=caps["local"],
        )
        for name in CATALOGUE:
            policy.spec(name)  # every bound is one that statistics can have
    except InvalidInputError as cause:
        raise InvalidPolicyError(f"the privacy policy: {cause}") from cause
    return policy


def _public(found: Mapping[str, Any]) -> Public:
    for name in _WORDS:
        words = found[name]
        listed = type(words) is list and all(type(word) is str and word for word in words)
        _require(listed and len(set(words)) == len(words), name)
    for name in _NUMBERS:
        _require(type(found[name]) is int and found[name] >= 1, name)
    return Public(
        c=found["c"],
        devices=tuple(found["devices"]),
        age_bands=tuple(found["age_bands"]),
        findings=tuple(found["findings"]),
        minutes=found["minutes"],
        bins=found["bins"],
        l2_cells=found["l2_cells"],
    )


def _table(found: object) -> bool:
    return type(found) is dict


def _counts(found: Mapping[str, object]) -> bool:
    return all(type(value) is int and value >= 0 for value in found.values())


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvalidPolicyError(f"the privacy policy: {what} is missing, unknown or malformed")
