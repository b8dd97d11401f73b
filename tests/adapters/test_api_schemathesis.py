"""Schemathesis over the whole OpenAPI document, as a person, as a system and as nobody.

Every operation is asked with generated requests, valid and invalid: no answer is a 5xx, none has a
status, media type or body that the document does not declare. In process, over the adapters' box
with a real store behind jobs, results, sign-off and deliveries.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bedside_core.access import Action, Actor, Role, actions_of
from bedside_core.findings import Decision
from bedside_core.hardware.profile import parse_profile
from bedside_edge.api.app import openapi_document
from bedside_edge.config import Config
from bedside_edge.flashing import chunk_store, flashing_service
from bedside_edge.services.gate import Gate
from bedside_edge.services.hardware import HardwareService, Serving
from bedside_edge.services.overlap import OverlapService
from bedside_edge.services.witnessing import Witnessing
from bedside_edge.state_folder import (
    consent_service,
    incident_service,
    keeping_service,
    rights_service,
    sync_service,
    witness_service,
)
from bedside_edge.system.policy_cedar import CedarPolicy, shipped_document
from bedside_edge.system.random_os import OsRandom
from bedside_edge.updating import Updating, update_service
from support.boards import PROFILES, recorded
from support.http_box import HERE, HttpBox, multipart, related
from support.learning_house import LearningBox
from support.memory_hardware import MemoryHardware, verdict
from support.outputs import MemoryArchive, publishing_box
from support.privacy_desk import privacy_over
from support.privacy_house import OFFICER, Hospital
from support.state_houses import FolderHouse, opened
from support.synthetic import data_set, noise, part10

READER = Actor(
    actor_id="person:ada",
    name="Lovelace^Ada",
    roles=frozenset({Role.RADIOLOGIST}),
    actions=actions_of(frozenset({Role.RADIOLOGIST})),
)
MANAGER = Actor(
    actor_id="person:bob",
    name="Bob^Job",
    roles=frozenset(Role),
    actions=frozenset(Action),
)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
RELATED = 'multipart/related; type="application/dicom"'
IMAGE = part10(data_set(noise(16, 12), study=7))


@schemathesis.serializer(RELATED)
def as_parts(_context: Any, value: Any) -> bytes:
    return multipart([value if isinstance(value, bytes) else str(value).encode()])


SCHEMA = schemathesis.openapi.from_dict(openapi_document())
OPERATIONS = {
    found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if found.ok() is not None
}


def member_of(desk, clock):
    """Return the consortium's service of a box that has asked to join and has no hub yet."""
    gate = Gate(CedarPolicy(shipped_document()), desk.governance, clock, desk.evidence.append)
    sync = sync_service(Config(), desk, gate, {}, clock, OsRandom())
    sync.request("box-1", "north", helper=True, actor="person:ada")
    return sync


def accepted(clock) -> HardwareService:
    """Return the hardware service of a box that serves."""
    text = (PROFILES / "generic" / "x86-64-v4.toml").read_bytes()
    profile = parse_profile(text, built_in=True)
    hardware = HardwareService(MemoryHardware(), clock)
    hardware.serving = Serving(
        profile=profile, board=recorded("generic-x86-64-v4"), record=verdict(), passed_over=()
    )
    return hardware


