"""The pages of privacy in a real browser, in every look; screenshots in demo-output/screenshots."""

import json

import pytest

from support.accessible import complaints, walk
from support.chest import chest
from support.chromium import chromium, needs_chromium
from support.privacy_folder import SETTINGS, edge, found
from support.reading_room import ADMINISTRATOR, hire, log_in
from support.repository import ROOT
from support.running_box import RunningBox, part10

pytestmark = needs_chromium

SHOTS = ROOT / "demo-output" / "screenshots"
LOOKS = {
    "en": {"language": "en"},
    "zh": {"language": "zh-CN"},
    "light": {"language": "en", "dark": False},
    "narrow": {"language": "zh-CN", "width": 400, "dark": False},
}
PLAN = "/privacy/plan?statistics=prevalence&epsilon=1&size=100&schedule=nightly-disjoint&nights=365"


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box")
    hire(folder, SETTINGS)
    box = RunningBox(folder, SETTINGS)
    box.analyze(part10(chest(1)))
    assert box.stop() == 0
    options = found(folder)
    made = []
    for name in ("prevalence", "device-counts", "turnaround-quantiles"):
        asked = ("privacy", "release", name, "--epsilon", 0.5, "--purpose", "quality")
        made.append(json.loads(edge(*asked, "--json", *options))["fingerprint"])
    box = RunningBox(folder, SETTINGS)
    try:
        yield box, made
        assert box.stop() == 0
    finally:
        if box.process.poll() is None:
            box.kill()


@pytest.mark.slow
def test_every_page_is_seen_read_and_reached_in_every_look(box, tmp_path_factory):
    running, made = box
    pages = {
        "privacy": ("/privacy", ".chart canvas"),
        "privacy-release": (f"/privacy/releases/{made[0]}", "main svg"),
        "privacy-quantile": (f"/privacy/releases/{made[2]}", "main svg"),
        "privacy-plan": (PLAN, "main svg"),
    }
    wrong = {}
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        for look, how in LOOKS.items():
            page = browser.page(**how)
            log_in(page, running.url, ADMINISTRATOR[0])
            for name, (path, wanted) in pages.items():
                page.goto(running.url + path)
                page.wait(f"document.querySelector({wanted!r})")
                page.screenshot(SHOTS / f"{name}-{look}.png", whole=True)
                wrong[name, look] = complaints(page) + (walk(page) if look == "en" else [])
            assert page.problems() == []
            foreign = [
                one for one in page.requests() if not one.startswith((running.url, "about:"))
            ]
            assert foreign == []
    assert {name: found for name, found in wrong.items() if found} == {}
