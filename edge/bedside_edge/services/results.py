"""Looking at finished results: the overlay is painted when asked for, from the stored object."""

import json

from bedside_core.errors import NotFoundError, WrongStateError
from bedside_core.result import Json, caption
from bedside_edge.ports import JobQueue, ObjectStore, StudyStore
from bedside_edge.services.analysis import AnalysisService


class ResultsService:
    """Pictures of results."""

    def __init__(
        self,
        queue: JobQueue,
        studies: StudyStore,
        objects: ObjectStore,
        analysis: AnalysisService,
    ) -> None:
        self._queue, self._studies = queue, studies
        self._objects, self._analysis = objects, analysis

    def overlay(self, result_id: str) -> bytes:
        """Return the image the study's value came from with its saliency, as PNG.

        Raises:
            NotFoundError: no such result, or its image is no longer held.
            WrongStateError: nothing was computed, so there is nothing to show.
        """
        stored = self._queue.result(result_id)
        body: Json = json.loads(stored.body)
        if body["value"] is None:
            raise WrongStateError("the study was not processed; the result says why")
        shown = body["value"]["image"]
        entry = next(entry for entry in body["images"] if entry["instance"] == shown)
        for instance in self._studies.instances(stored.study_id):
            if instance.instance_id == shown:
                data = self._objects.read(instance.object_name, instance.object_key)
                return self._analysis.overlay(data, entry, caption(body))
        raise NotFoundError("the image is no longer held")
