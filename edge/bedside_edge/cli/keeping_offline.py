"""The answers of the erasure API over a folder that no box has open: the same words, no HTTP.

The policy in force is asked here too. The operator at the machine can make an account of any role,
so the policy is told of every role, and of an actor it can name: `system:console`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from bedside_core.access import Role
from bedside_core.errors import NotFoundError
from bedside_core.uses import ActorKind, Asker
from bedside_edge.api import schemas_keeping as schemas
from bedside_edge.config import Config
from bedside_edge.ports import Clock
from bedside_edge.ports.erasure import ErasurePlan
from bedside_edge.services.access import CONSOLE
from bedside_edge.services.gate import Gate
from bedside_edge.services.keeping import Keeping

if TYPE_CHECKING:
    from bedside_edge.store.state import State

Json = dict[str, Any]


_OPERATOR: Final = Asker(
    actor_id=CONSOLE.actor_id, kind=ActorKind.PERSON, roles=frozenset(map(str, Role))
)


def gate_over(config: Config, folder: Path, state: "State", clock: Clock) -> Gate:
    """Return the gate over an open folder, with the policy in force and the box's state.

    Raises:
        InvalidPolicyError, UntrustedSignatureError: nobody vouches for what is in force.
    """
    from bedside_edge.state_folder import consent_service
    from bedside_edge.wiring import policy_service  # takes a second: only before a question

    policies = policy_service(config.policy, folder, state.policies, clock)
    return Gate(
        policies.policy,
        state.governance,
        clock,
        state.evidence.append,
        incident=state.incidents.now,
        standing=consent_service(config, state, clock).standing,
    )


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_keeping`."""

    def __init__(self, keeping: Keeping, gate: Callable[[], Gate], clock: Clock) -> None:
        self._keeping, self._gate, self._clock = keeping, gate, clock
        self._ways: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"POST /subjects:find", self._find),
            (r"GET /(studies|subjects)/([^/]+)/erasure", self._plan),
            (r"DELETE /(studies|subjects)/([^/]+)", self._erase),
            (r"GET /erasures", self._erasures),
            (r"GET /erasures/([^/]+)/certificate", self._certificate),
            (r"POST /studies/([^/]+)/hold", self._hold),
            (r"GET /holds", self._holds),
            (r"POST /holds/([^/]+):release", self._release),
            (r"GET /retention/plan", self._retention),
            (r"POST /retention:run", self._sweep),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {parts.path}"):
                answer = way(*found.groups(), **query, **(body or {}))
                return answer if isinstance(answer, dict) else dict(answer.model_dump(mode="json"))
        raise NotFoundError("no such resource")

    def _find(self, patient_id: str, issuer: str = "") -> schemas.SubjectView:
        subjects = self._keeping.subjects
        found = subjects.subject(subjects.find(issuer, patient_id))
        return schemas.SubjectView(
            id=found.subject_id, identified=found.identified, studies=list(found.studies)
        )

    def _planned(self, kind: str, target: str) -> ErasurePlan:
        erasure = self._keeping.erasure
        return (erasure.plan_study if kind == "studies" else erasure.plan_subject)(target)

    def _plan(self, kind: str, target: str) -> schemas.PlanView:
        return schemas.plan_view(self._planned(kind, target))

    def _erase(self, kind: str, target: str, reason: str) -> schemas.ErasureView:
        plan = self._planned(kind, target)
        done = self._keeping.erase(self._gate(), _OPERATOR, plan, reason=reason)
        return schemas.erasure_view(done)

    def _erasures(self) -> schemas.ErasureList:
        found = self._keeping.erasure.erasures()
        return schemas.ErasureList(erasures=[schemas.erasure_view(one) for one in found])

    def _certificate(self, erasure_id: str) -> Json:
        made: Json = json.loads(self._keeping.erasure.certificate(erasure_id).encode())
        return made

    def _hold(self, study_id: str, reason: str, review_at: int) -> schemas.HoldView:
        held = self._keeping.holds.hold(
            study_id, reason=reason, actor=CONSOLE.actor_id, review_at=review_at
        )
        return schemas.hold_view(held, self._clock.now())

    def _holds(self) -> schemas.HoldList:
        now = self._clock.now()
        found = [schemas.hold_view(one, now) for one in self._keeping.holds.holds()]
        return schemas.HoldList(holds=found)

    def _release(self, hold_id: str) -> schemas.HoldView:
        ended = self._keeping.holds.release(hold_id, actor=CONSOLE.actor_id)
        return schemas.hold_view(ended, self._clock.now())

    def _retention(self, limit: str) -> schemas.RetentionView:
        return schemas.retention_view(self._keeping.retention.plan(), int(limit))

    def _sweep(self) -> schemas.SweepView:
        return schemas.SweepView(erased=self._keeping.retention.run())
