"""POST /v2/models/{model}[/versions/{version}]/explain: where the network saw evidence.

The protocol has no such call; ours takes the body of `infer` and answers with two tensors over the
model's square input: `cam` in logit units (its mean is the logit) and `saliency`, the evidence for
the finding scaled to 0..1, as the overlay shows it. An `application/dicom` body goes through the
whole pixel pipeline first; `parameters.placement` says where the image lies on the square.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bedside_core.findings import saliency
from bedside_core.manifest import Manifest
from bedside_edge.api import oip
from bedside_edge.api.infer import InferHandler
from bedside_edge.api.reply import Reply
from bedside_edge.api.services import Analysis

PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/explain")
SALIENCY, CAM = "saliency", "cam"
_OFFERED = (SALIENCY, CAM)


class ExplainHandler(InferHandler):
    """Answers explanation requests; limits, queue and refusals are those of `infer`."""

    path = PATH

    def answer_tensor(self, analysis: Analysis, data: memoryview, head: int | None) -> Reply:
        """Return the maps for a tensor."""
        manifest = analysis.model.manifest
        call = oip.read_call(data, head, manifest.io, _OFFERED)
        return _reply(call, manifest, analysis.infer_tensor(call.tensor).cam, {})

    def answer_dicom(self, analysis: Analysis, data: bytes) -> Reply:
        """Return the maps for a Part 10 object."""
        document = analysis.analyse_object(data)
        (image,) = document["images"]
        manifest = analysis.model.manifest
        everything = tuple((name, False) for name in _OFFERED)
        call = oip.Call(request_id=None, tensor=np.empty(0, np.float32), outputs=everything)
        placed = {"placement": image["placement"], "probability": image["probability"]}
        return _reply(call, manifest, np.asarray(image["cam"], np.float32), placed)


def _reply(
    call: oip.Call, manifest: Manifest, cam: NDArray[np.float32], extra: dict[str, Any]
) -> Reply:
    shape = manifest.io.cam.shape
    return oip.tensors_reply(
        call, {SALIENCY: (shape, saliency(cam)), CAM: (shape, cam)}, manifest, extra
    )
