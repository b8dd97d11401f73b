"""What the box runs on: board, profile, engine as read back, and the verdict it serves under."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from bedside_core.access import Action
from bedside_core.errors import NotFoundError
from bedside_edge.api.guard import needs
from bedside_edge.api.pool import WorkPool
from bedside_edge.api.routes import PROBLEMS
from bedside_edge.api.services import Services
from bedside_edge.services.hardware import Serving


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProfileView(_View):
    """The hardware profile in force."""

    id: str
    vendor: str
    name: str
    seq: int
    evidence: str = Field(description="measured, vendor-claimed or unverified: what its file says")
    evidence_ref: str
    digest: str
    windows: list[dict[str, Any]] = Field(description="when to exchange with the hub")


class PassedOverView(_View):
    """A profile or engine that was not taken, and why."""

    name: str
    reason: str


class HardwareView(_View):
    """What serves here."""

    level: str = Field(
        description="how far to believe the figures here: measured-on-site after acceptance on "
        "this very unit, else what the profile's file says"
    )
    profile: ProfileView
    board: dict[str, Any] = Field(description="facts of the probe, format bedside-probe/1")
    acceptance: dict[str, Any] = Field(description="the verdict, format bedside-acceptance/1")
    acceptance_digest: str = Field(description="SHA-256 that the evidence entry holds")
    engines_refused: list[PassedOverView]
    profiles_passed_over: list[PassedOverView]


def hardware_view(serving: Serving) -> HardwareView:
    """Return what is told of it."""
    profile = serving.profile.profile
    return HardwareView(
        level=serving.level,
        profile=ProfileView(
            id=profile.id,
            vendor=profile.vendor,
            name=profile.name,
            seq=profile.seq,
            evidence=profile.evidence,
            evidence_ref=profile.evidence_ref,
            digest=serving.profile.digest,
            windows=[window.model_dump() for window in profile.windows],
        ),
        board=serving.board.model_dump(mode="json"),
        acceptance=serving.record.document(),
        acceptance_digest=serving.record.digest,
        engines_refused=_pairs(serving.refused),
        profiles_passed_over=_pairs(serving.passed_over),
    )


def _pairs(found: tuple[tuple[str, str], ...]) -> list[PassedOverView]:
    return [PassedOverView(name=name, reason=reason) for name, reason in found]


def hardware_router(services: Services, storage: WorkPool) -> APIRouter:
    """Return /api/v1/hardware."""
    router = APIRouter(prefix="/api/v1", tags=["hardware"], responses=dict(PROBLEMS))

    def look() -> HardwareView:
        if services.hardware is None or services.hardware.serving is None:
            raise NotFoundError("nothing was accepted here")
        return hardware_view(services.hardware.serving)

    @router.get("/hardware", dependencies=[needs(Action.MONITOR)])
    async def hardware() -> HardwareView:
        """Board, hardware profile, engine as read back, and the verdict of its acceptance."""
        return await storage.run(look)

    return router
