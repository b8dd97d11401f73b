"""Looking for updates over the network: what is assigned, what may be installed, what is here."""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Request, status
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import NotReadyError
from bedside_edge.api.guard import actor_of, needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services, Updates


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class UpdateItemView(_View):
    """One item of the site's assignment."""

    path: str
    manifest: str = Field(description="SHA-256 of the manifest, lower hex")
    kind: str = Field(description="slot it goes into; empty when its owner does not name it")
    version: str
    release_counter: int
    size: int = Field(description="bytes")
    code: str = Field(description="why it may not be installed; empty when it may")
    reason: str
    here: bool = Field(description="whether all of its content is here")


class UpdateView(_View):
    """What this site is to run, and how looking for it goes."""

    checked_at: int = Field(description="last look that ended well, seconds; 0 before any")
    tried_at: int
    code: str = Field(description="of the last look; empty when it ended well")
    site: str
    serial: int
    items: list[UpdateItemView]
    running: bool = Field(description="whether a look is under way")
    done: int = Field(description="bytes here, of `total`")
    total: int
    ended: str = Field(description="code the newest look asked for here ended with")
    detail: str


class UpdateBody(BaseModel):
    """Where to look."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stick: Annotated[str, Field(max_length=500)] = Field(
        default="", description="folder of a stick mounted on the box; empty asks the hub"
    )


def updates_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return the routes of updates."""
    router = APIRouter(prefix="/api/v1", tags=["updates"], responses=PROBLEMS)

    def updates() -> Updates:
        if services.updates is None:
            raise NotReadyError("this box takes no updates")
        return services.updates

    @router.get("/updates", dependencies=[needs(Action.MANAGE_MODELS)])
    async def show() -> UpdateView:
        """What this site is to run, what of it may be installed, and what is here."""
        return await storage.run(_view, updates())

    def begin(fetch: bool) -> Callable[..., Any]:
        def start(body: UpdateBody, actor: str) -> UpdateView:
            updates().begin(FilePath(body.stick) if body.stick else None, actor, fetch)
            return _view(updates())

        return start

    @router.post(
        "/updates:check",
        status_code=status.HTTP_202_ACCEPTED,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def check(body: UpdateBody, request: Request) -> UpdateView:
        """Begin to look what this site is to run; `GET /updates` says how it goes."""
        return await storage.run(begin(fetch=False), body, actor_of(request).actor_id)

    @router.post(
        "/updates:fetch",
        status_code=status.HTTP_202_ACCEPTED,
        dependencies=[needs(Action.MANAGE_MODELS)],
    )
    async def fetch(body: UpdateBody, request: Request) -> UpdateView:
        """Begin to look and to fetch what may be installed; `GET /updates` says how it goes."""
        return await storage.run(begin(fetch=True), body, actor_of(request).actor_id)

    return router


def _view(updates: Updates) -> UpdateView:
    return UpdateView(**updates.told())
