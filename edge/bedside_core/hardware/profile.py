"""Hardware profiles: which engine runs on which machine, at which precision, with which threads.

A profile is data a vendor writes (TOML). This module parses one and refuses what could hide a
choice: unknown keys, a device that picks for itself, a property outside the allow-list, a claim
of a measurement without one. It knows no board and compiles nothing.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.board import LEVELS
from bedside_core.manifest import EngineName, Precision

_NAME = r"^[a-z0-9][a-z0-9.-]{1,62}$"
_HEX = r"^[0-9a-f]{4}$"
_PART = r"^0x[0-9a-f]{2,3}$"
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
PROFILE_LIMIT: Final = 1 << 16  # bytes; the longest built-in one has 3,000
_LINE_LIMIT: Final = 1000  # the reader of TOML takes seconds for a key of ten thousand parts
_PICKS_FOR_ITSELF: Final = ("AUTO", "HETERO", "MULTI", "BATCH")

Level = Literal["x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "aarch64", "armv8.2a"]
Count = Annotated[int, Field(ge=1, le=256)] | Literal["cores", "sockets"]
Threads = Annotated[int, Field(ge=1, le=256)] | Literal["cores"]
_MOST: Final = 2**53 - 1  # what databases and JSON hold exactly
_Number = Annotated[int, Field(ge=-_MOST, le=_MOST)]
Value = bool | _Number | Annotated[str, Field(min_length=1, max_length=128)]
Evidence = Literal["measured", "vendor-claimed", "unverified"]

# Every device a profile may name, and the properties that may be set for it. Runtimes accept words
# they do not know (onnxruntime 1.32.0, measured), so the list is ours. Precision, streams and
# threads have fields of their own. No cache: an old one answers for new weights (OpenVINO 2026.4.1
# compiled by path, measured). EXECUTION_MODE_HINT reads back `dynamic` and pins nothing.
_SESSION: Final = frozenset(
    {
        "session.intra_op.allow_spinning",
        "session.inter_op.allow_spinning",
        "session.set_denormal_as_zero",
    }
)
PROPERTIES: Final[Mapping[tuple[EngineName, str], frozenset[str]]] = {
    ("openvino", "CPU"): frozenset(
        {
            "PERFORMANCE_HINT",
            "ENABLE_CPU_PINNING",
            "ENABLE_HYPER_THREADING",
            "SCHEDULING_CORE_TYPE",
        }
    ),
    ("openvino", "GPU"): frozenset({"PERFORMANCE_HINT", "MODEL_PRIORITY"}),
    ("openvino", "NPU"): frozenset({"PERFORMANCE_HINT"}),
    ("onnxruntime", "CPU"): _SESSION,
    ("onnxruntime", "CUDA"): _SESSION | {"use_tf32", "cudnn_conv_algo_search", "gpu_mem_limit"},
    ("onnxruntime", "TensorRT"): _SESSION | {"trt_fp16_enable", "trt_max_workspace_size"},
    ("onnxruntime", "VitisAI"): _SESSION,
    ("onnxruntime", "Hailo"): _SESSION,
}
# Also readable, though not settable here.
_READABLE: Final[Mapping[EngineName, frozenset[str]]] = {
    "openvino": frozenset(
        {
            "EXECUTION_DEVICES",
            "INFERENCE_PRECISION_HINT",
            "INFERENCE_NUM_THREADS",
            "LOADED_FROM_CACHE",
            "NUM_STREAMS",
        }
    ),
    "onnxruntime": frozenset({"providers", "intra_op_num_threads"}),
}


class _Part(BaseModel):
    # TOML knows nan and inf: a timeout of infinity is no timeout, a tolerance of infinity no check.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CpuMatch(_Part):
    """What the processor must be and offer."""

    vendor: str = Field(default="", description="exact vendor_id of /proc/cpuinfo; empty: any")
    family: Annotated[int, Field(ge=0, le=4095)] | None = Field(
        default=None, description="CPU family, decimal (x86-64)"
    )
    model: list[Annotated[int, Field(ge=0, le=4095)]] = Field(
        default=[], description="one of these model numbers, decimal (x86-64); empty: any"
    )
    implementer: Annotated[str, Field(pattern=r"^(0x[0-9a-f]{2})?$")] = Field(
        default="", description="CPU implementer as 0x41 (Arm); empty: any"
    )
    part: list[Annotated[str, Field(pattern=_PART)]] = Field(
        default=[], description="one of these CPU parts as 0xd0b (Arm); empty: any"
    )
    level: Level | None = Field(
        default=None, description="least level: psABI on x86-64, architecture version on Arm"
    )
    flags: list[str] = Field(default=[], description="further flags in Linux's words")
    min_cores: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=1, description="least CPUs the process may use"
    )


class PciMatch(_Part):
    """A device on the PCI bus."""

    vendor: Annotated[str, Field(pattern=_HEX)] = Field(description="vendor id, 4 hex digits")
    device: list[Annotated[str, Field(pattern=_HEX)]] = Field(
        min_length=1, description="one of these device ids, 4 hex digits each"
    )
    min_count: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="least number of such devices"
    )
    driver: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,63}$")]] = Field(
        default=[], description="one of these kernel drivers is bound to it; empty: any or none"
    )


class Match(_Part):
    """Every condition must hold."""

    arch: Literal["x86_64", "aarch64"] = Field(description="machine name of the kernel")
    cpu: CpuMatch = Field(default=CpuMatch(), description="what the processor must be and offer")
    pci: list[PciMatch] = Field(default=[], description="devices that must be there")
    dt_compatible: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default=[], description="one of these stands in the devicetree's root; empty: any"
    )
    dmi: dict[
        Literal["sys_vendor", "product_name", "product_version", "board_vendor", "board_name"],
        Annotated[str, Field(min_length=1, max_length=128)],
    ] = Field(default={}, description="exact facts of the firmware, like product_name")
    min_mem_mib: Annotated[int, Field(ge=256)] = Field(
        default=256, description="least memory in MiB the process may use"
    )
    min_kernel: Annotated[str, Field(pattern=r"^([0-9]{1,4}(\.[0-9]{1,4}){0,2})?$")] = Field(
        default="", description="least kernel release, like 6.10; empty: any"
    )

    @model_validator(mode="after")
    def _possible(self) -> "Match":
        if self.cpu.level is not None and self.cpu.level not in LEVELS[self.arch]:
            raise ValueError(f"{self.cpu.level} is no level of {self.arch}")
        return self


class EngineChoice(_Part):
    """One engine, pinned: nothing in it is left to a library's default."""

    kind: EngineName = Field(description="the runtime")
    device: Annotated[str, Field(max_length=32)] = Field(
        description="exact device: CPU, GPU, GPU.1, NPU of openvino; CPU, CUDA, TensorRT, VitisAI, "
        "Hailo of onnxruntime, one provider; AUTO, HETERO and MULTI are refused"
    )
    properties: dict[str, Value] = Field(
        default={}, description="set as they stand; only keys of the allow-list in docs/hardware.md"
    )
    readback: dict[str, Value] = Field(
        default={},
        description="what the compiled engine must say of itself; `properties` are read back too",
    )
    precision: Precision = Field(description="precision of convolutions, read back when compiled")
    streams: Count = Field(
        description='inferences at the same time; "cores": one per CPU, "sockets": one per package'
    )
    threads: Threads = Field(
        default=1, description='threads of each stream; "cores": all CPUs shared by the streams'
    )
    latency_threads: Annotated[int, Field(ge=0, le=256)] = Field(
        default=0,
        description="threads of a second compiled copy that serves a call arriving at an idle "
        "engine, at most one per CPU; 0, or not more than `threads`: no such copy",
    )
    max_batch: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="largest batch of a model's input that this engine may run"
    )
    instances: Annotated[int, Field(ge=1, le=1)] = Field(
        default=1, description="compiled copies beside the one for latency; only 1 is built"
    )
    warmup: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=5, description="runs before anything is timed"
    )
    queue_depth: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=64, description="inference requests that may wait; beyond it 429"
    )
    allow_fallback: Literal[False] = Field(
        default=False, description="false, and nothing else: another device is never taken instead"
    )

    @property
    def device_family(self) -> str:
        """Return the device without its number: GPU of GPU.1."""
        return self.device.partition(".")[0]

    @model_validator(mode="after")
    def _pinned(self) -> "EngineChoice":
        if any(word in self.device.upper() for word in _PICKS_FOR_ITSELF):
            raise ValueError(f"device {self.device} picks a device by itself")
        if "," in self.device:
            raise ValueError("more than one execution provider: name one")
        allowed = PROPERTIES.get((self.kind, self.device_family))
        number = self.device.partition(".")[2]
        if allowed is None or (number and not (self.device_family == "GPU" and number.isdecimal())):
            raise ValueError(f"{self.kind} has no device {self.device}")
        if unknown := sorted(set(self.properties) - allowed):
            raise ValueError(f"not to be set for {self.kind} {self.device}: {', '.join(unknown)}")
        if unknown := sorted(set(self.readback) - allowed - _READABLE[self.kind]):
            raise ValueError(f"{self.kind} {self.device} does not tell {', '.join(unknown)}")
        return self


