"""The answers of the learning API over a folder that no box has open: the same words, no HTTP."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from bedside_core.errors import InvalidRequestError, NotFoundError
from bedside_edge.api import routes_overlap as routes
from bedside_edge.api import schemas_learning as s
from bedside_edge.cli.keeping_offline import gate_over
from bedside_edge.config import Config
from bedside_edge.services.access import CONSOLE
from bedside_edge.services.learning import ANNOTATE, CLEAN, LearningService
from bedside_edge.services.overlap import OverlapService
from bedside_edge.state_folder import open_folder
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom

Json = dict[str, Any]


class Offline:
    """Answers a request as the API would; see `bedside_edge.api.routes_learning`."""

    def __init__(self, learning: LearningService) -> None:
        self._learning = learning
        self._ways: tuple[tuple[str, Callable[..., Any]], ...] = (
            (r"POST /cleanings", self._take_cleaning),
            (r"GET /cleanings:report", self._report),
            (r"POST /consensus", self._take_consensus),
            (r"GET /relabel", lambda body, query: self._relabel()),
            (r"PUT /sources/([a-z][a-z0-9_]{0,31})", self._source),
            (r"GET /own-head", lambda body, query: s.own_head_view(learning)),
        )

    def __call__(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the answer's document."""
        parts = urlsplit(path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        for pattern, way in self._ways:
            if found := re.fullmatch(pattern, f"{method} {parts.path}"):
                try:
                    answer = way(*found.groups(), body=body or {}, query=query)
                except ValidationError as cause:
                    raise InvalidRequestError("a value is out of its bounds") from cause
                shown: Json = answer.model_dump(mode="json")
                return shown
        raise NotFoundError("no such resource")

    def _take_cleaning(self, body: Json, query: Json) -> s.TakenView:
        digest = self._learning.take_cleaning(s.ResultBody(**body).document, CONSOLE.actor_id)
        kept = self._learning.store.joint_results(CLEAN)
        return s.taken_view(next(one for one in kept if one.digest == digest))

    def _report(self, body: Json, query: Json) -> s.ReportView:
        return s.report_view(self._learning.cleaning_report(query.get("version", "")))

    def _take_consensus(self, body: Json, query: Json) -> s.TakenView:
        document = s.ResultBody(**body).document
        digest = self._learning.take_consensus(document, CONSOLE.actor_id)
        kept = self._learning.store.joint_results(ANNOTATE)
        return s.taken_view(next(one for one in kept if one.digest == digest))

    def _relabel(self) -> s.RelabelList:
        return s.RelabelList(studies=[s.relabel_view(one) for one in self._learning.relabel()])

    def _source(self, name: str, body: Json, query: Json) -> s.SourceView:
        return s.source_view(self._learning, name, s.SourceBody(**body), CONSOLE.actor_id)


@contextmanager
def opened(config: Config, folder: Path) -> Iterator[Offline]:
    """Open the folder and lend the answers over it; a model is loaded only when one is asked."""
    from bedside_edge.wiring import analysis_service, learning_service, load_model, model_service

    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        models = cache(
            lambda: model_service(config.model, analysis_service(load_model(config.model)))
        )
        gate = cache(lambda: gate_over(config, folder, state, clock))
        learning = learning_service(config.model, state, gate, models, clock, random)
        try:
            yield Offline(learning)
        finally:
            learning.close()
            if models.cache_info().currsize:
                models().close()
    finally:
        state.close()


@contextmanager
def letters(config: Config, folder: Path) -> Iterator[Callable[..., Json]]:
    """Open the folder and lend the answers of the overlap API over it."""
    clock, random = SystemClock(), OsRandom()
    state = open_folder(config, folder, clock, random)
    try:
        gate = cache(lambda: gate_over(config, folder, state, clock))
        service = OverlapService(state.overlaps, state.learning, gate, state.device, clock, random)
        who = CONSOLE.actor_id

        def ask(method: str, path: str, body: Json | None = None) -> Json:
            try:
                if (method, path) == ("GET", "/overlaps"):
                    return routes.listed(service).model_dump(mode="json")
                if (method, path) == ("POST", "/overlaps"):
                    made = routes.invited(service, routes.InviteBody(**(body or {})), who)
                    return made.model_dump(mode="json")
                if (method, path) == ("POST", "/overlaps:answer"):
                    made = routes.answered(service, routes.LetterBody(**(body or {})), who)
                    return made.model_dump(mode="json")
            except ValidationError as cause:
                raise InvalidRequestError("a value is out of its bounds") from cause
            raise NotFoundError("no such resource")

        yield ask
    finally:
        state.close()
