"""Consent: put on record, withdrawn, told to the gate, and as FHIR R4B in and out."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import gmtime, strftime
from typing import Any, Final

from bedside_core.consent import PURPOSES, Consent, Giver, check_consent, check_notice
from bedside_core.errors import InvalidConsentError
from bedside_core.evidence.entry import as_actor
from bedside_core.uses import Purpose
from bedside_edge.ports import Clock
from bedside_edge.ports.governance import Standing
from bedside_edge.ports.rights import RightsStore, Withdrawn
from bedside_edge.ports.subjects import SubjectStore

Json = dict[str, Any]

_SYSTEM: Final = "urn:bedside:purpose"
_DIGEST: Final = "urn:bedside:sha256"
_SEPARATE: Final = "urn:bedside:separate-consent"


class ConsentService:
    """Consents with a clock; the gate reads `standing` before every use."""

    def __init__(
        self,
        store: RightsStore,
        subjects: SubjectStore,
        clock: Clock,
        *,
        minor_years: int,
        basis: str = "treatment",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Stand on the ports.

        Args:
            store: keeps the records.
            subjects: how old a patient is.
            clock: what stands now.
            minor_years: under this age a guardian has to agree.
            basis: on what diagnosis stands without a record: `treatment`, or `consent`: on nothing.
            changed: told when somebody withdrew.
        """
        self._store, self._subjects, self._clock = store, subjects, clock
        self._minor_years, self._basis, self._changed = minor_years, basis, changed

    @property
    def store(self) -> RightsStore:
        """What keeps the records."""
        return self._store

    def standing(self, subject_ids: Sequence[str]) -> Mapping[str, Standing]:
        """Return what is on record about patients' will; `StandingOf` of the gate."""
        found = self._store.wills(subject_ids, self._clock.now())
        by_treatment = self._basis == "treatment"
        standings = {
            subject: Standing(
                consents=one.consents,
                withdrawn=one.withdrawn,
                guardian_consent=one.guardian_consent,
                separate_consent=one.separate_consent,
                basis=by_treatment or Purpose.DIAGNOSIS in one.consents,
            )
            for subject, one in found.items()
        }
        if by_treatment:
            return standings
        return {one: Standing(basis=False) for one in subject_ids} | standings

    def add_notice(self, parts: Mapping[str, str], actor: str) -> str:
        """Keep a notice that says everything it has to; return its digest."""
        digest = check_notice(parts)
        self._store.add_notice(digest, parts, as_actor(actor), self._clock.now())
        return digest

    def give(
        self,
        subject_id: str,
        purpose: Purpose,
        notice: str,
        actor: str,
        *,
        given_by: Giver = Giver.PATIENT,
        classes: Sequence[str] = ("images",),
        separate: bool = False,
        document: str = "",
        valid_from: int = 0,
        valid_to: int = 0,
    ) -> Consent:
        """Put a consent on record.

        Raises:
            NotFoundError: no such patient or notice.
            InvalidConsentError: it cannot stand; see `check_consent`.
        """
        now = self._clock.now()
        today = strftime("%Y%m%d", gmtime(now / 1000))
        years = self._subjects.facts(subject_id).years(today)
        consent = Consent(
            consent_id="",
            purpose=purpose,
            classes=tuple(classes),
            notice=notice,
            given_by=given_by,
            separate=separate,
            document=document,
            valid_from=valid_from or now,
            valid_to=valid_to,
            withdrawn_at=0,
        )
        check_consent(consent, minor=years is not None and years < self._minor_years)
        made = self._store.give(subject_id, consent, as_actor(actor), now)
        return next(one for one in self._store.consents(subject_id) if one.consent_id == made)

    def withdraw(self, subject_id: str, purpose: str, actor: str) -> Withdrawn:
        """Take consent back for a purpose or `all`: from the next use on; NotFoundError."""
        if purpose != "all" and purpose not in {str(one) for one in PURPOSES}:
            raise InvalidConsentError(f"nobody is asked for consent to {purpose}")
        met = self._store.withdraw(subject_id, purpose, as_actor(actor), self._clock.now())
        self._changed()
        return met

    # --- FHIR R4B ------------------------------------------------------------------------------

    def to_fhir(self, subject_id: str) -> Json:
        """Return a patient's consents as a Bundle; the patient stands in it by the box's id."""
        entries = [
            {
                "fullUrl": f"urn:bedside:consent:{one.consent_id}",
                "resource": _resource(one, subject_id),
            }
            for one in self._store.consents(subject_id)
        ]
        bundle: Json = {"resourceType": "Bundle", "type": "collection"}
        return bundle | ({"entry": entries} if entries else {})

    def from_fhir(self, subject_id: str, resource: Json, actor: str) -> Consent:
        """Put a FHIR Consent on record; an inactive one withdraws nothing and is refused.

        Raises:
            InvalidConsentError: not an active permit for one purpose the box knows.
        """
        try:
            provision = resource["provision"]
            purposes = [
                code["code"] for code in provision["purpose"] if code.get("system") == _SYSTEM
            ]
            if (resource["resourceType"], resource["status"]) != ("Consent", "active"):
                raise InvalidConsentError("only an active Consent is put on record")
            if provision.get("type", "permit") != "permit" or len(purposes) != 1:
                raise InvalidConsentError("a Consent permits one purpose")
            period = provision.get("period", {})
            notice = resource["policy"][0]["uri"].removeprefix(f"{_DIGEST}:")
            guardian = any(
                code.get("code") == "GUARD"
                for actor_of in provision.get("actor", [])
                for code in actor_of["role"].get("coding", [])
            )
            separate = any(
                code.get("system") == _SEPARATE
                for label in provision.get("securityLabel", [])
                for code in [label]
            )
            values: Json = {
                "purpose": Purpose(purposes[0]),
                "valid_from": _ms(period.get("start", "")),
                "valid_to": _ms(period.get("end", "")),
                "classes": [code["display"] for code in provision.get("class", [])] or ["images"],
            }
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as cause:
            raise InvalidConsentError("the Consent cannot be read") from cause
        return self.give(
            subject_id,
            notice=notice,
            actor=actor,
            given_by=Giver.GUARDIAN if guardian else Giver.PATIENT,
            separate=separate,
            **values,
        )


def _resource(one: Consent, subject_id: str) -> Json:
    provision: Json = {
        "type": "permit",
        "period": {"start": _iso(one.valid_from)},
        "purpose": [{"system": _SYSTEM, "code": str(one.purpose)}],
        "class": [{"system": "urn:bedside:data", "code": "class", "display": one_class}
                  for one_class in one.classes],
    }  # fmt: skip
    if one.valid_to:
        provision["period"]["end"] = _iso(one.valid_to)
    if one.separate:
        provision["securityLabel"] = [{"system": _SEPARATE, "code": "separate"}]
    if one.given_by is Giver.GUARDIAN:
        role = {"system": "http://terminology.hl7.org/CodeSystem/v3-RoleCode", "code": "GUARD"}
        provision["actor"] = [{"role": {"coding": [role]}, "reference": {"display": "guardian"}}]
    scope = {"system": "http://terminology.hl7.org/CodeSystem/consentscope",
             "code": "patient-privacy"}  # fmt: skip
    return {
        "resourceType": "Consent",
        "id": one.consent_id,
        "status": "inactive" if one.withdrawn_at else "active",
        "scope": {"coding": [scope]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"identifier": {"system": "urn:bedside:subject", "value": subject_id}},
        "dateTime": _iso(one.valid_from),
        "policy": [{"uri": f"{_DIGEST}:{one.notice}"}],
        "provision": provision,
    }


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="seconds")


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000) if text else 0
