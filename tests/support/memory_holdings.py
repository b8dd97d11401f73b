"""`HeldRows` over lists: what a test puts in is what is held."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bedside_core.errors import NotFoundError
from bedside_edge.dicom.header import read_header
from bedside_edge.dicom.read import PydicomReader
from bedside_edge.ports import Instance, InstanceState
from bedside_edge.services.holdings import Changes, HeldStudy, Holdings, Marks
from bedside_edge.services.outputs import Output


@dataclass
class MemoryHoldings:
    """Rows and objects in memory; `add` files one, `erase` drops a study."""

    rows: list[Instance] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    reads: int = 0

    def add(self, data: bytes, study_id: str = "") -> Instance:
        header = read_header(data)
        name = f"object-{len(self.rows)}"
        instance = Instance(
            instance_id=f"instance-{len(self.rows)}",
            study_id=study_id or f"study-{header.patient_id}-{header.study_uid}",
            header=header,
            object_name=name,
            object_key=b"",
            digest="",
            state=InstanceState.HELD,
        )
        self.rows.append(instance)
        self.objects[name] = data
        return instance

    def erase(self, study_id: str) -> None:
        # a row stays where it was, so that the others keep their numbers
        self.rows = [
            replace(row, study_id="") if row.study_id == study_id else row for row in self.rows
        ]

    def read(self, name: str, object_key: bytes) -> bytes:
        self.reads += 1
        if name not in self.objects:
            raise NotFoundError("no object of that name")
        return self.objects[name]

    # --- HeldRows ------------------------------------------------------------------------------

    def changes(self, since: Marks) -> Changes:
        fresh = [row.study_id for row in self.rows[since.instances :]]
        fresh += [output.study_id for output in self.outputs[since.outputs :]]
        return Changes(
            studies={row.study_id: b"key" for row in self.rows if row.study_id},
            changed=frozenset(fresh),
            marks=Marks(instances=len(self.rows), outputs=len(self.outputs)),
        )

    def studies(self, study_ids: Sequence[str]) -> list[HeldStudy]:
        return [
            HeldStudy(
                study_id=study_id,
                headers=[row.header for row in self._counting() if row.study_id == study_id],
                made=[output.kind for output in self.outputs if output.study_id == study_id],
            )
            for study_id in study_ids
            if any(row.study_id == study_id for row in self.rows)
        ]

    def instances(self, study_id: str) -> list[Instance]:
        found = [row for row in self._counting() if row.study_id == study_id]
        if not found:
            raise NotFoundError("no study of that id")
        return found

    def instances_of(self, sop_instance_uid: str) -> list[Instance]:
        return [r for r in self._counting() if r.header.sop_instance_uid == sop_instance_uid]

    def made(self, study_id: str) -> list[Output]:
        return [output for output in self.outputs if output.study_id == study_id]

    def made_of(self, sop_instance_uid: str) -> list[Output]:
        return [o for o in self.outputs if o.sop_instance_uid == sop_instance_uid]

    def _counting(self) -> list[Instance]:
        return [row for row in self.rows if row.study_id and row.state is InstanceState.HELD]


def holdings_over(memory: MemoryHoldings) -> Holdings:
    """Return holdings that read from `memory`."""
    return Holdings(memory, memory, PydicomReader())  # type: ignore[arg-type]
