"""The answers of the privacy API over a folder that no box has open: the same words, no HTTP."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from bedside_core.errors import InvalidRequestError, NotFoundError, StoreUnavailableError
from bedside_core.transparency import Publication
from bedside_core.uses import ActorKind, Asker
from bedside_edge.api import schemas_privacy as s
from bedside_edge.cli.access import ASK_THE_BOX
from bedside_edge.config import Config
from bedside_edge.services.access import CONSOLE
from bedside_edge.services.privacy_desk import PrivacyDesk, Who

if TYPE_CHECKING:
    from bedside_edge.services.access import AccessService
    from bedside_edge.services.budget import BudgetService
    from bedside_edge.services.privacy import PrivacyServices
    from bedside_edge.store.state import State

Json = dict[str, Any]

# Whoever has the machine has the data already; what the console releases is charged and logged as
# its own, and the policy has to list it as a requester.
_WHO = Who(asker=Asker(actor_id=CONSOLE.actor_id, kind=ActorKind.SYSTEM), actor_id=CONSOLE.actor_id)


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_privacy`."""

    def __init__(self, desk: PrivacyDesk) -> None:
        self._desk = desk
        self._ways: tuple[tuple[str, Callable[..., Json]], ...] = (
            (r"GET /privacy/catalogue", lambda body, query: desk.catalogue()),
            (r"GET /privacy/budget", lambda body, query: desk.budget()),
            (r"GET /privacy/policy", lambda body, query: desk.policy()),
            (r"PUT /privacy/policy", lambda body, query: desk.activate(_bytes(body), _WHO)),
            (r"GET /privacy/epochs", lambda body, query: desk.epochs()),
            (r"POST /privacy/epochs", lambda body, query: desk.open_epoch(**body, who=_WHO)),
            (r"POST /privacy/epochs:close", lambda body, query: desk.close_epoch(_WHO)),
            (r"POST /privacy/snapshots", lambda body, query: desk.freeze(None, None)),
            (r"POST /privacy/plan", self._plan),
            (r"POST /privacy/releases", self._release),
            (r"POST /privacy/local-answers", self._local),
            (r"GET /privacy/releases", self._list),
            (r"GET /privacy/releases/([0-9a-f]+)", self._replay),
            (r"GET /privacy/releases/([0-9a-f]+)/file", self._file),
            (r"GET /privacy/ledger", self._ledger),
            (r"GET /privacy/ledger:verify", lambda body, query: desk.verify()),
            (
                r"GET /privacy/epochs/([0-9]+)/accounting",
                lambda epoch, body, query: desk.accounting(int(epoch)),
            ),
            (r"POST /privacy/epochs/([0-9]+)/transparency", self._publish),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {parts.path}"):
                try:
                    return way(*found.groups(), body=body or {}, query=query)
                except ValueError as cause:  # pydantic's, of a body out of bounds
                    raise InvalidRequestError("a value is out of its bounds") from cause
        raise NotFoundError("no such resource")

    def _plan(self, body: Json, query: Json) -> Json:
        made = s.PlanBody(**body)
        return self._desk.plan(made.wish(), made.size, picture=made.picture)

    def _release(self, body: Json, query: Json) -> Json:
        made = s.ReleaseBody(**body)
        return self._desk.release(made.wish(made.snapshot, made.purpose), _WHO)

    def _local(self, body: Json, query: Json) -> Json:
        made = s.LocalBody(**body)
        return self._desk.answer(made.study, made.recipient, made.epsilon, _WHO)

    def _list(self, body: Json, query: Json) -> Json:
        return self._desk.release_list(int(query.get("limit", 100)), None)

    def _replay(self, fingerprint: str, body: Json, query: Json) -> Json:
        return self._desk.replay(fingerprint, int(query.get("night", 0)))

    def _file(self, fingerprint: str, body: Json, query: Json) -> Json:
        made: Json = json.loads(self._desk.file(fingerprint, int(query.get("night", 0))))
        return made

    def _ledger(self, body: Json, query: Json) -> Json:
        return self._desk.entries(int(query.get("start", 1)), int(query.get("limit", 100)))

    def _publish(self, epoch: str, body: Json, query: Json) -> Json:
        about = Publication(**body)
        summary = self._desk.summary(int(epoch))
        return {"yaml": self._desk.transparency(int(epoch), about), "summary": summary}


def _bytes(body: Json) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


@contextmanager
def offline_privacy(config: Config, folder: Path) -> Iterator[Offline]:
    """Lend the desk of a folder that no box has open.

    Raises:
        NotFoundError: there is no box in the folder.
        StoreUnavailableError: a box has it open: ask the box instead.
    """
    with _opened(config, folder) as (services, _):
        yield Offline(services.desk)


@contextmanager
def offline_budget(config: Config, folder: Path) -> "Iterator[tuple[BudgetService, AccessService]]":
    """Lend budgets and accounts of a folder that no box has open; raises as `offline_privacy`."""
    from bedside_edge.state_folder import access_service
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom

    with _opened(config, folder) as (services, state):
        yield services.budget, access_service(config, state, SystemClock(), OsRandom())


@contextmanager
def _opened(config: Config, folder: Path) -> "Iterator[tuple[PrivacyServices, State]]":
    from bedside_edge.services.gate import Gate
    from bedside_edge.state_folder import consent_service, open_folder, privacy_services
    from bedside_edge.system.clock import SystemClock
    from bedside_edge.system.random_os import OsRandom
    from bedside_edge.wiring import load_grading, policy_service

    if not (folder / "bedside.db").is_file():
        raise NotFoundError(f"there is no bedside.db in {folder}")
    clock = SystemClock()
    try:
        state = open_folder(config, folder, clock, OsRandom())
    except StoreUnavailableError as cause:
        words = f"{cause}; while a box runs, ask it: {ASK_THE_BOX}"
        raise StoreUnavailableError(words) from cause
    try:
        policies = policy_service(config.policy, folder, state.policies, clock)
        gate = Gate(policies.policy, state.governance, clock, state.evidence.append)
        gate.incident = state.incidents.now
        gate.standing = consent_service(config, state, clock).standing
        shares = load_grading(config.policy).rho
        yield privacy_services(config, folder, state, gate, shares), state
    finally:
        state.close()
