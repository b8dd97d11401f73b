"""What the box keeps of whom, and how it goes: erasures, legal holds and retention, asked for.

Whoever asks over the network goes through the policy first. What the policy permits may still be
forbidden by a legal hold, which the store itself holds against everybody.
"""

from dataclasses import dataclass

from bedside_core.errors import StoreUnavailableError
from bedside_core.grading import IDENTIFYING
from bedside_core.uses import ActorKind, Ask, Asker, Facts, Purpose, Situation, Thing, Use
from bedside_edge.ports.erasure import Erasure, ErasurePlan
from bedside_edge.ports.governance import Standing
from bedside_edge.ports.subjects import SubjectStore
from bedside_edge.services.erasure import ErasureService
from bedside_edge.services.gate import Gate
from bedside_edge.services.holds import HoldService
from bedside_edge.services.retention import ACTOR, RetentionService

_SWEEP = Asker(actor_id=ACTOR, kind=ActorKind.SYSTEM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The services behind the routes and commands about keeping and erasing."""

    erasure: ErasureService
    holds: HoldService
    retention: RetentionService
    subjects: SubjectStore

    def erase(self, gate: Gate, asker: Asker, plan: ErasurePlan, *, reason: str) -> Erasure:
        """Erase what the plan names if the policy permits it for every study.

        Returns:
            The erasure; not done yet when something keeps the database in use: the box goes on.

        Raises:
            NotPermittedError: the policy says no; nothing was changed.
            LegalHoldError, NotFoundError: nothing was changed.
        """
        for study_id in plan.studies:
            gate.study(Use.ERASE, asker, study_id, purpose=Purpose.RIGHTS).must()
        if not plan.studies:  # a patient whose studies went before: the key is left
            gate.decide(_patient_alone(gate, asker, plan.target), subject_id=plan.target).must()
        try:
            return self.erasure.erase(plan, reason=reason, actor=asker.actor_id)
        except StoreUnavailableError:
            begun = self.erasure.erasures(target=plan.target, limit=1)
            if not begun:
                raise
            return begun[0]


def _patient_alone(gate: Gate, asker: Asker, subject_id: str) -> Ask:
    standing = gate.standing([subject_id]).get(subject_id, Standing())
    return Ask(
        use=Use.ERASE,
        asker=asker,
        facts=Facts(
            thing=Thing.STUDY,
            grade=IDENTIFYING,
            consents=standing.consents,
            withdrawn=standing.withdrawn,
        ),
        situation=Situation(purpose=Purpose.RIGHTS, incident=gate.incident()),
    )


def sweep_permitted(gate: Gate, study_id: str) -> bool:
    """Tell whether the policy lets a study go whose time is up."""
    return gate.study(Use.ERASE, _SWEEP, study_id, purpose=Purpose.OPERATION).permitted
