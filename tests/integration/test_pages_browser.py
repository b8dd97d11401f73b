"""The pages in a real browser: seen, read aloud, driven by keys, by two readers, without scripts.

Screenshots of every page are left in demo-output/screenshots.
"""

import re
import time
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from support.accessible import complaints, walk
from support.chest import chest
from support.chromium import chromium, needs_chromium
from support.reading_room import ADMINISTRATOR, PASSWORD, SECOND, hire, log_in
from support.repository import ROOT
from support.running_box import RunningBox, part10

pytestmark = needs_chromium

SHOTS = ROOT / "demo-output" / "screenshots"
SETTINGS = "[completion]\nquiet_s = 0.3\n"
READY = "document.querySelector('[data-viewer]').dataset.ready !== undefined"


def sample(name):
    found = get_testdata_file(name, download=False)
    if not found:
        pytest.skip("pydicom-data is not installed")
    return Path(found).read_bytes()


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    hire(folder, SETTINGS)
    box = RunningBox(folder, SETTINGS)
    try:
        for name in ("RG1_UNCR.dcm", "CT_small.dcm"):
            box.analyze(sample(name))
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
def desk(browser, box):
    """A reader who is logged in, for tests that change nothing."""
    page = browser.page()
    log_in(page, box.url)
    return page


def fresh(box, number):
    """Send a new radiograph; return the ids of its study and result."""
    body = box.analyze(part10(chest(number))).json()
    return body["study"], body["id"]


def study_of(box, text):
    return next(
        one
        for one in box.http.get("/api/v1/worklist", params={"q": text}).json()["studies"]
        if one["result"]
    )


def clean(page, box):
    """Nothing was refused, nothing failed, nothing was asked of anybody else."""
    assert page.problems() == []
    foreign = {one for one in page.requests() if not one.startswith((box.url, "about:"))}
    assert foreign == set()


