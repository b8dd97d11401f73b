"""One result for an outsider: mostly the truth, a lie the rest of the time, the same for ever.

The coin is thrown once per study, label and recipient and remembered, so asking again tells
nothing more. What several recipients learn adds up; a cap per study refuses further ones. The
treating radiologist always has the exact result; this is for everybody else.

Source: Warner 1965, Journal of the American Statistical Association 60(309); memoised as in
Erlingsson et al. 2014, arXiv:1407.6981.
"""

import json
import logging
import math
import re
from fractions import Fraction

from bedside_core.errors import InvalidInputError
from bedside_core.signatures import seal_envelope
from bedside_core.uses import Asker, Purpose, Target, Thing, Use
from bedside_edge.ports.evidence import LogSigner
from bedside_edge.ports.local_answers import LocalAnswerStore
from bedside_edge.ports.noise import Noise
from bedside_edge.services.budget import BudgetService
from bedside_edge.services.gate import Gate

log = logging.getLogger(__name__)

FORMAT = "bedside-local-answer/1"
PAYLOAD_TYPE = "application/vnd.bedside.local-answer+json"  # of the DSSE envelope
LABEL = "finding-present"
MILLIONTHS = 10**6
_MOST = 10 * MILLIONTHS  # an answer above epsilon 10 is the truth in all but name
_RECIPIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:@/-]{0,127}")


class LocalAnswerService:
    """Answers outsiders. Safe to call from several threads."""

    def __init__(
        self,
        store: LocalAnswerStore,
        noise: Noise,
        device: LogSigner,
        gate: Gate,
        budget: BudgetService,
    ) -> None:
        self._store, self._noise, self._device = store, noise, device
        self._gate, self._budget = gate, budget

    def answer(self, study_id: str, recipient: str, epsilon: int, asker: Asker) -> bytes:
        """Return the signed answer, DSSE: whether the finding is present, more or less.

        Args:
            study_id: ours; it does not stand in the answer.
            recipient: who is told.
            epsilon: millionths; the truth is told with probability e^eps / (1 + e^eps).
            asker: who asks, for the gate.

        Raises:
            InvalidInputError: no such epsilon, or no name.
            NotPermittedError: the gate says no.
            NotFoundError: no such study, or no result with a value.
            BudgetExhaustedError, KeyReusedError: see `LocalAnswerStore.reserve`.
        """
        if type(epsilon) is not int or not 1 <= epsilon <= _MOST:
            raise InvalidInputError(f"epsilon is 1 to {_MOST} millionths")
        if _RECIPIENT.fullmatch(recipient) is None:
            raise InvalidInputError("a recipient has a name of 1 to 128 plain characters")
        self._gate.study(
            Use.RELEASE,
            asker,
            study_id,
            thing=Thing.RESULT,
            purpose=Purpose.EXPORT,
            target=Target.OUTSIDE,
        ).must()
        truth, cap = self._store.truth(study_id), self._budget.must_policy().local
        stored = self._store.reserve(study_id, LABEL, recipient, epsilon, cap, asker.actor_id)
        if stored is not None:
            return stored
        said = self._noise.respond(int(truth), choices=2, epsilon=Fraction(epsilon, MILLIONTHS))
        document = local_document(bool(said), recipient, epsilon)
        key = self._device.key.key_id.hex()
        envelope = seal_envelope(PAYLOAD_TYPE, document, {key: self._device.sign})
        log.info("local answer final")
        return self._store.finish(study_id, LABEL, recipient, envelope, asker.actor_id)

    def left(self, study_id: str) -> int:
        """Return what may still be told of a study, millionths of epsilon; NotFoundError."""
        return max(0, self._budget.must_policy().local - self._store.spent(study_id))


def local_document(said: bool, recipient: str, epsilon: int) -> bytes:
    """Return the answer with its explanation, canonical JSON."""
    keep = keep_probability(epsilon)
    document = {
        "format": FORMAT,
        "label": LABEL,
        "answer": said,
        "recipient": recipient,
        "epsilon": epsilon / MILLIONTHS,
        "truth_probability": round(keep, 6),
        "explanation": (
            f"This answer was made by chance. It is the true one with probability {keep:.3f} and "
            "the opposite otherwise, so it proves nothing of this patient. It was drawn once and "
            "is remembered: asking again brings the same answer. It is no diagnosis."
        ),
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def keep_probability(epsilon: int) -> float:
    """Return how often the truth is told: e^eps / (1 + e^eps); .731 at 1, .982 at 4."""
    return 1 / (1 + math.exp(-epsilon / MILLIONTHS))
