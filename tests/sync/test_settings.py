"""A task's settings travel by digest, and which code computes a round is a digest too."""

import hashlib
import re

import pytest

from bedside_core.errors import InvalidConfigError, InvalidMessageError, NotFoundError
from bedside_sync.calls import HubCalls
from bedside_sync.hub.plan import manifest_of, read_plan
from bedside_sync.hub.server import HubServer
from bedside_sync.hub.service import HubKeys, HubService
from bedside_sync.hub.store_sqlite import HubStore
from bedside_sync.task_code import task_code
from support.consortium import Consortium, Round

PLAN = """
round = "r-1"
task = "census"
purpose = "collect"
model = "{model}"
helpers = ["box-0", "box-1", "box-2", "box-3"]
scale = 64
sensitivity2 = 4096
largest = 64
noise_multiplier = "2"
least_boxes = 3
most_boxes = 10
patients_a_box = 100
open_for = "2s"
{more}
[[segments]]
name = "all"
length = 10
"""


class Direct:
    def __init__(self, server, change=lambda data: data):
        self.server, self.change = server, change

    def ask(self, request):
        answer = self.server.handle("box-0", request)
        return type(answer)(
            kind=answer.kind, fields=answer.fields, payload=self.change(answer.payload)
        )


@pytest.fixture
def hub(tmp_path):
    among = Consortium()
    store = HubStore(tmp_path)
    service = HubService(store, among.root, HubKeys(sign=among.hub.sign, now=lambda: 0))
    for entry in among.entries:
        service.append(entry)
    yield HubServer(service, lambda: 0), store
    store.close()


def test_a_box_gets_exactly_the_settings_the_manifest_names(hub):
    server, store = hub
    data = b"s" * 1_300_000  # three pieces
    digest = store.keep_settings(data)
    assert digest == hashlib.sha256(data).digest()
    assert HubCalls(Direct(server)).settings(digest) == data


def test_settings_the_hub_changed_are_refused(hub):
    server, store = hub
    digest = store.keep_settings(b"grid = 1")
    changed = Direct(server, lambda data: data.replace(b"1", b"2"))
    with pytest.raises(InvalidMessageError, match="not those the round was signed with"):
        HubCalls(changed).settings(digest)


def test_settings_nobody_planned_do_not_exist(hub):
    with pytest.raises(NotFoundError):
        HubCalls(Direct(hub[0])).settings(bytes(32))


def test_a_plan_names_its_settings_once_and_takes_the_hubs_own_code():
    given = manifest_of(
        read_plan(PLAN.format(model="11" * 32, more='settings_file = "s.json"')),
        Round(Consortium()).manifest.helpers,
        Consortium().roster,
        1_800_000_000,
        b"\x07" * 32,
    )
    assert given.settings == "07" * 32
    assert given.code == task_code().hex()
    assert re.fullmatch("[0-9a-f]{64}", given.code)
    for wrong in ("", f'settings_file = "s.json"\nsettings = "{"5e" * 32}"'):
        with pytest.raises(InvalidConfigError, match="settings_file"):
            read_plan(PLAN.format(model="11" * 32, more=wrong))
