"""Every error Bedside raises on purpose, each with a code that never changes its meaning.

Three branches say who has to act: `RefusedError` (the rules say no; exit 3), `InvalidInputError`
(the caller sent something unusable; exit 4), `UnavailableError` (the box cannot now; exit 5).
The code is the API's problem type, the job's reason and the row in docs/errors.md. Messages name
no patient, no UID and no pixel value: they reach logs and browsers.
"""

from typing import ClassVar


class BedsideError(Exception):
    """Base of every deliberate error; `code` is stable, `status` is its HTTP status."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class RefusedError(BedsideError):
    """The rules say no. Nothing was changed."""

    code = "refused"
    status = 422
    exit_code = 3


class InvalidInputError(BedsideError):
    """The caller sent something that cannot be used. Nothing was changed."""

    code = "invalid-input"
    status = 400
    exit_code = 4


class UnavailableError(BedsideError):
    """The box cannot do it now; trying again later may help."""

    code = "unavailable"
    status = 503
    exit_code = 5


# --- an instance the model will not read: result states, never crashes -----------------------


class UndecodableTransferSyntaxError(RefusedError):
    """No decoder on this box reads the transfer syntax (12-bit JPEG Extended, for one)."""

    code = "undecodable-transfer-syntax"
    status = 415


class NoPixelsError(RefusedError):
    """The SOP Instance carries no pixel data (SR, RT plan, waveform, presentation state)."""

    code = "no-pixels"


class CorruptPixelsError(RefusedError):
    """The pixel data ended early or its decoder failed on it."""

    code = "corrupt-pixels"


class MalformedHeaderError(RefusedError):
    """An attribute the pixel pipeline needs is missing or cannot be read."""

    code = "malformed-header"


class UnsupportedPixelsError(RefusedError):
    """Pixel format outside the pipeline: more than 16 bits, floats, or several frames."""

    code = "unsupported-pixels"


class ColourImageError(RefusedError):
    """A colour image was offered to a grey-scale model."""

    code = "colour-image"


class MultiFrameError(RefusedError):
    """Several frames were offered to a single-frame model."""

    code = "multi-frame"


class MissingRescaleError(RefusedError):
    """A CT without rescale: its stored values mean nothing in Hounsfield units."""

    code = "missing-rescale"


class WrongModalityError(RefusedError):
    """The model does not read this modality or SOP Class."""

    code = "wrong-modality"


class WrongBodyPartError(RefusedError):
    """The header names a body part the model was not made for."""

    code = "wrong-body-part"


class WrongViewError(RefusedError):
    """The header names a view (lateral, oblique) the model was not made for."""

    code = "wrong-view"


class ForProcessingError(RefusedError):
    """A FOR PROCESSING image: raw detector values the model never saw in training."""

    code = "for-processing"


class DerivedImageError(RefusedError):
    """A derived, secondary or localizer image, not an original acquisition."""

    code = "derived-image"


class OutlierImageError(RefusedError):
    """Intensities or features lie too far from everything the model was trained on."""

    code = "outlier-image"


class NoRouteError(RefusedError):
    """No routing rule takes the study, or the one that does says that nothing runs."""

    code = "no-route"


# --- receiving -------------------------------------------------------------------------------


class NotDicomError(InvalidInputError):
    """The bytes are not a DICOM data set this box can file."""

    code = "not-dicom"


class InvalidUidError(InvalidInputError):
    """A UID breaks PS3.5 section 9 (characters, leading zeros, more than 64 characters)."""

    code = "invalid-uid"


class SopClassMismatchError(InvalidInputError):
    """The data set is not the SOP Class or Instance that the request announced."""

    code = "sop-class-mismatch"


class TooLargeError(InvalidInputError):
    """The body or object is larger than this box takes."""

    code = "too-large"
    status = 413


class UnsupportedMediaTypeError(InvalidInputError):
    """The Content-Type is not one this route takes."""

    code = "unsupported-media-type"
    status = 415


class NotAcceptableError(InvalidInputError):
    """None of the media types or transfer syntaxes asked for can be made of what is held."""

    code = "not-acceptable"
    status = 406


class ConflictingInstanceError(RefusedError):
    """The same SOP Instance UID came with another image: both are kept, an alarm is raised."""

    code = "conflicting-instance"
    status = 409


class DiskFullError(UnavailableError):
    """The state folder is above its high watermark; nothing more is taken in."""

    code = "disk-full"
    status = 507


class QueueFullError(UnavailableError):
    """More work waits than the box accepts; try again after the given time."""

    code = "queue-full"
    status = 429


# --- configuration, packages, profiles, engines ----------------------------------------------


class InvalidConfigError(InvalidInputError):
    """A setting is unknown or out of range."""

    code = "invalid-config"


class InvalidRulesError(InvalidInputError):
    """The routing rules cannot be read, or name a model the box does not hold."""

    code = "invalid-rules"


class InvalidPackageError(InvalidInputError):
    """A model package does not match its manifest, or the manifest cannot be read."""

    code = "invalid-package"


class InvalidProfileError(InvalidInputError):
    """A hardware profile cannot be read."""

    code = "invalid-profile"


class ProfileMismatchError(RefusedError):
    """The board does not fit the hardware profile, or the engine reads back something else."""

    code = "profile-mismatch"
    status = 503


class AcceptanceFailedError(RefusedError):
    """The engine does not keep on this unit what its hardware profile promises."""

    code = "acceptance-failed"
    status = 503


class GoldenMismatchError(RefusedError):
    """The engine does not reproduce the package's golden cases on this machine."""

    code = "golden-mismatch"
    status = 503


