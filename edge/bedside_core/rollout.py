"""Which version of a model reads which study: active, canary, shadow, rollback, site threshold.

A deployment is a value; every change makes a new one with the next revision, or is refused. The
caller makes it durable before it acts on it.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Final

from bedside_core.errors import InvalidInputError, WrongStateError
from bedside_core.findings import Rule

ACTIVE: Final = "active"
CANARY: Final = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The hospital's own threshold, bound to the version whose calibration it was chosen for."""

    version: str
    rule: Rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What a box does with one model.

    Attributes:
        name: of the model package.
        revision: counts the changes; 0 before the first.
        active: version that reads studies.
        previous: version to roll back to; empty when there is none.
        shadow: version that reads along and is never shown; empty for none.
        canary: version that reads `percent` of the studies; empty for none.
        percent: 1 to 99 with a canary, else 0.
        site: the hospital's threshold, None for the package's own.
    """

    name: str
    active: str
    revision: int = 0
    previous: str = ""
    shadow: str = ""
    canary: str = ""
    percent: int = 0
    site: Site | None = None

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version that has a part, each once."""
        parts = (self.active, self.previous, self.shadow, self.canary)
        return tuple(dict.fromkeys(version for version in parts if version))

    def rule(self, version: str) -> Rule | None:
        """Return the site's rule for a version, None where the package's own holds."""
        return self.site.rule if self.site is not None and self.site.version == version else None

    def reads(self, study_id: str) -> tuple[str, str]:
        """Return version and role for a study; the same study always gets the same answer.

        Raising the percentage moves studies to the canary and never one back.
        """
        if self.canary and _hundredth(self.name, study_id) < self.percent:
            return self.canary, CANARY
        return self.active, ACTIVE

    # --- changes -----------------------------------------------------------------------------

    def activate(self, version: str) -> "Deployment":
        """Read with another version; the one before can be rolled back to.

        Raises:
            WrongStateError: it is active already.
        """
        if version == self.active:
            raise WrongStateError(f"{self.name} {version} is active already")
        ends_canary = self.canary in (version, self.active)
        return replace(
            self,
            revision=self.revision + 1,
            active=version,
            previous=self.active,
            shadow="" if self.shadow == version else self.shadow,
            canary="" if ends_canary else self.canary,
            percent=0 if ends_canary else self.percent,
        )

    def roll_back(self) -> "Deployment":
        """Read with the version before; canary and shadow end. One step only.

        Raises:
            WrongStateError: there is no version before.
        """
        if not self.previous:
            raise WrongStateError(f"{self.name} has no version to roll back to")
        return replace(
            self,
            revision=self.revision + 1,
            active=self.previous,
            previous="",
            shadow="",
            canary="",
            percent=0,
        )

    def with_shadow(self, version: str) -> "Deployment":
        """Let a version read along, unseen; empty ends it.

        Raises:
            WrongStateError: the active version cannot be compared with itself.
        """
        if version == self.active:
            raise WrongStateError(f"{version} is active: it has nothing to be compared with")
        return replace(self, revision=self.revision + 1, shadow=version)

    def with_canary(self, version: str, percent: int) -> "Deployment":
        """Let a version read part of the studies; empty and 0 end it.

        Raises:
            InvalidInputError: not a version with 1 to 99 percent, nor empty with 0.
            WrongStateError: the active version cannot be its own canary.
        """
        if not (1 <= percent <= 99 if version else percent == 0):
            raise InvalidInputError("a canary reads 1 to 99 percent; without one it is 0")
        if version == self.active:
            raise WrongStateError(f"{version} is active already")
        return replace(self, revision=self.revision + 1, canary=version, percent=percent)

    def with_threshold(self, rule: Rule | None) -> "Deployment":
        """Decide by the hospital's own rule with the version now active; None: the package's."""
        return replace(
            self,
            revision=self.revision + 1,
            site=None if rule is None else Site(version=self.active, rule=rule),
        )

    # --- stored form -------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return it as plain values."""
        site = self.site
        return {
            "name": self.name,
            "revision": self.revision,
            "active": self.active,
            "previous": self.previous,
            "shadow": self.shadow,
            "canary": self.canary,
            "percent": self.percent,
            "site": None
            if site is None
            else {
                "version": site.version,
                "threshold": site.rule.threshold,
                "low": site.rule.low,
                "high": site.rule.high,
            },
        }


def deployment(document: dict[str, Any]) -> Deployment:
    """Return what `document` wrote."""
    held = document["site"]
    site = None
    if held is not None:
        rule = Rule(threshold=held["threshold"], low=held["low"], high=held["high"])
        site = Site(version=held["version"], rule=rule)
    return Deployment(**{**document, "site": site})


def _hundredth(name: str, study_id: str) -> int:
    """Return 0 to 99, evenly over studies and differently for every model."""
    digest = hashlib.sha256(f"{name}/{study_id}".encode()).digest()
    return int.from_bytes(digest[:8]) % 100