class Limits(_Part):
    """What the service may take on; the stricter of this and the box's settings holds."""

    rss_mib: Annotated[int, Field(ge=128)] = Field(
        description="resident memory in MiB that the process may have after acceptance"
    )
    accel_mem_mib: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="memory in MiB on the accelerator, as its maker says; 0: none of its own",
    )
    temp_warn_c: Annotated[float, Field(gt=0, lt=150, strict=False)] | None = Field(
        default=None, description="degrees Celsius from which the box raises an alarm"
    )
    temp_stop_c: Annotated[float, Field(gt=0, lt=150, strict=False)] | None = Field(
        default=None, description="degrees Celsius from which no study is read until it cooled down"
    )
    thermal_zones: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[], description="types of the kernel's thermal zones that count; empty: all"
    )
    max_inflight: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="studies read at the same time, at most"
    )
    job_timeout_s: Annotated[float, Field(gt=0, le=86_400, strict=False)] = Field(
        description="seconds one attempt of a study job may run"
    )

    @model_validator(mode="after")
    def _warns_before_it_stops(self) -> "Limits":
        warn, stop = self.temp_warn_c, self.temp_stop_c
        if (warn is None) != (stop is None):
            raise ValueError("temp_warn_c and temp_stop_c: both or neither")
        if warn is not None and stop is not None and stop <= warn:
            raise ValueError("temp_stop_c is not above temp_warn_c")
        return self


