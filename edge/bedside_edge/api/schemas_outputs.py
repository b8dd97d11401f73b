"""Bodies of the routes about objects, deliveries, destinations and pulls."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bedside_edge.services.delivery import DeliveryWorker
from bedside_edge.services.outputs import Delivery, DeliveryState, Kind, Occasion, Output


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DeliveryView(_Body):
    """One object on its way to one destination. Times are milliseconds since 1970, UTC."""

    id: str
    object: str
    result: str
    study: str
    kind: Kind
    occasion: Occasion
    destination: str
    state: DeliveryState
    attempts: int
    created: int
    updated: int
    due: int
    reason: Annotated[str, Field(description="code of the last failure, or empty")]


class DeliveryList(_Body):
    """GET /api/v1/deliveries, newest first."""

    deliveries: list[DeliveryView]


class ObjectView(_Body):
    """A DICOM object the box made, and its way to every destination."""

    id: str
    kind: Kind
    occasion: Occasion
    size: int
    created: int
    deliveries: list[DeliveryView]


class ObjectList(_Body):
    """GET /api/v1/results/{id}/objects, in the order they were made."""

    objects: list[ObjectView]


class DestinationView(_Body):
    """How a destination is doing."""

    name: str
    objects: list[Kind]
    waiting: int
    dead: int
    delivered: int
    failures: Annotated[int, Field(description="in a row")]
    last_success: int | None
    last_failure: int | None
    reason: Annotated[str, Field(description="code of the last failure, or empty")]


class DestinationList(_Body):
    """GET /api/v1/destinations."""

    destinations: list[DestinationView]


class ProbeView(_Body):
    """POST /api/v1/destinations/{name}:test."""

    ok: bool
    seen: str


class PullBody(_Body):
    """POST /api/v1/pulls."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    source: Annotated[str, Field(max_length=32, description="name of a destination with `fetch`")]
    study_uid: Annotated[str, Field(max_length=64)]


class PullView(_Body):
    """What came of a pull."""

    instances: int
    studies: Annotated[
        list[str],
        Field(description="our ids; empty for C-MOVE, which brings them through the receiver"),
    ]


def delivery_view(delivery: Delivery) -> DeliveryView:
    """Return a delivery as the API shows it."""
    return DeliveryView(
        id=delivery.delivery_id,
        object=delivery.output_id,
        result=delivery.result_id,
        study=delivery.study_id,
        kind=delivery.kind,
        occasion=delivery.occasion,
        destination=delivery.destination,
        state=delivery.state,
        attempts=delivery.attempts,
        created=delivery.created,
        updated=delivery.updated,
        due=delivery.due,
        reason=delivery.reason,
    )


def object_view(output: Output, ways: list[Delivery]) -> ObjectView:
    """Return an object with its own among `ways`."""
    own = [delivery_view(way) for way in ways if way.output_id == output.output_id]
    return ObjectView(
        id=output.output_id,
        kind=output.kind,
        occasion=output.occasion,
        size=output.size,
        created=output.created,
        deliveries=own,
    )


def destination_view(
    worker: DeliveryWorker, counts: dict[tuple[str, DeliveryState], int]
) -> DestinationView:
    """Return a destination as the API shows it."""
    state, name = worker.condition, worker.destination.name
    return DestinationView(
        name=name,
        objects=sorted(worker.destination.objects),
        waiting=counts.get((name, DeliveryState.WAITING), 0),
        dead=counts.get((name, DeliveryState.DEAD), 0),
        delivered=counts.get((name, DeliveryState.DELIVERED), 0),
        failures=state.failures,
        last_success=state.last_success or None,
        last_failure=state.last_failure or None,
        reason=state.reason,
    )
