"""Changing which version reads studies: loaded and tested first, durable next, in use last.

A study's model is chosen and lent in one step, so a change never meets a study half way: what
runs keeps the version it began with, and the runtime of a version that left closes after it.
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from bedside_core.errors import BedsideError, StaleRevisionError
from bedside_core.findings import Rule
from bedside_core.result import Json
from bedside_core.rollout import ACTIVE, Deployment
from bedside_edge.ports import Clock, Outcome
from bedside_edge.services.analysis import AnalysisService
from bedside_edge.services.models import ModelService

log = logging.getLogger(__name__)

_REFUSED, _FAILED = "refused", "failed"
Read = Callable[[AnalysisService], Outcome]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of a model's history; `actor` is who signed it off."""

    revision: int
    what: str
    actor: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a shadow said to a study beside what was shown; decisions only, no patient."""

    name: str
    version: str
    shadow: str
    decision: str
    shadow_decision: str
    difference: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many studies came to one pair of decisions; `difference` is summed over them."""

    version: str
    shadow: str
    decision: str
    shadow_decision: str
    studies: int
    difference: float


class DeploymentStore(Protocol):
    """Deployments on disk."""

    def all(self) -> list[Deployment]:
        """Return the deployment of every model that was ever changed."""
        ...

    def save(self, new: Deployment, change: Change) -> None:
        """Store a deployment that follows the one held; StaleRevisionError otherwise."""
        ...

    def changes(self, name: str, limit: int = 50) -> list[Change]:
        """Return the changes of a model, newest first."""
        ...

    def compared(self, one: Comparison) -> None:
        """Count one study that a shadow read along."""
        ...

    def tallies(self, name: str) -> list[Tally]:
        """Return how the shadows of a model compared."""
        ...


