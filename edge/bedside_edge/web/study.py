"""Everything the study page shows, gathered in one go from the services; runs in a thread."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bedside_core.access import Action, Actor
from bedside_core.errors import NotFoundError
from bedside_edge.api.services import Services
from bedside_edge.ports import Instance, StoredResult
from bedside_edge.ports.review import ReviewRecord
from bedside_edge.services.outputs import Delivery
from bedside_edge.services.review import SignOff
from bedside_edge.services.worklist import WorkEntry

Json = dict[str, Any]

_MOST_RESULTS: Final = 20
_MOST_WAYS: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageView:
    """One instance of the study: what it is, and what became of it in the shown result."""

    instance_id: str
    number: int  # from 1, in order of arrival
    view: str
    laterality: str
    series: str
    status: str  # analysed, not_processed, same_pixels, quarantined; new: not in this result
    reason: str  # a code, or empty
    checks: Sequence[Json]
    operations: Sequence[str]
    decides: bool  # the study's value is this image's
    probability: float | None
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PastResult:
    """One result of the study."""

    result_id: str
    created: int
    decision: str  # empty when nothing was computed
    probability: float | None
    model: str
    superseded: bool
    state: str  # of the sign-off


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyView:
    """The page."""

    entry: WorkEntry
    images: Sequence[ImageView] = field(repr=False)
    chosen: ImageView | None
    result: StoredResult | None
    body: Json | None = field(repr=False)
    sign_off: SignOff | None
    reviews: Sequence[ReviewRecord] = field(repr=False)
    ways: Sequence[Delivery]
    history: Sequence[PastResult]
    before: str
    after: str


def study_view(services: Services, study_id: str, result_id: str, image_id: str) -> StudyView:
    """Return what the page of a study shows.

    Args:
        services: what the box offers.
        study_id: the study.
        result_id: which of its results; empty for the newest.
        image_id: which image is chosen; empty for the one the value came from.

    Raises:
        NotFoundError: no such study, or no such result or image in it.
    """
    entry = services.worklist.entry(study_id)
    if entry is None or entry.names is None:
        raise NotFoundError("no such study")
    stored = _stored(services, study_id, result_id or entry.row.result_id)
    body: Json | None = json.loads(stored.body) if stored else None
    images = _images(services.instances(study_id), body)
    before, after = services.worklist.neighbours(study_id)
    sign_off, reviews, ways = None, list[ReviewRecord](), list[Delivery]()
    if stored is not None:
        sign_off, reviews = services.outgoing.reviews.standing(stored.result_id)
        ways = deliveries(services, stored.result_id)
    return StudyView(
        entry=entry,
        images=images,
        chosen=_chosen(images, image_id),
        result=stored,
        body=body,
        sign_off=sign_off,
        reviews=reviews,
        ways=ways,
        history=_history(services, study_id),
        before=before,
        after=after,
    )


def without_results(view: StudyView) -> StudyView:
    """Return the page's images only: the policy lets nobody see what a model said of them."""
    bare = [
        replace(image, probability=None, decision="", decides=False, checks=())
        for image in view.images
    ]
    chosen = next((one for one in bare if view.chosen and one.number == view.chosen.number), None)
    return replace(
        view,
        entry=replace(view.entry, answer=None),
        images=bare,
        chosen=chosen,
        result=None,
        body=None,
        sign_off=None,
        reviews=(),
        ways=(),
        history=(),
    )


def deliveries(services: Services, result_id: str) -> list[Delivery]:
    """Return where objects of a result went, oldest first."""
    outputs = services.outgoing.deliveries.outputs
    found = outputs.deliveries(result_id=result_id, limit=_MOST_WAYS)
    return list(reversed(found))


def may_sign(actor: Actor | None, view_sign_off: SignOff | None, body: Json | None) -> bool:
    """Tell whether the page offers the sign-off; the service decides again."""
    return (
        actor is not None
        and actor.may(Action.REVIEW)
        and body is not None
        and body["value"] is not None
        and view_sign_off is not None
        and not view_sign_off.superseded_by
    )


def _stored(services: Services, study_id: str, result_id: str) -> StoredResult | None:
    if not result_id:
        return None
    stored = services.jobs.queue.result(result_id)
    if stored.study_id != study_id:
        raise NotFoundError("no such result in this study")
    return stored


def _images(instances: Sequence[Instance], body: Json | None) -> list[ImageView]:
    entries = {entry["instance"]: entry for entry in body["images"]} if body else {}
    deciding = body["value"]["image"] if body and body["value"] else ""
    return [
        _image(number, instance, entries.get(instance.instance_id), deciding)
        for number, instance in enumerate(instances, start=1)
    ]


def _image(number: int, instance: Instance, entry: Json | None, deciding: str) -> ImageView:
    found: Json = entry or {}
    return ImageView(
        instance_id=instance.instance_id,
        number=number,
        view=instance.header.view,
        laterality=instance.header.laterality,
        series=instance.header.series_description,
        status=found.get("status", "new"),
        reason=(found.get("reason") or {}).get("code", ""),
        checks=found.get("checks", ()),
        operations=found.get("operations", ()),
        decides=instance.instance_id == deciding,
        probability=found.get("probability"),
        decision=found.get("decision", ""),
    )


def _chosen(images: Sequence[ImageView], image_id: str) -> ImageView | None:
    if image_id:
        for image in images:
            if image.instance_id == image_id:
                return image
        raise NotFoundError("no such image in this study")
    deciding = [image for image in images if image.decides]
    return next(iter(deciding or images), None)


def _history(services: Services, study_id: str) -> list[PastResult]:
    queue, past = services.jobs.queue, list[PastResult]()
    for job in queue.jobs(study_id=study_id, limit=_MOST_RESULTS):
        if not job.result_id:
            continue
        stored = queue.result(job.result_id)
        body: Json = json.loads(stored.body)
        value, model = body["value"], body["model"]
        past.append(
            PastResult(
                result_id=stored.result_id,
                created=stored.created,
                decision=value["decision"] if value else "",
                probability=value["probability"] if value else None,
                model=f"{model['name']} {model['version']}" if model else "",
                superseded=bool(stored.superseded_by),
                state=str(services.outgoing.reviews.state(stored.result_id).state),
            )
        )
    return past
