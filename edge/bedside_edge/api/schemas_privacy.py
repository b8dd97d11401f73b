"""Bodies and documents of the privacy API."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bedside_core.planner import Schedule
from bedside_core.statistics.spec import Weight
from bedside_edge.services.privacy_desk import Wish

_Name = Annotated[str, Field(min_length=1, max_length=64)]
_Label = Annotated[str, Field(max_length=64)]
_Moment = Annotated[int, Field(ge=0, le=2**53, description="milliseconds since 1970, UTC")]
_Document = dict[str, Any]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WishBody(_Body):
    """What is asked, and one price: `epsilon` at delta 1e-6, or `units` of 1e-12 rho."""

    statistics: Annotated[list[_Name], Field(min_length=1, max_length=32)]
    epsilon: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    units: Annotated[int, Field(ge=0, le=2**62)] = 0
    schedule: Literal["one-off", "nightly-disjoint", "running-total"] = "one-off"
    nights: Annotated[int, Field(ge=1, le=3660)] = 1
    weight: Literal["study", "patient", "once"] = "study"
    pure: Annotated[bool, Field(description="discrete Laplace instead of Gaussian noise")] = False
    strata: Annotated[
        bool, Field(description="noise by grade of data; the price is that of the mildest grade")
    ] = False

    def wish(self, snapshot: str = "", purpose: str = "") -> Wish:
        """Return the wish."""
        return Wish(
            statistics=tuple(self.statistics),
            epsilon=self.epsilon,
            units=self.units,
            snapshot=snapshot,
            purpose=purpose,
            schedule=Schedule(self.schedule),
            nights=self.nights,
            weight=Weight(self.weight),
            pure=self.pure,
            strata=self.strata,
        )


class PlanBody(WishBody):
    """A wish and a public guess of the studies of one release, or of one night."""

    size: Annotated[int, Field(ge=1, le=10**9)]
    picture: bool = False


class ReleaseBody(WishBody):
    """A wish on a snapshot for a purpose that the policy lists.

    For a schedule `snapshot` is any word that tells equal schedules apart.
    """

    snapshot: Annotated[str, Field(min_length=1, max_length=64)]
    purpose: _Name


class SnapshotBody(_Body):
    """Arrivals to freeze; without bounds all of the open epoch."""

    starts: _Moment | None = None
    ends: _Moment | None = None


class EpochBody(_Body):
    """The next epoch: arrivals from `starts` up to, not including, `ends`."""

    starts: _Moment
    ends: _Moment


class PublicationBody(_Body):
    """What a hospital says about itself in the transparency file."""

    hospital: Annotated[str, Field(min_length=1, max_length=200)]
    region: Annotated[str, Field(min_length=1, max_length=100)]
    author: Annotated[str, Field(min_length=1, max_length=200)]
    published: Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
    intended_use: Annotated[str, Field(min_length=1, max_length=2000)]


class LocalBody(_Body):
    """One result for an outsider, by chance."""

    study: Annotated[str, Field(min_length=1, max_length=64, description="our id")]
    recipient: Annotated[str, Field(min_length=1, max_length=128)]
    epsilon: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]


class PriceView(_Body):
    """A spend: exact units, and what they mean."""

    units: Annotated[int, Field(description="of 1e-12 rho")]
    rho: float
    epsilon: float
    delta: float


class StatisticView(_Body):
    """One statistic of the catalogue."""

    name: str
    kind: str
    cells: list[str]


class CatalogueView(_Body):
    """What can be asked; there are no free queries."""

    policy: str
    c: Annotated[int, Field(description="studies per patient and epoch")]
    weights: list[str]
    grades: Annotated[
        dict[str, int],
        Field(description="units of 1e-12 rho by grade; noise by grade spends in this proportion"),
    ]
    statistics: list[StatisticView]


class PlanView(BaseModel):
    """Price and expected error; no data was touched."""

    model_config = ConfigDict(extra="allow", frozen=True)

    cost: int
    epsilon: float
    price: PriceView
    relative: Annotated[float, Field(description="standard error over the number of studies")]
    warnings: list[str]
    lines: list[_Document]
    picture: Annotated[str, Field(description="SVG, or empty")]


class EpochView(_Body):
    """The newest epoch."""

    number: int
    starts: int
    ends: int
    opened: int
    closed: bool


class EpochState(_Body):
    """The newest epoch, or none."""

    epoch: EpochView | None


class ScopeView(_Body):
    """One budget."""

    kind: str
    name: str
    cap: PriceView
    spent: PriceView
    left: PriceView


class GrowthView(_Body):
    """Spend of the epoch after a charge."""

    at: int
    units: int
    epsilon: float


class BudgetView(_Body):
    """What is spent and what is left."""

    policy: str
    dataset: str
    epoch: EpochView | None
    locked: bool
    entries: int
    scopes: list[ScopeView]
    not_the_gate: dict[str, float]
    growth: list[GrowthView]


class AccountingView(_Body):
    """An epoch's spend, and the same by other accountings, which never decide."""

    epoch: int
    releases: int
    spent: PriceView
    not_the_gate: Annotated[
        dict[str, float], Field(description="epsilon at delta 1e-6; `pld` covers every release")
    ]


class AnswerView(_Body):
    """A stored answer; of a schedule that was opened, no document yet."""

    fingerprint: str
    night: int
    entry: Annotated[int | None, Field(description="of the evidence log")]
    document: Annotated[_Document | None, Field(description="as it was signed")]


class HeldView(_Body):
    """A charged release."""

    fingerprint: str
    state: str
    seq: int
    at: int
    cost: PriceView
    requester: str
    purpose: str
    statistics: list[str]
    snapshot: str
    epoch: int
    schedule: str
    nights: int
    answered: int


class HeldList(_Body):
    """Charged releases, newest first."""

    releases: list[HeldView]


class SnapshotView(_Body):
    """A frozen snapshot; its label says nothing about what is in it."""

    label: str
    starts: int
    ends: int
    at: int = 0


class SnapshotList(_Body):
    """Frozen snapshots, newest first."""

    snapshots: list[SnapshotView]


class EntryView(_Body):
    """One entry of the privacy ledger."""

    seq: int
    kind: str
    entry: Annotated[int, Field(description="its index in the evidence log")]
    body: _Document


class LedgerView(_Body):
    """Entries of the privacy ledger, oldest first."""

    size: int
    entries: list[EntryView]


class CheckedView(_Body):
    """The ledger was folded anew and compared."""

    entries: int
    verified: bool


class PrivacyPolicyView(_Body):
    """The privacy policy in force."""

    version: str
    text: Annotated[str, Field(description="TOML, as it was signed")]


class EnvelopeView(_Body):
    """A signed document (DSSE)."""

    payload: str
    payloadType: str  # noqa: N815  DSSE's name
    signatures: list[dict[str, str]]


class TransparencyView(_Body):
    """The file of an epoch for the deployments registry, and the signed summary beside it."""

    yaml: str
    summary: EnvelopeView


Text = Literal["en", "zh"]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = _Label
