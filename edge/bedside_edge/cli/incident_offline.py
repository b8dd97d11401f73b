"""The answers of the incident API over a folder that no box has open: the same words, no HTTP."""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from bedside_core.errors import NotFoundError
from bedside_core.incident import Cause
from bedside_core.uses import Incident
from bedside_edge.api import schemas_incidents as schemas
from bedside_edge.services.incident import IncidentService

Json = dict[str, Any]


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_incidents`."""

    def __init__(self, incidents: IncidentService, actor: str) -> None:
        self._incidents, self._actor = incidents, actor
        self._ways: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"GET /incidents/state", self._states),
            (r"POST /incidents:seal", self._seal),
            (r"POST /incidents:state", self._move),
            (r"POST /incidents", self._open),
            (r"GET /incidents", self._list),
            (r"GET /incidents/([^/:]+)", self._view),
            (r"PATCH /incidents/([^/:]+)", self._learn),
            (r"POST /incidents/([^/:]+):close", self._close),
            (r"GET /incidents/([^/]+)/notices/([^/:]+)", self._notice),
            (r"POST /incidents/([^/]+)/notices/([^/:]+):sign", self._sign),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {urlsplit(path).path}"):
                answer = way(*found.groups(), **(body or {}))
                return dict(answer.model_dump(mode="json"))
        raise NotFoundError("no such resource")

    def _states(self) -> schemas.StateList:
        history = self._incidents.store.history()
        return schemas.StateList(states=[schemas.state_view(one) for one in history])

    def _seal(
        self, cause: str, reason: str = "", aware_at: int = 0, *, shutdown: bool = False
    ) -> schemas.StateView:
        self._incidents.seal(
            self._actor,
            cause=Cause(cause),
            reason=reason,
            aware_at=aware_at,
            shutdown=shutdown,
            remote=False,
        )
        return schemas.state_view(self._incidents.store.state())

    def _move(self, state: str, reason: str = "") -> schemas.StateView:
        self._incidents.move(Incident(state), self._actor, reason, remote=False)
        return schemas.state_view(self._incidents.store.state())

    def _open(
        self, cause: str, facts: dict[str, str], aware_at: int, earliest: int, *, drill: bool
    ) -> schemas.IncidentView:
        made = self._incidents.open(
            self._actor,
            cause=Cause(cause),
            facts=facts,
            aware_at=aware_at,
            earliest=earliest,
            drill=drill,
        )
        return self._view(made)

    def _list(self) -> schemas.IncidentList:
        found = self._incidents.store.incidents()
        views = [schemas.incident_view(one, self._incidents) for one in found]
        return schemas.IncidentList(incidents=views)

    def _view(self, incident_id: str) -> schemas.IncidentView:
        return schemas.incident_view(self._incidents.store.incident(incident_id), self._incidents)

    def _learn(self, incident_id: str, facts: dict[str, str]) -> schemas.IncidentView:
        self._incidents.learn(incident_id, facts, self._actor)
        return self._view(incident_id)

    def _close(self, incident_id: str) -> schemas.IncidentView:
        self._incidents.close(incident_id, self._actor)
        return self._view(incident_id)

    def _notice(self, incident_id: str, duty_id: str) -> schemas.NoticeView:
        return schemas.NoticeView(text=self._incidents.notice(incident_id, duty_id))

    def _sign(self, incident_id: str, duty_id: str) -> schemas.NoticeView:
        text = self._incidents.notice(incident_id, duty_id)
        return schemas.NoticeView(
            text=text, digest=self._incidents.sign(incident_id, duty_id, self._actor)
        )
