"""The settings of one box: a TOML file, read once, checked, passed down as one frozen value.

Every setting has a default, so the box starts without a file. Units stand in the names. An unknown
key is an error, never a silent default. The environment says only where things lie:
`BEDSIDE_CONFIG` names the file, `BEDSIDE_STATE` the state folder.
"""

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bedside_core.access import PERSONS_ONLY, Action
from bedside_core.errors import InvalidConfigError

CONFIG_VARIABLE = "BEDSIDE_CONFIG"
STATE_VARIABLE = "BEDSIDE_STATE"
CONFIG_NAME = "bedside.toml"

_MIB = 1 << 20
_GIB = 1 << 30


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(host: str) -> str:
    """An address of this machine; a name could mean another one tomorrow."""
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise ValueError("must be an IP address of this machine, or localhost") from None
    return host


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("must be an address or a network such as 10.1.0.0/16") from None
    return text


AeTitle = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]([A-Za-z0-9_. -]{0,14}[A-Za-z0-9_.-])?$")]
BindAddress = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
ClientName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Days = Annotated[float, Field(ge=0, le=36_525)]


HostName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9-]{1,63}){0,8}$")
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Tls(_Section):
    """Transport security of something that listens."""

    certificate_file: str = Field(
        default="", description="PEM file of the certificate with its chain; turns TLS on"
    )
    key_file: str = Field(default="", description="PEM file of the certificate's key")
    client_auth: Literal["off", "optional", "required"] = Field(
        default="off", description="Whether callers show a certificate of their own"
    )
    client_ca_file: str = Field(
        default="",
        description="PEM file of the only authorities whose client certificates count",
    )

    @property
    def tls(self) -> bool:
        """Whether it speaks TLS."""
        return bool(self.certificate_file)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if bool(self.certificate_file) is not bool(self.key_file):
            raise ValueError("certificate_file and key_file belong together")
        if self.client_auth != "off" and not (self.certificate_file and self.client_ca_file):
            raise ValueError("client_auth needs certificate_file, key_file and client_ca_file")
        return self


class Http(_Tls):
    """The HTTP service: DICOMweb, inference protocol, appliance API."""

    host: BindAddress = Field(
        default="127.0.0.1",
        description="Address the service binds; any but a loopback address needs TLS",
    )
    port: Port = Field(default=8642, description="TCP port; 0 lets the system choose one")
    names: list[HostName] = Field(
        default=[],
        description="Host names and addresses by which browsers and programs may call the box, "
        "beside those of this machine itself",
    )
    max_body_bytes: int = Field(
        default=2 * _GIB,
        ge=_MIB,
        description="Largest request body; a larger one is refused with 413",
    )
    max_uploads: int = Field(
        default=64, ge=1, description="Most uploads of objects at a time; 429 above it"
    )
    max_held_bytes: int = Field(
        default=_GIB,
        ge=_MIB,
        description="Most bytes of objects that are analysed without being stored, together: they "
        "are in memory whole. 429 above it, 413 for one that is larger",
    )
    max_tensor_bytes: int = Field(
        default=16 * _MIB, ge=4096, description="Largest body of a tensor inference; 413 above it"
    )
    max_parts: int = Field(
        default=10_000, ge=1, description="Most instances in one multipart request; 413 above it"
    )
    max_wait_s: Seconds = Field(
        default=60.0, description="Longest time a request may wait for its result (`Prefer: wait`)"
    )
    max_waiting: int = Field(
        default=64, ge=1, description="Most inference requests that may queue; 429 above it"
    )
    upload_idle_s: Seconds = Field(
        default=30.0,
        description="Silence of a sender in the middle of a body before it is given up",
    )
    storage_threads: int = Field(
        default=4,
        ge=1,
        le=64,
        description="Threads that encrypt and file uploads and read the database",
    )
    event_stream_s: Seconds = Field(
        default=600.0,
        description="How long a stream of events lasts; browsers then come back and go on",
    )
    shutdown_s: Seconds = Field(
        default=3.0, description="Time that running requests get to finish when the service stops"
    )

    @model_validator(mode="after")
    def _others_reach_it_over_tls_only(self) -> Self:
        if not is_loopback(self.host) and not self.tls:
            raise ValueError(
                "a host other machines reach needs certificate_file and key_file: without TLS "
                "passwords, tokens and patients would cross the network in the clear"
            )
        return self


