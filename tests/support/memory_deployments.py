"""Deployments in memory, with every promise of `DeploymentStore` but durability."""

from dataclasses import replace

from bedside_core.errors import StaleRevisionError
from bedside_core.rollout import Deployment
from bedside_edge.services.rollout import Change, Comparison, Tally


class MemoryDeployments:
    def __init__(self) -> None:
        self._held: dict[str, Deployment] = {}
        self._changes: dict[str, list[Change]] = {}
        self._tallies: dict[str, dict[tuple[str, ...], Tally]] = {}

    def all(self) -> list[Deployment]:
        return list(self._held.values())

    def save(self, new: Deployment, change: Change) -> None:
        held = self._held.get(new.name)
        if new.revision != (held.revision if held else 0) + 1:
            raise StaleRevisionError("the model's settings were changed meanwhile")
        self._held[new.name] = new
        self._changes.setdefault(new.name, []).insert(0, change)

    def changes(self, name: str, limit: int = 50) -> list[Change]:
        return self._changes.get(name, [])[:limit]

    def compared(self, one: Comparison) -> None:
        key = (one.version, one.shadow, one.decision, one.shadow_decision)
        tallies = self._tallies.setdefault(one.name, {})
        version, shadow, decision, other = key
        held = tallies.get(key) or Tally(
            version=version,
            shadow=shadow,
            decision=decision,
            shadow_decision=other,
            studies=0,
            difference=0.0,
        )
        tallies[key] = replace(
            held, studies=held.studies + 1, difference=held.difference + one.difference
        )

    def tallies(self, name: str) -> list[Tally]:
        held = self._tallies.get(name, {})
        return [held[key] for key in sorted(held)]
