"""The model package: what is in it, what it eats, what it promises. Parsing and checking only.

A package is a folder whose `manifest.json` names every other file with its SHA-256. The caller
reads the files and hands in their digests; this module says whether they are the package.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bedside_core.errors import BedsideError, InvalidPackageError
from bedside_core.findings import Calibration, Rule
from bedside_core.imaging import PipelineSpec

MANIFEST_NAME = "manifest.json"
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Precision = Literal["f32", "bf16", "f16", "int8"]
EngineName = Literal["onnxruntime", "openvino"]
_SAFE_PATH = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")


class _Part(BaseModel):
    # No NaN, no infinity: JSON in Python reads both, and a tolerance of infinity checks nothing.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FileEntry(_Part):
    """Digest and size in bytes of one file."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0)]


class TensorContract(_Part):
    """A named tensor; shapes are static."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    shape: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=6)]
    datatype: Literal["FP32"] = "FP32"


class IoContract(_Part):
    """One image tensor in; logit, pooled features and class-activation map out."""

    input: TensorContract
    logit: TensorContract
    features: TensorContract
    cam: TensorContract


class Tolerance(_Part):
    """Largest change against the trained network that this export may show."""

    golden_logit: Annotated[float, Field(ge=0)]
    changed_decisions_per_200: Annotated[float, Field(ge=0)]


class Variant(_Part):
    """One export: the file an engine loads, its companions, and how far it may stray."""

    engine: EngineName
    precision: Precision
    path: str
    companions: list[str] = []
    tolerance: Tolerance


class PipelineEntry(_Part):
    """Parameters of the pixel pipeline and the digest they must hash to."""

    name: str
    revision: int
    size: int
    low_percentile: float
    high_percentile: float
    std_floor: float
    digest: Sha256

    def spec(self) -> PipelineSpec:
        """Return the pipeline's parameters as the core's value."""
        return PipelineSpec(**self.model_dump(exclude={"digest"}))


class CalibrationEntry(_Part):
    """Platt scaling and the split it was fitted on."""

    scale: Annotated[float, Field(gt=0)]  # a higher logit is always a higher probability
    offset: float
    fitted_on: str

    def value(self) -> Calibration:
        """Return the calibration as the core's value."""
        return Calibration(scale=self.scale, offset=self.offset)


class DecisionEntry(_Part):
    """Threshold and undetermined band on the calibrated probability, and how they were chosen."""

    threshold: float
    low: float
    high: float
    chosen_by: str

    def value(self) -> Rule:
        """Return the decision rule as the core's value."""
        return Rule(threshold=self.threshold, low=self.low, high=self.high)


class Finding(_Part):
    """What the probability speaks of, in words and as a coded concept."""

    name: str
    code: str
    scheme: str
    meaning: str


class Accepts(_Part):
    """Which images the model was made for; anything else is refused by header alone."""

    modalities: Annotated[list[str], Field(min_length=1)]
    body_parts: list[str]
    views: list[str]
    minimum_pixels: Annotated[int, Field(ge=2)]


class OutlierEntry(_Part):
    """Where the training statistics lie: raw little-endian float32, and the cut-offs."""

    mean: str
    precision_chol: str
    features: Annotated[int, Field(ge=1)]
    cutoff: Annotated[float, Field(gt=0)]
    intensity: dict[Literal["black", "white", "mean", "std"], tuple[float, float]]

    model_config = ConfigDict(strict=False)  # JSON has no tuples


class GoldenEntry(_Part):
    """The file of golden cases, re-run by the box at every start."""

    path: str
    cases: Annotated[int, Field(ge=1)]


class Manifest(_Part):
    """`manifest.json`, format bedside-model/1."""

    format: Literal["bedside-model/1"]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    release: Annotated[int, Field(ge=1, description="counts up with every published package")]
    intended_use: str
    not_a_medical_device: Literal[True]
    finding: Finding
    io: IoContract
    pipeline: PipelineEntry
    calibration: CalibrationEntry
    decision: DecisionEntry
    accepts: Accepts
    outlier: OutlierEntry
    golden: GoldenEntry
    variants: Annotated[list[Variant], Field(min_length=1)]
    files: dict[str, FileEntry]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        for path in self.files:
            if not _SAFE_PATH.fullmatch(path) or path == MANIFEST_NAME:
                raise ValueError(f"file name {path!r} may not be in a package")
        named = [self.outlier.mean, self.outlier.precision_chol, self.golden.path]
        for variant in self.variants:
            named += [variant.path, *variant.companions]
        if missing := sorted(set(named) - set(self.files)):
            raise ValueError(f"named but not listed with a digest: {missing}")
        if len({(v.engine, v.precision) for v in self.variants}) != len(self.variants):
            raise ValueError("two variants for one engine and precision")
        if self.pipeline.spec().digest() != self.pipeline.digest:
            raise ValueError("the pipeline's parameters do not hash to its digest")
        if self.io.input.shape != [1, 1, self.pipeline.size, self.pipeline.size]:
            raise ValueError("the model's input is not the pipeline's tensor")
        if any(least > most for least, most in self.outlier.intensity.values()):
            raise ValueError("an intensity range ends before it starts")
        self.decision.value()
        return self

    def variant(self, engine: str, precision: str) -> Variant:
        """Return the export for an engine and precision.

        Raises:
            InvalidPackageError: the package has none.
        """
        for variant in self.variants:
            if (variant.engine, variant.precision) == (engine, precision):
                return variant
        raise InvalidPackageError(f"package {self.name} has no {engine} export in {precision}")


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`.

    Raises:
        InvalidPackageError: not JSON, unknown or missing fields, or inconsistent.
    """
    try:
        return Manifest.model_validate(json.loads(data))
    except (ValueError, ValidationError, RecursionError, BedsideError) as cause:
        raise InvalidPackageError(f"manifest: {cause}") from cause


def check_files(manifest: Manifest, found: Mapping[str, tuple[str, int]]) -> None:
    """Compare the files found beside the manifest (path -> sha256 and size) with it.

    Raises:
        InvalidPackageError: a file is missing, changed, or not listed. A stray weight file beside
            a signed one would be loaded by the engine, so extra files are refused as well.
    """
    if missing := sorted(set(manifest.files) - set(found)):
        raise InvalidPackageError(f"package lacks {missing}")
    if extra := sorted(set(found) - set(manifest.files)):
        raise InvalidPackageError(f"package holds files its manifest does not list: {extra}")
    for path, entry in manifest.files.items():
        if (entry.sha256, entry.size) != found[path]:
            raise InvalidPackageError(f"{path} is not the file the manifest describes")