class ExportRefusedError(RefusedError):
    """An exported model decides differently from the trained network beyond its tolerance."""

    code = "export-refused"


class EngineFailedError(UnavailableError):
    """The inference engine could not load the model or failed on a valid tensor."""

    code = "engine-failed"


class NotReadyError(UnavailableError):
    """The service is starting or stopping."""

    code = "not-ready"


class StoreUnavailableError(UnavailableError):
    """The state folder cannot be read or written."""

    code = "store-unavailable"


class KeysSealedError(UnavailableError):
    """The box's keys do not open: other firmware, another machine, or no passphrase."""

    code = "keys-sealed"


class DamagedObjectError(UnavailableError):
    """A stored object fails its authentication tag: changed, torn or under another key."""

    code = "damaged-object"


class EvidenceDamagedError(UnavailableError):
    """The evidence log is not what was written or signed: the box must not serve on it."""

    code = "evidence-damaged"


class LegalHoldError(RefusedError):
    """The study is stored but not processed until a legal hold is released; it is not erased."""

    code = "legal-hold"
    status = 409


class InvalidBackupError(InvalidInputError):
    """A backup is incomplete, changed, of another box, or does not open with that passphrase."""

    code = "invalid-backup"


class InvalidReleaseError(InvalidInputError):
    """A release file cannot be read, or says what does not follow from its question and integers.

    The number must not be used: ask the hospital for the file again.
    """

    code = "invalid-release"


class InvalidCertificateError(InvalidInputError):
    """A deletion certificate cannot be read, or says something else than its log entry."""

    code = "invalid-certificate"


class NotFoundError(InvalidInputError):
    """Nothing is held under that identifier."""

    code = "not-found"
    status = 404


class WrongStateError(InvalidInputError):
    """The job or model is not in a state that allows this (replay of a finished job, for one)."""

    code = "wrong-state"
    status = 409


class WrongTransactionError(InvalidInputError):
    """The workitem is being performed under another Transaction UID."""

    code = "wrong-transaction"
    status = 409


class AlreadyExistsError(InvalidInputError):
    """Something is held under that identifier already."""

    code = "already-exists"
    status = 409


class NotOfferedError(RefusedError):
    """The standard has this service, this box does not offer it."""

    code = "not-offered"
    status = 403


class StaleRevisionError(InvalidInputError):
    """Somebody changed it after the revision that If-Match names; look again, then decide."""

    code = "stale-revision"
    status = 412


class PreconditionRequiredError(InvalidInputError):
    """A change of settings must say in If-Match which revision it was decided on."""

    code = "precondition-required"
    status = 428


class KeyReusedError(InvalidInputError):
    """The Idempotency-Key came before with another request; take a new key."""

    code = "key-reused"
    status = 422


class RequestRunningError(InvalidInputError):
    """The first request with this Idempotency-Key has not ended; ask again."""

    code = "request-running"
    status = 409


class TimedOutError(UnavailableError):
    """The work did not finish within its time limit."""

    code = "timed-out"
    status = 504


# --- what leaves the box ---------------------------------------------------------------------


class DestinationUnavailableError(UnavailableError):
    """A destination or archive does not answer, broke off, or asks to be tried later."""

    code = "destination-unavailable"
    status = 502


class DeliveryRefusedError(RefusedError):
    """A destination answered and will not take this object."""

    code = "delivery-refused"


class PatientMismatchError(RefusedError):
    """An object's patient is not, or not any more, that of its study; it was not sent."""

    code = "patient-mismatch"
    status = 409


class IdentityProviderError(UnavailableError):
    """The identity provider does not answer, or not as it should; local accounts still log in."""

    code = "identity-provider"
    status = 502


class BudgetExhaustedError(RefusedError):
    """The privacy budget has too little left for this release."""

    code = "budget-exhausted"

    def __init__(self, asked: int, left: int) -> None:  # units of 1e-12 rho
        super().__init__(f"the release asks for {asked} units of rho, {left} are left")
        self.asked, self.left = asked, left


