"""Every point where something of a patient leaves the box or is shown asks the gate.

The routes are read off the application, so a new one fails here until it asks or somebody writes
down why it need not. That they really ask is tried with a policy that permits nothing.
"""

import ast
from types import SimpleNamespace

import pytest
from fastapi.routing import iter_route_contexts

from bedside_core.access import Action, Actor, Role
from bedside_core.errors import NotPermittedError
from bedside_core.uses import Use
from bedside_edge.api.gate import ASKS_KEY
from bedside_edge.api.guard import ACTION_KEY
from bedside_edge.ports import JobState, Way
from bedside_edge.services.gate import BOX
from bedside_edge.services.permitted import PermittedReader
from support.dicom_files import bundled
from support.http_box import HttpBox
from support.memory_governance import PlainPolicy, shipped
from support.repository import package_folder

PATIENTS = {
    Action.VIEW_WORKLIST,
    Action.VIEW_RESULT,
    Action.VIEW_IMAGE,
    Action.REVIEW,
    Action.MANAGE_WORKITEMS,
}
ROWS = "rows of what may not be seen are left out"
TAKE = "asked for once per study behind the path"
IDS = "ids, states and codes of the box's own; nothing of a patient"
OWN_WORDS = "a workitem is what its requester wrote; objects are named by UID and fetched by WADO"
# Routes about patients that do not name one study in the path: how they ask, or why not.
INSIDE = {
    "/": ROWS,
    "/worklist": ROWS,
    "/api/v1/worklist": ROWS,
    "/api/v1/labels": ROWS,
    "/api/v1/relabel": ROWS,
    "/dicom-web/studies": ROWS,
    "/dicom-web/series": ROWS,
    "/dicom-web/instances": ROWS,
    "/dicom-web/studies/{study}/series": ROWS,
    "/dicom-web/studies/{study}/instances": ROWS,
    "/dicom-web/studies/{study}/series/{series}/instances": ROWS,
    "/api/v1/jobs": IDS,
    "/api/v1/jobs/{job_id}": IDS,
    "/api/v1/jobs/{job_id}/events": IDS,
    "/api/v1/events": IDS,
    "/api/v1/alarms": IDS,
    "/api/v1/deliveries": IDS,
    "/api/v1/deliveries/{delivery_id}": IDS,
}
WADO = "/dicom-web/studies/{study}"
WORKITEMS = ("/dicom-web/workitems", "/dicom-web/subscribers")


def how(template: str) -> str:
    if template in INSIDE:
        return INSIDE[template]
    if template.startswith(WADO):
        return TAKE
    return OWN_WORDS if template.startswith(WORKITEMS) else ""


def routes(app):
    """(template, methods, action, what it asks) of every route that names an action."""
    for context in iter_route_contexts(app.routes):
        calls = [one.dependency for one in getattr(context, "dependencies", None) or ()]
        actions = [getattr(call, ACTION_KEY) for call in calls if hasattr(call, ACTION_KEY)]
        asked = [getattr(call, ASKS_KEY) for call in calls if hasattr(call, ASKS_KEY)]
        if actions:
            template = context.path_format or context.path
            yield template, sorted(context.methods or ()), actions[0], asked


@pytest.fixture(scope="module")
def box():
    with HttpBox() as opened:
        opened.peer = Actor(
            actor_id="person:ada",
            name="Lovelace^Ada",
            roles=frozenset({Role.RADIOLOGIST}),
            actions=frozenset(Action),
        )
        opened.queue.add("j1")
        opened.result = opened.queue.end("j1", JobState.DONE, body={"value": None})
        opened.instance = opened.memory.add(bundled("RG1_UNCR"))
        yield opened


@pytest.fixture
def shut(box):
    """The same box under a policy that permits nothing."""
    held = box.governance.gate.policy
    box.governance.gate.use(PlainPolicy(shipped(), lambda _: None))
    yield box
    box.governance.gate.use(held)


def test_every_route_about_patients_asks_or_is_listed_with_how(box):
    silent = [
        (template, methods)
        for template, methods, action, asked in routes(box.app)
        if action in PATIENTS and not asked and not how(template)
    ]
    assert silent == []


