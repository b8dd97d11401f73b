"""What the stores tell the evidence log: one function for each kind of change.

`refs` stand in the log for ever, so they hold only words of ours, names of models and digests of
what is public. Whatever could lead to a patient - our ids, digests of images, reasons - is in the
payload, of which the log has a salted commitment and an erasure takes the rest.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from bedside_core.evidence.entry import Kind, as_actor, as_ref
from bedside_core.rollout import Deployment
from bedside_edge.ports import Arrival, Filed, Filing, Job, Outcome
from bedside_edge.ports.evidence import BOX, Event
from bedside_edge.services.outputs import Delivery, NewOutput
from bedside_edge.services.rollout import Change

RECEIVER = "service:receiver"
WORKER = "service:worker"
PUBLISHER = "service:publisher"
SENDER = "service:sender"


def arrived(pairs: Sequence[tuple[Arrival, Filed]]) -> list[Event]:
    """One entry for each study that got instances in one filing; duplicates changed nothing."""
    new: dict[str, list[tuple[Arrival, Filed]]] = {}
    for arrival, filed in pairs:
        if filed.outcome is not Filing.DUPLICATE:
            new.setdefault(filed.study_id, []).append((arrival, filed))
    return [
        Event(
            kind=Kind.RAW_DIGEST,
            actor=RECEIVER,
            study_id=study_id,
            payload=_json(
                source=taken[0][0].source,
                study=study_id,
                instances=[
                    [filed.instance_id, arrival.sealed.digest, filed.outcome.value]
                    for arrival, filed in taken
                ],
            ),
            refs={"what": "received", "way": taken[0][0].way.value},
        )
        for study_id, taken in new.items()
    ]


def alarm(code: str, study_id: str, instance_id: str, actor: str = RECEIVER) -> Event:
    """Something a person should look at."""
    return Event(
        kind=Kind.ALARM,
        actor=actor,
        study_id=study_id,
        payload=_json(study=study_id, instance=instance_id),
        refs={"code": as_ref(code)},
    )


def compared(study_id: str, instance_id: str, state: str) -> Event:
    """A second instance of a UID was compared with the first."""
    return Event(
        kind=Kind.RAW_DIGEST,
        actor=WORKER,
        study_id=study_id,
        payload=_json(study=study_id, instance=instance_id, state=state),
        refs={"what": "compared"},
    )


def result(job: Job, result_id: str, outcome: Outcome) -> Event:
    """A job ended with a result; its body holds the digests of what was read."""
    return Event(
        kind=Kind.INFERENCE,
        actor=WORKER,
        study_id=job.study_id,
        payload=_json(
            study=job.study_id,
            job=job.job_id,
            result=result_id,
            reason=outcome.reason,
            body_sha256=hashlib.sha256(outcome.body).hexdigest(),
        ),
        refs={"outcome": "refused" if outcome.refused else "analysed"} | dict(outcome.refs),
    )


def job_dead(study_id: str, job_id: str, code: str) -> Event:
    """A study could not be read; a person may replay its job."""
    return Event(
        kind=Kind.ALARM,
        actor=WORKER,
        study_id=study_id,
        payload=_json(study=study_id, job=job_id),
        refs={"code": "job-dead", "reason": as_ref(code)},
    )


def job_changed(job: Job, what: str, actor: str) -> Event:
    """Somebody replayed, cancelled or hastened a job."""
    return Event(
        kind=Kind.ADMIN,
        actor=as_actor(actor),
        study_id=job.study_id,
        payload=_json(study=job.study_id, job=job.job_id, priority=int(job.priority)),
        refs={"what": what},
    )


def published(
    study_id: str, result_id: str, made: Sequence[tuple[str, NewOutput]], to: Sequence[str]
) -> Event:
    """Objects of a result were made and queued for their destinations."""
    return Event(
        kind=Kind.RAW_DIGEST,
        actor=PUBLISHER,
        study_id=study_id,
        payload=_json(
            study=study_id,
            result=result_id,
            objects=[
                [output_id, one.kind.value, one.occasion.value, one.sealed.digest]
                for output_id, one in made
            ],
            destinations=list(to),
        ),
        refs={"what": "made"},
    )


def delivery(one: Delivery, what: str, actor: str = SENDER, code: str = "") -> Event:
    """An object arrived at a destination, was given up, or is sent again by a person."""
    return Event(
        kind=Kind.ALARM if what == "delivery-dead" else Kind.ACCESS,
        actor=as_actor(actor),
        study_id=one.study_id,
        payload=_json(
            study=one.study_id,
            result=one.result_id,
            object=one.output_id,
            delivery=one.delivery_id,
            code=code,
        ),
        refs={"what": what, "destination": as_ref(one.destination)},
    )


def model_changed(new: Deployment, change: Change) -> Event:
    """Which version of a model reads, how, and from which threshold on."""
    return Event(
        kind=Kind.MODEL_PARAMS,
        actor=as_actor(change.actor),
        payload=_json(deployment=new.document()),
        refs={"what": as_ref(change.what), "model": as_ref(new.name), "revision": new.revision},
    )


def box(what: str, **refs: str | int) -> Event:
    """The box itself started or stopped."""
    return Event(kind=Kind.ADMIN, actor=BOX, refs={"what": what} | refs)


def _json(**fields: Any) -> bytes:  # noqa: ANN401  what json takes
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
