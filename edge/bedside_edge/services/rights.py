"""The request desk: what a patient may ask for, by when it is due, and the answer itself.

An answer needs somebody who says how the person was recognised. What is handed over leaves through
the gate, for the purpose `rights`; its digest is in the evidence log.
"""

import hashlib
import io
import json
import logging
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bedside_core.errors import InvalidConfigError, WrongStateError
from bedside_core.evidence.entry import as_actor, as_ref
from bedside_core.incident import MARKS
from bedside_core.uses import Asker, Purpose, Target, Thing, Use
from bedside_edge.ports import Clock, Instance, StoredResult
from bedside_edge.ports.evidence import EvidenceLog
from bedside_edge.ports.review import ReviewRecord
from bedside_edge.ports.rights import Ask, RightsRequest, RightsStore
from bedside_edge.ports.subjects import SubjectStore
from bedside_edge.services.consent import ConsentService
from bedside_edge.services.fhir import result_bundle
from bedside_edge.services.gate import Gate

log = logging.getLogger(__name__)

Json = dict[str, Any]
_DAY_MS: Final = 86_400_000
_TICK_S: Final = 60.0
_MOST_PROOFS: Final = 500
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # zip files know no earlier time; the same copy, same bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """By when a request has to be answered, and whether the law's text was read."""

    duty_id: str
    regime: str
    regions: tuple[str, ...]
    days: int
    words: str
    mark: str


