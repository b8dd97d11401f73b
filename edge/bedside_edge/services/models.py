"""The model packages a box holds loaded: named, counted while in use, closed after the last call.

Loading compiles and self-tests before anything else may see the model; a package that fails leaves
what is loaded as it was. Unloading takes the name away at once and the runtime when nobody runs it.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bedside_core.errors import BedsideError, InvalidPackageError, NotFoundError, WrongStateError
from bedside_core.findings import Rule
from bedside_edge.services.analysis import AnalysisService, Model

log = logging.getLogger(__name__)

READY, UNAVAILABLE = "READY", "UNAVAILABLE"  # the inference protocol's words


@dataclass(frozen=True, slots=True)
class ModelId:
    """Name and version of a package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def order(self) -> tuple[int, ...]:
        """Sorts versions as numbers: 1.10.0 after 1.9.0."""
        return tuple(int(part) if part.isdecimal() else -1 for part in self.version.split("."))


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """A package as the repository index tells of it; `reason` says why it is not ready."""

    model: ModelId
    state: str
    reason: str


@dataclass(slots=True)
class _Held:
    analysis: AnalysisService
    users: int = 0
    leaving: bool = False


@dataclass(slots=True)
class _Table:
    """What is loaded; every access under the service's lock."""

    held: dict[ModelId, _Held] = field(default_factory=dict)
    default: dict[str, ModelId] = field(default_factory=dict)  # version a bare name means
    reasons: dict[ModelId, str] = field(default_factory=dict)  # why the last load failed