# --- policy ----------------------------------------------------------------------------------


class NotPermittedError(RefusedError):
    """The policy does not permit this use; the rules that decided are named."""

    code = "not-permitted"
    status = 403

    def __init__(self, message: str, rules: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.rules = rules  # ids of the rules that decided; empty when no rule permits


class InvalidPolicyError(InvalidInputError):
    """A policy document cannot be read, fails a check, or decides a golden case differently."""

    code = "invalid-policy"
    status = 422


class PolicyRollbackError(RefusedError):
    """The policy document's version is not above the one in force."""

    code = "policy-rollback"
    status = 409


class InvalidGradingError(InvalidInputError):
    """The grading rules cannot be read."""

    code = "invalid-grading"


class GradeFallsError(RefusedError):
    """A grade would fall without a recorded de-identification and a second person."""

    code = "grade-falls"
    status = 409


class UnknownStatisticError(InvalidInputError):
    """The catalogue of statistics has no such name; free queries do not exist."""

    code = "unknown-statistic"
    status = 404


class ClosedEpochError(RefusedError):
    """The epoch of the privacy ledger is closed, not open yet, or cannot be renewed now."""

    code = "closed-epoch"
    status = 409


class LedgerLockedError(UnavailableError):
    """The privacy ledger is behind what its witness has seen: no release until it is resolved."""

    code = "ledger-locked"


class ClockAlarmError(UnavailableError):
    """The clock stands before the last entry of the privacy ledger: reading only."""

    code = "clock-alarm"


class WitnessNeededError(UnavailableError):
    """Too much was spent since a witness last saw the privacy ledger; releases wait for it."""

    code = "witness-needed"


class SealedError(UnavailableError):
    """The box is sealed or shut down because of an incident: data is read-only, nothing runs."""

    code = "sealed"


class UnsealRefusedError(RefusedError):
    """The state of the box changes only with the people, reason and green checks it takes."""

    code = "unseal-refused"
    status = 409


class InvalidConsentError(InvalidInputError):
    """A consent or notice lacks what it must hold, or cannot be read."""

    code = "invalid-consent"
    status = 422


class BurnedInTextError(RefusedError):
    """Text may stand in the pixels, or nobody can say that none does: it does not leave."""

    code = "burned-in-text"


# --- evidence --------------------------------------------------------------------------------


class InvalidEntryError(InvalidInputError):
    """An entry of the evidence log breaks its format, or goes back in time."""

    code = "invalid-entry"


class InvalidKeyError(InvalidInputError):
    """A verifier key cannot be read, does not fit its id, or is used for another purpose."""

    code = "invalid-key"


class InvalidNoteError(InvalidInputError):
    """A signed note or checkpoint cannot be read."""

    code = "invalid-note"


class InvalidProofError(InvalidInputError):
    """A Merkle proof or proof file cannot be read, or the tree has no such entry."""

    code = "invalid-proof"


class InvalidTileError(InvalidInputError):
    """A tile, entry bundle or tile path of a log export breaks its format."""

    code = "invalid-tile"


class InvalidEnvelopeError(InvalidInputError):
    """A signed envelope cannot be read or holds another type of payload."""

    code = "invalid-envelope"


class UntrustedSignatureError(RefusedError):
    """No trusted key signed, too few did, or a trusted key's signature fails."""

    code = "untrusted-signature"
    status = 403


class WrongOriginError(RefusedError):
    """A checkpoint belongs to another log than the one asked about."""

    code = "wrong-origin"
    status = 404


class ProofMismatchError(RefusedError):
    """A Merkle proof does not lead from the entry to the root of the checkpoint."""

    code = "proof-mismatch"


class InvalidWitnessPolicyError(InvalidInputError):
    """A text that says which witnesses are enough cannot be read."""

    code = "invalid-witness-policy"


class QuorumMissingError(RefusedError):
    """Too few witnesses cosigned the checkpoint for the policy."""

    code = "quorum-missing"


class EvidenceGapError(UnavailableError):
    """A witness saw more, or something else, of this log: restored, cloned or changed.

    The box signs and releases nothing until its log goes on under a new name.
    """

    code = "evidence-gap"


# --- the HTTP shell --------------------------------------------------------------------------


class ForeignRequestError(RefusedError):
    """Host or Origin names another machine: DNS rebinding, or a page of another site."""

    code = "foreign-request"
    status = 403


class UnauthenticatedError(RefusedError):
    """The request does not say who asks, or what it shows is not valid any more."""

    code = "unauthenticated"
    status = 401


class InvalidIdTokenError(RefusedError):
    """A log-in through the identity provider does not hold: state, code, browser or ID token."""

    code = "invalid-id-token"
    status = 403


class NoRoleError(RefusedError):
    """The identity provider knows the person, but no group of theirs is a role on this box."""

    code = "no-role"
    status = 403


class ForbiddenError(RefusedError):
    """The account or token may not do this."""

    code = "forbidden"
    status = 403


class TooManyAttemptsError(RefusedError):
    """Too many failed log-ins under this name or from this address; wait, then try again."""

    code = "too-many-attempts"
    status = 429

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WeakPasswordError(InvalidInputError):
    """The password is too short, too common, or made of the login name."""

    code = "weak-password"
    status = 422


class InvalidRequestError(InvalidInputError):
    """A parameter or field of the request is missing, unknown or out of range."""

    code = "invalid-request"
    status = 422


class MethodNotAllowedError(InvalidInputError):
    """The resource exists but does not answer this method."""

    code = "method-not-allowed"
    status = 405


class InternalError(UnavailableError):
    """Something nobody foresaw; the log has it under the request id."""

    code = "internal"
    status = 500


# --- between hospitals -----------------------------------------------------------------------


class InvalidMessageError(InvalidInputError):
    """A message, manifest or roster entry of the nightly sync is malformed or out of order."""

    code = "invalid-message"


class HubUnavailableError(UnavailableError):
    """The hub cannot be reached or does not answer; the box tries again later."""

    code = "hub-unavailable"
    status = 502


class HubRefusedError(RefusedError):
    """The hub said no; `reason` is its own stable code."""

    code = "hub-refused"
    status = 409

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class ManifestRefusedError(RefusedError):
    """This box does not take part in the round; `reason` is the rule that says so."""

    code = "manifest-refused"


class RoundRefusedError(RefusedError):
    """A helper or hub refuses a step of a round: it would open what must stay closed."""

    code = "round-refused"
    status = 409


# --- flashing ----------------------------------------------------------------------------------


class FlashRefusedError(RefusedError):
    """A version is not installed: it is there already, or another is on its way."""

    code = "flash-refused"
    status = 409


class RollbackRefusedError(RefusedError):
    """A version is older than one that was in service, or no longer permitted."""

    code = "rollback-refused"
    status = 409


class NoSlotError(RefusedError):
    """No slot holds a version that may serve."""

    code = "no-good-slot"
    status = 409


class CandidateRefusedError(RefusedError):
    """What was tried does not do what it must: it stays out of service."""

    code = "candidate-refused"


class TrialMemoryError(RefusedError):
    """What was tried took more memory than the hardware profile allows."""

    code = "trial-memory"


class TrialFailedError(UnavailableError):
    """A trial ended without a verdict: killed, crashed, or its time was up."""

    code = "trial-failed"


# --- distribution: what is signed, and by whom -------------------------------------------------


class InvalidTargetError(InvalidInputError):
    """A package's manifest or a site's assignment is malformed, or says other than its path."""

    code = "invalid-target"


class MetadataUntrustedError(RefusedError):
    """Metadata of the repository is not signed by the keys its role needs."""

    code = "metadata-untrusted"


class MetadataRollbackError(RefusedError):
    """Metadata of the repository is older than what this box has seen: a replay, or a mix."""

    code = "metadata-rollback"


class MetadataExpiredError(RefusedError):
    """Metadata of the repository has expired; what is installed goes on working."""

    code = "metadata-expired"


class MetadataMismatchError(RefusedError):
    """Bytes differ in length or digest from what the signed metadata says."""

    code = "metadata-mismatch"


class InvalidMetadataError(RefusedError):
    """Metadata of the repository cannot be read, or breaks a rule of this box."""

    code = "invalid-metadata"


class TimeFloorError(RefusedError):
    """The clock stands before a time this box has proof of: no refresh until it is set right."""

    code = "time-floor"


class UpdateRunningError(UnavailableError):
    """Another process on this box is fetching updates."""

    code = "update-running"
    status = 409


class TargetNotSignedError(RefusedError):
    """The role that owns the path does not name it: nobody entitled has signed this."""

    code = "target-not-signed"


class TargetDiffersError(RefusedError):
    """The owning role signed another version than the site's assignment names."""

    code = "target-differs"


class ForeignAssignmentError(RefusedError):
    """The assignment is for another site."""

    code = "foreign-assignment"


class StaleAssignmentError(RefusedError):
    """The assignment is older than one this box has seen."""

    code = "stale-assignment"


class RequiresUnmetError(RefusedError):
    """A package needs a version of something else that does not run here."""

    code = "requires-unmet"


class ChunkMismatchError(RefusedError):
    """A piece of a package came with the wrong bytes three times, or changed on the disk."""

    code = "chunk-mismatch"


class UpdateTooLargeError(RefusedError):
    """A package is larger than the room kept for it."""

    code = "update-too-large"


class ForbiddenPathError(RefusedError):
    """A file outside of what a box may ask for, or one that is no plain file."""

    code = "forbidden-path"
    status = 403