def parse_terms(data: bytes) -> tuple[Term, ...]:
    """Return the terms of a file; InvalidConfigError."""
    try:
        terms = tuple(
            Term(
                duty_id=row["id"],
                regime=row["regime"],
                regions=tuple(row["regions"]),
                days=int(row["days"]),
                words=row["words"],
                mark=row["text"],
            )
            for row in tomllib.loads(data.decode())["duty"]
        )
    except (ValueError, KeyError, TypeError) as cause:
        raise InvalidConfigError("the terms of requests cannot be read") from cause
    if any(term.mark not in MARKS or term.days < 1 for term in terms):
        raise InvalidConfigError("a term has no mark that exists, or no time")
    return terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where answers come from."""

    results: Callable[[str], Sequence[StoredResult]]  # of a study, newest first
    instances: Callable[[str], Sequence[Instance]]
    reviews: Callable[[str], Sequence[ReviewRecord]]
    log: EvidenceLog
    erase: Callable[[Gate, Asker, str], str]  # a patient; returns the erasure's id
    # what the hospital added of a patient from elsewhere, by name of the source
    extras: Callable[[str], Mapping[str, str]]


class RightsService:
    """Requests with a clock; safe to call from several threads."""

    def __init__(
        self,
        store: RightsStore,
        subjects: SubjectStore,
        consents: ConsentService,
        sources: Sources,
        terms: Sequence[Term],
        clock: Clock,
        *,
        region: str,
    ) -> None:
        """Stand on the ports; the shortest term of the region counts."""
        self._store, self._subjects, self._consents = store, subjects, consents
        self._sources, self._clock = sources, clock
        here = sorted((one for one in terms if region in one.regions), key=lambda one: one.days)
        if not here:
            raise InvalidConfigError("no term for requests applies to the site's region")
        self.term = here[0]

    @property
    def consents(self) -> ConsentService:
        """Consents on record."""
        return self._consents

    @property
    def store(self) -> RightsStore:
        """What keeps the requests."""
        return self._store

    def receive(
        self, subject_id: str, kind: Ask, actor: str, received_at: int = 0
    ) -> RightsRequest:
        """Take a request in; its time runs from when it was received, never from later."""
        now = self._clock.now()
        at = min(received_at or now, now)
        request = RightsRequest(
            request_id="",
            subject_id=subject_id,
            kind=kind,
            received_at=at,
            due_at=at + self.term.days * _DAY_MS,
            duty=self.term.duty_id,
            owner=as_actor(actor),
            state="open",
            identity="",
            response="",
            answered_at=0,
        )
        return self._store.request(self._store.receive(request, as_actor(actor)))

    def identify(self, request_id: str, how: str, actor: str) -> RightsRequest:
        """Say how the person was recognised: a word, `passport`, `in-person`."""
        self._store.request(request_id)
        self._store.identify(request_id, as_ref(how), as_actor(actor), self._clock.now())
        return self._store.request(request_id)

    def refuse(self, request_id: str, why: str, asker: Asker) -> RightsRequest:
        """End a request without what was asked for; `why` is a word."""
        self._end(request_id, "refused", as_ref(why), asker)
        return self._store.request(request_id)

    def answer(self, gate: Gate, asker: Asker, request_id: str, note: str = "") -> bytes:
        """Do what was asked for and return what is handed over, as a zip file.

        Deletion needs nothing to hand over but its certificate's id; correction is done by whoever
        sends the study, and `note` says with a word what became of it.

        Raises:
            WrongStateError: not open, or nobody said how the person was recognised.
            NotPermittedError: the policy does not let the asker hand it over.
            LegalHoldError: it must not be deleted now.
        """
        request = self._store.request(request_id)
        if request.state != "open":
            raise WrongStateError("the request is answered already")
        if not request.identity:
            raise WrongStateError("nobody said yet how the person was recognised")
        subject_id = request.subject_id
        if request.kind is Ask.DELETE:
            # The request goes with the patient: the erasure itself is the answer on record.
            made = self._sources.erase(gate, asker, subject_id)
            return _zip({"answer.json": {"kind": "delete", "erasure": made}})
        if request.kind is Ask.OBJECT:
            met = self._consents.withdraw(subject_id, "all", asker.actor_id)
            parts: dict[str, Json | bytes] = {
                "answer.json": {
                    "kind": "object",
                    "results": met.results,
                    "sent": met.sent,
                    "note": "Budget spent and noisy statistics released before stay.",
                }
            }
        elif request.kind is Ask.CORRECT:
            parts = {"answer.json": {"kind": "correct", "outcome": as_ref(note or "done")}}
        else:
            self._permit(gate, asker, subject_id)
            parts = self._told(request.kind, subject_id)
        data = _zip(parts)
        self._end(request_id, "answered", hashlib.sha256(data).hexdigest(), asker)
        return data

    def _permit(self, gate: Gate, asker: Asker, subject_id: str) -> None:
        for study_id in self._subjects.studies_of(subject_id):
            for thing in (Thing.STUDY, Thing.RESULT):
                gate.study(
                    Use.EXPORT,
                    asker,
                    study_id,
                    thing=thing,
                    purpose=Purpose.RIGHTS,
                    target=Target.PATIENT,
                ).must()

    def _told(self, kind: Ask, subject_id: str) -> dict[str, Json | bytes]:
        studies = self._subjects.studies_of(subject_id)
        held = {study_id: list(self._sources.results(study_id)) for study_id in studies}
        consents = self._consents.to_fhir(subject_id)
        entries = self._sources.log.about(subject_id=subject_id)
        if kind is Ask.KNOW:
            summary = {
                "studies": len(studies),
                "images": sum(len(self._sources.instances(one)) for one in studies),
                "results": sum(len(found) for found in held.values()),
                "log_entries": len(entries),
                "other_sources": sorted(self._sources.extras(subject_id)),
                "purposes": sorted(
                    {str(one.purpose) for one in self._consents.store.consents(subject_id)}
                ),
                "deadline": {"regime": self.term.regime, "text": self.term.mark},
            }
            return {"held.json": summary, "consents.json": consents}
        if kind is Ask.EXPLAIN:
            return {
                "explanation.json": {
                    "results": [self._explained(r) for f in held.values() for r in f]
                }
            }
        bundle: Json = {"resourceType": "Bundle", "type": "collection", "entry": []}
        for study_id, found in held.items():
            instances = self._sources.instances(study_id)
            for stored in found if instances else []:
                reviews = self._sources.reviews(stored.result_id)
                made = result_bundle(stored, json.loads(stored.body), instances, reviews)
                bundle["entry"] += made["entry"]
        bundle["entry"] += consents.get("entry", [])
        parts: dict[str, Json | bytes] = {"bundle.json": bundle}
        if extras := self._sources.extras(subject_id):
            parts["other-sources.json"] = dict(extras)
        for index in entries[:_MOST_PROOFS]:
            parts[f"proofs/{index}.tlog-proof"] = self._sources.log.proof(index)
        return parts

    def _explained(self, stored: StoredResult) -> Json:
        """Return how a result came about: what was read, by which model, decided how, signed."""
        reviews = self._sources.reviews(stored.result_id)
        return {
            "result": json.loads(stored.body),
            "saliency": f"/api/v1/results/{stored.result_id}/heatmap.png",
            "model_card": "/api/v1/models",
            "signed": [
                {
                    "verdict": str(one.review.kind),
                    "at": one.review.at,
                    "by": one.review.reader_name,
                }
                for one in reviews
            ],
        }

    def _end(self, request_id: str, state: str, response: str, asker: Asker) -> None:
        self._store.answer(
            request_id,
            state=state,
            response=response,
            actor=asker.actor_id,
            at=self._clock.now(),
        )

    # --- clock; `Loop` runs it -----------------------------------------------------------------

    def step(self) -> bool:
        """Raise alarms for what is overdue; never busy."""
        if late := self._store.overdue(self._clock.now()):
            log.error("requests of patients overdue", extra={"count": len(late)})
        return False

    def nap(self) -> float:
        """Return how long to wait before the next look."""
        return _TICK_S


def _zip(parts: dict[str, Json | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in sorted(parts.items()):
            data = value if isinstance(value, bytes) else json.dumps(value, indent=1).encode()
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return out.getvalue()
