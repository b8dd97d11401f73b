"""The question before every use of data. Nothing leaves, is shown or computed without an answer.

The gate gathers the facts, asks the policy in force and leaves evidence of the answer. Equal facts
get equal answers, so answers are kept under the facts; the state of the box is one of them and is
read anew every time. Evidence of a repeated use by the same actor on the same study is written
once in ten minutes: an entry says that the use was asked for, not how often a page was turned.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import gmtime, strftime
from typing import Final

from bedside_core.access import Actor
from bedside_core.errors import NotFoundError, NotPermittedError, SealedError
from bedside_core.evidence.entry import Kind, as_actor
from bedside_core.incident import STOPPED
from bedside_core.uses import (
    ActorKind,
    Ask,
    Asker,
    Cause,
    Decision,
    Facts,
    Incident,
    Purpose,
    Reason,
    Situation,
    Target,
    Thing,
    Use,
    canonical,
)
from bedside_edge.ports import Clock, Way
from bedside_edge.ports.evidence import BOX as SERVICE_BOX
from bedside_edge.ports.evidence import Event
from bedside_edge.ports.governance import (
    Standing,
    StandingOf,
    StudyFacts,
    StudyFactsStore,
    no_standing,
)
from bedside_edge.ports.policy import Policy

log = logging.getLogger(__name__)

BOX: Final = Asker(actor_id=SERVICE_BOX, kind=ActorKind.SYSTEM)
_KEPT: Final = 4096  # answers
_NOTED: Final = 16_384  # uses whose evidence is younger than `_AGAIN_MS`
_AGAIN_MS: Final = 600_000
_STATISTIC_GRADE: Final = 2
_NOTHING: Final = Standing()
NO_BASIS: Final = Reason(
    rule="no-basis",
    en="AI not run: no basis for reading this study is on record.",
    zh="未运行人工智能。没有分析该检查的依据记录。",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """Of a list of studies: which may be shown, and of which what a model said of them."""

    studies: frozenset[str]
    results: frozenset[str]


class Gate:
    """Asks the policy in force. Safe to call from several threads."""

    def __init__(
        self,
        policy: Policy,
        facts: StudyFactsStore,
        clock: Clock,
        append: Callable[[Event], int],
        *,
        incident: Callable[[], Incident] = lambda: Incident.NORMAL,
        standing: StandingOf = no_standing,
    ) -> None:
        """Stand on the ports.

        Args:
            policy: in force until `use`.
            facts: of studies.
            clock: what today is.
            append: writes one evidence entry, durable on return.
            incident: how the box is now; read for every question.
            standing: what is on record about patients' will.
        """
        self._facts, self._clock, self._append = facts, clock, append
        self.incident, self.standing = incident, standing
        self._lock = threading.Lock()
        self._policy = policy
        self._kept: OrderedDict[Ask, Decision] = OrderedDict()
        self._noted: OrderedDict[tuple[str, str, str, str, str], int] = OrderedDict()
        self._senders: dict[tuple[Way, str], tuple[Incident, int]] = {}

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    def use(self, policy: Policy) -> None:
        """Put another policy in force; answers of the old one are forgotten."""
        with self._lock:
            self._policy = policy
            self._kept = OrderedDict()
            self._senders = {}

    # --- asking --------------------------------------------------------------------------------

    def decide(self, ask: Ask, *, study_id: str = "", subject_id: str = "") -> Decision:
        """Return the decision on any facts, and leave evidence of it.

        Args:
            ask: the facts, complete.
            study_id: which study it is about, for the evidence; not for the policy.
            subject_id: which patient, where it is about no one study.
        """
        found = self._answer(ask)
        self._note(ask, found, study_id, subject_id)
        return found

    def study(
        self,
        use: Use,
        asker: Asker,
        study_id: str,
        *,
        thing: Thing = Thing.STUDY,
        purpose: Purpose = Purpose.DIAGNOSIS,
        target: Target = Target.NONE,
        model_state: str = "none",
        people: int = 0,
    ) -> Decision:
        """Return the decision on a use of one study; NotFoundError when it is not held."""
        found = self._facts.facts([study_id], self._today()).get(study_id)
        if found is None:
            raise NotFoundError("no study of that id")
        standing = self.standing([found.subject_id]).get(found.subject_id, _NOTHING)
        situation = self._situation(purpose, target=target, model_state=model_state, people=people)
        ask = Ask(use=use, asker=asker, facts=facts_of(found, standing, thing), situation=situation)
        if use is Use.INFER and not standing.basis:
            refused = Decision(
                permitted=False,
                cause=Cause.NO_RULE,
                policy=self._policy.document.digest,
                asked=ask.digest,
                reasons=(NO_BASIS,),
            )
            self._note(ask, refused, study_id, "")
            return refused
        return self.decide(ask, study_id=study_id)

    def result(
        self, use: Use, asker: Asker, result_id: str, *, target: Target = Target.NONE
    ) -> Decision:
        """Return the decision on a use of a result or of an object made of it; NotFoundError."""
        study_id = self._facts.study_of(result_id=result_id)
        return self.study(use, asker, study_id, thing=Thing.RESULT, target=target)

    def outside(self, asker: Asker, study_id: str, *, grade: int | None) -> Decision:
        """Return the decision on handing de-identified objects of a study to somebody outside.

        Args:
            asker: who wants it.
            study_id: ours; NotFoundError when it is not held.
            grade: of the objects, where two people lowered it; None: as the study.
        """
        found = self._facts.facts([study_id], self._today()).get(study_id)
        if found is None:
            raise NotFoundError("no study of that id")
        standing = self.standing([found.subject_id]).get(found.subject_id, _NOTHING)
        facts = replace(
            facts_of(found, standing, Thing.STUDY),
            deidentified=True,
            grade=found.grade if grade is None else grade,
        )
        situation = self._situation(Purpose.EXPORT, target=Target.OUTSIDE)
        ask = Ask(use=Use.EXPORT, asker=asker, facts=facts, situation=situation)
        return self.decide(ask, study_id=study_id)

    def deliver(self, study_id: str) -> None:
        """Return when objects of a study's results may go to the hospital's archives.

        Raises:
            NotPermittedError: the policy says no.
            NotFoundError: the study is not held any more.
        """
        self.study(Use.EXPORT, BOX, study_id, thing=Thing.RESULT, target=Target.HOSPITAL).must()

    def visible(self, asker: Asker, study_ids: Sequence[str]) -> Visible:
        """Return what of these studies the actor may see, for lists; leaves no evidence.

        A row is shown or left out. What is opened from it is asked for again, with evidence.
        """
        held = self._facts.facts(study_ids, self._today())
        standings = self.standing(list({one.subject_id for one in held.values()}))
        situation = self._situation(Purpose.DIAGNOSIS)
        answers: dict[Facts, bool] = {}  # a list of thousands has few different facts

        def seen(thing: Thing) -> frozenset[str]:
            return frozenset(
                study_id for study_id, one in held.items() if permitted(_known(one, thing))
            )

        def _known(one: StudyFacts, thing: Thing) -> Facts:
            return facts_of(one, standings.get(one.subject_id, _NOTHING), thing)

        def permitted(facts: Facts) -> bool:
            if facts not in answers:
                ask = Ask(use=Use.VIEW, asker=asker, facts=facts, situation=situation)
                answers[facts] = self._answer(ask).permitted
            return answers[facts]

        return Visible(studies=seen(Thing.STUDY), results=seen(Thing.RESULT))

    def usable(
        self, use: Use, purpose: Purpose, study_ids: Sequence[str], *, target: Target
    ) -> frozenset[str]:
        """Return which of these studies the box itself may use so, for rounds over many.

        Studies of equal facts get one question, and one entry of evidence between them. Who
        withdrew takes part in nothing, whatever the policy says of the use. Whether a round may
        be joined at all (agreement, region) is asked before, once, by the night.
        """
        held = self._facts.facts(study_ids, self._today())
        standings = self.standing(list({one.subject_id for one in held.values()}))
        situation = replace(
            self._situation(purpose, target=target), same_region=True, agreement=True
        )
        groups: dict[Facts, list[str]] = {}
        for study_id, one in held.items():
            facts = facts_of(one, standings.get(one.subject_id, _NOTHING), Thing.STUDY)
            if not facts.withdrawn and not facts.hold:
                groups.setdefault(facts, []).append(study_id)
        return frozenset(
            study_id
            for facts, alike in groups.items()
            if self.decide(Ask(use=use, asker=BOX, facts=facts, situation=situation)).permitted
            for study_id in alike
        )

    def receive(self, way: Way, source: str) -> None:
        """Return when a sender may send; NotPermittedError otherwise, SealedError of a sealed box.

        Called for every instance: the answer is kept for a sender until the policy or the state
        of the box changes, and ten minutes at most, which is also how often it leaves evidence.
        """
        now, incident = self._clock.now(), self.incident()
        kept = self._senders.get((way, source))
        if kept is not None and kept[0] is incident and 0 <= now - kept[1] < _AGAIN_MS:
            return
        policy = self._policy
        asker = Asker(actor_id=_sender_id(source), kind=_SENDERS[way])
        ask = Ask(
            use=Use.RECEIVE,
            asker=asker,
            facts=Facts(thing=Thing.SOURCE, source=source),
            situation=Situation(purpose=Purpose.DIAGNOSIS, incident=incident),
        )
        try:
            self.decide(ask).must()
        except NotPermittedError as refused:
            if incident in STOPPED:  # a sender tries again later, as with a full disk
                raise SealedError("the box is sealed and takes nothing in") from refused
            raise
        with self._lock:
            if policy is self._policy and len(self._senders) < _KEPT:
                self._senders[way, source] = (incident, now)

    def request(self, asker: Asker) -> Decision:
        """Return the decision on letting a model read what a request carries."""
        ask = Ask(
            use=Use.INFER,
            asker=asker,
            facts=Facts(thing=Thing.REQUEST),
            situation=self._situation(Purpose.DIAGNOSIS, model_state="released"),
        )
        return self.decide(ask)

    def statistic(self, use: Use, asker: Asker, *, epsilon_left: int, target: Target) -> Decision:
        """Return the decision on a release or round; `epsilon_left` in millionths, after it."""
        ask = Ask(
            use=use,
            asker=asker,
            facts=Facts(thing=Thing.STATISTIC, grade=_STATISTIC_GRADE),
            situation=Situation(
                purpose=Purpose.STATISTICS,
                incident=self.incident(),
                target=target,
                epsilon_left=epsilon_left,
            ),
        )
        return self.decide(ask)

    # --- inside --------------------------------------------------------------------------------

    def _situation(
        self,
        purpose: Purpose,
        *,
        target: Target = Target.NONE,
        model_state: str = "none",
        people: int = 0,
    ) -> Situation:
        return Situation(
            purpose=purpose,
            incident=self.incident(),
            target=target,
            model_state=model_state,
            people=people,
        )

    def _answer(self, ask: Ask) -> Decision:
        with self._lock:
            policy, kept = self._policy, self._kept
            found = kept.get(ask)
            if found is not None:
                kept.move_to_end(ask)
                return found
        found = policy.decide(ask)
        if found.cause is Cause.ERROR:
            return found  # the next ask may get an answer
        with self._lock:
            kept[ask] = found  # of the policy that decided: `use` makes a new dictionary
            while len(kept) > _KEPT:
                kept.popitem(last=False)
        return found

    def _note(self, ask: Ask, found: Decision, study_id: str, subject_id: str) -> None:
        """Write the evidence, unless the same was written within ten minutes."""
        key = (ask.asker.actor_id, str(ask.use), study_id or subject_id, found.asked, found.policy)
        now = self._clock.now()
        with self._lock:
            if 0 <= now - self._noted.get(key, -_AGAIN_MS) < _AGAIN_MS:
                return
        self._append(decision_event(ask, found, study_id, subject_id))
        with self._lock:
            self._noted[key] = now
            while len(self._noted) > _NOTED:
                self._noted.popitem(last=False)
        if not found.permitted:
            log.info("use refused", extra={"use": str(ask.use), "code": str(found.cause)})

    def _today(self) -> str:
        return strftime("%Y%m%d", gmtime(self._clock.now() / 1000))


_SENDERS: Final[Mapping[Way, ActorKind]] = {
    Way.DIMSE: ActorKind.DEVICE,
    Way.STOW: ActorKind.TOKEN,
    Way.HTTP: ActorKind.TOKEN,
}


def _sender_id(source: str) -> str:
    return as_actor(f"device:{source.strip().lower()}")


# `system:` is another machine, known by its certificate or AE title; the box itself is `service:`
_KINDS: Final[Mapping[str, ActorKind]] = {
    "person": ActorKind.PERSON,
    "token": ActorKind.TOKEN,
    "system": ActorKind.TOKEN,
    "service": ActorKind.SYSTEM,
}


def asker_of(actor: Actor) -> Asker:
    """Return who asks, as the policy knows them."""
    prefix = actor.actor_id.partition(":")[0]
    return Asker(
        actor_id=as_actor(actor.actor_id),
        kind=_KINDS.get(prefix, ActorKind.TOKEN),
        roles=frozenset(str(role) for role in actor.roles),
    )


def facts_of(found: StudyFacts, standing: Standing, thing: Thing) -> Facts:
    """Return what the policy may know of a study or of what was made of it."""
    return Facts(
        thing=thing,
        grade=found.grade,
        consents=standing.consents,
        withdrawn=standing.withdrawn,
        minor=found.minor,
        guardian_consent=standing.guardian_consent,
        separate_consent=standing.separate_consent,
        hold=found.hold,
        burned_in=found.burned_in,
    )


def decision_event(ask: Ask, found: Decision, study_id: str, subject_id: str = "") -> Event:
    """Return the evidence of a decision: the facts as a commitment, the outcome in plain."""
    payload = {
        "ask": ask.to_json(),
        "asked": found.asked,
        "study": study_id,
        "rules": list(found.rules),
        "errors": list(found.errors),
    }
    return Event(
        kind=Kind.DECISION,
        actor=ask.asker.actor_id,
        study_id=study_id,
        subject_id=subject_id,
        payload=canonical(payload),
        refs={
            "use": str(ask.use),
            "outcome": "permitted" if found.permitted else "denied",
            "cause": str(found.cause),
            "policy": found.policy,
        },
    )
