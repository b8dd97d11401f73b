"""Bodies and views of what follows from rounds: cleaning, consensus, sources, the own head."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bedside_edge.ports.learning import JointResult
from bedside_edge.services.learning import CleaningReport, LearningService, Relabel

_SHOWN = 1000


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ResultBody(_Body):
    """A published result of a round, as the hub shows it."""

    document: dict[str, Any]


class TakenView(_View):
    """A result the hospital took over."""

    digest: str
    actor: str
    at: int = Field(description="milliseconds since 1970, UTC")


class TakenList(_View):
    """Versions, newest first."""

    cleanings: list[TakenView]


class TouchedView(_View):
    """A study in which fields are filled or moved to a fence."""

    study: str
    fields: list[str]


class ReportView(_View):
    """What a cleaning version does to the box's cases; originals are not changed."""

    digest: str
    studies: int
    filled: dict[str, int]
    fenced: dict[str, int]
    odd: dict[str, int] = Field(description="written otherwise than usual; left as they are")
    touched: list[TouchedView]
    more: int = Field(description="touched studies that are not listed")


class RelabelView(_View):
    """A study signed here otherwise than the consensus."""

    study: str
    result: str
    here: str
    consensus: str


class RelabelList(_View):
    """Studies to look at again."""

    studies: list[RelabelView]


class SourceRow(_Body):
    """What a source says of one patient."""

    patient_id: Annotated[str, Field(min_length=1, max_length=64)]
    issuer: Annotated[str, Field(max_length=64)] = ""
    value: Annotated[str, Field(min_length=1, max_length=64)]


class SourceBody(_Body):
    """A source, complete: it replaces what was there under its name."""

    rows: Annotated[list[SourceRow], Field(max_length=200_000)]


class SourceView(_View):
    """How much of a source concerns patients of this box."""

    name: str
    known: int
    unknown: int = Field(description="rows of patients the box does not know; not kept")


class OwnHeadView(_View):
    """Whether a head of the hospital's own would help; nothing of it leaves the box."""

    enough: bool = Field(description="false: too few signed cases with consent to training")
    helps: bool = False
    fitted: int = 0
    judged: int = 0
    joint: float | None = Field(default=None, description="area under the curve, joint model")
    own: float | None = Field(default=None, description="area under the curve, its own head")
    penalty: float = 0.0
    size: float = 0.0


def taken_view(one: JointResult) -> TakenView:
    """Return a version."""
    return TakenView(digest=one.digest, actor=one.actor, at=one.at)


def report_view(found: CleaningReport) -> ReportView:
    """Return a report with its first thousand studies."""
    listed = found.touched[:_SHOWN]
    return ReportView(
        digest=found.digest,
        studies=found.studies,
        filled=found.filled,
        fenced=found.fenced,
        odd=found.odd,
        touched=[TouchedView(study=study, fields=list(fields)) for study, fields in listed],
        more=len(found.touched) - len(listed),
    )


def relabel_view(one: Relabel) -> RelabelView:
    """Return a study of the queue."""
    return RelabelView(
        study=one.study_id, result=one.result_id, here=one.here, consensus=one.consensus
    )


def source_view(learning: LearningService, name: str, body: SourceBody, actor: str) -> SourceView:
    """Keep a source and say how much of it concerns patients of the box."""
    rows = [(row.issuer, row.patient_id, row.value) for row in body.rows]
    known, unknown = learning.add_source(name, rows, actor)
    return SourceView(name=name, known=known, unknown=unknown)


def own_head_view(learning: LearningService) -> OwnHeadView:
    """Fit and judge the own head."""
    found = learning.own_head()
    if found is None:
        return OwnHeadView(enough=False)
    return OwnHeadView(
        enough=True,
        helps=found.helps,
        fitted=found.fitted,
        judged=found.judged,
        joint=found.joint,
        own=found.own,
        penalty=found.penalty,
        size=found.size,
    )
