"""Administration in a real browser: every page in every look, and what an administrator does there.

Screenshots are left in demo-output/screenshots.
"""

import time
from pathlib import Path

import pytest

from bedside_core.access import Role
from bedside_edge.config import load_config
from bedside_edge.services.access import CONSOLE
from bedside_edge.state_folder import offline_access
from support.accessible import complaints, walk
from support.chest import chest
from support.chromium import chromium, needs_chromium
from support.reading_room import ADMINISTRATOR, PASSWORD, READER, hire, log_in
from support.repository import ROOT
from support.running_box import RunningBox, part10

pytestmark = needs_chromium

SHOTS = ROOT / "demo-output" / "screenshots"
OFFICER = ("officer", "Novak^Petra")
SETTINGS = """
[completion]
quiet_s = 300
max_wait_s = 600
[dicom.peers.ct-1]
ae_title = "TEST"
addresses = ["127.0.0.1/32"]
[destinations.archive]
kind = "dicom"
host = "127.0.0.1"
port = 1
ae_title = "ARCHIVE"
"""
SLOW = {"en", "light", "zoomed"}  # the default run sees the narrow look, CI all of them
LOOKS = {
    "en": {"language": "en"},
    "zh": {"language": "zh-CN"},
    "light": {"language": "en", "dark": False},
    "zoomed": {"language": "en", "width": 1280, "zoom": 2.0},
    "narrow": {"language": "zh-CN", "width": 400, "dark": False},
}
PAGES = {
    "queues": "/queues?show=open",
    "queue-job": "/queues/jobs/{job}",
    "routes": "/routes?modality=DX&view=PA",
    "model": "/models/cxr-opacity",
    "model-change": "/models/cxr-opacity/change?what=threshold",
    "accounts": "/accounts",
    "account-of": "/accounts/{account}",
    "tokens": "/tokens",
    "agreement": "/agreement",
    "incidents": "/incidents",
    "incident": "/incidents/{incident}",
    "system": "/system",
}
OFFICERS = {
    "patients": "/patients",
    "patient": "/patients/{subject}",
    "patient-request": "/requests/{request}",
    "retention": "/retention",
}


def hire_officer(folder: Path) -> None:
    config = load_config(folder / "bedside.toml")[0]
    with offline_access(config, folder / "state") as access:
        link = access.add_account(*OFFICER, [Role.PRIVACY_OFFICER], CONSOLE)
        access.set_password_by_link(link.secret, PASSWORD)


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    hire(folder, SETTINGS)
    hire_officer(folder)
    box = RunningBox(folder, SETTINGS)
    try:
        for number in (801, 802):
            box.analyze(part10(chest(number)))
        box.stow(part10(chest(803)))  # waits for more of its images
        yield box
        assert box.stop() == 0
    finally:
        if box.process.poll() is None:
            box.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def ids(box):
    """What the addresses of pages of one thing need; made over the interface for programs."""
    jobs = box.jobs()
    accounts = box.http.get("/api/v1/accounts").json()["accounts"]
    drill = {"cause": "leak", "drill": True}
    incident = box.http.post("/api/v1/incidents", json=drill).raise_for_status().json()["id"]
    sent = {"issuer": "", "patient_id": str(chest(801).PatientID)}
    subject = box.http.post("/api/v1/subjects:find", json=sent).raise_for_status().json()["id"]
    asked = box.http.post(f"/api/v1/subjects/{subject}/requests", json={"kind": "know"})
    return {
        "job": next(one["id"] for one in jobs if one["state"] == "collecting"),
        "account": next(one["id"] for one in accounts if one["login"] == READER[0]),
        "incident": incident,
        "subject": subject,
        "request": asked.raise_for_status().json()["id"],
    }


def enter(browser, box, login=ADMINISTRATOR[0], **look):
    page = browser.page(**look)
    log_in(page, box.url, login)
    return page


def clean(page, box):
    """Nothing was refused, nothing failed, nothing was asked of anybody else."""
    assert page.problems() == []
    assert {one for one in page.requests() if not one.startswith((box.url, "about:"))} == set()


@pytest.mark.parametrize(
    "look", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in LOOKS]
)
def test_every_administration_page_is_seen_read_and_reached_in_every_look(browser, box, ids, look):
    wrong = {}
    for login, pages in ((ADMINISTRATOR[0], PAGES), (OFFICER[0], OFFICERS)):
        page = enter(browser, box, login, **LOOKS[look])
        for name, path in pages.items():
            page.goto(box.url + path.format(**ids))
            page.screenshot(SHOTS / f"{name}-{look}.png", whole=True)
            wrong[name] = complaints(page)
            if page.run("document.querySelector('.problem') !== null"):
                wrong[name].append("an error page")
            if look == "en":
                wrong[name] += walk(page)
        clean(page, box)
        page.run("document.querySelector('form[action=\"/logout\"]').submit()")
    assert {name: found for name, found in wrong.items() if found} == {}


