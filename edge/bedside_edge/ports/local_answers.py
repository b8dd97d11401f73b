"""The port of remembered randomised answers about single results."""

from typing import Protocol


class LocalAnswerStore(Protocol):
    """Remembers what was answered to whom; every call is one transaction with its evidence."""

    def truth(self, study_id: str) -> bool:
        """Return the thresholded label of the study's standing result.

        Raises:
            NotFoundError: no such study, or no result with a value.
        """
        ...

    def reserve(
        self, study_id: str, label: str, recipient: str, epsilon: int, cap: int, actor: str
    ) -> bytes | None:
        """Charge an answer; return the stored document when it was given already.

        Args:
            study_id: ours.
            label: what is asked.
            recipient: who is told; costs add over recipients.
            epsilon: millionths.
            cap: of everybody's answers about the study together, millionths.
            actor: who asks.

        Raises:
            BudgetExhaustedError: the study's cap has too little left; nothing was charged.
            KeyReusedError: it was asked before at another epsilon: that answer stands.
            NotFoundError: no such study.
        """
        ...

    def finish(
        self, study_id: str, label: str, recipient: str, document: bytes, actor: str
    ) -> bytes:
        """Store an answer and return what is stored: another worker's if that one was first."""
        ...

    def spent(self, study_id: str) -> int:
        """Return what answers about a study have cost together, millionths."""
        ...
