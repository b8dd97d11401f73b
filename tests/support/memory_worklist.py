"""`WorkRows` in memory: the test adds studies, and erases them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bedside_edge.ports import JobState, Priority
from bedside_edge.ports.review import ReviewState
from bedside_edge.ports.worklist import Answer, Names, WorkRow


class MemoryWorkRows:
    """Newest last in `held`; `looked_up` counts the names that were asked for."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[WorkRow, Names]] = {}
        self.said: dict[str, Answer] = {}
        self.looked_up = 0

    def add(
        self, study_id: str, name: str = "Doe^Jane", *, answer: Answer | None = None, **changes
    ) -> WorkRow:
        row = WorkRow(
            study_id=study_id,
            key=b"key of " + study_id.encode(),
            job_id=f"job-of-{study_id}",
            state=JobState.READY if answer is None else JobState.DONE,
            priority=Priority.ROUTINE,
            received=len(self.held),
            changed=len(self.held),
            reason="",
            images=1,
            result_id="" if answer is None else f"result-of-{study_id}",
            review=ReviewState.UNSIGNED,
        )
        row = replace(row, **changes)
        names = Names(
            patient_name=name,
            patient_id=f"ID-{study_id}",
            accession_number=f"ACC-{study_id}",
            study_date="20240102",
            modality="DX",
            body_part="CHEST",
            description="",
        )
        self.held[study_id] = (row, names)
        if answer is not None:
            self.said[row.result_id] = answer
        return row

    def rows(self) -> list[WorkRow]:
        return [row for row, _ in reversed(self.held.values())]

    def names(self, study_ids: Sequence[str]) -> Mapping[str, Names]:
        self.looked_up += len(study_ids)
        return {study: self.held[study][1] for study in study_ids if study in self.held}

    def answers(self, result_ids: Sequence[str]) -> Mapping[str, Answer]:
        return {result: self.said[result] for result in result_ids if result in self.said}