class DicomLimits(_Part):
    """Limits of the C-STORE receiver; the stricter of this and the box's settings holds."""

    max_pdu_bytes: Annotated[int, Field(ge=4096, le=1 << 24)] = Field(
        default=131_072, description="largest PDU we ask senders to use"
    )
    max_associations: Annotated[int, Field(ge=1, le=1024)] = Field(
        default=64, description="associations at the same time; beyond it rejected as transient"
    )
    acse_timeout_s: Annotated[float, Field(gt=0, le=3600, strict=False)] = Field(
        default=30, description="seconds an association may take to be set up (ARTIM)"
    )
    network_timeout_s: Annotated[float, Field(gt=0, le=3600, strict=False)] = Field(
        default=60, description="seconds of silence before an association is given up"
    )


class Power(_Part):
    """The power mode the figures hold for; the box reads it and never sets it."""

    tool: Literal["none", "cpufreq", "nvpmodel", "nvidia-smi"] = Field(
        default="none", description="what tells the mode"
    )
    mode: Annotated[str, Field(max_length=64)] = Field(
        default="", description="cpufreq: governor; nvpmodel: name of the mode"
    )
    watts: Annotated[int, Field(ge=1, le=2000)] | None = Field(
        default=None, description="power limit; compared where the tool tells one (nvidia-smi)"
    )

    @model_validator(mode="after")
    def _comparable(self) -> "Power":
        if self.tool in ("cpufreq", "nvpmodel") and not self.mode:
            raise ValueError(f"{self.tool} needs the mode to compare with")
        if self.tool == "nvidia-smi" and self.watts is None:
            raise ValueError("nvidia-smi needs watts to compare with")
        return self


class Storage(_Part):
    """What the state folder's disk must offer."""

    state_min_mib: Annotated[int, Field(ge=0)] = Field(
        default=1024, description="least free space in MiB when the engine is accepted"
    )
    slot_mib: Annotated[int, Field(ge=16)] = Field(
        default=2048, description="largest thing in MiB that may be flashed into a slot"
    )
    wear_tbw: Annotated[float, Field(gt=0, strict=False)] | None = Field(
        default=None, description="terabytes the disk may be written, as its maker says"
    )
    sync_probe_ms_max: Annotated[float, Field(gt=0, strict=False)] = Field(
        default=200, description="longest median of a write made durable, in ms"
    )


class Window(_Part):
    """A time of day for exchange with the hub; it may go over midnight."""

    start: Annotated[str, Field(pattern=_CLOCK)] = Field(description="HH:MM")
    end: Annotated[str, Field(pattern=_CLOCK)] = Field(description="HH:MM")
    tz: Annotated[str, Field(pattern=r"^[A-Za-z0-9_+-]{1,32}(/[A-Za-z0-9_+-]{1,32}){0,2}$")] = (
        Field(default="UTC", description="IANA time zone")
    )
    max_kbit: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="kbit/s the exchange may take; not set: no limit"
    )


