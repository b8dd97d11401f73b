"""Promotion: which package boxes may serve, after a joint validation and by two signatures.

The hub works out whether a validation round speaks for a package; administrators of two
organisations sign what came out, and every box checks their signatures and the package's digest
before it serves it. A promotion says what was measured, not that the model is right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from bedside_core.errors import RoundRefusedError, UntrustedSignatureError
from bedside_sync.secagg.bodies import Body
from bedside_sync.secagg.manifest import Positive
from bedside_sync.secagg.prg import Tag
from bedside_sync.secagg.roster import (
    ADMINISTRATORS_NEEDED,
    Hex32,
    Name,
    Root,
    Signature,
    signed_by_organisations,
)

WHOLE: Final = "all"
_Permille = Annotated[int, Field(ge=0, le=1000)]


class GroupFigure(Body):
    """Area under the curve of one group, in thousandths, with its interval from the noise."""

    group: Annotated[str, Field(min_length=1, max_length=64)]
    value: _Permille
    lower: _Permille
    upper: _Permille


class Promotion(Body):
    """A package that may be served, and the round that spoke for it."""

    version: Literal[1] = 1
    model: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    model_version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    package: Hex32  # digest of its manifest
    round: Name
    record: Hex32  # hash of the round's signed record
    against: Annotated[str, Field(max_length=64)] = ""  # round of the model before; empty: none
    organisations: Positive
    figures: Annotated[list[GroupFigure], Field(min_length=1, max_length=65)]
    unknown: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=64)]
    made: Positive  # seconds since the epoch


class SignedPromotion(Body):
    """A promotion with administrators' signatures."""

    promotion: Promotion
    signatures: Annotated[list[Signature], Field(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a validation has to show. Thousandths of area under the curve.

    Attributes:
        least: of the whole.
        gap: how far a group may lie below the whole, its interval counted in its favour.
        loss: how far the whole, or a group, may fall below the model before.
    """

    least: int = 700
    gap: int = 150
    loss: int = 30


def figures_of(reading: Mapping[str, Any]) -> tuple[list[GroupFigure], list[str]]:
    """Return the figures in a validation's reading, and the groups that have none."""
    found, unknown = [], []
    for name, group in reading["groups"].items():
        auc = group["auc"]
        if auc["value"] is None:
            unknown.append(name)
        else:
            values = {key: round(1000 * auc[key]) for key in ("value", "lower", "upper")}
            found.append(GroupFigure(group=name, **values))
    return found, unknown


def require_fit(
    reading: Mapping[str, Any],
    whole: GroupFigure | None,
    before: Mapping[str, GroupFigure],
    gate: Gate,
) -> None:
    """Return when a validation speaks for its model.

    Args:
        reading: of the validation round.
        whole: area over all groups; None when the noise leaves none.
        before: figures of the model before, by group, WHOLE included; empty when none is compared.
        gate: the rules.

    Raises:
        RoundRefusedError: a site vetoed, a figure is missing or too low, a group is left behind
            or reads worse than before.
    """
    if reading["veto"]:
        raise RoundRefusedError("a site vetoes the promotion")
    if whole is None:
        raise RoundRefusedError("the counts drown in the noise: there is no figure to promote by")
    if whole.value < gate.least:
        raise RoundRefusedError(f"AUC {whole.value / 1000:.3f} is below {gate.least / 1000:.3f}")
    for one in (whole, *figures_of(reading)[0]):
        if one.upper < whole.value - gate.gap:
            raise RoundRefusedError(
                f"{one.group} is left behind: AUC {one.value / 1000:.3f}, at best "
                f"{one.upper / 1000:.3f}, against {whole.value / 1000:.3f} of all"
            )
        held = before.get(one.group)
        reach = one.value if one.group == WHOLE else one.upper
        if held is not None and reach < held.value - gate.loss:
            raise RoundRefusedError(
                f"{one.group} reads worse than before: AUC {one.value / 1000:.3f} against "
                f"{held.value / 1000:.3f}"
            )


def check_promotion(signed: SignedPromotion, root: Root, package: str) -> Promotion:
    """Return a promotion a box may act on.

    Args:
        signed: as it came.
        root: the consortium's, as the box has pinned it.
        package: hexadecimal digest of the package the box holds.

    Raises:
        UntrustedSignatureError: fewer than two organisations' administrators signed it.
        RoundRefusedError: it promotes another package.
    """
    body = signed.promotion.encode()
    organisations = signed_by_organisations(root, Tag.PROMOTION, body, signed.signatures)
    if len(organisations) < ADMINISTRATORS_NEEDED:
        raise UntrustedSignatureError(
            f"administrators of {len(organisations)} organisations signed the promotion, "
            f"{ADMINISTRATORS_NEEDED} are needed"
        )
    if signed.promotion.package != package:
        raise RoundRefusedError("the promotion is of another package than this one")
    return signed.promotion
