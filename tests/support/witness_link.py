"""The way to a witness without a network: it calls the service, and can lose, cut or lie."""

import hashlib

from bedside_core.errors import BedsideError, DestinationUnavailableError, NotFoundError
from bedside_core.evidence.witness import NOTE_TYPE
from bedside_edge.ports.witness import Answer
from bedside_edge.services.witness import WitnessService


class DirectWitness:
    """`WitnessLink` that asks a `WitnessService` in the same process."""

    def __init__(self, service: WitnessService) -> None:
        self.service = service
        self.down = False
        self.lose_answers = False  # the witness hears and answers; the answer is lost
        self.say: Answer | None = None  # what it says instead
        self.show: bytes | None = None  # what it shows instead
        self.asked: list[bytes] = []

    def add_checkpoint(self, request: bytes) -> Answer:
        if self.down:
            raise DestinationUnavailableError("down")
        self.asked.append(request)
        if self.say is not None:
            return self.say
        try:
            answer = self.service.add_checkpoint(request)
        except BedsideError as error:
            return Answer(status=error.status, content_type="application/problem+json", body=b"{}")
        if self.lose_answers:
            raise DestinationUnavailableError("lost")
        return answer

    def last_checkpoint(self, origin: str) -> Answer:
        if self.down:
            raise DestinationUnavailableError("down")
        if self.show is not None:
            return Answer(status=200, content_type=NOTE_TYPE, body=self.show)
        try:
            digest = hashlib.sha256(origin.encode()).hexdigest()
            body = self.service.last_checkpoint(digest)
        except NotFoundError:
            return Answer(status=404, content_type="application/problem+json", body=b"{}")
        return Answer(status=200, content_type=NOTE_TYPE, body=body)