class AcceptanceCase(_Part):
    """What golden cases of the package must show on this very unit."""

    case: Annotated[str, Field(pattern=r"^(\*|[a-z0-9-]{1,64})$")] = Field(
        description='a golden case of the package; "*": all of them'
    )
    precision: Precision | None = Field(
        default=None, description="only for engines of this precision; not set: for all"
    )
    golden_sha256: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = Field(
        default=None, description="digest of the case's tensor in the package; not set: any"
    )
    n: Annotated[int, Field(ge=2, le=100_000)] = Field(
        default=200, description="timed runs, spread over the cases"
    )
    p50_ms: Annotated[float, Field(gt=0, strict=False)] = Field(
        description="longest median of one run in ms"
    )
    p99_ms: Annotated[float, Field(gt=0, strict=False)] = Field(
        description="longest 99th percentile of one run in ms"
    )
    max_abs: Annotated[float, Field(ge=0, strict=False)] = Field(
        description="largest difference from the known logit; the package's own tolerance holds as "
        "well, so a profile can only be stricter"
    )
    max_rel: Annotated[float, Field(ge=0, strict=False)] = Field(
        description="largest difference over the range of the known logits"
    )
    argmax_equal: Literal[True] = Field(
        default=True, description="true, and nothing else: every decision is the known one"
    )
    bit_repeatable: bool = Field(
        default=True, description="every run of a case gives the same bits"
    )
    task_metric_delta: Annotated[float, Field(ge=0, le=1, strict=False)] = Field(
        default=0.001, description="largest change of the calibrated probability"
    )

    @model_validator(mode="after")
    def _ordered(self) -> "AcceptanceCase":
        if self.p99_ms < self.p50_ms:
            raise ValueError("p99_ms is below p50_ms")
        return self


class Profile(_Part):
    """`hw_profiles/<vendor>/<board>.toml`, schema version 1."""

    schema_version: Literal[1] = Field(description="of this file format")
    id: Annotated[str, Field(pattern=_NAME)] = Field(description="unique name, never reused")
    vendor: Annotated[str, Field(pattern=_NAME)] = Field(description="equals the folder")
    name: Annotated[str, Field(min_length=1, max_length=128)] = Field(description="for people")
    seq: Annotated[int, Field(ge=1, le=_MOST)] = Field(
        description="revision, counts up and never falls"
    )
    evidence: Evidence = Field(description="how far to believe it")
    evidence_ref: Annotated[str, Field(max_length=256)] = Field(
        default="",
        description="where the measurement is written: index of an evidence log, or a page",
    )
    notes: Annotated[str, Field(max_length=4096)] = Field(default="", description="for people")
    match: Match
    engines: list[EngineChoice] = Field(
        min_length=1,
        max_length=8,
        description="tried in this order; each refusal is logged, none passing refuses to serve",
    )
    limits: Limits
    dicom: DicomLimits = Field(default=DicomLimits(), description="of the C-STORE receiver")
    power: Power = Field(default=Power(), description="the mode the figures hold for")
    storage: Storage = Field(default=Storage(), description="what the disk must offer")
    windows: list[Window] = Field(
        default=[], max_length=16, description="when to exchange with the hub; empty: settings say"
    )
    acceptance: list[AcceptanceCase] = Field(
        default=[], max_length=64, description="without one for its precision no engine may serve"
    )

    @model_validator(mode="after")
    def _measured_somewhere(self) -> "Profile":
        if self.evidence == "measured" and not (self.acceptance and self.evidence_ref):
            raise ValueError("measured needs [[acceptance]] and evidence_ref")
        return self

    def cases_for(self, precision: str) -> tuple[AcceptanceCase, ...]:
        """Return what an engine of a precision must show."""
        return tuple(one for one in self.acceptance if one.precision in (None, precision))

    def logit_limit(self, precision: str) -> float:
        """Return the strictest tolerance of a logit at a precision; infinite if none is stated."""
        return min((one.max_abs for one in self.cases_for(precision)), default=math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedProfile:
    """A parsed profile and the digest of the very bytes it was parsed from.

    Attributes:
        profile: what it says.
        digest: SHA-256 of its bytes.
        built_in: it came with the software, not from a vendor through the signed repository.
    """

    profile: Profile
    digest: str
    built_in: bool = False

    @property
    def label(self) -> str:
        """Return `id#seq`, as results and logs show it."""
        return f"{self.profile.id}#{self.profile.seq}"


def parse_profile(data: bytes, *, built_in: bool = False) -> LoadedProfile:
    """Return the profile in `data`.

    Raises:
        InvalidProfileError: not TOML in UTF-8, an unknown or missing key, a value out of range, or
            longer than a profile or its lines may be.
    """
    if len(data) > PROFILE_LIMIT or max(map(len, data.split(b"\n"))) > _LINE_LIMIT:
        raise InvalidProfileError("hardware profile: too long, or a line of it is")
    try:
        profile = Profile.model_validate(tomllib.loads(data.decode()))
    except (ValueError, RecursionError) as cause:  # TOML, UTF-8, our rules, a number too long
        raise InvalidProfileError(f"hardware profile: {cause}") from cause
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return LoadedProfile(profile=profile, digest=digest, built_in=built_in)


def profile_schema() -> dict[str, Any]:
    """Return the JSON schema of a profile, as kept in hw_profiles/schema.json."""
    return Profile.model_json_schema()


def profile_schema_text() -> str:
    """Return the schema as the file holds it: sorted keys, two spaces, a final newline."""
    return json.dumps(profile_schema(), indent=2, sort_keys=True) + "\n"
