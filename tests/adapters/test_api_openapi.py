import json
import re

import pytest

from bedside_edge.api import analyze, infer, stow
from bedside_edge.api.app import openapi_document
from support.http_box import HttpBox
from support.repository import ROOT

DOCUMENT = openapi_document()
OPERATIONS = [
    (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


@pytest.fixture(scope="module")
def box():
    with HttpBox() as box:
        yield box


def concrete(path):
    return re.sub(r"\{[a-z_]+\}", "x", path)


def test_the_running_service_serves_the_same_document(box):
    assert box.client.get("/openapi.json").json() == DOCUMENT


def test_the_document_in_the_repository_is_the_same():
    same = json.loads((ROOT / "docs" / "openapi.json").read_text()) == DOCUMENT
    assert same, "make docs"  # explaining the difference of two such documents takes minutes


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p, _ in OPERATIONS])
def test_every_documented_route_exists(box, method, path):
    answer = box.client.request(method, concrete(path))
    assert "no such resource" not in answer.text
    assert answer.status_code != 405


@pytest.mark.parametrize("route", [analyze.PATH, infer.PATH, stow.PATH])
def test_every_raw_route_is_documented(route):
    assert any(route.fullmatch(concrete(path)) for path in DOCUMENT["paths"])


def test_every_reference_leads_somewhere():
    names = set(re.findall(r'"#/components/schemas/([A-Za-z]+)"', json.dumps(DOCUMENT)))
    assert names
    assert names <= set(DOCUMENT["components"]["schemas"])


def test_operations_have_ids_of_their_own():
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_problems_are_promised_outside_the_inference_protocol_only():
    for _, path, operation in OPERATIONS:
        errors = [answer for status, answer in operation["responses"].items() if status > "400"]
        kinds = {kind for answer in errors for kind in answer.get("content", {})}
        if path.startswith("/v2"):
            assert "application/problem+json" not in kinds
        elif path.startswith(("/api", "/dicom-web")):
            assert "application/problem+json" in kinds
