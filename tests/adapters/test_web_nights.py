"""The consortium over HTTP and for people: status, nights, agreements, a veto, who may what."""

import pytest

from bedside_core.access import ALLOWED, Action, Role
from bedside_edge.ports.sync import NightEvent
from bedside_edge.web.nights import draw
from support.http_box import HttpBox
from support.nights import World

LANGUAGES = {"en": "reach the hub", "zh": "连接汇聚节点"}


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("world"), boxes=1, patients=0)
    house = world.houses["box-0"]
    world.away = True
    house.sync.step()
    house.sync.veto("census-1", "<b>ethics</b> board first", "person:ada")
    with HttpBox(sync=house.sync) as box:
        yield box
    world.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_shows_each_night_as_a_timeline_and_rounds_with_their_reason(box, language):
    page = box.client.get("/nights", headers={"Accept-Language": language})
    assert page.status_code == 200, page.text
    assert LANGUAGES[language] in page.text
    assert '<rect class="failed"' in page.text
    assert "hub-unavailable" in page.text
    assert "census-1" in page.text
    assert "&lt;b&gt;ethics" in page.text
    assert "<b>ethics" not in page.text
    part = box.client.get("/nights/part", headers={"Bedside-Background": "1"})
    assert part.status_code == 200
    assert "<html" not in part.text


def test_status_nights_and_agreements_over_http(box):
    status = box.client.get("/api/v1/sync").json()
    assert (status["box"], status["consortium"], status["locked"]) == ("box-0", "lungs", False)
    assert status["rounds"][0]["reason"] == "person:ada: <b>ethics</b> board first"
    (night,) = box.client.get("/api/v1/sync/nights").json()["nights"]
    assert night["events"][0]["code"] == "hub-unavailable"
    body = {
        "name": "lungs-2",
        "title": "Second",
        "purposes": ["train"],
        "same_region": True,
        "document_sha256": "ab" * 32,
        "starts": 1,
        "ends": 2,
    }
    assert box.client.post("/api/v1/sync/agreements", json=body).status_code == 201
    assert box.client.post("/api/v1/sync/agreements", json=body).status_code == 409
    assert box.client.post("/api/v1/sync/agreements/lungs-2:end").status_code == 204
    found = box.client.get("/api/v1/sync/agreements").json()["agreements"]
    assert {one["name"] for one in found} == {"lungs", "lungs-2"}


def test_a_visit_to_a_dead_hub_and_a_second_veto_say_why(box):
    gone = box.client.post("/api/v1/sync:now")
    assert (gone.status_code, gone.json()["type"].rpartition(":")[2]) == (502, "hub-unavailable")
    body = {"reason": "again"}
    answer = box.client.post("/api/v1/sync/rounds/census-1:veto", json=body)
    assert answer.status_code == 409
    assert "vetoed" in answer.json()["detail"]


def test_a_drawing_is_to_scale_and_nothing_is_too_thin_to_see():
    def event(seq, started, ended, name):
        return NightEvent(
            seq=seq,
            night=0,
            step="send",
            round=name,
            task="",
            started=started,
            ended=ended,
            outcome="done",
            code="",
        )

    drawn = draw(0, [event(1, 0, 0, ""), event(2, 0, 3_600_000, "r"), event(3, 1_800_000, 1, "r")])
    first, whole, half = drawn.bars
    assert first.width == half.width == 4
    assert whole.width > 500
    assert abs(half.x - (whole.x + whole.width / 2)) < 1
    assert [name for name, _ in drawn.lanes] == ["", "r"]
    assert draw(5, []).bars == ()


def test_only_administrators_and_privacy_officers_manage_rounds():
    able = {role for role in Role if Action.MANAGE_SYNC in ALLOWED[role]}
    assert able == {Role.ADMINISTRATOR, Role.PRIVACY_OFFICER}