def test_the_queues_follow_along_and_keep_the_focus(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/queues?show=ended")
    page.run("document.querySelector('#tab-ended').focus()")
    before = page.run("document.querySelectorAll('tr[id^=j-]').length")
    box.analyze(part10(chest(810)))
    page.wait(f"document.querySelectorAll('tr[id^=j-]').length > {before}")
    assert page.run("document.activeElement.id") == "tab-ended"
    clean(page, box)


def test_a_destination_is_tested_where_it_stands(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/routes")
    page.click("form[action$='/test'] button")
    page.wait("document.querySelector('[data-probe]').innerText.includes('does not answer')")
    assert page.url == "/routes"
    page.screenshot(SHOTS / "routes-tested.png", whole=True)
    clean(page, box)


def test_a_file_is_tried_and_only_its_beginning_is_sent(browser, box, tmp_path):
    file = tmp_path / "chest.dcm"
    file.write_bytes(part10(chest(811)) + bytes(3 << 20))
    page = enter(browser, box)
    page.goto(box.url + "/routes")
    studies = box.http.get("/api/v1/worklist").json()["total"]
    found = page.call("Runtime.evaluate", expression="document.querySelector('#file')")
    page.call("DOM.setFileInputFiles", files=[str(file)], objectId=found["result"]["objectId"])
    page.wait("document.querySelector('#tried').innerText.includes('would read it')")
    assert str(chest(811).PatientName) not in page.text()
    assert box.http.get("/api/v1/worklist").json()["total"] == studies
    page.screenshot(SHOTS / "routes-file.png", whole=True)
    clean(page, box)


def test_an_account_is_added_and_its_link_is_shown_once_and_copied(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/accounts")
    for field, text in (("family", "Li"), ("given", "Na"), ("login", f"li{time.time_ns()}")):
        page.type(f"#{field}", text)
    page.click("input[name='role.radiologist']")
    page.click("form[action='/accounts'] button", leads_away=True)
    link = page.run("document.querySelector('#link').value")
    assert link.startswith(box.url + "/setup?link=")
    page.click("[data-copy]")
    page.wait("document.querySelector('[data-copy]').innerText === 'Copied'")
    assert complaints(page) == []
    page.screenshot(SHOTS / "account-link.png", whole=True)
    clean(page, box)


def test_a_threshold_is_set_by_keys_with_a_step_that_says_what_it_means(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/models/cxr-opacity/change?what=threshold")
    assert "answers for" in page.text()
    page.run("document.querySelector('#high').value = '0.9'")
    page.run("document.querySelector('#high').focus()")
    page.press("Enter", leads_away=True)
    assert "The hospital's threshold is in force." in page.text()
    assert "0.900" in page.text()
    assert "Mueller" in page.text()  # who did it, in the history
    clean(page, box)


def test_agreement_over_weeks_and_shadows_are_drawn(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/models/cxr-opacity")
    figures = '{"kind": "bars", "labels": ["1 / 2", "1 / 3"], "values": [0.01, 0.4]}'
    draw = (
        "(async () => { const e = document.createElement('div'); e.className = 'chart';"
        f" e.dataset.chart = JSON.stringify({figures});"
        " document.querySelector('main').append(e);"
        " const s = document.querySelector('script[src*=\"chart.js\"]').src;"
        " await import(s + '&again'); return e.dataset.drawn })()"
    )
    assert page.run(draw) == ""
    assert page.run("document.querySelector('.chart canvas').width") > 200
    line = (
        '{"kind": "line", "x": [1700000000, 1700604800, 1701209600],'
        ' "share": [0.8, 0.9, 0.85], "low": [0.6, 0.7, 0.7], "high": [0.9, 0.95, 0.92]}'
    )
    page.run(draw.replace(figures, line).replace("&again", "&third"))
    assert page.run("document.querySelectorAll('.chart canvas').length") >= 2
    page.screenshot(SHOTS / "charts.png", whole=True)
    clean(page, box)


def test_sealing_takes_a_typed_word_and_opening_two_people(browser, box):
    page = enter(browser, box)
    page.goto(box.url + "/incidents")
    page.type("#reason", "A laptop is gone.")
    page.type("#word", "seel")
    page.click("form[action='/incidents/seal'] button", leads_away=True)
    assert "not sealed" in page.text(".problem")
    assert page.run("document.querySelector('#reason').value") == "A laptop is gone."
    page.type("#word", "seal")
    page.click("form[action='/incidents/seal'] button", leads_away=True)
    assert "The box is: sealed" in page.text()
    page.screenshot(SHOTS / "incidents-sealed.png", whole=True)
    assert complaints(page) == []
    page.goto(box.url + "/")
    assert "The box is sealed." in page.text()
    page.goto(box.url + "/incidents")
    page.type("#why", "Found again, disk was encrypted.")
    page.click("form[action='/incidents/ask'] button", leads_away=True)
    address = page.run("document.querySelector('#ask').value")
    assert page.run("document.querySelectorAll('form[action$=confirm]').length") == 0
    second = enter(browser, box, OFFICER[0])
    second.goto(address)
    assert "Found again" in second.text()
    second.screenshot(SHOTS / "incidents-confirm.png", whole=True)
    second.click("form[action$=confirm] button", leads_away=True)
    assert "The box is: normal operation" in second.text()
