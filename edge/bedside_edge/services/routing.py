"""The way of a study to its model: the rules choose, the model is lent, the result says who chose.

Rules are read once, when the box starts; what they name is loaded before anything listens.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bedside_core.errors import InvalidRulesError, NoRouteError, NotFoundError, NotReadyError
from bedside_core.manifest import Accepts
from bedside_core.result import Json, canonical, evidence_refs, unrouted_result
from bedside_core.routing import Chance, Image, Plan, Rules, chances, route
from bedside_edge.ports import Header, Instance, InstanceState, Outcome
from bedside_edge.services.analysis import instance_entry
from bedside_edge.services.models import ModelService
from bedside_edge.services.rollout import RolloutService

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What the rules would do with a study, and what each loaded model says to it."""

    rules: str  # digest
    plan: Plan
    chances: tuple[Chance, ...]


class RoutingService:
    """Reads studies with the model the rules choose. Safe to call from several threads."""

    def __init__(
        self, rules: Rules, models: ModelService, open_rollout: Callable[[], RolloutService]
    ) -> None:
        """Load every model the rules name; it stays loaded.

        Args:
            rules: in force until the box stops.
            models: of this box.
            open_rollout: puts the versions in force that were chosen for these models.

        Raises:
            InvalidRulesError: a rule names a model that is not on this box.
            BedsideError: why one of them may not serve.
        """
        self.rules, self._models = rules, models
        for name in rules.models:
            if any(model.manifest.name == name for model in models.loaded()):
                continue
            try:
                models.load(name)
            except NotFoundError as cause:
                raise InvalidRulesError(f"a rule names {name}, which the box has not") from cause
        models.keep(rules.models)
        self.rollout = open_rollout()

    def analyse_study(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes]
    ) -> Outcome:
        """Return the outcome of a job over a study's settled instances.

        Args:
            instances: in order of arrival.
            read: fetches the plain bytes of one instance.

        Raises:
            NotReadyError: the model the rules chose is not loaded; the job is tried again.
        """
        plan, left_out = self._plan(instances)
        note: Json = {"rule": plan.rule or None, "rules": self.rules.digest, "reason": plan.reason}
        if not plan.model:
            log.info("study not routed", extra={"code": NoRouteError.code})
            return _unrouted(instances, plan, note)
        with ExitStack() as lent:
            try:
                study_id = instances[0].study_id
                lend = self.rollout.lend(plan.model, study_id)
                analysis, deployment = lent.enter_context(lend)
            except NotFoundError as cause:
                raise NotReadyError(f"the rules chose {plan.model}, which is not loaded") from cause
            return analysis.analyse_study(
                instances, read, left_out=left_out, routing=note, deployment=deployment
            )

    def follow_up(
        self, instances: Sequence[Instance], read: Callable[[Instance], bytes], shown: Outcome
    ) -> None:
        """Let a shadow read along what was read; called after the result is stored."""
        plan, left_out = self._plan(instances)
        if plan.model:
            self.rollout.compare(
                plan.model,
                shown,
                lambda analysis: analysis.analyse_study(instances, read, left_out=left_out),
            )

    def _plan(self, instances: Sequence[Instance]) -> tuple[Plan, dict[str, str]]:
        """Return the plan, and the held instances it leaves out with the reason."""
        held = [instance for instance in instances if instance.state is InstanceState.HELD]
        plan = route(self.rules, [image_of(one.header, one.source) for one in held])
        why = f"{plan.reason} does not take it"
        pairs = zip(held, plan.takes, strict=True)
        return plan, {one.instance_id: why for one, take in pairs if not take}

    def dry_run(self, images: Sequence[Image], rules: Rules | None = None) -> DryRun:
        """Say what would run, and why not the others; nothing is read and nothing changes.

        Args:
            images: of one study.
            rules: other rules than those in force.
        """
        accepts = {model.manifest.name: model.manifest.accepts for model in self._models.loaded()}
        return dry_run(rules or self.rules, images, accepts)


def dry_run(rules: Rules, images: Sequence[Image], accepts: Mapping[str, Accepts]) -> DryRun:
    """Say what rules would do on a box with these models."""
    plan = route(rules, images)
    told = chances(plan, images, accepts)
    return DryRun(rules=rules.digest, plan=plan, chances=tuple(told))


def image_of(header: Header, source: str) -> Image:
    """Return what rules may look at."""
    return Image(header=header, source=source, laterality=header.laterality)


def _unrouted(instances: Iterable[Instance], plan: Plan, note: Json) -> Outcome:
    refusal = NoRouteError(plan.reason)
    entries = [instance_entry(instance, refusal) for instance in instances]
    body = unrouted_result(entries, refusal, note)
    return Outcome(
        refused=True, reason=refusal.code, body=canonical(body), refs=evidence_refs(body)
    )