def test_the_list_names_only_routes_that_are_there_and_do_not_ask(box):
    known = {template: asked for template, _, _, asked in routes(box.app)}
    assert {template for template in INSIDE if known.get(template, [0])} == set()


def asking(app):
    return [
        (template, method, asked)
        for template, methods, _, asked in routes(app)
        for method in methods
        if asked
    ]


def test_with_nothing_permitted_every_asking_route_refuses(shut):
    found = asking(shut.app)
    assert len(found) >= 12
    uses = set()
    for template, method, ((use, _),) in found:
        path = template.format(result_id=shut.result, study_id="study-1", instance_id="instance-1")
        if path.endswith("saliency.png"):
            path += f"?result={shut.result}"
        answer = shut.client.request(method, path, headers={"Accept": "application/json"})
        assert answer.status_code == 403, f"{method} {template}: {answer.status_code}"
        assert NotPermittedError.code in answer.text, template
        uses.add(use)
    assert uses == {Use.VIEW, Use.EXPORT}


@pytest.mark.parametrize(
    "path", ["/dicom-web/studies", "/dicom-web/series", "/dicom-web/instances"]
)
def test_with_nothing_permitted_searches_find_nothing(box, shut, path):
    assert shut.client.get(path).status_code == 204


def test_with_everything_as_shipped_the_same_searches_find_it(box):
    assert box.client.get("/dicom-web/studies").status_code == 200
    assert box.client.get("/dicom-web/instances").status_code == 200


@pytest.mark.parametrize("tail", ["", "/metadata", "/rendered"])
def test_with_nothing_permitted_nothing_is_retrieved(box, shut, tail):
    path = f"/dicom-web/studies/{box.instance.header.study_uid}{tail}"
    answer = shut.client.get(path)
    assert (answer.status_code, NotPermittedError.code in answer.text) == (403, True)
    uids = box.instance.header
    one = f"/dicom-web/studies/{uids.study_uid}/series/{uids.series_uid}"
    answer = shut.client.get(f"{one}/instances/{uids.sop_instance_uid}{tail}")
    assert answer.status_code == 403


def test_with_nothing_permitted_no_model_reads_what_a_request_carries(shut):
    answer = shut.client.post(
        "/v2/models/sample/infer",
        content=bundled("RG1_UNCR"),
        headers={"Content-Type": "application/dicom"},
    )
    assert answer.status_code == 403
    assert NotPermittedError.code in answer.text


def test_with_nothing_permitted_nobody_sends_nothing_is_read_and_nothing_is_delivered(shut):
    gate = shut.governance.gate
    with pytest.raises(NotPermittedError):
        gate.receive(Way.DIMSE, "CT1")
    with pytest.raises(NotPermittedError):
        gate.deliver("study-1")

    def never(*_):
        raise AssertionError("the model was asked")

    reader = PermittedReader(SimpleNamespace(analyse_study=never, follow_up=never), gate)
    outcome = reader.analyse_study([shut.instance], never)
    assert (outcome.refused, outcome.reason) == (True, NotPermittedError.code)
    reader.follow_up([shut.instance], never, outcome)
    assert not gate.study(Use.TRAIN, BOX, "study-1").permitted


def test_the_box_hands_the_gate_to_everything_that_receives_infers_or_delivers():
    """What stands beside the HTTP routes is wired in one place; leaving a wire out fails here."""
    source = (package_folder("bedside_edge") / "box.py").read_text()
    calls = {
        (call.func.id, word.arg, ast.unparse(word.value))
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        for word in call.keywords
    }
    assert ("IngestService", "permit", "self.gate.receive") in calls
    assert ("Outgoing", "permit", "self.gate.deliver") in calls
    assert ("Worker", "analysis", "PermittedReader(self.routing, self.gate)") in calls
    assert ("Services", "gate", "self.gate") in calls
    sender = (package_folder("bedside_edge") / "outgoing.py").read_text()
    assert "permit=permit" in sender