class World:
    """A box with a study in every state that a path can name."""

    def __init__(self, box: Any, http: HttpBox) -> None:
        self.http = http
        http.jobs.queue = box.state.jobs
        http.changes = box.state.changes
        self.results = [box.analysed(1), box.refused(2)]
        box.settle()
        jobs = box.state.jobs.jobs()
        for job in jobs:
            http.held[job.study_id] = box.state.studies.instances(job.study_id)
        self.known = {
            "result_id": self.results,
            "job_id": [job.job_id for job in jobs],
            "study_id": [job.study_id for job in jobs],
            "delivery_id": [d.delivery_id for d in box.state.outputs.deliveries()],
            "name": ["sample", "pacs"],
            "model": ["sample", "second"],
            "model_version": ["1.0.0"],
        }

    def ask(self, case: Any) -> Any:
        options = case.as_transport_kwargs(base_url=HERE)
        options.pop("timeout", None)
        try:
            ready = requests.Request(**options).prepare()
        except (requests.RequestException, ValueError, UnicodeError):
            assume(False)
        headers = {k: v for k, v in ready.headers.items() if k.lower() not in ("host", "cookie")}
        if headers.get("Content-Type") == RELATED:  # schemathesis knows no boundary
            headers |= related()
        try:
            return self.http.client.request(
                ready.method, ready.url, headers=headers, content=ready.body
            )
        except (UnicodeEncodeError, ValueError):  # a request no client can put on a wire
            assume(False)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("schema")
    with publishing_box(folder / "state", MemoryArchive()) as box:
        keeping = keeping_service(Config(), box.state, box.clock, lambda _: True)
        # a folder of their own: a box that was asked to seal itself answers little else
        with opened(FolderHouse(folder / "desk")) as desk, ExitStack() as stack:
            incidents = incident_service(Config(), desk, box.clock)
            rights = rights_service(
                Config(),
                desk,
                box.clock,
                consent_service(Config(), desk, box.clock),
                reviews=lambda _: [],
                erase=lambda *_: "",
            )
            (folder / "privacy").mkdir()
            house = Hospital(folder / "privacy").founded()
            stack.callback(house.close)
            released = house.service.release(house.ask("prevalence"), OFFICER)
            flashing = flashing_service(Config(), desk, box.clock, None, lambda: box.policies)
            chunks = chunk_store(Config(), desk.path)
            looking = update_service(Config(), desk, box.clock, chunks, flashing.running)
            updating = Updating(looking, Config(), desk)
            stack.callback(updating.stop)
            cases = LearningBox(folder / "learning")
            stack.callback(cases.close)
            cases.study(1, say=Decision.PRESENT)
            overlap = OverlapService(
                cases.state.overlaps,
                cases.state.learning,
                lambda: cases.gate,
                cases.state.device,
                cases.clock,
                cases.random,
            )
            with HttpBox(
                updates=updating,
                flashing=flashing,
                privacy=privacy_over(house),
                outgoing=box,
                keeping=keeping,
                incidents=incidents,
                witness=witness_service(desk, box.clock, OsRandom(), lambda _: None),
                witnessing=Witnessing(desk.witnessed, [], box.clock),
                rights=rights,
                sync=member_of(desk, box.clock),
                learning=cases.learning,
                overlap=overlap,
                hardware=accepted(box.clock),
            ) as http:
                world = World(box, http)
                world.known["fingerprint"] = [released.fingerprint]
                yield world


def examine(world: World, label: str, peer: Actor | None, count: int) -> None:
    operation = OPERATIONS[label]
    world.http.peer = peer

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def asked(data: Any) -> None:
        case = data.draw(operation.as_strategy())
        for name, values in world.known.items():
            if name in case.path_parameters and data.draw(st.booleans()):
                case.path_parameters[name] = data.draw(st.sampled_from(values))
        if case.media_type in ("application/dicom", RELATED) and data.draw(st.booleans()):
            case.body = IMAGE
        case.validate_response(world.ask(case), checks=CHECKS)

    asked()


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_one_that_is_declared(world, label):
    examine(world, label, MANAGER, 4)


@pytest.mark.parametrize("label", OPERATIONS)
def test_nobody_gets_nothing_but_what_is_declared(world, label):
    examine(world, label, None, 1)


@pytest.mark.slow
@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("peer", [READER, MANAGER, None], ids=["reader", "manager", "nobody"])
def test_every_answer_is_one_that_is_declared_asked_often(world, label, peer):
    examine(world, label, peer, 60)
