"""Golden cases: made-up images whose answer is known, re-run by the box at every start.

A case is a stored frame (never a patient's), the header values that give it meaning, a few
values of the tensor it must become and, for every export in the package, the logit the training
side saw. Parsing and comparing only; the caller reads the files and runs the engine.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bedside_core.errors import GoldenMismatchError, InvalidPackageError
from bedside_core.imaging import Float, Frame, VoiFunction, Window


class _Part(BaseModel):
    # Not strict: JSON has no tuples, and an integer is a fair way to write a number.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GoldenWindow(_Part):
    """A VOI window in modality values."""

    centre: float
    width: float
    function: VoiFunction


class GoldenFrame(_Part):
    """A raw frame in the package: rows x columns stored values, C order, no header."""

    path: str
    dtype: Literal["|u1", "<u2", "<i2", ">u2", ">i2"]
    rows: Annotated[int, Field(ge=2, le=4096)]
    columns: Annotated[int, Field(ge=2, le=4096)]
    monochrome1: bool
    slope: float
    intercept: float
    window: GoldenWindow | None
    padding: tuple[int, int] | None
    spacing: tuple[float, float] | None

    def frame(self, data: bytes) -> Frame:
        """Return the frame whose stored values are `data`.

        Raises:
            InvalidPackageError: the bytes are not rows x columns of that type.
        """
        dtype = np.dtype(self.dtype)
        if len(data) != self.rows * self.columns * dtype.itemsize:
            raise InvalidPackageError(f"golden frame {self.path} has the wrong length")
        window = self.window
        return Frame(
            pixels=np.frombuffer(data, dtype).reshape(self.rows, self.columns),
            monochrome1=self.monochrome1,
            slope=self.slope,
            intercept=self.intercept,
            window=None if window is None else Window(**window.model_dump()),
            padding=self.padding,
            spacing=self.spacing,
        )


class GoldenTensor(_Part):
    """What the pixel pipeline must make of the frame.

    `sha256` is the digest of the little-endian float32 tensor on the machine that built the
    package; another CPU may round a sum differently, so the probes decide: (row, column, value)
    within `tolerance`, in standard deviations of the image.
    """

    sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    tolerance: Annotated[float, Field(gt=0)]
    probes: Annotated[list[tuple[int, int, float]], Field(min_length=1)]


class GoldenAnswer(_Part):
    """What one export answered where the package was built."""

    engine: str
    precision: str
    logit: float
    probability: float
    decision: Literal["present", "absent", "undetermined"]


class GoldenCase(_Part):
    """One frame, its tensor, and the answer of every export."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
    frame: GoldenFrame
    tensor: GoldenTensor
    answers: Annotated[list[GoldenAnswer], Field(min_length=1)]

    def answer(self, engine: str, precision: str) -> GoldenAnswer:
        """Return the known answer of an export.

        Raises:
            InvalidPackageError: the package says nothing about that export.
        """
        for answer in self.answers:
            if (answer.engine, answer.precision) == (engine, precision):
                return answer
        raise InvalidPackageError(f"golden case {self.name} lacks {engine} {precision}")


class GoldenSet(_Part):
    """The file of golden cases, format bedside-golden/1."""

    format: Literal["bedside-golden/1"]
    cases: Annotated[list[GoldenCase], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "GoldenSet":
        if len({case.name for case in self.cases}) != len(self.cases):
            raise ValueError("two golden cases share a name")
        return self


def parse_golden(data: bytes, listed: Mapping[str, object]) -> GoldenSet:
    """Return the golden cases in `data`; `listed` holds the package's file names.

    Raises:
        InvalidPackageError: not JSON, not this format, or a frame the manifest does not list.
    """
    try:
        golden = GoldenSet.model_validate(json.loads(data))
    except (ValueError, ValidationError, RecursionError) as cause:
        raise InvalidPackageError(f"golden cases: {cause}") from cause
    if missing := sorted({case.frame.path for case in golden.cases} - set(listed)):
        raise InvalidPackageError(f"golden frames without a digest in the manifest: {missing}")
    return golden


def check_tensor(case: GoldenCase, tensor: Float) -> None:
    """Compare the pixel pipeline's tensor with the case's probes.

    Raises:
        GoldenMismatchError: a probe differs by more than the case's tolerance.
        InvalidPackageError: a probe lies outside the tensor.
    """
    plane: NDArray[np.float32] = tensor.reshape(tensor.shape[-2:])
    for row, column, value in case.tensor.probes:
        if not (0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]):
            raise InvalidPackageError(f"golden case {case.name} probes outside the tensor")
        gap = abs(float(plane[row, column]) - value)
        if not gap <= case.tensor.tolerance:  # written so that NaN fails
            raise GoldenMismatchError(f"golden case {case.name}: tensor is off by {gap:.2e}")


def check_logit(
    case: GoldenCase, engine: str, precision: str, logit: float, tolerance: float
) -> float:
    """Return how far `logit` is from the known answer of this export.

    Raises:
        GoldenMismatchError: further than `tolerance`, or not a number.
    """
    gap = abs(logit - case.answer(engine, precision).logit)
    if not gap <= tolerance:
        raise GoldenMismatchError(
            f"golden case {case.name}: {engine} {precision} is off by {gap:.2e}, "
            f"{tolerance:.2e} is allowed"
        )
    return gap