class Client(_Section):
    """A system that shows a certificate, and what it may do."""

    fingerprint: str = Field(
        default="",
        pattern=r"^([0-9a-f]{64})?$",
        description="SHA-256 of its certificate (DER), 64 lower hex digits; the better choice",
    )
    common_name: str = Field(
        default="",
        max_length=64,
        description="Common name, of a certificate by an authority of `http.client_ca_file`",
    )
    actions: list[str] = Field(description="What it may do: words of docs/access.md")

    @model_validator(mode="after")
    def _is_known_in_one_way(self) -> Self:
        if bool(self.fingerprint) is bool(self.common_name):
            raise ValueError("a client is known by its fingerprint or by its common name")
        allowed = {str(action) for action in Action if action not in PERSONS_ONLY}
        if not self.actions or not set(self.actions) <= allowed:
            raise ValueError("actions are words of docs/access.md that are not for persons only")
        return self


class Access(_Section):
    """Who may ask; accounts and tokens themselves are in the state folder."""

    session_idle_s: Seconds = Field(
        default=1800.0, description="A person's log-in ends when it was not used for so long"
    )
    session_s: Seconds = Field(
        default=43_200.0, description="A person's log-in ends after so long, used or not"
    )


_PROVIDER_URL = r"^(https://[^\s?#]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?[^\s?#]*)?$"


