"""From held instances to a result: input check, pixel pipeline, engine, decision.

A refusal belongs to the image and is part of the result; a failure belongs to the box and is
raised, so that the job is tried again.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bedside_core.errors import NoRouteError, OutlierImageError, RefusedError
from bedside_core.findings import Check, Familiar, Rule, feature_check, intensity_check
from bedside_core.imaging import PipelineSpec, Prepared, prepare
from bedside_core.input_check import judge_header
from bedside_core.manifest import Manifest
from bedside_core.overlay import paint
from bedside_core.result import (
    Json,
    Reading,
    canonical,
    evidence_refs,
    image_entry,
    quarantine_entry,
    refusal_entry,
    same_entry,
    study_result,
)
from bedside_edge.ports import (
    Engine,
    Header,
    Instance,
    InstanceState,
    Outcome,
    Outputs,
    PixelReader,
)

log = logging.getLogger(__name__)

_OVERLAY_PIXELS = 768


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A loaded package with the engine that runs it, as chosen by the hardware profile."""

    manifest: Manifest
    familiar: Familiar = field(repr=False)
    package_digest: str
    engine: Engine
    profile_name: str
    profile_digest: str
    card: bytes = field(repr=False, default=b"")  # Markdown, as it stands in the package
    site_rule: Rule | None = None  # the hospital's threshold in place of the package's

    @property
    def rule(self) -> Rule:
        """How a probability becomes a decision."""
        return self.site_rule or self.manifest.decision.value()

    @property
    def pipeline(self) -> PipelineSpec:
        """The pixel pipeline's parameters."""
        return self.manifest.pipeline.spec()

    def provenance(self) -> Json:
        """Return what was read back from the running engine, and every digest."""
        info = dataclasses.asdict(self.engine.info)
        return {
            "engine": info,
            "profile": {"name": self.profile_name, "digest": self.profile_digest},
            "package": self.package_digest,
            "decided_by": "package" if self.site_rule is None else "site",
        }

    def refs(self) -> dict[str, int | str]:
        """Return what the evidence log says of the model in plain."""
        name = {"name": self.manifest.name, "version": self.manifest.version}
        pipeline = {"digest": self.manifest.pipeline.digest}
        return evidence_refs(self.provenance() | {"model": name, "pipeline": pipeline})


