"""Which statuses an operation can answer, told from its shape instead of `4XX`.

Every route runs behind the same shell and the same error tree, so what it can refuse follows from
what it takes: a path has things that are not there, a body can be too large or not fit, If-Match
can be stale. What only some routes answer is declared where they are. A test sends thousands of
requests and finds no status that is not here.
"""

from typing import Any, Final

Json = dict[str, Any]

WORDS: Final = {
    400: "the request cannot be read or used",
    401: "log in, or send a token",
    403: "this account may not, the policy says no, or the request comes from another site",
    404: "no such thing",
    406: "no representation the client takes",
    409: "not in a state that allows this, or the same request still runs",
    412: "changed since the revision in If-Match",
    413: "the body is too large",
    415: "the media type, or the transfer syntax of the object, is not one the box reads",
    422: "a value is not allowed, or the box refuses to process this; the code says why",
    428: "If-Match is needed",
    429: "too many requests; Retry-After says when",
    500: "unforeseen; the log has it under the request's id",
    502: "a destination does not answer as it should",
    503: "the box cannot now; Retry-After says when",
    504: "the work took too long",
    507: "the disk is above its watermark",
}
_OPEN: Final = frozenset({"/livez", "/readyz", "/v2/health/live", "/v2/health/ready"})
# one thing, which may not be there yet
_SINGLE: Final = frozenset({"/api/v1/hardware", "/api/v1/cleanings:report"})
_UNSAFE: Final = frozenset({"post", "put", "patch", "delete"})


def statuses(path: str, method: str, operation: Json) -> list[int]:
    """Return the error statuses an operation of the framework can answer."""
    parameters = operation.get("parameters", [])
    names = {one["name"].lower() for one in parameters if one["in"] == "header"}
    if path in _OPEN:
        return [403, 500, 503]
    found = {400, 401, 403, 429, 500, 503}
    if "{" in path or path in _SINGLE:
        found.add(404)
    if parameters or "requestBody" in operation:
        found.add(422)
    if "requestBody" in operation:
        found |= {413, 415}
    if method in _UNSAFE:
        found |= {404, 409, 413, 422, 507}
    if "if-match" in names:
        found |= {412, 428}
    if "{" in path and method == "get":
        found |= {409, 415, 422, 507}  # a result that was refused; an object made on demand
    return sorted(found)


def explicit(path: str, method: str, operation: Json, content: Json) -> Json:
    """Return the operation with every error spelled out; `content` is that of an error."""
    kept = {k: v for k, v in operation["responses"].items() if k not in ("4XX", "5XX")}
    told = {
        str(status): {"description": WORDS[status], "content": content}
        for status in statuses(path, method, operation)
    }
    return {**operation, "responses": {**told, **kept}}
