"""Lends a model by the digest of its package, for rounds: what is loaded, or one opened beside it.

A candidate that a round judges reads no study yet, so it is not among the box's models. One such
package is kept open at a time, because a compilation takes longer than reading many studies.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bedside_edge.services.analysis import AnalysisService, Model
from bedside_edge.services.models import ModelService


class PackageLender:
    """Lends models by package digest. Safe to call from several threads."""

    def __init__(
        self, models: Callable[[], ModelService], open_digest: Callable[[str], AnalysisService]
    ) -> None:
        """Stand on the box's models.

        Args:
            models: what is loaded.
            open_digest: opens the package of a digest (64 hex digits); NotFoundError when the box
                does not hold it, another BedsideError when it may not serve.
        """
        self._models, self._open = models, open_digest
        self._lock = threading.Lock()
        self._kept: tuple[str, AnalysisService] | None = None

    @contextmanager
    def lend(self, digest: str) -> Iterator[AnalysisService]:
        """Lend the model of a package digest."""
        for model in self._models().loaded():
            if digest_of(model) == digest:
                with self._models().use(model.manifest.name, model.manifest.version) as analysis:
                    yield analysis
                return
        with self._lock:
            if self._kept is None or self._kept[0] != digest:
                self._drop()
                self._kept = (digest, self._open(digest))
            yield self._kept[1]

    @contextmanager
    def served(self) -> Iterator[AnalysisService]:
        """Lend the model that reads the box's studies."""
        model = self._models().loaded()[0]
        with self._models().use(model.manifest.name, model.manifest.version) as analysis:
            yield analysis

    def close(self) -> None:
        """Close what was opened beside the box's models."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._kept is not None:
            self._kept[1].model.engine.close()
            self._kept = None


def digest_of(model: Model) -> str:
    """Return the digest a manifest names a package by: 64 hex digits."""
    return model.package_digest.removeprefix("sha256:")