class Oidc(_Section):
    """Single sign-on through the hospital's identity provider (OpenID Connect)."""

    issuer: str = Field(
        default="",
        pattern=_PROVIDER_URL,
        description="The provider's issuer, exactly as it names itself; empty: no single sign-on",
    )
    client_id: str = Field(default="", max_length=255, description="What the box is to it")
    client_secret_file: str = Field(
        default="", description="File with the client secret; empty for a public client"
    )
    ca_file: str = Field(
        default="", description="PEM file of the authority to trust; empty trusts the system's"
    )
    public_url: str = Field(
        default="",
        pattern=_PROVIDER_URL,
        description="How browsers call the box; the way back is `/login/oidc/callback` below it",
    )
    scopes: list[Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,64}$")]] = Field(
        default=["openid", "profile"], description="Scopes asked for; `openid` among them"
    )
    algorithms: list[Literal["RS256", "ES256", "EdDSA"]] = Field(
        default=["RS256", "ES256", "EdDSA"],
        min_length=1,
        description="Signatures of ID tokens that count",
    )
    roles_claim: str = Field(
        default="groups", description="Claim with the person's groups; dots go into objects"
    )
    roles: dict[Literal["radiologist", "privacy-officer", "auditor", "vendor"], list[str]] = Field(
        default={},
        description="Groups that are a role here; administrators are local accounts only",
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.issuer and not (self.client_id and self.public_url and self.roles):
            raise ValueError("single sign-on needs client_id, public_url and roles")
        if "openid" not in self.scopes:
            raise ValueError("the scope openid is what makes it OpenID Connect")
        return self


class DicomPeer(_Section):
    """A node that may call the receiver: title and address must both fit."""

    ae_title: AeTitle = Field(description="Calling AE title")
    addresses: list[Network] = Field(
        min_length=1, description="Addresses or networks it calls from, e.g. 10.1.2.0/24"
    )


class Dicom(_Tls):
    """The DICOM receiver (C-STORE, C-ECHO)."""

    host: BindAddress = Field(
        default="127.0.0.1",
        description="Address the receiver binds; any but a loopback address needs `peers`",
    )
    port: Port = Field(default=11112, description="TCP port; 0 lets the system choose one")
    ae_title: AeTitle = Field(
        default="BEDSIDE", description="AE title of the box; a call to another one is rejected"
    )
    max_associations: int = Field(
        default=16, ge=1, le=256, description="Most associations at a time"
    )
    max_pdu_bytes: int = Field(
        default=131_072,
        ge=4096,
        le=16 * _MIB,
        description="Largest PDU the box asks senders to use",
    )
    max_object_bytes: int = Field(
        default=2 * _GIB, ge=_MIB, description="Largest SOP Instance taken in, by any way"
    )
    idle_timeout_s: Seconds = Field(
        default=60.0, description="Silence before an association is aborted"
    )
    allowed_calling_ae: list[AeTitle] = Field(
        default=[], description="Calling AE titles that may send; empty lets every title in"
    )
    peers: dict[ClientName, DicomPeer] = Field(
        default={},
        description="Table per node that may call; once there is one, all others are refused",
    )

    @model_validator(mode="after")
    def _others_are_named(self) -> Self:
        if not is_loopback(self.host) and not self.peers:
            raise ValueError(
                "a host other machines reach needs [dicom.peers.<name>] tables: without them "
                "whoever knows the AE title could send"
            )
        return self


class SourceRules(_Section):
    """What differs for one sender; a value not given comes from `[completion]`."""

    quiet_s: Seconds | None = Field(default=None, description="Quiet time for this sender")
    priority: Literal["stat", "urgent", "routine"] = Field(
        default="routine", description="Priority of this sender's studies"
    )


class Completion(_Section):
    """When a study counts as complete; no single signal can be relied on."""

    quiet_s: Seconds = Field(
        default=5.0, description="Time without a new instance after which a study is analysed"
    )
    max_wait_s: Seconds = Field(
        default=60.0, description="Longest time between a study's first instance and its analysis"
    )
    per_source: dict[AeTitle, SourceRules] = Field(
        default={}, description="Table per calling AE title with its own `quiet_s` and `priority`"
    )


class Jobs(_Section):
    """How study jobs are tried."""

    attempts: int = Field(
        default=5, ge=1, le=20, description="Attempts before a job is dead-lettered"
    )
    backoff_s: Seconds = Field(
        default=1.0, description="Pause before the second attempt; doubles with every further one"
    )
    timeout_s: Seconds = Field(default=120.0, description="Longest time one attempt may run")


class Disk(_Section):
    """When the box stops taking studies in (HTTP 507, C-STORE 0xA700)."""

    high_watermark: float = Field(
        default=0.95,
        gt=0,
        le=1,
        description="Used fraction of the disk above which nothing is taken in",
    )
    min_free_bytes: int = Field(
        default=256 * _MIB, ge=0, description="Free space below which nothing is taken in"
    )


class Model(_Section):
    """Which model package and hardware profile the box serves."""

    package: str = Field(
        default="",
        description="Folder of the model package; empty takes the one shipped with the box",
    )
    repository: str = Field(
        default="",
        description="Folder with further packages as `<name>/<version>/`, beside those shipped",
    )
    max_loaded: int = Field(
        default=4, ge=1, le=64, description="Most packages loaded at a time; each takes memory"
    )
    profile: str = Field(
        default="", description="Hardware profile file; empty takes the most specific one that fits"
    )
    engine: Literal["", "onnxruntime", "openvino"] = Field(
        default="", description="Engine in place of the profile's; empty keeps the profile's"
    )
    precision: Literal["", "f32", "bf16", "int8"] = Field(
        default="", description="Precision in place of the profile's; empty keeps the profile's"
    )


class Routing(_Section):
    """Which model reads which study."""

    rules: str = Field(
        default="",
        description="TOML file with the routing rules; empty asks the model of "
        "`[model] package` of every study",
    )


class Log(_Section):
    """Log lines on standard error; they name no patient and no UID at any level."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is written"
    )
    style: Literal["json", "plain"] = Field(
        default="json", description="One JSON object a line, or the same fields as plain words"
    )


class State(_Section):
    """Where the box keeps studies, results and keys."""

    folder: str = Field(
        default="~/.local/state/bedside",
        description="State folder; `BEDSIDE_STATE` takes precedence",
    )


class Keys(_Section):
    """How the key files are kept from whoever holds only the disk (docs/keys.md)."""

    protection: Literal["", "file", "passphrase", "tpm"] = Field(
        default="",
        description="What a new box seals its keys under, and what an old one must have them "
        "under to start; empty makes plain files of mode 0600 and takes keys as they are kept",
    )
    recovery_recipient: str = Field(
        default="",
        pattern=r"^(age1[0-9a-z]{58})?$",
        description="The hospital's age recipient, who can open sealed keys without the machine",
    )

    @model_validator(mode="after")
    def _can_be_recovered(self) -> Self:
        if self.protection == "tpm" and not self.recovery_recipient:
            raise ValueError("tpm needs recovery_recipient: a new board would lose everything")
        return self


class BackupSettings(_Section):
    """Copies of the state folder (docs/erasure-and-retention.md)."""

    recipient: str = Field(
        default="",
        pattern=r"^(age1[0-9a-z]{58})?$",
        description="The hospital's age recipient: backups are one encrypted file for it; empty: "
        "a folder, as the state folder is",
    )
    drill_days: int = Field(
        default=92,
        ge=0,
        le=3660,
        description="Days after which a missing restore drill is an alarm; 0: never",
    )


ObjectKind = Literal["sr", "sc", "seg"]


class Destination(_Section):
    """An archive: where results go, and where studies can be fetched from."""

    kind: Literal["dicom", "dicomweb"] = Field(
        default="dicom", description="C-STORE to a DICOM node, or STOW-RS to a DICOMweb service"
    )
    host: str = Field(
        default="", max_length=253, description="Host of the DICOM node; needed for `dicom`"
    )
    port: Port = Field(default=104, description="Port of the DICOM node")
    ae_title: AeTitle = Field(default="ANY-SCP", description="AE title of the DICOM node")
    url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        description="Base of the DICOMweb service; needed for `dicomweb`",
    )
    send: bool = Field(default=True, description="Whether results are sent there")
    objects: list[ObjectKind] = Field(
        default=["sr", "sc", "seg"],
        description="Which objects are sent; key objects of rejections always are",
    )
    fetch: Literal["", "c-get", "c-move", "wado"] = Field(
        default="", description="How studies may be fetched from there; empty: they may not"
    )
    timeout_s: Seconds = Field(default=30.0, description="Longest silence before giving up a call")
    tls: bool = Field(default=False, description="Whether the DICOM node is called over TLS")
    ca_file: str = Field(
        default="", description="PEM file of the authority to trust; empty trusts the system's"
    )
    certificate_file: str = Field(default="", description="PEM file of the box's own certificate")
    key_file: str = Field(default="", description="PEM file of its key")
    authorization_file: str = Field(
        default="", description="File with the value of the Authorization header (DICOMweb)"
    )

    @model_validator(mode="after")
    def _has_an_address(self) -> Self:
        if self.kind == "dicom" and not self.host:
            raise ValueError("a DICOM destination needs a host")
        if self.kind == "dicomweb" and not self.url:
            raise ValueError("a DICOMweb destination needs a url")
        if self.fetch and (self.fetch == "wado") is not (self.kind == "dicomweb"):
            raise ValueError("fetch is wado for DICOMweb, c-get or c-move for DICOM")
        return self


class Delivery(_Section):
    """How long results are tried to be delivered."""

    first_wait_s: Seconds = Field(
        default=5.0, description="Pause after a destination did not answer; doubles every time"
    )
    longest_wait_s: Seconds = Field(default=300.0, description="Longest such pause")
    give_up_h: float = Field(
        default=72.0,
        gt=0,
        le=8760,
        description="Hours of silence after which a delivery becomes a dead letter",
    )


class Retention(_Section):
    """How long studies stay, and which are erased when the disk fills.

    What was not delivered, is under legal hold or is still in a job never goes.
    """

    received_days: Days = Field(default=30, description="Least age of received images")
    results_days: Days = Field(default=90, description="Least age of a study's newest result")
    reviews_days: Days = Field(default=90, description="Least age of a study's newest review")
    at_most_days: Days = Field(
        default=0,
        description="Age at which a study goes although there is room; 0: only for room",
    )
    keep_unsigned: bool = Field(
        default=True, description="Whether studies stay whose result nobody signed off"
    )
    low_watermark: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Used fraction of the disk above which the oldest studies go",
    )
    every_s: Seconds = Field(default=900.0, description="Pause between two sweeps")

    @model_validator(mode="after")
    def _ages_agree(self) -> Self:
        least = max(self.received_days, self.results_days, self.reviews_days)
        if self.at_most_days and self.at_most_days < least:
            raise ValueError("at_most_days is below a least age")
        return self


DestinationName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class WitnessSettings(_Section):
    """A box or hub that cosigns this box's evidence log."""

    url: str = Field(
        pattern=r"^(https://[^\s?#]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?[^\s?#]*)$",
        description="Its submission prefix (c2sp.org/tlog-witness); of a box `https://.../witness`",
    )
    keys: list[Annotated[str, Field(max_length=4096)]] = Field(
        min_length=1,
        max_length=8,
        description="Its verifier keys: what `bedside-edge evidence witness keys` prints there",
    )
    token_file: str = Field(
        default="", description="File with a token of that box that has the action `witness`"
    )
    ca_file: str = Field(
        default="", description="PEM file of the authority to trust; empty trusts the system's"
    )
    certificate_file: str = Field(default="", description="PEM file of the box's own certificate")
    key_file: str = Field(default="", description="PEM file of its key")


class Evidence(_Section):
    """The evidence log of this box."""

    origin: str = Field(
        default="",
        max_length=128,
        pattern=r"^([a-z0-9._-]+/[a-z0-9._-]+/[a-z0-9._-]+)?$",
        description="Name of the log, `consortium/site/device`, kept for ever from the first "
        "start on; empty mints one that says nothing about the hospital",
    )
    nightly_quota: int = Field(
        default=2048,
        ge=0,
        le=1_000_000,
        description="Sizes that leave the hospital are multiples of it, so that they do not tell "
        "how much was done; 0 pads nothing",
    )
    checkpoint_minutes: int = Field(
        default=60,
        ge=1,
        le=1440,
        description="How often the box signs what the log holds; a signature is also made when "
        "the box stops and whenever somebody asks for a proof",
    )
    witnesses: dict[ClientName, WitnessSettings] = Field(
        default={}, description="Table per witness, under a name of your choice"
    )
    witness_policy: str = Field(
        default="",
        description="File that says which witnesses are enough (c2sp.org/tlog-policy); empty asks "
        "for every key of every witness",
    )
    witness_hour: int = Field(
        default=1,
        ge=0,
        le=23,
        description="Hour of the day (UTC) at which witnesses are sent the nightly checkpoint",
    )
    witness_alarm_h: float = Field(
        default=36.0,
        gt=0,
        le=8760,
        description="Hours without enough cosignatures after which that is an alarm",
    )


class Policy(_Section):
    """What is asked before every use of data."""

    trusted: str = Field(
        default="",
        description="Folder with the public keys (`*.pub`) that may sign policies; empty: "
        "`policy-keys` in the state folder",
    )
    grading: str = Field(
        default="",
        description="TOML file with the grading rules; empty takes those shipped with the box",
    )
    minor_years: int = Field(
        default=14,
        ge=0,
        le=25,
        description="Patients under this age are minors: a guardian's consent is needed. "
        "PIPL 31 says 14 (unverified - have it checked)",
    )


class Privacy(_Section):
    """Statistics that leave the hospital, and the ledger that charges them."""

    counter_file: str = Field(
        default="",
        description="File that says how far the privacy ledger had come; put it on another volume "
        "that no backup holds. Empty: `privacy.counter` in the state folder",
    )
    night_minute: int = Field(
        default=150,
        ge=0,
        le=1439,
        description="Minute of the day (UTC) from which the nights that are over are released",
    )
    slot_ms: int = Field(
        default=250,
        ge=10,
        le=10_000,
        description="Answers leave at multiples of it, whatever they are",
    )
    slot_budget_ms: int = Field(
        default=200, ge=1, le=60_000, description="Time every answer is given before its slot"
    )
    unwitnessed: Literal["limited", "allowed"] = Field(
        default="limited",
        description="Without a witness that cosigns the log only 5 % of an epoch's cap may be "
        "spent; `allowed` lifts that for a box that has none, and only the counter file is left",
    )
    snapshot_hours: int = Field(
        default=24, ge=1, le=8760, description="Frozen study rows are destroyed after so long"
    )


class Sync(_Section):
    """Rounds of a consortium (`bedside-edge sync`): when the box visits the hub, and what for."""

    enabled: bool = Field(
        default=True, description="Visit the hub at night, once the box is a member"
    )
    window_start_minute: int = Field(
        default=1320, ge=0, le=1439, description="Minute of the day (UTC) at which a night begins"
    )
    window_minutes: int = Field(default=480, ge=1, le=1440, description="Minutes a night lasts")
    jitter_minutes: int = Field(
        default=20,
        ge=0,
        le=720,
        description="The first visit comes up to so many minutes later, by chance: boxes do not "
        "all come at once",
    )
    poll_s: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="Seconds between visits while a round waits for its helpers",
    )
    purposes: list[Literal["train", "clean", "collect", "annotate", "validate", "fuse"]] = Field(
        default=[], description="What rounds this hospital serves; empty: none"
    )
    models: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default=[], description="Digests of the models rounds may be about; empty: any"
    )
    least_hospitals: int = Field(
        default=5, ge=2, le=10_000, description="Fewest organisations that must be in a sum"
    )
    longest_words: int = Field(
        default=2_000_000, ge=1, le=100_000_000, description="Longest vector the box computes"
    )
    round_rho: float = Field(
        default=0.2, gt=0, le=100, description="Most rho one round may cost a patient"
    )
    patient_day_rho: float = Field(
        default=0.5, gt=0, le=100, description="Most rho a patient pays within 24 hours of rounds"
    )
    patient_rho: float = Field(
        default=2.0, gt=0, le=1000, description="Most rho a patient ever pays for rounds"
    )


