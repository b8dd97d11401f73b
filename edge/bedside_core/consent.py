"""Consent as records: what a notice has to say, which consents count now, whose will stands.

A consent is for one purpose, bound to the notice that was read, and ends by its date or by
withdrawal. A newer notice inherits nothing. Whether a use may happen is the policy's question; this
module says what is on record.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from bedside_core.errors import InvalidConsentError
from bedside_core.uses import Purpose

# What a notice has to hold (PIPL 17 and 30: unverified - have it checked)
NOTICE_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "processor": "who processes the data",
        "contact": "how to reach them",
        "purpose": "what for",
        "method": "how",
        "types": "which kinds of data",
        "retention": "how long it is kept",
        "rights": "which rights there are, and how to use them",
        "necessity": "why sensitive data is needed",
        "impact": "what it means for the person, and that a noisy statistic cannot be recalled",
    }
)
# Purposes a person may consent to; rights and operation need no consent
PURPOSES: Final = frozenset(
    {
        Purpose.DIAGNOSIS,
        Purpose.QUALITY,
        Purpose.TRAINING,
        Purpose.STATISTICS,
        Purpose.ANNOTATION,
        Purpose.EXPORT,
    }
)


class Giver(StrEnum):
    """Who agreed."""

    PATIENT = "patient"
    GUARDIAN = "guardian"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """One consent on record. Times in ms since 1970; `valid_to` 0 is without end.

    Attributes:
        consent_id: ours.
        purpose: one.
        classes: kinds of data it covers, words of the hospital.
        notice: digest of the notice that was read.
        given_by: the patient, or a guardian.
        separate: given apart from every other one, as special data asks for.
        document: SHA-256 of the signed paper or file; empty when there is none.
        withdrawn_at: 0 while it stands.
    """

    consent_id: str
    purpose: Purpose
    classes: tuple[str, ...]
    notice: str
    given_by: Giver
    separate: bool
    document: str
    valid_from: int
    valid_to: int
    withdrawn_at: int

    def counts(self, now: int) -> bool:
        """Whether it stands at this moment."""
        begun = self.valid_from <= now and not self.withdrawn_at
        return begun and (not self.valid_to or now < self.valid_to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What is on record about a patient's will, now."""

    consents: frozenset[str]
    withdrawn: bool
    guardian_consent: bool
    separate_consent: bool


def will(records: Iterable[Consent], withdrawals: Collection[str], now: int) -> Will:
    """Return what stands now.

    Args:
        records: every consent of the patient.
        withdrawals: purposes withdrawn and not agreed to again since; `all` for everything.
        now: ms since 1970.
    """
    standing = [one for one in records if one.counts(now)]
    return Will(
        consents=frozenset(str(one.purpose) for one in standing),
        withdrawn=bool({"all", str(Purpose.DIAGNOSIS)} & set(withdrawals)),
        guardian_consent=any(one.given_by is Giver.GUARDIAN for one in standing),
        separate_consent=any(one.separate for one in standing),
    )


def check_notice(parts: Mapping[str, str]) -> str:
    """Return the digest of a notice, which stands for exactly these words.

    Raises:
        InvalidConsentError: something it has to say is missing, or it says something unknown.
    """
    lacking = [name for name in NOTICE_PARTS if not parts.get(name, "").strip()]
    if lacking:
        raise InvalidConsentError(f"the notice does not say: {', '.join(lacking)}")
    if unknown := sorted(set(parts) - set(NOTICE_PARTS)):
        raise InvalidConsentError(f"not a part of a notice: {', '.join(unknown)}")
    return hashlib.sha256(notice_text(parts)).hexdigest()


def notice_text(parts: Mapping[str, str]) -> bytes:
    """Return the bytes a notice's digest is over: canonical JSON."""
    return json.dumps(dict(parts), sort_keys=True, separators=(",", ":")).encode()


def check_consent(consent: Consent, *, minor: bool) -> None:
    """Return when the consent may be put on record.

    Raises:
        InvalidConsentError: no purpose for consent, an end before the beginning, or a minor's
            consent that no guardian gave.
    """
    if consent.purpose not in PURPOSES:
        raise InvalidConsentError(f"nobody is asked for consent to {consent.purpose}")
    if consent.valid_to and consent.valid_to <= consent.valid_from:
        raise InvalidConsentError("the consent ends before it begins")
    if minor and consent.given_by is not Giver.GUARDIAN:
        raise InvalidConsentError("the patient is a minor: a guardian has to agree")