class RolloutService:
    """Holds the deployments in force. Safe to call from several threads."""

    def __init__(self, models: ModelService, store: DeploymentStore, clock: Clock) -> None:
        """Put the stored deployments in force.

        Raises:
            BedsideError: an active version may not serve; the box must not read with another.
        """
        self._models, self._store, self._clock = models, store, clock
        self._changing = threading.Lock()
        self._held: dict[str, Deployment] = {}
        for held in store.all():
            models.load(held.name, held.active)
            for version in {held.shadow, held.canary} - {"", held.active}:
                self._load_beside(held.name, version)
            self._use(held)

    def deployment(self, name: str) -> Deployment:
        """Return what is in force for a model; NotFoundError when it is not loaded."""
        held = self._held.get(name)
        if held is not None:
            return held
        return Deployment(name=name, active=self._models.model(name).manifest.version)

    def history(self, name: str) -> tuple[Sequence[Change], Sequence[Tally]]:
        """Return the changes of a model, newest first, and how its shadows compared."""
        return self._store.changes(name), self._store.tallies(name)

    # --- changes -----------------------------------------------------------------------------

    def activate(
        self, name: str, version: str, expected: int | None, actor: str, because: str = ""
    ) -> Deployment:
        """Read studies with another version of this box.

        Args:
            name: of the model.
            version: to read with.
            expected: revision the caller looked at; None to change whatever holds.
            actor: who signs it off.
            because: what speaks for it; kept in the history.

        Raises:
            NotFoundError: the model, or that version of it, is not on this box.
            StaleRevisionError: somebody changed it meanwhile.
            WrongStateError: it is active already, or too many packages are loaded.
            BedsideError: why the version may not serve; nothing changes.
        """
        change = f"activate {version}" + (f", {because}" if because else "")
        return self._change(name, expected, actor, change, lambda now: now.activate(version))

    def roll_back(self, name: str, expected: int | None, actor: str) -> Deployment:
        """Read studies with the version before; errors as for `activate`."""
        return self._change(name, expected, actor, "roll back", Deployment.roll_back)

    def set_shadow(self, name: str, version: str, expected: int | None, actor: str) -> Deployment:
        """Let a version read along unseen, or none; errors as for `activate`."""
        change = f"shadow {version or 'off'}"
        return self._change(name, expected, actor, change, lambda now: now.with_shadow(version))

    def set_canary(
        self, name: str, version: str, percent: int, expected: int | None, actor: str
    ) -> Deployment:
        """Let a version read a share of the studies, or none; errors as for `activate`."""
        change = f"canary {version or 'off'} {percent} %"
        return self._change(
            name, expected, actor, change, lambda now: now.with_canary(version, percent)
        )

    def set_threshold(
        self, name: str, rule: Rule | None, expected: int | None, actor: str
    ) -> Deployment:
        """Decide by the hospital's rule, or the package's again; errors as for `activate`."""
        change = "threshold of the package"
        if rule is not None:
            change = f"threshold {rule.threshold:g}, undetermined {rule.low:g} to {rule.high:g}"
        return self._change(name, expected, actor, change, lambda now: now.with_threshold(rule))

    def _change(
        self,
        name: str,
        expected: int | None,
        actor: str,
        what: str,
        make: Callable[[Deployment], Deployment],
    ) -> Deployment:
        with self._changing:
            now = self.deployment(name)
            if expected is not None and expected != now.revision:
                raise StaleRevisionError("the model's settings were changed meanwhile")
            new = make(now)
            for version in {new.active, new.shadow, new.canary} - {""}:
                self._models.load(name, version)
            change = Change(revision=new.revision, what=what, actor=actor, at=self._clock.now())
            self._store.save(new, change)
            self._use(new)
        log.info("model settings changed", extra={"package": f"{name}/{new.active}"})
        return new

    def _use(self, new: Deployment) -> None:
        for version in new.versions:
            self._models.set_rule(new.name, version, new.rule(version))
        self._models.set_default(new.name, new.active)
        self._held[new.name] = new
        self._models.pin(new.name, new.versions)

    def _load_beside(self, name: str, version: str) -> None:
        try:
            self._models.load(name, version)
        except BedsideError as why:  # the active version reads everything meanwhile
            log.warning(
                "model not loaded", extra={"package": f"{name}/{version}", "code": why.code}
            )

    # --- studies -----------------------------------------------------------------------------

    @contextmanager
    def lend(self, name: str, study_id: str) -> Iterator[tuple[AnalysisService, Json]]:
        """Lend the model that reads a study, with what the result says about the choice.

        Raises:
            NotFoundError: no version of the model is loaded.
        """
        now = self.deployment(name)
        version, role = now.reads(study_id)
        if role != ACTIVE and not self._models.holds(name, version):
            version, role = now.active, ACTIVE
        with self._models.use(name, version) as analysis:
            yield analysis, {"role": role, "revision": now.revision}

    def compare(self, name: str, shown: Outcome, read: Read) -> None:
        """Let the shadow, if there is one, read a study along, and count how it compares.

        Called after the result is stored: a shadow neither delays nor changes what is shown.

        Args:
            name: of the model that read the study.
            shown: its outcome.
            read: reads the same study with the model it is given.
        """
        now = self.deployment(name)
        if not now.shadow or not self._models.holds(name, now.shadow):
            return
        body: Json = json.loads(shown.body)
        decision, probability = _said(body)
        try:
            with self._models.use(name, now.shadow) as analysis:
                other, beside = _said(json.loads(read(analysis).body))
        except BedsideError as why:
            log.warning("shadow failed", extra={"code": why.code})
            other, beside = _FAILED, None
        known = None not in (probability, beside)
        difference = abs((probability or 0.0) - (beside or 0.0)) if known else 0.0
        self._store.compared(
            Comparison(
                name=name,
                version=body["model"]["version"],
                shadow=now.shadow,
                decision=decision,
                shadow_decision=other,
                difference=difference,
            )
        )


def _said(body: Json) -> tuple[str, float | None]:
    value = body["value"]
    return (_REFUSED, None) if value is None else (value["decision"], value["probability"])
