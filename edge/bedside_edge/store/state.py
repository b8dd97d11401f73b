"""Open the state folder: lock, keys, database, objects, and the sweep after a crash.

<state>/lock           held while a process has the folder open
<state>/keys/box.key   0600; may lie on another medium through a mount of the folder
<state>/keys/slots     0600; secrets that keys are wrapped under, with the journal of destroyed ones
<state>/bedside.db     SQLite, WAL
<state>/objects/ab/    sealed objects; objects/tmp/ what is being written
"""

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bedside_core.errors import DamagedObjectError, StoreUnavailableError
from bedside_core.evidence.note import SignatureType
from bedside_edge.ports import Clock, KeyStore, RandomBytes
from bedside_edge.ports.evidence import LogSigner, Record
from bedside_edge.services.erasure import ErasureService
from bedside_edge.services.holds import HoldService
from bedside_edge.store.access import SqliteAccess
from bedside_edge.store.counter_file import FileCounter, NoCounter
from bedside_edge.store.database import Database
from bedside_edge.store.deployments import SqliteDeployments
from bedside_edge.store.distribution import SqliteDistribution
from bedside_edge.store.erasures import SqliteErasures
from bedside_edge.store.events import SqliteChanges
from bedside_edge.store.evidence import SqliteEvidence
from bedside_edge.store.evidence_open import LogSettings, check_at_start, identify
from bedside_edge.store.flashing import SqliteFlashing
from bedside_edge.store.governance import SqliteGovernance, SqlitePolicies
from bedside_edge.store.hardware import SqliteHardware
from bedside_edge.store.holdings import SqliteHoldings
from bedside_edge.store.holds import SqliteHolds
from bedside_edge.store.incidents import SqliteIncidents
from bedside_edge.store.jobs import SqliteJobs
from bedside_edge.store.learning import SqliteLearning
from bedside_edge.store.ledger import SqliteLedger
from bedside_edge.store.ledger_rows import check as check_ledger
from bedside_edge.store.local_answers import SqliteLocalAnswers
from bedside_edge.store.objects import DiskLimits, FileObjects, sync_folder
from bedside_edge.store.oidc import SqliteSubjectLinks
from bedside_edge.store.outputs import SqliteOutputs
from bedside_edge.store.overlap import SqliteOverlaps
from bedside_edge.store.requests import SqliteRequests
from bedside_edge.store.reserve import Reserve
from bedside_edge.store.reslot import claim_slots, move_into_slots
from bedside_edge.store.retention import SqliteRetention
from bedside_edge.store.reviews import SqliteReviews
from bedside_edge.store.rights import SqliteRights
from bedside_edge.store.rules import CompletionRules, RetryRules
from bedside_edge.store.slots import FileSlots
from bedside_edge.store.snapshots import SqliteSnapshots
from bedside_edge.store.studies import SqliteStudies, StudyKeys
from bedside_edge.store.subjects import SqliteSubjects, SubjectKeys
from bedside_edge.store.sync import SqliteSync
from bedside_edge.store.sync_journal import FOLDER as SYNC_FOLDER
from bedside_edge.store.sync_journal import JournalParts
from bedside_edge.store.witness import SqliteWitness
from bedside_edge.store.witnessed import SqliteWitnessed
from bedside_edge.store.workitems import SqliteWorkitems
from bedside_edge.store.worklist import SqliteWorkRows

log = logging.getLogger(__name__)

OpenKeys = Callable[[Path, RandomBytes, bool], KeyStore]