class ModelService:
    """Loads, lends and unloads models. Safe to call from several threads."""

    def __init__(
        self,
        first: AnalysisService,
        *,
        open_model: Callable[[ModelId], AnalysisService],
        known: Callable[[], Sequence[ModelId]],
        most: int,
        offered: Callable[[], Collection[ModelId]] = tuple,
    ) -> None:
        """Start with the model that reads the box's studies.

        Args:
            first: opened by the caller; it is never unloaded.
            open_model: compiles and self-tests a package; a BedsideError leaf says why not.
            known: lists the packages on this box.
            most: how many packages may be loaded at a time.
            offered: packages that a bare name never means: only a chosen version is theirs.
        """
        self._offered = offered
        self._open, self._known, self._most = open_model, known, most
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one compilation at a time: each takes all cores
        self._first = id_of(first.model)
        self._table = _Table({self._first: _Held(first)}, {self._first.name: self._first})
        self._kept = frozenset((self._first.name,))
        self._pinned: dict[str, frozenset[str]] = {}

    def keep(self, names: Iterable[str]) -> None:
        """Never unload these models, besides the first: studies are routed to them."""
        with self._lock:
            self._kept |= frozenset(names)

    def pin(self, name: str, versions: Iterable[str]) -> None:
        """Never unload these versions of a model, and unload its others; nothing else changes."""
        with self._lock:
            self._pinned[name] = frozenset(versions)
            left = [
                model
                for model in self._table.held
                if model.name == name
                and model.version not in self._pinned[name]
                and model != self._first
            ]
            idle = [self._leave(model) for model in left]
        _close(idle)

    def set_default(self, name: str, version: str) -> None:
        """Let a bare name mean this version; NotFoundError when it is not loaded."""
        with self._lock:
            self._find(name, version)
            self._table.default[name] = ModelId(name, version)

    def set_rule(self, name: str, version: str, rule: Rule | None) -> None:
        """Decide by this rule with calls that begin from now on; nothing if it is not loaded."""
        with self._lock:
            held = self._table.held.get(ModelId(name, version))
            if held is not None:
                held.analysis = held.analysis.with_rule(rule)

    def holds(self, name: str, version: str) -> bool:
        """Say whether a version is loaded."""
        with self._lock:
            return ModelId(name, version) in self._table.held

    def model(self, name: str, version: str = "") -> Model:
        """Return a loaded model for its metadata; NotFoundError."""
        with self._lock:
            return self._find(name, version).analysis.model

    def loaded(self) -> list[Model]:
        """Return every loaded model, the one that reads studies first."""
        with self._lock:
            return [held.analysis.model for held in self._table.held.values()]

    @contextmanager
    def use(self, name: str, version: str = "") -> Iterator[AnalysisService]:
        """Lend a model; it stays open until the call ends, also when it is unloaded meanwhile.

        Raises:
            NotFoundError: no such model is loaded.
        """
        with self._lock:
            held = self._find(name, version)
            held.users += 1
            analysis = held.analysis
        try:
            yield analysis
        finally:
            with self._lock:
                held.users -= 1
                last = held.leaving and not held.users
            if last:
                held.analysis.model.engine.close()

    def load(self, name: str, version: str = "") -> ModelId:
        """Open a package of this box; one that is loaded already stays as it is.

        Args:
            name: of the package.
            version: of the package; the newest on this box when empty.

        Raises:
            NotFoundError: the box holds no such package.
            WrongStateError: as many packages as allowed are loaded.
            BedsideError: why the package may not serve; what is loaded stays.
        """
        wanted = self._newest(name, version)
        with self._loading:
            with self._lock:
                if wanted in self._table.held:
                    return wanted
                if len(self._table.held) >= self._most:
                    raise WrongStateError(
                        f"{self._most} packages are loaded, the most allowed; unload one first"
                    )
            analysis = self._opened(wanted)
            with self._lock:
                self._table.held[wanted] = _Held(analysis)
                self._table.default.setdefault(name, wanted)
                self._table.reasons.pop(wanted, None)
        log.info("model loaded", extra={"package": str(wanted)})
        return wanted

    def unload(self, name: str, version: str = "") -> None:
        """Take a model's name away; its runtime closes after the last call.

        Args:
            name: of the package.
            version: of the package; every loaded version when empty.

        Raises:
            NotFoundError: no such model is loaded.
            WrongStateError: it reads the box's studies.
        """
        with self._lock:
            self._find(name, version)
            held = self._table.held
            leaving = [m for m in held if m.name == name and version in ("", m.version)]
            kept = {self._table.default[name]} if name in self._kept else set()
            kept |= {ModelId(name, held) for held in self._pinned.get(name, ())} | {self._first}
            if stays := [model for model in leaving if model in kept]:
                raise WrongStateError(f"{stays[0]} reads the box's studies and stays loaded")
            idle = [self._leave(model) for model in leaving]
        _close(idle)
        log.info("model unloaded", extra={"package": name})

    def index(self) -> list[IndexEntry]:
        """Return every package of this box, loaded or not, by name and version."""
        known = set(self._known())
        with self._lock:
            held, reasons = set(self._table.held), dict(self._table.reasons)
        return [
            IndexEntry(
                model=model,
                state=READY if model in held else UNAVAILABLE,
                reason="" if model in held else reasons.get(model, "not loaded"),
            )
            for model in sorted(known | held, key=lambda m: (m.name, m.order))
        ]

    def close(self) -> None:
        """Close every runtime; nobody may use the service afterwards."""
        with self._lock:
            held = list(self._table.held.values())
            self._table.held.clear()
        for one in held:
            one.analysis.model.engine.close()

    # --- under the lock ----------------------------------------------------------------------

    def _find(self, name: str, version: str) -> _Held:
        default = self._table.default.get(name)
        wanted = ModelId(name, version) if version else default
        held = self._table.held.get(wanted) if wanted else None
        if held is None:
            raise NotFoundError("no such model is loaded")
        return held

    def _leave(self, model: ModelId) -> AnalysisService | None:
        """Forget a model; return it when nobody runs it, so that the caller closes it."""
        held = self._table.held.pop(model)
        held.leaving = True
        if self._table.default.get(model.name) == model:
            left = [m for m in self._table.held if m.name == model.name]
            del self._table.default[model.name]
            if left:
                self._table.default[model.name] = max(left, key=lambda m: m.order)
        return None if held.users else held.analysis

    # --- not under the lock ------------------------------------------------------------------

    def _newest(self, name: str, version: str) -> ModelId:
        known = {*self._known(), self._first}
        if not version:
            known -= {*self._offered()} - {self._first}
        found = [m for m in known if m.name == name and version in ("", m.version)]
        if not found:
            raise NotFoundError("the box holds no such model package")
        return max(found, key=lambda m: m.order)

    def _opened(self, wanted: ModelId) -> AnalysisService:
        try:
            analysis = self._open(wanted)
            if id_of(analysis.model) != wanted:
                analysis.model.engine.close()
                raise InvalidPackageError("the package is not the one its folder is named after")
        except BedsideError as why:
            with self._lock:
                self._table.reasons[wanted] = f"{why.code}: {why}"
            raise
        return analysis


def _close(idle: Iterable[AnalysisService | None]) -> None:
    for analysis in idle:
        if analysis is not None:
            analysis.model.engine.close()


def id_of(model: Model) -> ModelId:
    """Return the name and version of a loaded model."""
    return ModelId(model.manifest.name, model.manifest.version)
