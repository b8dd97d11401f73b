"""`LocalAnswerStore` in dictionaries."""

from bedside_core.errors import BudgetExhaustedError, KeyReusedError, NotFoundError


class MemoryAnswers:
    """Remembers answers; knows the studies it was told of, or any when it was told of none."""

    def __init__(self, truths: dict[str, bool | None] | None = None) -> None:
        self.truths = truths
        self.answers: dict[tuple[str, str, str], bytes] = {}
        self.costs: dict[tuple[str, str, str], int] = {}

    def truth(self, study_id: str) -> bool:
        self._must_know(study_id)
        found = True if self.truths is None else self.truths[study_id]
        if found is None:
            raise NotFoundError("no result")
        return found

    def reserve(
        self, study_id: str, label: str, recipient: str, epsilon: int, cap: int, actor: str
    ) -> bytes | None:
        self._must_know(study_id)
        key = (study_id, label, recipient)
        if key in self.costs:
            if self.costs[key] != epsilon:
                raise KeyReusedError("asked before")
            return self.answers.get(key)
        spent = self.spent(study_id)
        if spent + epsilon > cap:
            raise BudgetExhaustedError(epsilon, max(0, cap - spent))
        self.costs[key] = epsilon
        return None

    def finish(
        self, study_id: str, label: str, recipient: str, document: bytes, actor: str
    ) -> bytes:
        key = (study_id, label, recipient)
        if key not in self.costs:
            raise NotFoundError("nothing was charged")
        return self.answers.setdefault(key, document)

    def spent(self, study_id: str) -> int:
        self._must_know(study_id)
        return sum(cost for key, cost in self.costs.items() if key[0] == study_id)

    def _must_know(self, study_id: str) -> None:
        if self.truths is not None and study_id not in self.truths:
            raise NotFoundError("no study of that id")