DATABASE: Final = "bedside.db"
_PROOF: Final = b"this box key belongs to this database"
_CONTEXT: Final = b"database"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything behind the state folder; `close` when the process ends."""

    path: Path
    objects: FileObjects
    erasure: ErasureService
    holds: HoldService
    incidents: SqliteIncidents
    hardware: SqliteHardware
    rights: SqliteRights
    retention: SqliteRetention
    studies: SqliteStudies
    subjects: SqliteSubjects
    jobs: SqliteJobs
    outputs: SqliteOutputs
    evidence: SqliteEvidence
    witnessed: SqliteWitnessed  # the log as its witnesses see it
    witness: SqliteWitness  # this box as a witness of other logs
    reviews: SqliteReviews
    requests: SqliteRequests
    changes: SqliteChanges
    deployments: SqliteDeployments
    flashing: SqliteFlashing
    distribution: SqliteDistribution
    policies: SqlitePolicies
    governance: SqliteGovernance
    holdings: SqliteHoldings
    workitems: SqliteWorkitems
    oidc: SqliteSubjectLinks
    work_rows: SqliteWorkRows
    keys: KeyStore
    slots: FileSlots
    ledger: SqliteLedger
    snapshots: SqliteSnapshots
    local_answers: SqliteLocalAnswers
    sync: SqliteSync
    learning: SqliteLearning
    overlaps: SqliteOverlaps
    device: LogSigner | None  # signs releases; None of a log without keys
    database: Database
    access: SqliteAccess
    recovered: int  # jobs that were running when the last process died
    swept: int  # files without a row that a crash left behind
    lock: int  # file descriptor that holds the lock

    @property
    def record(self) -> Record:
        """Append to the evidence log inside a write function."""
        return self.evidence.record

    def close(self) -> None:
        """Finish what is queued, close files, free the folder for the next process."""
        with ExitStack() as stack:
            stack.callback(os.close, self.lock)
            stack.callback(self.slots.close)
            stack.callback(self.database.close)
            stack.callback(self.ledger.close)
            stack.callback(self.sync.close)
            self.objects.close()
            self.database.write(lambda c: _mark(c, clean=True))


def open_state(
    path: Path,
    clock: Clock,
    random: RandomBytes,
    open_keys: OpenKeys,
    *,
    completion: CompletionRules | None = None,
    retries: RetryRules | None = None,
    disk: DiskLimits | None = None,
    evidence: LogSettings | None = None,
    minor_years: int = 14,
    privacy_counter: Path | None = None,
) -> State:
    """Open or create the state folder at `path` and put right what a crash left behind.

    Args:
        path: the folder; made with mode 0700 when absent.
        clock: what `now` means when interrupted jobs are put back; times syncs.
        random: where ids, nonces and keys come from.
        open_keys: `bedside_edge.system.keys.open_box_keys`, or a simulator of it.
        completion: when a study is complete; default `CompletionRules()`.
        retries: how often a job is tried; default `RetryRules()`.
        disk: when nothing more is taken in; default `DiskLimits()`.
        evidence: name and keys of the evidence log; the default has no keys and signs nothing.
        minor_years: under this age a patient is a minor.
        privacy_counter: a file outside the backup set that notices a ledger that was set back.

    Raises:
        StoreUnavailableError: another process has it open; the key is missing, exposed or of
            another database; the database is missing while objects are there; not readable.
        EvidenceDamagedError: the evidence log is not what was written and signed.
        DiskFullError: no room to create it.
    """
    completion, retries = completion or CompletionRules(), retries or RetryRules()
    with ExitStack() as stack:
        lock = _lock(path)
        stack.callback(os.close, lock)
        fresh = not (path / DATABASE).exists()
        if fresh:
            _refuse_objects(path / "objects")
        keys = open_keys(path / "keys", random, fresh)
        database = Database(path / DATABASE)
        stack.callback(database.close)
        clean = _claim(database, keys)
        slots = claim_slots(path / "keys", database, keys, random)
        stack.callback(slots.close)
        objects = FileObjects(path / "objects", random, disk or DiskLimits(), clock)
        stack.callback(objects.close)
        study_keys = StudyKeys(slots, random)
        subject_keys = SubjectKeys(slots, random)
        settings = evidence or LogSettings()
        identity = identify(database, path / "keys", random, settings)
        check_at_start(database, identity.origin)
        database.read(check_ledger)
        counter = NoCounter() if privacy_counter is None else FileCounter(privacy_counter)
        stack.callback(counter.close)
        of_rounds = (
            NoCounter() if privacy_counter is None else FileCounter(rounds_counter(privacy_counter))
        )
        stack.callback(of_rounds.close)
        log_store = SqliteEvidence(
            database,
            keys,
            study_keys.of,
            random,
            clock,
            subject_key=subject_keys.of_event,
            origin=identity.origin,
            signers=identity.signers,
            nightly_quota=settings.nightly_quota,
            base=identity.base,
        )
        record = log_store.record
        subjects = SqliteSubjects(database, keys, subject_keys, random, study_keys.of)
        studies = SqliteStudies(database, keys, study_keys, completion, subjects, record)
        move_into_slots(database, keys, slots, subjects)
        erasure = ErasureService(
            SqliteErasures(
                database,
                slots,
                study_keys.of,
                random,
                record=record,
                forget=lambda c, study, subject: log_store.forget(
                    c, study_id=study, subject_id=subject
                ),
                drop_keys=partial(_drop_keys, study_keys, subject_keys),
            ),
            slots,
            objects,
            clock,
            proof=log_store.proof,
        )
        erasure.recover()  # what a backup from before an erasure brought back goes again
        jobs = SqliteJobs(database, study_keys.of, random, completion, retries, record)
        outputs = SqliteOutputs(database, keys, study_keys.of, random, record)
        ledger = SqliteLedger(
            database,
            keys,
            record,
            clock,
            counter=counter,
            evidence_locked=lambda: log_store.locked,
        )
        sync = SqliteSync(
            JournalParts(
                database=database,
                record=record,
                slots=slots,
                random=random,
                clock=clock,
                counter=of_rounds,
                folder=path / SYNC_FOLDER,
            ),
            keys,
            locked=ledger.locked,
        )
        swept = 0 if clean else _sweep(objects, studies)
        recovered = jobs.recover(clock.now())
        stack.pop_all()
    if swept or recovered:
        log.warning("state put right after a crash", extra={"objects": swept, "count": recovered})
    return State(
        path=path,
        objects=objects,
        erasure=erasure,
        retention=SqliteRetention(database),
        holds=HoldService(SqliteHolds(database, random, record), clock),
        rights=SqliteRights(database, random, record),
        incidents=SqliteIncidents(database, keys, random, record, Reserve(path)),
        hardware=SqliteHardware(database, record),
        studies=studies,
        subjects=subjects,
        jobs=jobs,
        outputs=outputs,
        evidence=log_store,
        witnessed=SqliteWitnessed(database, log_store),
        witness=SqliteWitness(database, record),
        requests=SqliteRequests(database, keys),
        changes=SqliteChanges(database),
        reviews=SqliteReviews(database, study_keys.of, random, record),
        deployments=SqliteDeployments(database, record),
        flashing=SqliteFlashing(database, record),
        distribution=SqliteDistribution(database, record),
        policies=SqlitePolicies(database, record),
        governance=SqliteGovernance(database, studies, subjects, record, minor_years),
        work_rows=SqliteWorkRows(database, study_keys.of),
        holdings=SqliteHoldings(database, study_keys, studies, outputs),
        oidc=SqliteSubjectLinks(database, record),
        workitems=SqliteWorkitems(database, keys, study_keys.of, random, record),
        ledger=ledger,
        sync=sync,
        local_answers=SqliteLocalAnswers(
            database, keys, study_keys.of, record, locked=ledger.locked
        ),
        overlaps=SqliteOverlaps(database, keys, record),
        learning=SqliteLearning(
            database,
            keys,
            study_keys.of,
            subject_keys.commitment,
            random,
            record,
            with_uid=studies.with_uid,
        ),
        snapshots=SqliteSnapshots(database, keys, study_keys.of, random, clock),
        device=next((s for s in identity.signers if s.key.kind is SignatureType.ED25519), None),
        keys=keys,
        slots=slots,
        database=database,
        access=SqliteAccess(database, record),
        recovered=recovered,
        swept=swept,
        lock=lock,
    )


def rounds_counter(privacy: Path) -> Path:
    """Return the counter of what was written about rounds: beside the privacy ledger's."""
    return privacy.with_name(privacy.name + ".sync")


