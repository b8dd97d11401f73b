"""Routes about what leaves the box: objects of a result, deliveries, destinations, pulls."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from bedside_core.access import Action
from bedside_core.errors import BedsideError, NotFoundError
from bedside_core.uses import Target, Thing, Use
from bedside_edge.api.gate import asks
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.once import IdempotencyKey, Once
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.schemas_outputs import (
    DeliveryList,
    DeliveryView,
    DestinationList,
    ObjectList,
    ProbeView,
    PullBody,
    PullView,
    delivery_view,
    destination_view,
    object_view,
)
from bedside_edge.api.services import Services
from bedside_edge.services.delivery import DeliveryWorker
from bedside_edge.services.outputs import Delivery, DeliveryState, Kind, Occasion

_MOST = 10_000
_DICOM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/dicom": {}}, "description": "the object"}
}


def outputs_router(
    services: Services, storage: WorkPool, waiting: WorkPool, once: Once
) -> APIRouter:
    """Return the routes; calls to other machines run in `waiting`."""
    router = APIRouter(prefix="/api/v1", tags=["outputs"], responses=dict(PROBLEMS))

    @router.get(
        "/results/{result_id}.dcm",
        summary="A DICOM object of a result; made when there is none yet",
        response_class=Response,
        responses=_DICOM,
        dependencies=[
            needs(Action.VIEW_RESULT),
            asks(Use.EXPORT, Thing.RESULT, target=Target.HOSPITAL),
        ],
    )
    async def get_object(
        result_id: str,
        type: Annotated[Literal["sr", "sc", "seg", "ko"], Query()] = "sr",  # noqa: A002
        occasion: Annotated[
            Occasion | None, Query(description="default: the newest of that type")
        ] = None,
    ) -> Response:
        def look() -> bytes:
            services.outgoing.publisher.result_objects(result_id)
            found = [
                output
                for output in services.outgoing.publisher.outputs.outputs(result_id=result_id)
                if output.kind is Kind(type) and occasion in (None, output.occasion)
            ]
            if not found:
                raise NotFoundError("the result has no object of that type")
            return services.outgoing.publisher.data(found[-1])

        return Response(await storage.run(look), media_type="application/dicom")

    @router.get(
        "/results/{result_id}/objects",
        summary="Objects of a result and their ways",
        dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, Thing.RESULT)],
    )
    async def list_objects(result_id: str) -> ObjectList:
        def look() -> ObjectList:
            store = services.outgoing.publisher.outputs
            ways = store.deliveries(result_id=result_id, limit=_MOST)
            found = store.outputs(result_id=result_id)
            return ObjectList(objects=[object_view(output, ways) for output in found])

        return await storage.run(look)

    @router.get(
        "/deliveries", summary="Deliveries, newest first", dependencies=[needs(Action.VIEW_RESULT)]
    )
    async def list_deliveries(
        state: Annotated[list[DeliveryState] | None, Query()] = None,
        destination: Annotated[str, Query(max_length=32)] = "",
        study: Annotated[str, Query(max_length=64, description="our id of a study")] = "",
        result: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> DeliveryList:
        def look() -> list[Delivery]:
            return services.outgoing.deliveries.outputs.deliveries(
                states=state or (),
                destination=destination,
                study_id=study,
                result_id=result,
                limit=limit,
            )

        return DeliveryList(deliveries=[delivery_view(d) for d in await storage.run(look)])

    @router.get(
        "/deliveries/{delivery_id}",
        summary="One delivery",
        dependencies=[needs(Action.VIEW_RESULT)],
    )
    async def get_delivery(delivery_id: str) -> DeliveryView:
        return delivery_view(
            await storage.run(services.outgoing.deliveries.outputs.delivery, delivery_id)
        )

    @router.post(
        "/deliveries/{delivery_id}:retry",
        summary="Send a dead letter again",
        dependencies=[needs(Action.MANAGE_DELIVERIES)],
    )
    async def retry_delivery(request: Request, delivery_id: str) -> DeliveryView:
        retry, actor = services.outgoing.deliveries.retry, actor_of(request).actor_id
        return delivery_view(await storage.run(retry, delivery_id, actor))

    @router.get(
        "/destinations",
        summary="How the destinations are doing",
        dependencies=[needs(Action.MONITOR)],
    )
    async def list_destinations() -> DestinationList:
        counts = await storage.run(services.outgoing.deliveries.outputs.delivery_counts)
        workers = services.outgoing.deliveries.workers
        return DestinationList(
            destinations=[destination_view(workers[name], counts) for name in sorted(workers)]
        )

    @router.post(
        "/destinations/{name}:test",
        summary="Ask whether a destination answers",
        dependencies=[needs(Action.MANAGE_DELIVERIES)],
    )
    async def test_destination(name: str) -> ProbeView:
        worker = _worker(services, name)
        try:
            seen = await waiting.run(worker.destination.probe)
        except BedsideError as error:
            return ProbeView(ok=False, seen=str(error))
        worker.kick()
        return ProbeView(ok=True, seen=seen)

    @router.post(
        "/pulls", summary="Fetch a study from an archive", dependencies=[needs(Action.STORE)]
    )
    async def pull_study(
        request: Request, body: PullBody, idempotency_key: IdempotencyKey = ""
    ) -> PullView:
        def pull() -> str:
            pulled = services.outgoing.pulls.pull(body.source, body.study_uid)
            view = PullView(instances=pulled.instances, studies=list(pulled.studies))
            return view.model_dump_json()  # a number and ids of ours

        return PullView.model_validate_json(await once(waiting, request, idempotency_key, pull))

    return router


def _worker(services: Services, name: str) -> DeliveryWorker:
    worker = services.outgoing.deliveries.workers.get(name)
    if worker is None:
        raise NotFoundError("no destination of that name sends")
    return worker
