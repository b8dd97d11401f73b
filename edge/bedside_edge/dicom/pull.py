"""Fetching a study from a DICOM node: C-FIND says what there is, C-GET or C-MOVE brings it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydicom.dataset import Dataset
from pynetdicom import evt

from bedside_core.errors import BedsideError, DestinationUnavailableError, NotFoundError
from bedside_edge.dicom.scu import EXPLICIT_LE, IMPLICIT_LE, Peer, association, contexts_for
from bedside_edge.services.outputs import Take

STUDY_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
_PENDING: Final = (0xFF00, 0xFF01)
_LINK: Final = [IMPLICIT_LE, EXPLICIT_LE]
# what an archive may keep a radiograph or slice in; it chooses the first it can give
_SYNTAXES: Final = [
    EXPLICIT_LE,
    IMPLICIT_LE,
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.5",
]
# asked for when the archive does not say which classes a study holds
_USUAL: Final = (
    "1.2.840.10008.5.1.4.1.1.1",
    "1.2.840.10008.5.1.4.1.1.1.1",
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.1.2",
    "1.2.840.10008.5.1.4.1.1.6.1",
    "1.2.840.10008.5.1.4.1.1.7",
)


class GetScu:
    """`Archive` over C-FIND and C-GET: instances come back over our own association."""

    def __init__(self, name: str, peer: Peer) -> None:
        self.name = name
        self._peer = peer

    def fetch(self, study_uid: str, take: Take) -> int:
        """Fetch every image of a study; return how many the archive offered.

        Raises:
            NotFoundError: the archive knows no such study.
            DestinationUnavailableError: it does not answer or breaks off.
            BedsideError: the box could not take an instance in.
        """
        classes = find_classes(self._peer, study_uid)
        failures: list[BedsideError] = []

        def store(event: evt.Event) -> int:
            request = event.request
            head = (
                str(event.context.transfer_syntax),
                str(request.AffectedSOPClassUID),
                str(request.AffectedSOPInstanceUID),
            )
            try:
                take(*head, event.request.DataSet.getvalue())
            except BedsideError as error:
                failures.append(error)
                return 0xA700
            return 0x0000

        contexts = [*contexts_for([STUDY_GET], _LINK), *contexts_for(classes, _SYNTAXES)]
        with association(
            self._peer, contexts, provider_of=classes, handlers=[(evt.EVT_C_STORE, store)]
        ) as opened:
            done = _last(opened.send_c_get(_study(study_uid), STUDY_GET))
        if failures:
            raise failures[0]
        return _completed(done)


class MoveScu:
    """`Archive` over C-FIND and C-MOVE: the archive sends to the box's own receiver."""

    def __init__(self, name: str, peer: Peer, receiver_ae: str) -> None:
        """`receiver_ae` is the box's AE title, which the archive must know with its address."""
        self.name = name
        self._peer, self._receiver_ae = peer, receiver_ae

    def fetch(self, study_uid: str, take: Take) -> int:
        """Have a study sent to the receiver; `take` is not used. See `GetScu.fetch`."""
        find_classes(self._peer, study_uid)
        with association(self._peer, contexts_for([STUDY_MOVE], _LINK)) as opened:
            done = _last(opened.send_c_move(_study(study_uid), self._receiver_ae, STUDY_MOVE))
        return _completed(done)


def find_classes(peer: Peer, study_uid: str) -> list[str]:
    """C-FIND the study and the classes it holds; the usual ones when the archive does not tell.

    Raises:
        NotFoundError: the archive knows no such study.
        DestinationUnavailableError: it does not answer.
    """
    query = _study(study_uid)
    query.SOPClassesInStudy = None
    query.NumberOfStudyRelatedInstances = None
    found: list[Dataset] = []
    with association(peer, contexts_for([STUDY_FIND], _LINK)) as opened:
        for status, identifier in opened.send_c_find(query, STUDY_FIND):
            _check(status)
            if status.Status in _PENDING and identifier is not None:
                found.append(identifier)
    if not found:
        raise NotFoundError("the archive has no such study")
    told = {
        str(uid)
        for identifier in found
        for uid in _several(identifier.get("SOPClassesInStudy"))
        if uid
    }
    return sorted(told)[:120] or list(_USUAL)


def _several(value: object) -> Sequence[Any]:
    if value is None:
        return ()
    return value if not isinstance(value, str) and isinstance(value, Sequence) else (value,)


def _study(study_uid: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = "STUDY"
    query.StudyInstanceUID = study_uid
    return query


def _last(answers: Iterable[tuple[Dataset, Dataset | None]]) -> Dataset:
    """Return the final response; pending ones only count."""
    last = Dataset()
    for status, _ in answers:
        _check(status)
        last = status
    return last


def _check(status: Dataset) -> None:
    if not status or "Status" not in status:
        raise DestinationUnavailableError("the DICOM node broke off")


def _completed(done: Dataset) -> int:
    completed = int(done.get("NumberOfCompletedSuboperations") or 0)
    failed = int(done.get("NumberOfFailedSuboperations") or 0)
    if failed or done.get("Status", 0xC000) not in (0x0000, 0xB000):
        raise DestinationUnavailableError(
            f"the archive sent {completed} instances and failed with {failed}"
        )
    return completed


__all__ = ["GetScu", "MoveScu", "find_classes"]
