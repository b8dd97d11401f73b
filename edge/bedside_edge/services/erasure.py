"""Erase for good: keys first, then rows with the log's entry, then files, then what SQLite keeps.

    intend     one transaction: nothing that arrives finds the study, its jobs and deliveries end
    destroy    key slots overwritten, synced: from here on no copy of the database opens anything
    remove     one transaction: every row, what the log kept outside itself, and the entry
    files      encrypted files removed, folders synced
    scrub      write-ahead log folded in and emptied, the database written anew if it is small
    end        the erasure is done, its certificate can be given

A kill between two steps leaves a row that says where to go on; `recover` does so before the box
serves. It also finds erasures that a restored backup has undone, and applies them again.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final

from bedside_core.erasure import Certificate, Destroyed
from bedside_core.errors import DiskFullError, StoreUnavailableError, WrongStateError
from bedside_edge.ports import Clock
from bedside_edge.ports.erasure import (
    Erasure,
    ErasurePlan,
    ErasureScope,
    ErasureState,
    ErasureStore,
    Files,
)
from bedside_edge.ports.slots import KeySlots

log = logging.getLogger(__name__)

ACTOR: Final = "service:erasure"
Step = Callable[[str], None]
Proof = Callable[[int], bytes]


def _quiet(_: str) -> None:
    """Tell nobody."""


class ErasureService:
    """Erasures. Thread-safe: steps are idempotent and rows are transactions."""

    def __init__(
        self,
        store: ErasureStore,
        slots: KeySlots,
        files: Files,
        clock: Clock,
        *,
        proof: Proof,
        step: Step = _quiet,
    ) -> None:
        """Put the service over its ports.

        Args:
            store: rows.
            slots: keys.
            files: encrypted files.
            clock: when.
            proof: the proof file of an entry of the evidence log.
            step: told the name of each step when it is done.
        """
        self._store, self._slots, self._files = store, slots, files
        self._clock, self._proof, self._step = clock, proof, step

    # --- erase -------------------------------------------------------------------------------

    def plan_study(self, study_id: str) -> ErasurePlan:
        """Say what erasing a study would destroy; NotFoundError."""
        return self._store.plan(ErasureScope.STUDY, study_id)

    def plan_subject(self, subject_id: str) -> ErasurePlan:
        """Say what erasing a patient would destroy; NotFoundError."""
        return self._store.plan(ErasureScope.SUBJECT, subject_id)

    def erase(self, plan: ErasurePlan, *, reason: str, actor: str) -> Erasure:
        """Erase what the plan names; done when it returns.

        Raises:
            LegalHoldError: a study is under hold; nothing was changed.
            NotFoundError: it is gone already; nothing was changed.
            WrongStateError: somebody else is erasing it, or another study of the patient came
                meanwhile; nothing was changed.
            StoreUnavailableError, DiskFullError: it goes on when the box starts again, or with
                `finish`; what was destroyed stays destroyed.
        """
        begun = self._store.intend(plan, reason=reason, actor=actor, at=self._clock.now())
        self._step("intend")
        return self._go_on(begun)

    def plan_batch(self, studies: Sequence[str]) -> ErasurePlan:
        """Say what erasing several studies under one entry would destroy; NotFoundError."""
        return self._store.plan(ErasureScope.RETENTION, "", studies)

    def erase_batch(self, studies: Sequence[str], *, reason: str, actor: str) -> Erasure:
        """Erase several studies under one entry of the log."""
        return self.erase(self.plan_batch(studies), reason=reason, actor=actor)

    def compact(self, *, always: bool = False) -> bool:
        """Rewrite the database so that unused parts of pages hold nothing of what was erased.

        Args:
            always: also when it is large and writers wait long.

        Returns:
            Whether it was done.
        """
        try:
            return self._store.compact(always=always)
        except DiskFullError:
            log.warning("no room to rewrite the database after an erasure")
            return False

    def finish(self) -> int:
        """Take up every erasure that was interrupted; return how many were ended."""
        unfinished = self._store.unfinished()
        for erasure in unfinished:
            self._go_on(erasure)
        return len(unfinished)

    def recover(self) -> int:
        """Before serving: finish what was interrupted, and erase again what a restore undid.

        Returns:
            How many erasures that took.
        """
        ended = self.finish()
        if self._store.out_of_step():
            # an older copy of the slots was put back: what the database knows to be gone goes again
            self._slots.destroy(self._store.destroyed_slots(), self._clock.now())
            ended += self._erase_again()
            self._store.in_step()
        if ended:
            log.warning("erasures finished or applied again", extra={"count": ended})
        return ended

    def erasure(self, erasure_id: str) -> Erasure:
        """Return one erasure; NotFoundError."""
        return self._store.erasure(erasure_id)

    def erasures(self, *, target: str = "", limit: int = 100) -> list[Erasure]:
        """Return erasures, newest first."""
        return self._store.erasures(target=target, limit=limit)

    def certificate(self, erasure_id: str) -> Certificate:
        """Return the proof that an erasure was done; signs a checkpoint if none covers it yet.

        Raises:
            NotFoundError: no such erasure.
            WrongStateError: it is not done yet.
            NotReadyError: the box runs without the keys of its log.
        """
        erasure = self._store.erasure(erasure_id)
        if erasure.state is not ErasureState.DONE:
            raise WrongStateError("the erasure is not done yet")
        return Certificate(
            erasure=erasure.erasure_id,
            at=erasure.done_at,
            reason=erasure.reason,
            studies=len(erasure.studies),
            objects=erasure.objects,
            index=erasure.entry,
            proof=self._proof(erasure.entry).decode(),
        )

    # --- steps -------------------------------------------------------------------------------

    def _go_on(self, erasure: Erasure) -> Erasure:
        if erasure.state is ErasureState.INTENDED:
            self._slots.destroy(erasure.slots, self._clock.now())
            self._step("destroy")
            objects = self._fingerprints(self._store.files(erasure.erasure_id))
            self._step("fingerprint")
            erasure = self._store.remove(erasure.erasure_id, objects, self._clock.now())
            self._step("remove")
        if erasure.state is ErasureState.REMOVED:
            self._files.remove(o.name for o in erasure.objects)
            self._step("files")
            if not self._store.scrub():
                raise StoreUnavailableError("the database is in use; the erasure goes on later")
            if erasure.scope is not ErasureScope.RETENTION:
                self.compact()
            self._step("scrub")
            erasure = self._store.end(erasure.erasure_id, self._clock.now())
            self._step("end")
        return erasure

    def _fingerprints(self, names: Sequence[str]) -> list[Destroyed]:
        """Return what is destroyed; a file that is missing has nothing left to be erased."""
        found = [(name, self._files.fingerprint(name)) for name in names]
        return [Destroyed(name=n, sha256=f[0], size=f[1]) for n, f in found if f is not None]

    def _erase_again(self) -> int:
        """Erase rows whose key slot is destroyed: a backup from before the erasure came back."""
        studies, subjects = self._store.without_key()
        plans = [self._store.plan(ErasureScope.SUBJECT, subject) for subject in subjects]
        covered = {study for plan in plans for study in plan.studies}
        left = [study for study in studies if study not in covered]
        if left:
            plans.append(self._store.plan(ErasureScope.RETENTION, "", left))
        for plan in plans:
            self._go_on(
                self._store.intend(
                    plan,
                    reason="restored",
                    actor=ACTOR,
                    at=self._clock.now(),
                    despite_holds=True,  # without its key nothing is left to be held
                )
            )
        return len(plans)
