"""A round as an administrator writes it (TOML), and the manifest it becomes.

People write spans and a noise multiplier; the manifest has times and an integer variance. What a
round costs and why it cannot overflow is said in words before anybody signs.
"""

import datetime
import re
import tomllib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidConfigError
from bedside_sync.secagg.manifest import (
    UNITS,
    Count,
    Helper,
    Manifest,
    Positive,
    Purpose,
    Segment,
    local_sigma2,
    round_cost,
)
from bedside_sync.secagg.ring import overflow_bound, tail
from bedside_sync.secagg.roster import Hex32, Name, Roster
from bedside_sync.task_code import task_code
from bedside_sync.tasks.kinds import KINDS, plan_lines, read_settings

DELTA: Final = 1e-6
_LEAST_SIGMA2: Final = 25
_SPAN: Final = re.compile(r"([1-9][0-9]{0,6})(s|min|h|d)")
_SECONDS: Final = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
Span = Annotated[str, Field(pattern=f"^{_SPAN.pattern}$")]


class RoundPlan(BaseModel):
    """A round's TOML file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: Name
    task: Name
    purpose: Purpose
    model: Hex32
    code: Hex32 | None = None  # left out: the hub's own sources (`bedside_sync.task_code`)
    settings: Hex32 | None = None
    settings_file: Annotated[str, Field(max_length=512)] = ""  # beside ROUND.toml
    segments: Annotated[list[Segment], Field(min_length=1, max_length=256)]
    helpers: Annotated[list[Name], Field(min_length=4, max_length=16)]
    missing: Positive = 1
    ring: Annotated[int, Field(ge=32, le=64)] = 32
    scale: Positive
    clip: tuple[Positive, Positive] = (1, 1)
    sensitivity2: Positive
    largest: Positive
    noise_multiplier: Annotated[str, Field(pattern=r"^[0-9]+([./][0-9]+)?$")]
    least_boxes: Positive
    most_boxes: Positive
    unhonest: Count = 0
    patients_a_box: Positive
    opens: datetime.datetime | None = None  # with a time zone; left out: now
    open_for: Span
    expires_after: Span = "12h"  # counted from the close
    audit_for: Span = "30d"  # counted from the expiry


def read_plan(text: str, settings_in: Callable[[str], bytes] | None = None) -> RoundPlan:
    """Return the plan in a TOML file.

    Args:
        text: the file.
        settings_in: reads the settings file the plan names. Segments, scale and bounds may then be
            left out of the plan: they follow from the settings of a known task.

    Raises:
        InvalidConfigError: names the setting that is wrong.
        InvalidInputError: the settings are none of the task.
    """
    try:
        given = tomllib.loads(text)
        named, task = given.get("settings_file"), given.get("task")
        if settings_in is not None and isinstance(named, str) and task in KINDS:
            given = plan_lines(read_settings(str(task), settings_in(named))) | given
        plan = RoundPlan.model_validate(given)
    except tomllib.TOMLDecodeError as cause:
        raise InvalidConfigError(f"round: {cause}") from cause
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise InvalidConfigError(f"round: {where}: {first['msg']}") from cause
    if plan.opens is not None and plan.opens.tzinfo is None:
        raise InvalidConfigError("round: opens needs a time zone, as in 2027-01-31T22:00:00+01:00")
    if (plan.settings is None) == (not plan.settings_file):
        raise InvalidConfigError("round: settings_file names the task's settings, or settings does")
    if plan.ring not in (32, 64):
        raise InvalidConfigError("round: ring is 32 or 64")
    return plan


def seconds(span: str) -> int:
    """Return a span such as `90s`, `30min`, `4h` or `30d` in seconds; InvalidConfigError."""
    found = _SPAN.fullmatch(span)
    if found is None:
        raise InvalidConfigError("a span is a number with s, min, h or d")
    return int(found[1]) * _SECONDS[found[2]]


def manifest_of(
    plan: RoundPlan, helpers: Sequence[Helper], roster: Roster, now: int, settings: bytes = b""
) -> Manifest:
    """Return the manifest a plan becomes; `check_content` says whether it is a sound one.

    `settings` is the SHA-256 of the settings file the plan names.
    """
    opens = int(plan.opens.timestamp()) if plan.opens else now
    closes = opens + seconds(plan.open_for)
    expires = closes + seconds(plan.expires_after)
    z = Fraction(plan.noise_multiplier)
    honest = max(1, plan.least_boxes - plan.unhonest)
    sigma2 = local_sigma2(z, plan.sensitivity2, honest, 0)
    given = plan.model_dump(
        exclude={
            *("noise_multiplier", "opens", "open_for", "expires_after", "audit_for", "helpers"),
            *("code", "settings", "settings_file"),
        }
    )
    return Manifest.model_validate(
        given
        | {
            "helpers": list(helpers),
            "segments": plan.segments,
            "code": plan.code or task_code().hex(),
            "settings": plan.settings or settings.hex(),
            "sigma2": max(sigma2, _LEAST_SIGMA2),
            "patients": plan.patients_a_box * plan.most_boxes,
            "opens": opens,
            "closes": closes,
            "expires": expires,
            "audit_until": expires + seconds(plan.audit_for),
            "roster": roster.head.hex(),
            "roster_size": roster.size,
        }
    )


def round_epsilon(manifest: Manifest) -> float:
    """Return epsilon at delta 1e-6 of the whole sum for one patient, never too small."""
    return epsilon(round_cost(manifest), DELTA)


def told(manifest: Manifest) -> dict[str, str]:
    """Return what a person should read before signing, by heading."""
    m = manifest
    bound = overflow_bound(
        patients=m.patients, per_word=m.largest, boxes=m.most_boxes, sigma2=m.sigma2
    )
    most, honest = (1 << (m.ring - 1)) - 1, m.least_boxes - m.unhonest
    return {
        "round": f"{m.round}: {m.task}, for {m.purpose.value}",
        "hash": m.hash.hex(),
        "model, code": f"{m.model[:16]}..., {m.code[:16]}...",
        "vector": f"{m.length} words of {m.ring} bits: "
        + ", ".join(f"{one.name} {one.length}" for one in m.segments[:8]),
        "opens": utc(m.opens),
        "closes": f"{utc(m.closes)}, once {m.least_boxes} organisations have reported",
        "expires": f"{utc(m.expires)}; vectors are kept for audit until {utc(m.audit_until)}",
        "helpers": f"{', '.join(one.box for one in m.helpers)}; any {m.missing} may be silent or "
        f"corrupt, {m.quorum} open the sum",
        "overflow": f"{m.patients} patients x {m.largest} + {m.most_boxes} boxes x "
        f"{tail(m.sigma2)} of noise = {bound} {'<=' if bound <= most else '>'} {most}",
        "noise": f"sigma {m.sigma2**0.5:.1f} a box, {(honest * m.sigma2) ** 0.5:.1f} in the sum "
        f"from {honest} honest boxes; one patient moves it by at most {m.sensitivity2**0.5:.1f}",
        "privacy": f"rho {round_cost(m) / UNITS:.3g}, epsilon {round_epsilon(m):.3f} at delta "
        f"{DELTA:g} for each patient, if {honest} boxes add their noise",
    }


def utc(at: int) -> str:
    """Return seconds since the epoch as a person reads them."""
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
