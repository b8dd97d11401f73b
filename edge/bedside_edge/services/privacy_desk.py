"""Statistics that may leave, as people and programs ask for them: by name, in epsilon, in views.

`PrivacyDesk` turns names and numbers into requests of the release service and what the ledger holds
into plain documents. The API, the pages and the command line say the same because they ask here.
Every method that can charge, replay or refuse answers at a slot: see `services.slots`.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

from bedside_core.access import Actor
from bedside_core.accounting import cap_units, epsilon
from bedside_core.errors import InvalidInputError, NotFoundError
from bedside_core.ledger.codec import encode, kind_of
from bedside_core.ledger.entries import Reserved, Scope, ScopeKind
from bedside_core.ledger.state import epoch_scope, grade_scopes
from bedside_core.plan_picture import error_picture
from bedside_core.planner import DELTA, Schedule, plan, plan_choice, plan_strata, strata_for
from bedside_core.release_check import read_document
from bedside_core.release_document import canonical, price, rounded
from bedside_core.signatures import seal_envelope
from bedside_core.statistics.catalogue import CATALOGUE
from bedside_core.statistics.choice import compile_choice
from bedside_core.statistics.query import compile_query
from bedside_core.statistics.spec import Kind, Weight
from bedside_core.transparency import (
    SUMMARY_TYPE,
    Publication,
    ledger_summary,
    registry_document,
    views,
    yaml_text,
)
from bedside_core.uses import Asker
from bedside_edge.ports.accounting import Accountant
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.ports.privacy import Held, LedgerStore, Release, SnapshotStore
from bedside_edge.services import spends
from bedside_edge.services.budget import BudgetService
from bedside_edge.services.local_answer import MILLIONTHS, LocalAnswerService
from bedside_edge.services.release import Origin, ReleaseService
from bedside_edge.services.slots import Slots

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A release as somebody asks for it: names, and a price in epsilon or in units of rho.

    Attributes:
        statistics: names of the catalogue, released together.
        epsilon: at delta 1e-6, for all of it; 0 where `units` says the price.
        snapshot: label of a frozen snapshot; of a schedule any word that tells it apart.
        strata: noise by grade of data; the price is that of the mildest grade.
    """

    statistics: tuple[str, ...]
    epsilon: float = 0.0
    units: int = 0
    snapshot: str = ""
    purpose: str = ""
    schedule: Schedule = Schedule.ONE_OFF
    nights: int = 1
    weight: Weight = Weight.STUDY
    pure: bool = False
    strata: bool = False

    @property
    def price(self) -> int:
        """Units of rho; InvalidInputError unless exactly one price is named."""
        if (self.epsilon > 0) is (self.units > 0):
            raise InvalidInputError("a release names one price: epsilon, or units of rho")
        return self.units or cap_units(float(self.epsilon), DELTA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who asks: for the gate, for the log, and whose budget pays."""

    asker: Asker
    actor_id: str
    roles: tuple[str, ...] = ()

    @classmethod
    def of(cls, actor: Actor, asker: Asker) -> "Who":
        """Return who an actor of the box is here."""
        roles = tuple(sorted(str(role) for role in actor.roles))
        return cls(asker=asker, actor_id=actor.actor_id, roles=roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyDesk:
    """Asks the services of privacy; methods block, any thread may call."""

    budgets: BudgetService
    releases: ReleaseService
    ledger: LedgerStore
    snapshots: SnapshotStore
    slots: Slots
    local: LocalAnswerService
    accountant: Accountant
    device: LogSigner
    origin: Origin

    # --- without data ----------------------------------------------------------------------------

    def catalogue(self) -> Json:
        """Return what can be asked under the policy in force, with cells and bounds."""
        policy = self.budgets.must_policy()
        found = []
        for name in CATALOGUE:
            spec = policy.spec(name)
            if spec.kind is Kind.QUANTILE:
                cells = [f"{float(share):g}" for share in spec.probabilities]
            else:
                cells = list(compile_query([spec], truncation=False).cells)
            found.append({"name": name, "kind": str(spec.kind), "cells": cells})
        return {
            "policy": policy.ledger.version,
            "c": policy.public.c,
            "weights": list(Weight),
            "grades": {str(grade): rho for grade, rho in sorted(self.budgets.shares.items())},
            "statistics": found,
        }

    def plan(self, wish: Wish, size: int, *, picture: bool = False) -> Json:
        """Return price and expected error of a wish, with a picture if wanted; touches no data."""
        policy = self.budgets.must_policy()
        if not wish.statistics:
            raise InvalidInputError("a plan names at least one statistic")
        specs = [policy.spec(name, wish.weight) for name in wish.statistics]
        if any(spec.kind is Kind.QUANTILE for spec in specs):
            if len(specs) != 1 or wish.schedule is not Schedule.ONE_OFF or wish.strata:
                raise InvalidInputError("a quantile is planned alone, once, at one price")
            chosen = asdict(plan_choice(compile_choice(specs[0]), wish.price, size))
            return chosen | {"price": price(int(chosen["cost"])), "lines": [], "picture": ""}
        query = compile_query(specs)
        shares = self.budgets.shares if wish.strata else None
        if shares is None:
            found = plan(query, wish.price, size, wish.schedule, wish.nights)
        elif wish.schedule is Schedule.ONE_OFF and not wish.pure:
            found = plan_strata(strata_for(query, wish.price, shares), size)
        else:
            raise InvalidInputError("noise by grade is Gaussian, and released once")
        drawn = ""
        if picture:
            drawn = error_picture(query, size, wish.schedule, wish.nights, found, shares)
        return asdict(found) | {"price": price(found.cost), "picture": drawn}

    # --- the ledger ------------------------------------------------------------------------------

    def budget(self) -> Json:
        """Return epoch, scopes with what is left, and how the epoch's spend grew."""
        ledger, policy, epoch = self.ledger.ledger(), self.budgets.policy, self.budgets.epoch()
        dataset = policy.dataset if policy else ""
        number = epoch.number if epoch else 0
        listed = [
            *((ScopeKind.REQUESTER, name) for name in (policy.ledger.requesters if policy else ())),
            *((ScopeKind.PURPOSE, name) for name in (policy.ledger.purposes if policy else ())),
        ]
        known = [Scope(kind, name) for kind, name in listed]
        if policy:
            known = [epoch_scope(dataset, number), Scope(ScopeKind.LIFETIME, dataset), *known]
            known += grade_scopes(dataset, number) if policy.ledger.grades else ()
        scopes = [
            {
                "kind": str(scope.kind),
                "name": scope.name,
                "cap": price(ledger.budget(scope).cap),
                "spent": price(ledger.budget(scope).spent),
                "left": price(ledger.budget(scope).left),
            }
            for scope in known
        ]
        return {
            "policy": policy.ledger.version if policy else "",
            "dataset": dataset,
            "epoch": self._epoch(),
            "locked": self.ledger.locked(),
            "entries": ledger.seq,
            "scopes": scopes,
            "not_the_gate": self._views(dataset, number),
            "growth": self._growth(dataset, number),
        }

    def _views(self, dataset: str, number: int) -> dict[str, float]:
        pure = spends.pure_part(spends.of_epoch(self.ledger, dataset, number))
        return views(self.ledger.ledger(), dataset, number, pure)

    def accounting(self, epoch: int) -> Json:
        """Return an epoch's spend by privacy loss distributions, and the gate's own; a second.

        Every release is in it, Gaussian, Laplace and exponential; it holds for a schedule that
        was fixed in advance and never decides.
        """
        dataset = self.budgets.must_policy().dataset
        held = spends.of_epoch(self.ledger, dataset, epoch)
        spent = sum(one.cost for one in self._charges(dataset, epoch))
        total = self.accountant.epsilon(spends.together(held.values()), DELTA) if held else 0.0
        other = self._views(dataset, epoch) | ({"pld": rounded(total)} if held else {})
        return {"epoch": epoch, "releases": len(held), "spent": price(spent), "not_the_gate": other}

    def _charges(self, dataset: str, number: int) -> list[Reserved]:
        return [
            one.reserved
            for one in self.ledger.ledger().charges.values()
            if (one.reserved.dataset, one.reserved.epoch) == (dataset, number)
        ]

    def _growth(self, dataset: str, number: int) -> list[Json]:
        total, found = 0, []
        for one in sorted(self._charges(dataset, number), key=lambda entry: entry.at):
            total += one.cost
            found.append({"at": one.at, "units": total, "epsilon": epsilon(total, DELTA)})
        return found

    def _epoch(self) -> Json | None:
        epoch = self.budgets.epoch()
        if epoch is None:
            return None
        named = ("number", "starts", "ends", "opened", "closed")
        return {name: getattr(epoch, name) for name in named}

    def entries(self, start: int, limit: int) -> Json:
        """Return ledger entries from number `start`, oldest first."""
        found = [
            {
                "seq": seq,
                "kind": kind_of(entry),
                "entry": index,
                "body": json.loads(encode(entry)),
            }
            for seq, entry, index in self.ledger.entries(start, start + limit)
        ]
        return {"size": self.ledger.ledger().seq, "entries": found}

    def verify(self) -> Json:
        """Fold every entry anew and compare with scopes, answers and evidence."""
        return {"entries": self.ledger.verify(), "verified": True}

    # --- releases --------------------------------------------------------------------------------

    def freeze(self, starts: int | None, ends: int | None) -> Json:
        """Freeze arrivals of the open epoch; the label says nothing about what is in it."""
        label = self.budgets.freeze(starts, ends)
        window = self.snapshots.window(label)
        if window is None:
            raise NotFoundError("the snapshot was erased meanwhile")
        return {"label": label, "starts": window.starts, "ends": window.ends}

    def snapshot_list(self) -> Json:
        """Return the frozen snapshots, newest first."""
        return {
            "snapshots": [
                {"label": label, "starts": window.starts, "ends": window.ends, "at": at}
                for label, window, at in self.snapshots.labels()
            ]
        }

    def release(self, wish: Wish, who: Who) -> Json:
        """Return a release's document, charged if it is new; or a schedule that was opened.

        Stored, fresh and refused leave at the same slot.
        """
        return self.slots.answer(lambda: self._release(wish, who))

    def _release(self, wish: Wish, who: Who) -> Json:
        request = self.budgets.request(
            wish.statistics,
            wish.price,
            wish.snapshot,
            wish.purpose,
            schedule=wish.schedule,
            nights=wish.nights,
            weight=wish.weight,
            pure=wish.pure,
            strata=wish.strata,
        )
        payer = self.budgets.requester(who.actor_id, who.roles)
        if wish.schedule is not Schedule.ONE_OFF:
            fingerprint = self.releases.open_schedule(request, who.asker, requester=payer)
            return {"fingerprint": fingerprint, "night": 0, "entry": None, "document": None}
        return _answer(self.releases.release(request, who.asker, requester=payer))

    def replay(self, fingerprint: str, night: int) -> Json:
        """Return a stored answer; free, at a slot."""
        return self.slots.answer(lambda: _answer(self.releases.replay(fingerprint, night)))

    def document(self, fingerprint: str, night: int = 0) -> Json:
        """Return the document of a stored answer, for pages."""
        return read_document(self.releases.replay(fingerprint, night).document)

    def file(self, fingerprint: str, night: int) -> bytes:
        """Return the file a recipient keeps: signed document and the log's proof of it."""
        return self.releases.file(fingerprint, night)

    def release_list(self, limit: int, before: int | None) -> Json:
        """Return charged releases, newest first."""
        held = self.ledger.releases(limit=limit, before=before)
        return {"releases": [_held(one) for one in held]}

    def answer(self, study_id: str, recipient: str, epsilon: float, who: Who) -> Json:
        """Return the randomised answer on one result for an outsider, signed; at a slot."""

        def work() -> Json:
            millionths = round(epsilon * MILLIONTHS)
            found: Json = json.loads(self.local.answer(study_id, recipient, millionths, who.asker))
            return found

        return self.slots.answer(work)

    # --- epochs ----------------------------------------------------------------------------------

    def epochs(self) -> Json:
        """Return the newest epoch; earlier ones are entries of the ledger."""
        return {"epoch": self._epoch()}

    def open_epoch(self, starts: int, ends: int, who: Who) -> Json:
        """Open the next epoch."""
        self.budgets.open_epoch(starts, ends, who.actor_id)
        return self.epochs()

    def close_epoch(self, who: Who) -> Json:
        """Close the open epoch."""
        self.budgets.close_epoch(who.actor_id)
        return self.epochs()

    def activate(self, envelope: bytes, who: Who) -> Json:
        """Put a signed privacy policy in force."""
        self.budgets.activate(envelope, who.actor_id)
        return self.policy()

    def policy(self) -> Json:
        """Return the policy in force as its text."""
        policy = self.budgets.must_policy()
        text = self.ledger.policy_document(policy.ledger.version)
        return {"version": policy.ledger.version, "text": (text or b"").decode("utf-8")}

    # --- what is published -----------------------------------------------------------------------

    def summary(self, epoch: int) -> Json:
        """Return the summary of an epoch, signed, as a DSSE envelope."""
        document = canonical(self._summary(epoch))
        key = self.device.key.key_id.hex()
        found: Json = json.loads(seal_envelope(SUMMARY_TYPE, document, {key: self.device.sign}))
        return found

    def _summary(self, epoch: int) -> Json:
        dataset = self.budgets.must_policy().dataset
        other = self.accounting(epoch)["not_the_gate"]
        return ledger_summary(self.ledger.ledger(), dataset, epoch, self.origin.name, other)

    def transparency(self, epoch: int, about: Publication) -> str:
        """Return the transparency file of an epoch, YAML."""
        return yaml_text(registry_document(self._summary(epoch), about))


def _answer(release: Release) -> Json:
    return {
        "fingerprint": release.fingerprint,
        "night": release.night,
        "entry": release.index,
        "document": json.loads(release.document),
    }


def _held(one: Held) -> Json:
    request = one.request
    return {
        "fingerprint": one.fingerprint,
        "state": one.state,
        "seq": one.seq,
        "at": one.at,
        "cost": price(one.cost),
        "requester": one.requester,
        "purpose": request.purpose,
        "statistics": [spec.name for spec in request.specs],
        "snapshot": request.snapshot,
        "epoch": request.epoch,
        "schedule": str(request.schedule),
        "nights": request.nights,
        "answered": len(one.answered),
    }