class Workitems(_Section):
    """Unified procedure steps the box performs (UPS-RS)."""

    codes: list[Annotated[str, Field(pattern=r"^[^\^]{1,16}\^[^\^]{1,16}$")]] = Field(
        default=["110004^DCM", "110003^DCM"],
        description="Workitem codes (value^scheme) the box claims; empty leaves all to others",
    )


class Site(_Section):
    """The hospital, for duties and notices."""

    region: Literal["cn", "eu", "us"] = Field(
        default="cn", description="Where the hospital lies; picks the clocks of an incident"
    )
    operator: Literal["other", "critical-infrastructure", "central-organ"] = Field(
        default="other", description="Kind of operator, as the incident-report measures name it"
    )
    contact: str = Field(
        default="", max_length=200, description="Whom to ask about an incident; stands in notices"
    )
    diagnosis_basis: Literal["treatment", "consent"] = Field(
        default="treatment",
        description="On what the diagnosis of a patient stands: the treatment contract, or a "
        "consent on record (unverified - have it checked)",
    )


class Update(_Section):
    """What the box lets be flashed (docs/flashing.md)."""

    models: Literal["activate", "offer"] = Field(
        default="activate",
        description="What a flashed model does once it passed its trial: `activate` reads studies "
        "with it, `offer` waits for a person (`bedside-edge models activate`)",
    )
    restart: Literal["wait", "exit"] = Field(
        default="wait",
        description="When only a start can try or use what was flashed: `wait` for somebody to "
        "start the box again, or `exit` with 75 so that whoever supervises it does",
    )
    trial_s: int = Field(
        default=900, ge=10, le=86_400, description="Seconds a candidate has to pass its gate"
    )
    slot_mib: int = Field(default=8192, ge=1, description="Most MiB one package may have")
    chunks_mib: int = Field(
        default=16_384, ge=1, description="Most MiB of pieces kept for the next update"
    )
    root: str = Field(
        default="",
        description="File with the first root of the repository packages come from: all the box "
        "trusts; empty takes no updates (docs/distribution.md)",
    )
    site: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9.-]{0,62})?$")] = Field(
        default="", description="Site id in the repository  [default: from the box's identity]"
    )
    media: str = Field(
        default="/media", description="Folder below which sticks are mounted, for `update --from`"
    )