PAGES = {
    "login": ("/login", ""),
    "worklist": ("/", "#work tr"),
    "study": ("/studies/{study}", "[data-viewer]"),
    "review": ("/results/{result}/review?kind=edit", "form"),
    "models": ("/models", "main .card"),
    "card": ("/models/cxr-opacity/card", ".prose table"),
    "account": ("/account", "form"),
    "error": ("/studies/none", ".problem"),
    "setup-void": ("/setup?link=none", ".problem"),
}
LOOKS = {
    "en": {"language": "en"},
    "zh": {"language": "zh-CN"},
    "light": {"language": "en", "dark": False},
    "zoomed": {"language": "en", "width": 1280, "zoom": 2.0},
    "narrow": {"language": "zh-CN", "width": 400, "dark": False},
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_seen_read_and_reached_in_every_look(browser, box, look):
    done = study_of(box, "RG1")
    ids = {"study": done["study"], "result": done["result"].rpartition("/")[2]}
    page = browser.page(**LOOKS[look])
    wrong = {}
    for name, (path, wanted) in PAGES.items():
        if name == "worklist":
            log_in(page, box.url)
        page.goto(box.url + path.format(**ids))
        if wanted:
            page.wait(f"document.querySelector({wanted!r})")
        if name == "study":
            page.wait(READY)
        page.screenshot(SHOTS / f"{name}-{look}.png", whole=True)
        wrong[name] = complaints(page)
        if look == "en":
            wrong[name] += walk(page)
    assert {name: found for name, found in wrong.items() if found} == {}
    # the pages of errors are answered with 404: the browser says so, and nothing else
    assert [one for one in page.problems() if "404" not in one] == []


def test_the_checks_see_what_is_wrong(browser, box):
    page = browser.page()
    page.goto(box.url + "/login")
    page.run(
        "(() => { const bad = document.createElement('div');"
        ' bad.innerHTML = \'<input id=login><button></button><img src="/static/icon.svg">'
        "<h4>x</h4><p class=faint>faint</p><a tabindex=5 href=/>y</a>';"
        " document.querySelector('main').append(bad);"
        " bad.querySelector('.faint').style.color = '#555'; })()"
    )
    rules = {one.split()[0] for one in complaints(page)}
    assert {"1.1.1", "1.3.1", "1.4.3", "2.4.3", "4.1.2"} <= rules


def test_an_inline_script_is_refused_and_seen(browser, box):
    page = browser.page()
    page.goto(box.url + "/login")
    page.run(
        "(() => { const s = document.createElement('script'); s.textContent = 'window.bad = 1';"
        " document.body.append(s) })()"
    )
    assert page.run("window.bad") is None
    assert any("Content Security Policy" in one for one in page.problems())


def test_saliency_is_off_until_asked_for(desk, box):
    desk.goto(f"{box.url}/studies/{study_of(box, 'RG1')['study']}")
    desk.wait(READY)
    assert not any("saliency.png" in one for one in desk.requests())
    plain = canvas(desk)
    desk.press("o")
    desk.wait("!document.querySelector('[data-overlaid]').hidden")
    desk.wait("document.querySelector('[data-overlay]').checked")
    until_changed(desk, plain)
    veiled = canvas(desk)
    desk.screenshot(SHOTS / "study-saliency.png")
    desk.run(
        "(() => { const o = document.querySelector('[data-opacity]'); o.value = 100;"
        " o.dispatchEvent(new Event('input')) })()"
    )
    until_changed(desk, veiled)
    desk.press("o")
    desk.wait("document.querySelector('[data-overlaid]').hidden")
    assert canvas(desk) == plain
    clean(desk, box)


def canvas(page):
    """Return a sum over the picture as drawn."""
    return page.run(
        "(() => { const c = document.querySelector('canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " let sum = 0;"
        " for (let i = 0; i < d.length; i += 4) sum += d[i] + 3 * d[i + 1] + 7 * d[i + 2];"
        " return sum })()"
    )


def until_changed(page, before):
    deadline = time.monotonic() + 10
    while canvas(page) == before:
        assert time.monotonic() < deadline
        time.sleep(0.03)


def test_the_window_is_changed_by_mouse_keys_and_presets(desk, box):
    desk.goto(f"{box.url}/studies/{study_of(box, 'RG1')['study']}")
    desk.wait(READY)
    told = lambda: desk.text("[data-readout]")  # noqa: E731
    first, picture = told(), canvas(desk)
    desk.drag("canvas", 120, -60)
    dragged = desk.wait(f"document.querySelector('[data-readout]').innerText !== {first!r} && 1")
    assert dragged
    until_changed(desk, picture)
    wide, centre = (float(v) for v in re.findall(r"-?\d+", told()))
    desk.press("w")
    assert desk.run("document.activeElement.tagName") == "CANVAS"
    desk.press("ArrowRight")
    desk.press("ArrowUp")
    desk.wait(f"!document.querySelector('[data-readout]').innerText.startsWith('W {wide:.0f} ')")
    wider, lower = (float(v) for v in re.findall(r"-?\d+", told()))
    assert wider > wide
    assert lower < centre
    desk.press("Escape")
    desk.press("i")
    desk.wait("document.querySelector('[data-invert]').getAttribute('aria-pressed') === 'true'")
    desk.run(
        "(() => { const p = document.querySelector('[data-preset]'); p.value = 'sent';"
        " p.dispatchEvent(new Event('change')) })()"
    )
    desk.press("i")
    desk.wait(f"document.querySelector('[data-readout]').innerText === {first!r}")
    deadline = time.monotonic() + 10
    while canvas(desk) != picture:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    clean(desk, box)


def test_the_worklist_follows_along_and_keeps_the_focus(browser, box):
    page = browser.page()
    log_in(page, box.url)
    page.press("j")
    chosen = page.run("document.activeElement.id")
    assert chosen.startswith("o-")
    study, _ = fresh(box, 601)
    page.wait(f"document.querySelector('#s-{study} .decision')")
    assert page.run("document.activeElement.id") == chosen
    assert page.wait("document.querySelector('#announce').innerText")
    clean(page, box)


def test_everything_is_reached_by_keys(browser, box):
    study, _ = fresh(box, 602)
    page = browser.page()
    log_in(page, box.url)
    page.press("?")
    page.wait("document.querySelector('#help').open")
    assert "next study" in page.text("#help")
    page.press("Escape")
    page.wait("!document.querySelector('#help').open")
    page.press("/")
    assert page.run("document.activeElement.id") == "q"
    page.run(f"document.querySelector('#o-{study}').focus()")
    page.press("Enter", leads_away=True)
    page.wait(READY)
    page.press("a")
    page.wait("document.activeElement.id === 'form-title'")
    page.press("g", leads_away=True)
    assert page.url == "/"
    clean(page, box)


def test_a_reader_corrects_a_result_and_the_page_says_so(browser, box):
    study, _ = fresh(box, 603)
    said = study_of(box, "")["answer"]
    page = browser.page()
    log_in(page, box.url)
    page.goto(f"{box.url}/studies/{study}")
    said = page.run("document.querySelector('.answer .decision').innerText")
    page.press("e")
    page.wait("document.querySelector('#verdict form')")
    assert said not in page.text("#verdict fieldset")
    page.click("#verdict fieldset label input")
    page.type("#reason", "Seen otherwise.")
    page.click("#verdict form button")
    page.wait("document.querySelector('#sign-off').innerText.includes('Corrected')")
    assert "differs from the AI" in page.text("#sign-off")
    assert page.wait("document.querySelector('#verdict').innerText.includes('Signed')")
    page.screenshot(SHOTS / "study-corrected.png", whole=True)
    clean(page, box)


def test_of_two_readers_the_second_is_told_who_was_first(browser, box):
    study, result = fresh(box, 604)
    pages = {}
    for login in ("wang", SECOND[0]):
        page = pages[login] = browser.page()
        log_in(page, box.url, login)
        page.goto(f"{box.url}/studies/{study}")
        page.press("a" if login == "wang" else "r")
        page.wait("document.querySelector('#verdict form')")
    pages["wang"].click("#verdict form button")
    pages["wang"].wait("document.querySelector('#sign-off').innerText.includes('Accepted')")
    second = pages[SECOND[0]]
    second.type("#reason", "Nothing there.")
    second.click("#verdict form button")
    second.wait("document.querySelector('#verdict .problem')")
    told = second.text("#verdict .problem")
    assert "Somebody signed before you" in told
    assert "Wang, Xiaodong" in told
    assert second.run("document.querySelector('#reason').value") == "Nothing there."
    second.screenshot(SHOTS / "study-conflict.png", whole=True)
    assert complaints(second) == []
    state = box.http.get(f"/api/v1/results/{result}/reviews").json()
    assert [one["kind"] for one in state["reviews"]] == ["accept"]
    second.click("#verdict form button")  # the reader has seen it and insists
    second.wait("document.querySelector('#sign-off').innerText.includes('Rejected')")
    assert "earlier verdict" in second.text("#sign-off")


def test_a_late_image_shows_with_the_results_before_it(browser, box):
    image = chest(605)
    body = box.analyze(part10(image)).json()
    late = chest(606)
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
        setattr(late, keyword, getattr(image, keyword))
    box.analyze(part10(late))
    page = browser.page()
    log_in(page, box.url)
    page.goto(f"{box.url}/studies/{body['study']}?result={body['id']}")
    assert "A newer result has replaced this one." in page.text()
    assert page.run("document.querySelectorAll('[data-verdict]').length") == 0
    page.goto(f"{box.url}/studies/{body['study']}")
    page.wait(READY)
    assert "Image 2" in page.text()
    assert "replaced" in page.text()
    page.screenshot(SHOTS / "study-two-images.png", whole=True)
    clean(page, box)


def test_an_administrator_sees_and_does_not_sign(browser, box):
    page = browser.page()
    log_in(page, box.url, ADMINISTRATOR[0])
    page.goto(f"{box.url}/studies/{study_of(box, 'RG1')['study']}")
    page.wait(READY)
    assert "Your account does not sign results." in page.text("#sign-off")
    assert page.run("document.querySelectorAll('[data-verdict]').length") == 0


def test_without_scripts_a_reader_sees_and_signs(browser, box):
    study, result = fresh(box, 607)
    page = browser.page()
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    with httpx.Client(base_url=box.url, headers={"Accept": "text/html"}) as web:
        sent = {"login": "wang", "password": PASSWORD, "next": f"/studies/{study}"}
        assert web.post("/login", data=sent).status_code == 303
        seen = web.get(f"/studies/{study}").text
        picture = re.search(r'<noscript><img[^>]*src="([^"]+)"', seen)[1]
        assert web.get(picture).headers["content-type"] == "image/png"
        address = re.search(r'href="(/results/[^"]*kind=reject)"', seen)[1]
        form = web.get(address).text
        fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form))
        empty = web.post(f"/results/{result}/review", data=fields | {"reason": " "})
        assert "Give a reason." in empty.text
        done = web.post(f"/results/{result}/review", data=fields | {"reason": "No."})
        assert done.status_code == 303
        assert "Rejected" in web.get(done.headers["location"]).text
        cookie = web.cookies["bedside"]
    page.call("Network.setCookie", name="bedside", value=cookie, url=box.url)
    page.call("Page.navigate", url=f"{box.url}/studies/{study}")
    page.wait("document.querySelector('noscript img, .plainly')?.complete")
    page.screenshot(SHOTS / "study-without-scripts.png", whole=True)


