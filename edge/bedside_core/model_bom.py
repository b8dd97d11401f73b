"""The bill of materials of a model package: CycloneDX 1.6, with the model card as data (ML-BOM).

Made of what the package itself says: manifest, evaluation, digests. The same package gives the
same bytes, so the bill can be made again and compared. What the package does not know is left
out, never guessed.

Source: CycloneDX 1.6, ECMA-424, `modelCard`; cyclonedx-python-lib 11 has no model cards.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from bedside_core.manifest import Manifest

BOM_NAME: Final = "bom.cdx.json"
SPEC_VERSION: Final = "1.6"
_GROUP: Final = "all"
_FIGURES: Final = ("auc", "sensitivity", "specificity", "brier", "ece")
_LIMITS: Final = (
    "Decision support for a trained reader who sees the image; never a diagnosis",
    "Refuses images whose header or intensities are not like those it was trained on",
)


def model_bom(
    manifest: Manifest, evaluation: Mapping[str, Any], training: Mapping[str, Any]
) -> bytes:
    """Return the bill as JSON, the same bytes for the same package.

    Args:
        manifest: of the package. A bill it lists itself is left out.
        evaluation: `evaluation.json` of the package: splits with figures, digests of data and
            checkpoint.
        training: what is known of the training, name -> plain value; may be empty.
    """
    named = f"{manifest.name}@{manifest.version}"
    files = [
        _file(path, entry.sha256, named)
        for path, entry in sorted(manifest.files.items())
        if path != BOM_NAME
    ]
    component = {
        "type": "machine-learning-model",
        "bom-ref": named,
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.intended_use,
        "modelCard": _card(manifest, evaluation),
        "properties": _properties(manifest, evaluation, training),
        "components": files,
    }
    if "card.md" in manifest.files:
        component["externalReferences"] = [
            {
                "type": "model-card",
                "url": "card.md",
                "hashes": [_hash(manifest.files["card.md"].sha256)],
            }
        ]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "version": 1,
        "metadata": {"component": {"type": "machine-learning-model", "name": manifest.name}},
        "components": [component],
    }
    document["metadata"]["component"]["version"] = manifest.version
    content = json.dumps(document, sort_keys=True).encode()
    document["serialNumber"] = serial_number(content)
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def serial_number(content: bytes) -> str:
    """Return a serial number that follows from the content: RFC 9562 version 8, custom."""
    digits = list(hashlib.sha256(content).hexdigest()[:32])
    digits[12], digits[16] = "8", "89ab"[int(digits[16], 16) & 3]
    text = "".join(digits)
    return f"urn:uuid:{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _card(manifest: Manifest, evaluation: Mapping[str, Any]) -> dict[str, Any]:
    splits: Mapping[str, Any] = evaluation.get("splits", {})
    digest = str(evaluation.get("data", "")).removeprefix("sha256:")
    datasets = []
    for name, groups in sorted(splits.items()):
        whole = groups[_GROUP]
        told = f"{whole['images']} images of {whole['patients']} patients"
        about = f"{told}, {whole['positive']} positive"
        properties = [{"name": "bedside:collection-sha256", "value": digest}] if digest else []
        datasets.append(
            {
                "type": "dataset",
                "name": f"{manifest.name} {name}",
                "classification": "de-identified images",
                "description": about,
                "contents": {"properties": properties},
            }
        )
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"finding on a radiograph: {manifest.finding.meaning}",
            "architectureFamily": "convolutional neural network",
            "datasets": datasets,
            "inputs": [{"format": _tensor(manifest.io.input.shape)}],
            "outputs": [{"format": f"logit {_tensor(manifest.io.logit.shape)}"}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                metric
                for name, groups in sorted(splits.items())
                for group, figures in groups.items()
                for metric in _metrics(f"{name}: {group}", figures)
            ]
        },
        "considerations": {
            "users": ["trained readers of radiographs"],
            "useCases": [manifest.intended_use],
            "technicalLimitations": list(_LIMITS),
        },
    }


def _metrics(where: str, figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name in _FIGURES:
        if name not in figures:
            continue
        value, low, high = figures[name]
        metric: dict[str, Any] = {"type": name, "value": f"{value:g}", "slice": where}
        if low is not None and high is not None:
            bounds = {"lowerBound": f"{low:g}", "upperBound": f"{high:g}"}
            metric["confidenceInterval"] = bounds
        found.append(metric)
    return found


def _properties(
    manifest: Manifest, evaluation: Mapping[str, Any], training: Mapping[str, Any]
) -> list[dict[str, str]]:
    found = {
        "release": str(manifest.release),
        "pipeline": manifest.pipeline.digest,
        "not-a-medical-device": "true",
        "checkpoint": str(evaluation.get("checkpoint", "")),
    }
    for variant in manifest.variants:
        told = manifest.files[variant.path].sha256
        found[f"export:{variant.engine}:{variant.precision}"] = told
    found |= {f"training:{name}": _plain(value) for name, value in training.items()}
    return [
        {"name": f"bedside:{name}", "value": value}
        for name, value in sorted(found.items())
        if value
    ]


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _file(path: str, digest: str, named: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"{named}/{path}", "name": path, "hashes": [_hash(digest)]}


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest.removeprefix("sha256:")}


def _tensor(shape: list[int]) -> str:
    return "float32 " + "x".join(str(side) for side in shape)
