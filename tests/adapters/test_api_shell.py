import asyncio
import io
import json
import logging

import pytest
from fastapi import FastAPI
from opentelemetry import metrics, trace

from bedside_core.findings import Check
from bedside_edge.api.auth import Authenticator
from bedside_edge.api.doors import Doors
from bedside_edge.api.errors import BY_CODE
from bedside_edge.api.metrics import Metrics
from bedside_edge.api.shell import Shell
from bedside_edge.logs import SafeFormatter
from support.asgi_client import AsgiClient
from support.http_box import HttpBox

PROBLEM = {"type", "title", "status", "detail", "instance"}


@pytest.fixture
def box():
    with HttpBox() as box:
        yield box


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.1", "a:1:2"]
)
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/v2/models/sample/infer", "/dicom-web/studies"])
def test_a_request_that_names_another_host_is_refused(box, host, path):
    method = "GET" if path == "/api/v1/jobs" else "POST"
    answer = box.client.request(method, path, headers={"Host": host})
    assert answer.status_code == 403
    assert "foreign-request" in answer.text


@pytest.mark.parametrize(
    "twice",
    [
        [("Host", "evil.example"), ("Host", "127.0.0.1")],
        [("Host", "127.0.0.1"), ("Authorization", "Bearer a"), ("Authorization", "Bearer b")],
        [("Host", "127.0.0.1"), ("Cookie", "bedside=a"), ("Cookie", "bedside=b")],
    ],
)
def test_a_request_that_says_two_things_where_one_belongs_is_refused(box, twice):
    answer = box.client.get("/api/v1/jobs", headers=twice)
    assert answer.status_code == 400
    assert "evil" not in answer.text


def test_the_name_of_an_unknown_field_is_not_repeated_unless_it_is_an_identifier(box):
    for name, said in (("Zhang^Wei 1950", "body.a field: "), ("passwort", "body.passwort: ")):
        answer = box.client.post("/api/v1/login", json={"login": "a", "password": "b", name: "c"})
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
        assert "Zhang" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8642", "127.0.0.1:1", "[::1]:8642"])
def test_every_name_of_this_machine_is_served(box, host):
    assert box.client.get("/livez", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_page_of_another_site_cannot_act_through_the_browser(box, headers):
    box.queue.add("j1")
    answer = box.client.post("/api/v1/jobs/j1:cancel", headers=headers)
    assert answer.status_code == 403
    assert box.queue.job("j1").state == "collecting"


def test_our_own_page_can(box):
    box.queue.add("j1")
    headers = {"Origin": "http://127.0.0.1:8642", "Sec-Fetch-Site": "same-origin"}
    assert box.client.post("/api/v1/jobs/j1:cancel", headers=headers).status_code == 200


def test_no_other_site_may_read_an_answer(box):
    answer = box.client.request("OPTIONS", "/api/v1/jobs", headers={"Origin": "http://localhost"})
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("DELETE", "/api/v1/jobs", 405, "method-not-allowed"),
        ("GET", "/api/v1/studies:analyze", 405, "method-not-allowed"),
        ("GET", "/api/v1/jobs?limit=x", 422, "invalid-request"),
        ("GET", "/api/v1/jobs/none", 404, "not-found"),
        ("POST", "/dicom-web/studies", 415, "unsupported-media-type"),
    ],
)
def test_every_error_is_a_problem_with_a_stable_code(box, method, path, status, code):
    answer = box.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == PROBLEM
    assert body["type"] == f"urn:bedside:error:{code}"
    assert body["status"] == status
    assert body["title"]


