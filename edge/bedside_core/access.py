"""Who may do what: roles, actions, and the table between them. Everything not listed is refused.

A person has roles; a token has a list of actions of its own and never more than its owner has.
This module knows no password, no session and no request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from bedside_core.errors import ForbiddenError, InvalidInputError


class Role(StrEnum):
    """What a person is to the box."""

    RADIOLOGIST = "radiologist"
    ADMINISTRATOR = "administrator"
    PRIVACY_OFFICER = "privacy-officer"
    AUDITOR = "auditor"
    VENDOR = "vendor"


class Action(StrEnum):
    """What can be done over the network; every route names exactly one."""

    VIEW_WORKLIST = "view-worklist"  # studies and jobs, with the patients' names
    VIEW_RESULT = "view-result"  # exact results and their objects
    VIEW_IMAGE = "view-image"  # pixels and instances, DICOMweb retrieval
    REVIEW = "review"  # sign off, in one's own name
    STORE = "store"  # send instances in
    ANALYZE = "analyze"  # send a study in and wait for its result
    INFER = "infer"  # bare tensors, explanation
    MANAGE_WORKITEMS = "manage-workitems"  # UPS-RS
    PRIORITISE = "prioritise"  # which study is read first
    MANAGE_JOBS = "manage-jobs"
    MANAGE_DELIVERIES = "manage-deliveries"
    MANAGE_MODELS = "manage-models"
    MANAGE_RULES = "manage-rules"
    MANAGE_ACCOUNTS = "manage-accounts"
    MANAGE_POLICY = "manage-policy"  # policy documents, retention, grades
    MANAGE_CONSENT = "manage-consent"  # consent records, request desk, erasure
    MANAGE_INCIDENT = "manage-incident"  # seal, unseal
    MANAGE_SYNC = "manage-sync"  # consortium: join, visit the hub, veto, withdraw
    RELEASE = "release"  # statistics that leave the hospital
    READ_PRIVACY = "read-privacy"  # budget, releases, planner
    READ_AUDIT = "read-audit"  # evidence log, proofs, agreement figures
    WITNESS = "witness"  # have a checkpoint cosigned
    MONITOR = "monitor"  # metrics, queue lengths, model metadata; nothing about patients
    VIEW_OWN = "view-own"  # one's own account, log-out


_EVERYBODY: Final = frozenset({Action.VIEW_OWN, Action.MONITOR})
_READING: Final = frozenset({Action.VIEW_WORKLIST, Action.VIEW_RESULT, Action.VIEW_IMAGE})

# A vendor sees how the box runs and nothing of a patient; an administrator keeps it running and
# signs nothing off; an auditor reads the trail and changes nothing.
ALLOWED: Final[Mapping[Role, frozenset[Action]]] = MappingProxyType(
    {
        Role.RADIOLOGIST: _EVERYBODY
        | _READING
        | {
            Action.REVIEW,
            Action.PRIORITISE,
            Action.STORE,
            Action.ANALYZE,
            Action.MANAGE_WORKITEMS,
        },
        Role.ADMINISTRATOR: _EVERYBODY
        | _READING
        | {
            Action.STORE,
            Action.ANALYZE,
            Action.INFER,
            Action.MANAGE_WORKITEMS,
            Action.PRIORITISE,
            Action.MANAGE_JOBS,
            Action.MANAGE_DELIVERIES,
            Action.MANAGE_MODELS,
            Action.MANAGE_RULES,
            Action.MANAGE_ACCOUNTS,
            Action.MANAGE_INCIDENT,
            Action.MANAGE_SYNC,
            Action.READ_PRIVACY,
            Action.READ_AUDIT,
        },
        Role.PRIVACY_OFFICER: _EVERYBODY
        | {
            Action.MANAGE_POLICY,
            Action.MANAGE_CONSENT,
            Action.MANAGE_INCIDENT,
            Action.MANAGE_SYNC,
            Action.RELEASE,
            Action.READ_PRIVACY,
            Action.READ_AUDIT,
        },
        Role.AUDITOR: _EVERYBODY | {Action.READ_AUDIT, Action.READ_PRIVACY},
        Role.VENDOR: _EVERYBODY | {Action.INFER},
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks: a person's session, a token, a system known by certificate or AE title.

    Attributes:
        actor_id: minted by the box (`person:3f2a...`, `token:9c...`, `system:...`); may be logged
            and stands in the evidence.
        name: what pages and signed reports show; a DICOM person name for readers. Never logged.
        roles: the person's roles; empty for tokens and systems.
        actions: what this actor may do.
    """

    actor_id: str
    name: str = field(repr=False)
    roles: frozenset[Role] = frozenset()
    actions: frozenset[Action] = frozenset()

    def __post_init__(self) -> None:
        if not self.actor_id:
            raise InvalidInputError("an actor needs an id")

    def may(self, action: Action) -> bool:
        """Whether the actor may do this."""
        return action in self.actions

    def must(self, action: Action) -> None:
        """Return if the actor may do this; ForbiddenError otherwise."""
        if not self.may(action):
            able = [role.value for role in Role if action in ALLOWED[role]]
            who = f"; a person who may is {' or '.join(able)}" if able else ""
            raise ForbiddenError(f"this account may not {action.value}{who}")


# A signature needs a person: no token ever carries these.
PERSONS_ONLY: Final = frozenset({Action.REVIEW})


def actions_of(roles: frozenset[Role]) -> frozenset[Action]:
    """Return the union of what the roles allow."""
    return frozenset().union(*(ALLOWED[role] for role in roles))
