"""What commands ask of a running box over HTTP, so that two changes never meet unseen."""

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from bedside_core.errors import BedsideError, InvalidInputError, RefusedError, UnavailableError

Json = dict[str, Any]

_TIMEOUT_S = 300.0  # a version is compiled and tested before it is in force


def model(url: str, name: str, token: str) -> Json:
    """Return what a running box does with a model.

    Raises:
        BedsideError: as for `change_model`.
    """
    _, found = _ask("GET", url, f"/api/v1/models/{name}", token)
    return found


def models(url: str, token: str) -> list[Json]:
    """Return the deployment of every loaded model of a running box, each once.

    Raises:
        BedsideError: as for `change_model`.
    """
    _, loaded = _ask("GET", url, "/api/v1/models", token)
    names = dict.fromkeys(entry["name"] for entry in loaded["models"])
    return [model(url, name, token) for name in names]


def ask(method: str, url: str, path: str, token: str, body: Json | None = None) -> Json:
    """Return what a running box answers; nothing is an empty document.

    Raises:
        BedsideError: as for `change_model`.
    """
    return _ask(method, url.rstrip("/"), path, token, body)[1]


def put_policy(url: str, envelope: bytes, token: str) -> Json:
    """Put a signed policy in force on a running box, as it is now; return what is in force then.

    Raises:
        BedsideError: as for `change_model`.
    """
    try:
        body: Json = json.loads(envelope)
    except ValueError as cause:
        raise InvalidInputError("the file is no signed document") from cause
    url = url.rstrip("/")
    tag, _ = _ask("GET", url, "/api/v1/policy", token)
    _, found = _ask("PUT", url, "/api/v1/policy", token, body, {"If-Match": tag})
    return found


def change_model(url: str, name: str, part: str, body: Json | None, token: str) -> Json:
    """Change what a running box does with a model, as it is now; return what it does then.

    Args:
        url: base of the box's HTTP service.
        name: of the model.
        part: `/active`, `/shadow`, `/canary`, `/threshold` or `:rollback`.
        body: of the request.
        token: for the Authorization header; none when empty.

    Raises:
        RefusedError, InvalidInputError: the box says no; its words.
        UnavailableError: it does not answer, or cannot now.
    """
    tag, _ = _ask("GET", url, f"/api/v1/models/{name}", token)
    method = "POST" if part.startswith(":") else "PUT"
    _, found = _ask(method, url, f"/api/v1/models/{name}{part}", token, body, {"If-Match": tag})
    return found


def trusted(url: str) -> ssl.SSLContext | bool:
    """Return whom to trust: the machine's authorities, or those SSL_CERT_FILE names."""
    return ssl.create_default_context() if url.startswith("https:") else True


@contextmanager
def person(url: str, login: str, password: str) -> Iterator[Callable[..., Json]]:
    """Lend the way to ask a running box as a person: logged in meanwhile, logged out after it.

    Raises:
        BedsideError: as for `change_model`.
    """
    url = url.rstrip("/")
    with (
        _mapped(url),
        httpx.Client(timeout=_TIMEOUT_S, trust_env=False, verify=trusted(url)) as client,
    ):

        def ask(method: str, path: str, body: Json | None = None) -> Json:
            return _read(client.request(method, f"{url}/api/v1{path}", json=body))

        opened = ask("POST", "/login", {"login": login, "password": password})
        client.headers["X-CSRF-Token"] = opened["csrf"]
        try:
            yield ask
        finally:
            with suppress(BedsideError, httpx.HTTPError):  # the session ends by itself as well
                ask("POST", "/logout")


def _ask(
    method: str,
    url: str,
    path: str,
    token: str,
    body: Json | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[str, Json]:
    """Return ETag and JSON of an answer."""
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    with _mapped(url):
        answer = httpx.request(
            method,
            url + path,
            json=body,
            headers=sent,
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=trusted(url),
        )
        return answer.headers.get("etag", ""), _read(answer)


@contextmanager
def _mapped(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.InvalidURL as cause:
        raise InvalidInputError(f"{url} is no address of a box") from cause
    except httpx.HTTPError as cause:
        raise UnavailableError(f"no box answers at {url}") from cause
    except json.JSONDecodeError as cause:
        raise UnavailableError(f"what answers at {url} is no box") from cause


def _read(answer: httpx.Response) -> Json:
    """Return the document of an answer; what it refuses is raised."""
    found: Json = answer.json() if answer.content else {}
    if answer.is_success:
        return found
    code = str(found.get("type", "")).rpartition(":")[2]
    words = f"{found.get('detail', 'the box refuses')} ({code})"
    if answer.status_code >= 500:
        raise UnavailableError(words)
    if answer.status_code in (401, 403, 409, 412, 422):
        raise RefusedError(words)
    raise InvalidInputError(words)