def test_a_wrong_method_names_the_right_ones(box):
    assert box.client.request("DELETE", "/api/v1/jobs").headers["allow"] == "GET"
    assert box.client.get("/api/v1/studies:analyze").headers["allow"] == "POST"
    infer = box.client.get("/v2/models/sample/infer")
    assert (infer.status_code, infer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/v2/nowhere", "/v2/models/none", "/v2/models/none/ready"])
def test_errors_of_the_inference_protocol_have_its_own_shape(box, path):
    answer = box.client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_every_code_of_the_tree_has_one_status(box):
    assert len(BY_CODE) > 40
    assert all(400 <= kind.status < 600 for kind in BY_CODE.values())


def test_an_unforeseen_error_is_logged_by_type_under_the_id_the_client_gets(box):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(SafeFormatter())
    logger = logging.getLogger("bedside_edge.api.shell")
    logger.addHandler(handler)
    box.queue.jobs = lambda **_: {}["DOE^JANE"]
    try:
        answer = box.client.get("/api/v1/jobs")
    finally:
        logger.removeHandler(handler)
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:bedside:error:internal"
    assert "DOE" not in answer.text + stream.getvalue()
    line = json.loads(stream.getvalue())
    assert line["error"] == "KeyError"
    assert answer.json()["instance"].endswith(line["request"])


def test_a_request_has_an_id_and_a_clients_own_comes_back(box):
    assert box.client.get("/livez").headers["x-request-id"]
    given = {"X-Request-ID": "abc-123"}
    assert box.client.get("/livez", headers=given).headers["x-request-id"] == "abc-123"
    hostile = {"X-Request-ID": "a b\tc" * 40}
    assert box.client.get("/livez", headers=hostile).headers["x-request-id"].isalnum()


def test_nothing_between_keeps_an_answer(box):
    for path in ("/api/v1/jobs", "/nowhere", "/v2"):
        assert box.client.get(path).headers["cache-control"] == "no-store"


def test_liveness_asks_nobody(box):
    box.health.found["disk"] = Check(name="disk", passed=False, reason="full")
    assert box.client.get("/livez").status_code == 200


def test_readiness_shows_every_check_and_fails_with_any(box):
    assert box.client.get("/readyz").json()["ready"] is True
    box.health.found["disk"] = Check(name="disk", passed=False, reason="97 % used")
    answer = box.client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "checks": {
            "model": {"ok": True, "reason": "self-test passed"},
            "disk": {"ok": False, "reason": "97 % used"},
        },
    }
    assert box.client.get("/v2/health/ready").status_code == 503
    assert box.client.get("/v2/models/sample/ready").status_code == 503


def test_figures_count_routes_by_template_and_never_by_path(box):
    uid = "1.2.840.113619.2.55.3"
    box.client.get(f"/api/v1/jobs/{uid}")
    box.client.post(f"/dicom-web/studies/{uid}")
    box.client.get(f"/{uid}")
    box.client.request("BREW", "/livez")
    text = box.client.get("/metrics").text
    assert uid not in text
    assert "BREW" not in text
    for line in (
        'bedside_http_requests_total{method="GET",route="/api/v1/jobs/{job_id}",status="404"} 1.0',
        'bedside_http_requests_total{method="POST",route="/dicom-web/studies",status="415"} 1.0',
        'bedside_jobs{state="ready"} 2.0',
        "bedside_disk_used_ratio 0.5",
        "bedside_queue_depth 2.0",
    ):
        assert line in text


def test_a_service_that_stops_refuses_new_work(box):
    box.app.state.stop()
    answer = box.client.get("/api/v1/jobs")
    assert answer.status_code == 503
    assert answer.json()["type"] == "urn:bedside:error:not-ready"
    assert int(answer.headers["retry-after"]) > 0


def test_no_request_is_offered_to_a_tracer(monkeypatch):
    asked = []
    for module, name in ((trace, "get_tracer_provider"), (metrics, "get_meter_provider")):
        provide = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda provide=provide, name=name: asked.append(name) or provide()
        )
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example")
    with HttpBox() as box:
        assert box.client.get("/api/v1/jobs").status_code == 200
    assert asked == []


def test_a_framework_left_to_itself_would_ask_a_tracer(monkeypatch):
    """The guard's own proof."""
    asked = []
    provide = trace.get_tracer_provider
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: asked.append(1) or provide())
    with AsgiClient(FastAPI(), "http://127.0.0.1") as client:
        client.get("/")
    assert asked


def test_an_error_in_the_middle_of_an_answer_breaks_the_connection():
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("DOE^JANE")

    sent = []

    async def send(message):
        sent.append(message)

    box = HttpBox()
    shell = Shell(
        half,
        hot=[],
        doors=Doors(lambda: box.app.routes),
        authenticator=Authenticator(box.access),
        metrics=Metrics(),
        random=bytes,
        stopping=lambda: False,
    )
    scope = {"type": "http", "method": "GET", "path": "/livez", "scheme": "http"}
    scope |= {"headers": [(b"host", b"localhost")]}
    with pytest.raises(ConnectionAbortedError):
        asyncio.run(shell(scope, None, send))
    assert [message["type"] for message in sent] == ["http.response.start"]
