"""The gate as routes use it: `asks` beside `needs`, for whatever leaves the box or is shown.

`needs` says who may call a route at all; `asks` says whether this use of this study is permitted
now. A route that shows or hands out something of one study names both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import Depends, Request

from bedside_core.errors import NotReadyError
from bedside_core.uses import Target, Thing, Use
from bedside_edge.api.guard import actor_of
from bedside_edge.api.services import Services
from bedside_edge.services.gate import Gate, Visible, asker_of
from bedside_edge.services.permitted import PermittedHoldings
from bedside_edge.services.worklist import WorkPage, WorkQuery

ASKS_KEY: Final = "bedside_asks"  # attribute of an asking dependency, for the list of egress points


def gate_of(request: Request) -> Gate:
    """Return the gate of the application."""
    gate = getattr(request.app.state, "gate", None)
    if not isinstance(gate, Gate):
        raise NotReadyError("the service has no policy yet")
    return gate


def asks(use: Use, thing: Thing, *, target: Target = Target.NONE) -> Any:  # noqa: ANN401
    """Return the dependency of a route that uses one study, or a result of it.

    The path names it: `result_id` or `study_id`; a `result` in the query is asked for as well, as
    it may be of another study. NotPermittedError names the rules that say no.
    Use as `@router.get(..., dependencies=[needs(Action.VIEW_RESULT), asks(Use.VIEW, ...)])`.
    """

    def check(request: Request) -> None:  # no coroutine: the framework runs it in a thread
        gate, asker = gate_of(request), asker_of(actor_of(request))
        path, named = request.path_params, request.query_params.get("result", "")
        if "study_id" in path:
            gate.study(use, asker, path["study_id"], thing=thing, target=target).must()
        for result_id in filter(None, (path.get("result_id", ""), named)):
            gate.result(use, asker, result_id, target=target).must()

    setattr(check, ASKS_KEY, (use, thing))
    return Depends(check)


def permit(
    request: Request, use: Use, thing: Thing, study_id: str, *, target: Target = Target.NONE
) -> None:
    """Return when this use of a study is permitted; NotPermittedError. Blocks: call in a thread."""
    asker = asker_of(actor_of(request))
    gate_of(request).study(use, asker, study_id, thing=thing, target=target).must()


def visible(request: Request, study_ids: Sequence[str]) -> Visible:
    """Return what of these studies the caller may see, for lists. Blocks: call in a thread."""
    return gate_of(request).visible(asker_of(actor_of(request)), study_ids)


def permitted_page(request: Request, services: Services, query: WorkQuery) -> WorkPage:
    """Return a page of the worklist without the rows and answers the caller may not see.

    Places in the list stay as they are, so a page may be shorter than asked for. Blocks: call in
    a thread.
    """
    services.evidence.looked(actor_of(request).actor_id, "worklist")
    page = services.worklist.page(query)
    seen = visible(request, [entry.row.study_id for entry in page.entries])
    entries = [
        entry if entry.row.study_id in seen.results else replace(entry, answer=None)
        for entry in page.entries
        if entry.row.study_id in seen.studies
    ]
    return replace(page, entries=entries)


def permitted_holdings(request: Request, services: Services) -> PermittedHoldings:
    """Return what of the held objects the caller may find and retrieve."""
    return PermittedHoldings(services.holdings, gate_of(request), asker_of(actor_of(request)))