def _lock(path: Path) -> int:
    try:
        if not path.exists():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(path.parent)
        lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as cause:
        raise StoreUnavailableError("the state folder cannot be opened") from cause
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        os.close(lock)
        raise StoreUnavailableError("another process has the state folder open") from cause
    return lock


def _refuse_objects(folder: Path) -> None:
    """Without its rows an object is an orphan: an empty database would sweep them all."""
    try:
        found = any(folder.glob("[0-9a-f][0-9a-f]/*"))
    except OSError as cause:
        raise StoreUnavailableError("the state folder cannot be read") from cause
    if found:
        raise StoreUnavailableError("there are objects but no database; restore the database")


def _claim(database: Database, keys: KeyStore) -> bool:
    """Check that the keys are the database's; return whether it was closed in order."""

    def claim(c: sqlite3.Connection) -> bool:
        held = dict(c.execute("SELECT name, value FROM meta"))
        if "key" not in held:
            c.execute("INSERT INTO meta VALUES ('key', ?)", (keys.wrap(_PROOF, _CONTEXT),))
        elif keys.unwrap(held["key"], _CONTEXT) != _PROOF:
            raise DamagedObjectError("the proof of the box key is not what was written")
        _mark(c, clean=False)
        return held.get("clean") == b"1"

    try:
        return database.write(claim)
    except DamagedObjectError as cause:
        raise StoreUnavailableError("the box key does not belong to this database") from cause


def _mark(c: sqlite3.Connection, *, clean: bool) -> None:
    c.execute("INSERT OR REPLACE INTO meta VALUES ('clean', ?)", (b"1" if clean else b"0",))


def _drop_keys(
    studies: StudyKeys, subjects: SubjectKeys, erased: Sequence[str], subject_id: str
) -> None:
    for study_id in erased:
        studies.forget(study_id)
    if subject_id:
        subjects.forget(subject_id)


def _sweep(objects: FileObjects, studies: SqliteStudies) -> int:
    """Delete what no row refers to: it was never acknowledged."""
    swept = objects.clear_temporary()
    named = studies.object_names()
    for name in objects.names():
        if name not in named:
            objects.delete(name)
            swept += 1
    return swept