class Config(_Section):
    """All settings of a box."""

    state: State = State()
    keys: Keys = Keys()
    backup: BackupSettings = BackupSettings()
    http: Http = Http()
    access: Access = Access()
    oidc: Oidc = Oidc()
    clients: dict[ClientName, Client] = Field(
        default={},
        description="Table per system that is known by its certificate (`http.client_auth`)",
    )
    dicom: Dicom = Dicom()
    completion: Completion = Completion()
    jobs: Jobs = Jobs()
    disk: Disk = Disk()
    model: Model = Model()
    routing: Routing = Routing()
    delivery: Delivery = Delivery()
    retention: Retention = Retention()
    workitems: Workitems = Workitems()
    destinations: dict[DestinationName, Destination] = Field(
        default={}, description="Table per archive, under a name of your choice"
    )
    log: Log = Log()
    policy: Policy = Policy()
    evidence: Evidence = Evidence()
    privacy: Privacy = Privacy()
    sync: Sync = Sync()
    site: Site = Site()
    update: Update = Update()


def parse_config(text: str) -> Config:
    """Return the settings in `text`, TOML.

    Raises:
        InvalidConfigError: not TOML, an unknown key, or a value out of range; names the key and
            never repeats the value.
    """
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as cause:
        raise InvalidConfigError(f"the settings are not TOML: {cause}") from cause
    except ValidationError as cause:
        wrong = "; ".join(
            f"{'.'.join(str(step) for step in error['loc'])}: {_said(error['type'], error['msg'])}"
            for error in cause.errors(include_url=False, include_input=False)
        )
        raise InvalidConfigError(f"settings: {wrong}") from None


def _said(kind: str, message: str) -> str:
    """Return the library's message in words for whoever wrote the file."""
    if kind == "extra_forbidden":
        return "there is no such setting"
    return message.removeprefix("Value error, ").replace("Input should", "should", 1)


def load_config(
    path: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Config, Path]:
    """Read the settings file and return it with the state folder in force.

    Args:
        path: the file named on the command line; else `BEDSIDE_CONFIG` names it; else
            `bedside.toml` in the working directory if there is one; else the defaults hold.
        environ: the environment; the process's own when not given.

    Raises:
        InvalidConfigError: a named file cannot be read, or its content is wrong.
    """
    environ = os.environ if environ is None else environ
    named = path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    source = named or Path(CONFIG_NAME)
    try:
        config = parse_config(source.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        if named is not None:
            raise InvalidConfigError(f"the settings file {named} does not exist") from cause
        config = Config()
    except (OSError, UnicodeDecodeError) as cause:
        raise InvalidConfigError(f"{source} cannot be read as UTF-8 text") from cause
    folder = environ.get(STATE_VARIABLE) or config.state.folder
    return config, Path(folder).expanduser()
