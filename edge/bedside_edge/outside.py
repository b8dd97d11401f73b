"""What leaves the hospital as an object: the one way out, de-identified, over a closed folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bedside_core.access import Action, Actor
from bedside_core.errors import NotFoundError
from bedside_edge.config import Config
from bedside_edge.dicom.deidentify import PROFILE, Deidentified, Deidentifier
from bedside_edge.services.access import AccessService
from bedside_edge.services.deidentify import Sources, deidentified
from bedside_edge.services.gate import Gate, asker_of
from bedside_edge.state_folder import access_service, consent_service, open_folder
from bedside_edge.store.state import DATABASE, State
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from bedside_edge.wiring import policy_service


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """De-identification with the keys of one folder."""

    access: AccessService
    gate: Gate
    state: State
    cleaner: Deidentifier
    profile: str = PROFILE

    def clean(self, data: bytes) -> Deidentified:
        """Return a file without what identifies; see `Deidentifier.deidentify`."""
        return self.cleaner.deidentify(data)

    def person(self, login: str, password: str) -> Actor:
        """Return who that is; UnauthenticatedError."""
        session = self.access.log_in(login, password, "console")
        self.access.log_out(session.secret)
        return session.actor

    def study(self, study_id: str, first: Actor, second: Actor | None) -> list[Deidentified]:
        """Return a study's objects without what identifies; see `services.deidentify`.

        The first person may release, the second may look at images; ForbiddenError.
        """
        made: list[Deidentified] = []

        def clean(data: bytes) -> Deidentified:
            made.append(self.clean(data))
            return made[-1]

        sources = Sources(
            instances=self.state.studies.instances,
            read=lambda one: self.state.objects.read(one.object_name, one.object_key),
            clean=clean,
            append=self.state.evidence.append,
            profile=self.profile,
        )
        first.must(Action.RELEASE)
        if second:
            second.must(Action.VIEW_IMAGE)
        other = second.actor_id if second else ""
        deidentified(self.gate, sources, asker_of(first), study_id, other)
        return made


@contextmanager
def offline_deidentifier(config: Config, folder: Path) -> Iterator[Outside]:
    """Lend the way out of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open.
        InvalidPolicyError, UntrustedSignatureError: the policy in force must not decide.
    """
    if not (folder / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {folder}")
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        policies = policy_service(config.policy, folder, state.policies, clock)
        gate = Gate(
            policies.policy,
            state.governance,
            clock,
            state.evidence.append,
            incident=state.incidents.now,
            standing=consent_service(config, state, clock).standing,
        )
        yield Outside(
            access=access_service(config, state, clock, random),
            gate=gate,
            state=state,
            cleaner=Deidentifier(state.keys.mac),
        )
    finally:
        state.close()