def test_a_picture_has_a_tag_and_is_rendered_once(box):
    with httpx.Client(base_url=box.url, headers={"Accept": "text/html"}) as web:
        web.post("/login", data={"login": "wang", "password": PASSWORD})
        study = study_of(box, "RG1")["study"]
        picture = re.search(r'data-picture="([^"]+)"', web.get(f"/studies/{study}").text)[1]
        first = web.get(picture, params={"window": "15000,20000", "size": 640})
        assert first.status_code == 200
        tag = {"If-None-Match": first.headers["etag"]}
        same = web.get(picture, params={"window": "15000,20000", "size": 640}, headers=tag)
        assert (same.status_code, same.content) == (304, b"")
        other = web.get(picture, params={"window": "15000,20001", "size": 640}, headers=tag)
        assert other.status_code == 200
        assert first.headers["cache-control"] == "no-store"
        for wrong in ("1", "1,0", "nan,2", "1,2,3", "x,y"):
            assert web.get(picture, params={"window": wrong}).status_code == 422
        assert web.get(picture, params={"size": 5000}).status_code == 422
        elsewhere = picture.replace(study, study_of(box, "RG1")["job"].rpartition("/")[2])
        assert web.get(elsewhere).status_code == 404


def test_a_picture_is_the_image_in_true_proportions(box):
    image = dcmread(get_testdata_file("RG1_UNCR.dcm", download=False))
    with httpx.Client(base_url=box.url, headers={"Accept": "text/html"}) as web:
        web.post("/login", data={"login": "wang", "password": PASSWORD})
        page = web.get(f"/studies/{study_of(box, 'RG1')['study']}").text
        grey = web.get(re.search(r'data-grey="([^"]+)"', page)[1]).json()
        assert (grey["rows"], grey["columns"]) == (image.Rows, image.Columns)
        assert (grey["centre"], grey["width"]) == (image.WindowCenter, image.WindowWidth)
