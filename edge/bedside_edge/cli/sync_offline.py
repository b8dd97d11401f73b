"""The answers of the consortium's API over a folder that no box has open: same words, no HTTP."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bedside_core.errors import InvalidRequestError, NotFoundError
from bedside_edge.api import schemas_sync as s
from bedside_edge.api.routes_sync import agreement_of
from bedside_edge.cli.keeping_offline import gate_over
from bedside_edge.config import Config
from bedside_edge.services.access import CONSOLE
from bedside_edge.services.sync import SyncService
from bedside_edge.state_folder import access_service, open_folder, sync_service
from bedside_edge.store.state import DATABASE
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom

Json = dict[str, Any]
_NAME: Final = r"([a-z][a-z0-9._:-]{0,63})"
_NIGHTS: Final = 14


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_sync`."""

    def __init__(self, sync: SyncService, now: Callable[[], int]) -> None:
        self._sync, self._now = sync, now
        self._ways: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"GET /sync", lambda body: s.status_view(sync.status())),
            (r"GET /sync/nights", lambda body: self._nights()),
            (r"GET /sync/agreements", lambda body: self._agreements()),
            (r"POST /sync:request", self._request),
            (r"POST /sync:welcome", self._welcome),
            (r"POST /sync:now", lambda body: self._visit()),
            (rf"POST /sync/rounds/{_NAME}:veto", self._veto),
            (rf"POST /sync/rounds/{_NAME}:withdraw", self._withdraw),
            (r"POST /sync/agreements", self._agree),
            (rf"POST /sync/agreements/{_NAME}:end", self._end),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {path}"):
                try:
                    answer = way(*found.groups(), body=body or {})
                except ValidationError as cause:
                    raise InvalidRequestError("a value is out of its bounds") from cause
                shown: Json = answer.model_dump(mode="json") if answer else {}
                return shown
        raise NotFoundError("no such resource")

    def _request(self, body: Json) -> s.RequestView:
        asked = s.JoinBody(**body)
        data, told = self._sync.request(
            asked.box, asked.organisation, helper=asked.helper, actor=CONSOLE.actor_id
        )
        return s.RequestView(request=data.decode(), fingerprint=told)

    def _welcome(self, body: Json) -> s.WelcomeView:
        text = s.WelcomeBody(**body).welcome
        given, told = self._sync.take_welcome(text.encode(), CONSOLE.actor_id)
        return s.WelcomeView(
            consortium=given.root.consortium, box=given.box, url=given.url, fingerprint=told
        )

    def _visit(self) -> s.VisitView:
        outlook, store = self._sync.visit(), self._sync.store
        night = (store.nights(1) or [0])[0]
        shown = s.night_view(night, store.events(night))
        return s.VisitView(night=shown, waits=outlook.waits, failed=outlook.failed)

    def _veto(self, name: str, body: Json) -> None:
        self._sync.veto(name, s.VetoBody(**body).reason, CONSOLE.actor_id)

    def _withdraw(self, name: str, body: Json) -> s.WithdrawView:
        return s.WithdrawView(round=name, told=self._sync.withdraw(name, CONSOLE.actor_id))

    def _nights(self) -> s.NightList:
        store = self._sync.store
        found = [s.night_view(one, store.events(one)) for one in store.nights(_NIGHTS)]
        return s.NightList(nights=found)

    def _agreements(self) -> s.AgreementList:
        found = [s.agreement_view(one) for one in self._sync.store.agreements()]
        return s.AgreementList(agreements=found)

    def _agree(self, body: Json) -> s.AgreementView:
        one = agreement_of(s.AgreementBody(**body), CONSOLE.actor_id, self._now())
        self._sync.agree(one)
        return s.agreement_view(one)

    def _end(self, name: str, body: Json) -> None:
        self._sync.store.end_agreement(name, CONSOLE.actor_id, self._now())


@contextmanager
def opened(config: Config, folder: Path) -> Iterator[Offline]:
    """Open the folder and lend the answers over it; a model is loaded only when a task asks."""
    from bedside_edge.wiring import analysis_service, learning_service, load_model, model_service

    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        models = cache(
            lambda: model_service(config.model, analysis_service(load_model(config.model)))
        )
        gate = gate_over(config, folder, state, clock)
        learning = learning_service(config.model, state, lambda: gate, models, clock, random)
        try:
            sync = sync_service(config, state, gate, learning.materials, clock, random)
            yield Offline(sync, clock.now)
        finally:
            learning.close()
            if models.cache_info().currsize:
                models().close()
    finally:
        state.close()


def recover_folder(config: Config, folder: Path, login: str, other: str) -> None:
    """Let a box that was set back go on, by an administrator or by two persons.

    Raises:
        NotFoundError: there is no box in the folder.
        WrongStateError: nothing was set back.
    """
    from bedside_edge.cli.witness import deciders

    if not (folder / DATABASE).is_file():
        raise NotFoundError(f"there is no {DATABASE} in {folder}; name the box's with --state")
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        names = deciders(access_service(config, state, clock, random), login, other)
        gate = gate_over(config, folder, state, clock)
        sync_service(config, state, gate, {}, clock, random).recover(names[0], names[-1])
    finally:
        state.close()
