"""The OpenAPI entries of the routes that bypass the framework, added to its document."""

from typing import Any

from bedside_edge.api.openapi_statuses import WORDS, explicit

Json = dict[str, Any]

_PROBLEM: Json = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_V2_ERROR: Json = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string", "description": "code: detail"}},
        }
    }
}
_BINARY: Json = {"schema": {"type": "string", "format": "binary"}}


_FRAMEWORK_SCHEMAS = ("HTTPValidationError", "ValidationError")


def document(generated: Json) -> Json:
    """Return the framework's document with the raw routes in it."""
    paths = {path: _as_answered(path, item) for path, item in generated["paths"].items()}
    schemas = {
        name: schema
        for name, schema in generated["components"]["schemas"].items()
        if name not in _FRAMEWORK_SCHEMAS
    }
    store = _store()
    paths.setdefault("/dicom-web/studies", {})["post"] = store
    paths.setdefault("/dicom-web/studies/{study}", {})["post"] = {
        **store,
        "operationId": "store_study",
        "parameters": [_path("study")],
    }
    paths["/api/v1/studies:analyze"] = {"post": _analyze()}
    paths["/v2/models/{model}/infer"] = {"post": {**_infer(), "parameters": _infer_parameters()}}
    paths["/v2/models/{model}/versions/{model_version}/infer"] = {
        "post": {
            **_infer(),
            "operationId": "infer_version",
            "parameters": [*_infer_parameters(), _path("model_version")],
        }
    }
    for version in ("", "/versions/{model_version}"):
        named = [_path("model_version")] if version else []
        paths[f"/v2/models/{{model}}{version}/explain"] = {
            "post": {
                **_explain(),
                "operationId": "explain_version" if version else "explain",
                "parameters": [*_infer_parameters(), *named],
            }
        }
    paths |= _repository()
    return {
        **generated,
        "paths": dict(sorted(paths.items())),
        "components": {**generated["components"], "schemas": schemas},
    }


def _as_answered(path: str, item: Json) -> Json:
    """The framework promises 422 in its own shape and problems as plain JSON; we send neither."""
    told, error = {}, _V2_ERROR if path.startswith("/v2") else _PROBLEM
    for method, operation in item.items():
        answers = {
            status: answer
            for status, answer in operation["responses"].items()
            if status != "422" or "HTTPValidationError" not in str(answer)
        }
        told[method] = explicit(path, method, {**operation, "responses": answers}, error)
    return told


def _store() -> Json:
    return {
        "tags": ["DICOMweb"],
        "summary": "Store instances (STOW-RS)",
        "description": "Streamed to encrypted storage; every instance is durable before the "
        "answer. Any transfer syntax is stored as it came.",
        "operationId": "store_instances",
        "requestBody": {
            "required": True,
            "content": {'multipart/related; type="application/dicom"': _BINARY},
        },
        "responses": {
            "200": _stored("all instances are stored"),
            "202": _stored("some instances are stored, the others failed"),
            "409": _stored("no instance is stored"),
            **_problems(400, 401, 403, 413, 415, 422, 429, 500, 503, 507),
        },
    }


def _stored(words: str) -> Json:
    return {"description": words, "content": {"application/dicom+json": {}}}


def _analyze() -> Json:
    job: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/JobView"}}}
    result: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/ResultView"}}}
    return {
        "tags": ["jobs"],
        "summary": "Take a study in and analyse it now",
        "description": "The instances of one study. Sent again, the same bytes give the same job "
        "and the same result, with or without an Idempotency-Key; other bytes under a key that "
        "was used are refused.",
        "operationId": "analyze_study",
        "parameters": [
            {
                "name": "priority",
                "in": "query",
                "required": False,
                "schema": {"type": "string", "enum": ["stat", "urgent", "routine"]},
            },
            {
                "name": "Prefer",
                "in": "header",
                "required": False,
                "description": "`wait=10` waits up to ten seconds for the result",
                "schema": {"type": "string"},
            },
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/dicom": _BINARY,
                'multipart/related; type="application/dicom"': _BINARY,
                "multipart/form-data": _BINARY,
            },
        },
        "responses": {
            "200": {"description": "the result, done within the wait", "content": result},
            "202": {
                "description": "a job; its path is in Location",
                "content": job,
                "headers": {
                    "Location": {"schema": {"type": "string"}},
                    "Retry-After": {"schema": {"type": "integer"}},
                },
            },
            **_problems(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503, 504, 507),
        },
    }


def _infer() -> Json:
    return {
        "tags": ["inference protocol"],
        "summary": "Infer",
        "description": "Open Inference Protocol v2 with the binary tensor extension. A body of "
        "type application/dicom gives the full result document; nothing is stored.",
        "operationId": "infer",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": _BINARY,
                "application/dicom": _BINARY,
            },
        },
        "responses": {
            "200": {
                "description": "the outputs, or the result document",
                "content": {
                    "application/json": {"schema": {"type": "object"}},
                    "application/octet-stream": _BINARY,
                },
            },
            **{
                str(status): {"description": _V2_WORDS[status], "content": _V2_ERROR}
                for status in (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
            },
        },
    }


def _explain() -> Json:
    return {
        **_infer(),
        "summary": "Explain (an extension of ours)",
        "description": "The body of infer; the outputs are `saliency` (0..1, evidence for the "
        "finding) and `cam` (logit units) over the model's square input. With an "
        "application/dicom body `parameters.placement` is the image area: top, left, height and "
        "width in pixels of that square.",
    }


def _repository() -> Json:
    """The model repository extension."""
    operations: Json = {}
    for verb, words in (
        ("index", "Packages of this box, loaded or not"),
        ("load", "Load a package of this box; loaded already, it stays as it is"),
        ("unload", "Unload a package; its runtime closes after the last call"),
    ):
        index = verb == "index"
        path = f"/v2/repository/{verb}" if index else f"/v2/repository/models/{{model}}/{verb}"
        answer: Json = (
            {"type": "array", "items": {"type": "object"}} if index else {"type": "object"}
        )
        statuses = [400, 401, 403, 413, 500, 503, *([] if index else [404, 409, 422])]
        operations[path] = {
            "post": {
                "tags": ["inference protocol"],
                "summary": words,
                "operationId": f"repository_{verb}",
                "parameters": [] if index else [_path("model")],
                "requestBody": {
                    "required": False,
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                "responses": {
                    "200": {
                        "description": "done",
                        "content": {"application/json": {"schema": answer}},
                    },
                    **{
                        str(status): {"description": _V2_WORDS[status], "content": _V2_ERROR}
                        for status in statuses
                    },
                },
            }
        }
    return operations


def _infer_parameters() -> list[Json]:
    return [
        _path("model"),
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "description": "bytes of JSON before the binary tensors; absent: the body is JSON",
            "schema": {"type": "integer"},
        },
    ]


_V2_WORDS = WORDS | {
    404: "the box holds no such package, or it is not loaded",
    409: "the model reads the box's studies, or too many are loaded",
    503: "the package may not serve on this machine, or the box cannot now",
}


def _problems(*statuses: int) -> Json:
    return {str(status): {"description": WORDS[status], "content": _PROBLEM} for status in statuses}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
