"""Bodies of sign-off, agreement and labels."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.agreement import Agreement, Interval
from bedside_core.findings import Decision
from bedside_core.review import Certainty, ReviewKind
from bedside_edge.api.schemas import result_path
from bedside_edge.ports.review import (
    Label,
    PublicationState,
    Retraction,
    ReviewRecord,
    ReviewState,
)
from bedside_edge.services.review import Figures, SignOff


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReviewBody(_Body):
    """POST /api/v1/results/{id}/review; who signs is whoever is logged in."""

    kind: ReviewKind
    reason: Annotated[
        str, Field(max_length=1024, description="needed to reject or edit; stands in the report")
    ] = ""
    decision: Annotated[
        Decision | None,
        Field(
            description="what the reader says of the finding: needed to edit, possible to reject"
        ),
    ] = None
    certainty: Certainty = Certainty.CERTAIN


class ReviewView(_Body):
    """One verdict; `at` is milliseconds since 1970, UTC."""

    id: str
    revision: int
    kind: ReviewKind
    reader: Annotated[str, Field(description="the reader's account")]
    reader_name: Annotated[str, Field(description="as it stands in the report")]
    reason: str
    decision: Annotated[
        Decision | None, Field(description="what the reader says of the finding, if anything")
    ]
    box_decision: Decision
    certainty: Certainty
    at: int
    report: Annotated[
        PublicationState, Field(description="`done` when the signed report is made and on its way")
    ]
    failure: Annotated[str, Field(description="code of the last failure to make it, or empty")]


class SignOffView(_Body):
    """What stands under a result and how it came to that."""

    result: str
    state: ReviewState
    revision: Annotated[int, Field(description="hand it back in If-Match to sign")]
    superseded_by: Annotated[
        str | None, Field(description="a newer result of the study, to be signed on its own")
    ]
    retracted: Annotated[
        Retraction, Field(description="of a rejected result, over all destinations")
    ]
    retraction: Annotated[dict[str, Retraction], Field(description="by destination")]
    reviews: Annotated[list[ReviewView], Field(description="first to last")]


class LabelView(_Body):
    """What a case teaches; `at` is milliseconds since 1970, UTC."""

    seq: Annotated[int, Field(description="ask for what follows with `after`")]
    result: str
    study: str
    revision: int
    kind: ReviewKind
    reader: str
    finding: Annotated[str, Field(description="SNOMED CT code")]
    decision: Decision | None
    box_decision: Decision
    certainty: Certainty
    model: str
    version: str
    at: int


class LabelList(_Body):
    """GET /api/v1/labels, in the order of signing."""

    labels: list[LabelView]


class AgreementView(_Body):
    """How readers and the box agree over some results. Intervals are 95 %."""

    pairs: int
    silent: Annotated[int, Field(description="rejected without a word on the finding")]
    table: Annotated[
        dict[str, dict[str, int]], Field(description="what the box said, then what the reader said")
    ]
    share: float | None
    share_interval: Interval | None
    kappa: Annotated[float | None, Field(description="Cohen's, over three decisions")]
    kappa_interval: Interval | None
    clear_kappa: Annotated[
        float | None, Field(description="Cohen's, over pairs that say present or absent")
    ]
    clear_interval: Interval | None


class AgreementReport(_Body):
    """GET /api/v1/agreement. Readers saw the box's answer: this is no independent reading."""

    overall: AgreementView
    by_reader: dict[str, AgreementView]
    by_version: dict[str, AgreementView]


def sign_off_view(result_id: str, state: SignOff, found: Sequence[ReviewRecord]) -> SignOffView:
    """Return what stands under a result as the API shows it."""
    return SignOffView(
        result=result_path(result_id),
        state=state.state,
        revision=state.revision,
        superseded_by=result_path(state.superseded_by) if state.superseded_by else None,
        retracted=state.retracted,
        retraction=dict(state.retraction),
        reviews=[_review_view(record) for record in found],
    )


def label_view(label: Label) -> LabelView:
    """Return a label as the API shows it."""
    return LabelView(
        seq=label.seq,
        result=result_path(label.result_id),
        study=label.study_id,
        revision=label.revision,
        kind=label.kind,
        reader=label.reader_id,
        finding=label.finding,
        decision=label.decision,
        box_decision=label.box_decision,
        certainty=label.certainty,
        model=label.model,
        version=label.version,
        at=label.at,
    )


def agreement_report(figures: Figures) -> AgreementReport:
    """Return the figures as the API shows them."""
    return AgreementReport(
        overall=_agreement_view(figures.overall),
        by_reader=_views(figures.by_reader),
        by_version=_views(figures.by_version),
    )


def _review_view(record: ReviewRecord) -> ReviewView:
    review = record.review
    return ReviewView(
        id=record.review_id,
        revision=record.revision,
        kind=review.kind,
        reader=review.reader_id,
        reader_name=review.reader_name,
        reason=review.reason,
        decision=record.label,
        box_decision=record.box_decision,
        certainty=review.certainty,
        at=review.at,
        report=record.publication,
        failure=record.failure,
    )


def _views(groups: Mapping[str, Agreement]) -> dict[str, AgreementView]:
    return {name: _agreement_view(one) for name, one in groups.items()}


def _agreement_view(one: Agreement) -> AgreementView:
    return AgreementView(
        pairs=one.pairs,
        silent=one.silent,
        table={box: {reader: one.table[box, reader] for reader in Decision} for box in Decision},
        share=one.share,
        share_interval=one.share_interval,
        kappa=one.kappa,
        kappa_interval=one.kappa_interval,
        clear_kappa=one.clear_kappa,
        clear_interval=one.clear_interval,
    )
