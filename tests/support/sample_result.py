"""A result document as the analysis writes it, about any images, without running a network."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bedside_core.imaging import placed_size

SIDE = 320


def entry(
    instance: str,
    shape: tuple[int, int] = (64, 48),
    probability: float = 0.9,
    decision: str = "present",
) -> dict[str, Any]:
    """An analysed image whose saliency lies in the upper left quarter, asymmetric."""
    height, width = placed_size(shape, None, SIDE)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    cam = np.full((20, 20), -1.0)
    row, column = int((top + 0.25 * height) / 16), int((left + 0.3 * width) / 16)
    cam[row - 1 : row + 2, column - 1 : column + 1] = 20.0
    return {
        "instance": instance,
        "status": "analysed",
        "logit": 2.0,
        "probability": probability,
        "decision": decision,
        "checks": [{"name": "body part", "passed": True, "reason": "CHEST"}],
        "operations": ["resample", "normalise"],
        "cam": cam.tolist(),
        "placement": [top, left, height, width],
    }


def result_body(images: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document around image entries; the value is that of the highest probability."""
    best = max(images, key=lambda image: image["probability"])
    return {
        "format": "bedside-result/1",
        "notice": "AI decision support only",
        "status": "analysed",
        "finding": {
            "name": "opacity",
            "code": "128477000",
            "scheme": "SCT",
            "meaning": "Abnormal opacity",
        },
        "value": {
            "probability": best["probability"],
            "decision": best["decision"],
            "threshold": 0.5,
            "undetermined": [0.4, 0.6],
            "image": best["instance"],
        },
        "reason": None,
        "images": list(images),
        "model": {"name": "sample", "version": "1.0.0", "release": 1},
        "pipeline": {"name": "cxr-frontal", "revision": 1, "digest": "sha256:" + "1" * 64},
        "engine": {
            "engine": "fake",
            "version": "1",
            "device": "CPU",
            "precision": "f32",
            "threads": 1,
            "model_sha256": "2" * 64,
        },
        "profile": {"name": "generic", "digest": "sha256:" + "3" * 64},
        "package": "sha256:" + "4" * 64,
    }