Seen = dict[str, NDArray[np.float32]]  # pooled features by instance id


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the network sees in one image."""

    probability: float
    features: NDArray[np.float32] = field(repr=False)


class Picture(Protocol):
    """Encodes pictures for people."""

    def png(self, rgb: NDArray[np.uint8], caption: Sequence[str]) -> bytes:
        """Return (rows, columns, 3) with lines of text below it as a PNG."""
        ...

    def captioned(self, rgb: NDArray[np.uint8], caption: Sequence[str]) -> NDArray[np.uint8]:
        """Return the same picture as an array of (rows, columns, 3)."""
        ...


class AnalysisService:
    """Reads images with one model. Safe to call from several threads."""

    def __init__(self, model: Model, reader: PixelReader, picture: Picture) -> None:
        self.model = model
        self._reader, self._picture = reader, picture

    def with_rule(self, rule: Rule | None) -> "AnalysisService":
        """Return the same model on the same engine, deciding by the hospital's rule if given."""
        model = dataclasses.replace(self.model, site_rule=rule)
        return AnalysisService(model, self._reader, self._picture)

    def infer_tensor(self, tensor: NDArray[np.float32]) -> Outputs:
        """Run the bare network; the caller has done its own preparation."""
        return self.model.engine.run(tensor)

    def analyse_object(self, data: bytes) -> Json:
        """Return the result document of one Part 10 object; nothing is stored.

        Raises:
            RefusedError: the leaf that says why the model does not read it.
        """
        entry = image_entry(self._read(self._reader.header(data), lambda: data, "image-1", []))
        return self._result([entry], self.model.provenance())

    def describe_object(self, data: bytes) -> Json:
        """Like `analyse_object`, but a refusal is a document too.

        Raises:
            NotDicomError, InvalidUidError: there is nothing to describe.
        """
        entry = self._entry("image-1", self._reader.header(data), lambda: data)
        return self._result([entry], self.model.provenance())

    def analyse_study(
        self,
        instances: Sequence[Instance],
        read: Callable[[Instance], bytes],
        *,
        left_out: Mapping[str, str] | None = None,
        routing: Json | None = None,
        deployment: Json | None = None,
    ) -> Outcome:
        """Return the outcome of a job over a study's settled instances.

        Args:
            instances: in order of arrival.
            read: fetches the plain bytes of one instance.
            left_out: instances the rules do not give to this model, by id, with the reason.
            routing: which rules chose this model, for the result.
            deployment: as what this version reads the study, for the result.
        """
        seen: Seen = {}
        entries = [self._instance_entry(one, read, left_out or {}, seen) for one in instances]
        chosen = {"routing": routing, "deployment": deployment}
        body = self._result(entries, self.model.provenance() | chosen)
        reason = body["reason"]
        return Outcome(
            refused=body["status"] != "analysed",
            reason=reason["code"] if reason else "",
            body=canonical(body),
            refs=evidence_refs(body),
            features=seen,
            package=self.model.package_digest.removeprefix("sha256:"),
        )

    def observe(self, instance: Instance, fetch: Callable[[], bytes]) -> Observed:
        """Return what the network sees in one image, for learning; nothing is stored.

        Raises:
            RefusedError: the leaf that says why the model does not read it.
        """
        seen: Seen = {}
        reading = self._read(instance.header, fetch, instance.instance_id, [], seen)
        return Observed(probability=reading.probability, features=seen[instance.instance_id])

    def overlay(self, data: bytes, entry: Json, caption: Sequence[str]) -> bytes:
        """Return a PNG: the image as a reader would see it, saliency in colour, words below."""
        spec = dataclasses.replace(self.model.pipeline, size=_OVERLAY_PIXELS)
        prepared = prepare(self._reader.frame(data), spec)
        return self._picture.png(_painted(prepared, entry), caption)

    def overlay_array(self, data: bytes, entry: Json, caption: Sequence[str]) -> NDArray[np.uint8]:
        """Return the same picture as (rows, columns, 3), for a secondary capture."""
        spec = dataclasses.replace(self.model.pipeline, size=_OVERLAY_PIXELS)
        shown = prepare(self._reader.frame(data), spec).shown
        cam, place = np.asarray(entry["cam"], np.float32), tuple(entry["placement"])
        painted = paint(shown, cam, place, max(place[2:]))  # the longer side fills the square
        return self._picture.captioned(painted, caption)

    def _result(self, entries: list[Json], provenance: Json) -> Json:
        return study_result(self.model.manifest, entries, provenance, self.model.rule)

    def _instance_entry(
        self,
        instance: Instance,
        read: Callable[[Instance], bytes],
        left_out: Mapping[str, str],
        seen: Seen,
    ) -> Json:
        name = instance.instance_id
        if name in left_out or instance.state is not InstanceState.HELD:
            return instance_entry(instance, NoRouteError(left_out.get(name, "")))
        return self._entry(name, instance.header, lambda: read(instance), seen)

    def _entry(
        self, name: str, header: Header, fetch: Callable[[], bytes], seen: Seen | None = None
    ) -> Json:
        """Return the image's entry: a reading, or the refusal with the checks made so far."""
        checks: list[Check] = []
        try:
            return image_entry(self._read(header, fetch, name, checks, seen))
        except RefusedError as refusal:
            log.info("image refused", extra={"instance": name, "code": refusal.code})
            return refusal_entry(name, refusal, checks)

    def _read(
        self,
        header: Header,
        fetch: Callable[[], bytes],
        name: str,
        checks: list[Check],
        seen: Seen | None = None,
    ) -> Reading:
        """Check, prepare, infer, check again, decide: the order is part of the product.

        What the header already refuses is never fetched: a CT of 600 slices costs no decryption.
        """
        manifest, familiar = self.model.manifest, self.model.familiar
        judgement = judge_header(header, manifest.accepts)
        checks.extend(judgement.checks)
        if judgement.refusal is not None:
            raise judgement.refusal
        prepared = prepare(self._reader.frame(fetch()), self.model.pipeline)
        checks.append(intensity_check(prepared.intensity, familiar))
        _must_pass(checks[-1])
        outputs = self.model.engine.run(prepared.tensor)
        checks.append(feature_check(outputs.features, familiar))
        _must_pass(checks[-1])
        if seen is not None:
            seen[name] = outputs.features.reshape(-1)
        probability = manifest.calibration.value().probability(outputs.logit)
        return Reading(
            instance=name,
            logit=outputs.logit,
            probability=probability,
            decision=self.model.rule.decide(probability),
            cam=tuple(tuple(float(v) for v in row) for row in np.squeeze(outputs.cam)),
            prepared=prepared,
            checks=tuple(checks),
        )


def _must_pass(check: Check) -> None:
    """A failed check is a refusal: no number is shown for an image the model cannot know."""
    if not check.passed:
        raise OutlierImageError(f"unlike the training images: {check.reason}")


def instance_entry(instance: Instance, refusal: NoRouteError) -> Json:
    """Return the entry of an instance that no model is asked to read."""
    name = instance.instance_id
    if instance.state is InstanceState.SAME:
        return same_entry(name, instance.same_as)
    if instance.state is InstanceState.CONFLICT:
        return quarantine_entry(name, instance.same_as)
    return refusal_entry(name, refusal)


def _painted(prepared: Prepared, entry: Json) -> NDArray[np.uint8]:
    """Lay the class-activation map, which covers the square tensor, over the image area.

    The longer side of the image fills the square, whichever model read it.
    """
    cam: Any = np.asarray(entry["cam"], np.float32)
    return paint(prepared.shown, cam, tuple(entry["placement"]), max(entry["placement"][2:]))
