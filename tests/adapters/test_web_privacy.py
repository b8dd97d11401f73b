"""Pages of privacy over a real ledger: what is left, what was released, what it would cost."""

import pytest

from bedside_core.accounting import cap_units
from support.http_box import HttpBox
from support.privacy_desk import privacy_over
from support.privacy_house import OFFICER as ASKER
from support.privacy_house import Hospital, policy_text

CAP = cap_units(4.0, 1e-6)
LANGUAGES = {"en": "Statistics that leave", "zh": "对外发布的统计"}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    house = Hospital(tmp_path_factory.mktemp("house")).founded(policy_text(CAP, CAP))
    yield house
    house.close()


@pytest.fixture(scope="module")
def pages(house):
    house.service.release(house.ask("prevalence", "device-counts"), ASKER)
    house.service.release(house.ask("turnaround-quantiles"), ASKER)
    house.service.release(house.ask("volume", strata=True), ASKER)
    with HttpBox(privacy=privacy_over(house)) as box:
        yield box.client


def read(pages, path, language="en"):
    answer = pages.get(path, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_budget_page_says_what_is_left_and_lists_releases(pages, house, language):
    page = read(pages, "/privacy", language)
    assert LANGUAGES[language] in page
    assert "prevalence, device-counts" in page
    assert "data-chart" in page
    for held in house.ledger.releases():
        assert f"/privacy/releases/{held.fingerprint}" in page


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_release_is_shown_with_intervals_price_and_what_is_not_protected(pages, house, language):
    for held in house.ledger.releases():
        page = read(pages, f"/privacy/releases/{held.fingerprint}", language)
        assert "<svg" in page
        assert f"/api/v1/privacy/releases/{held.fingerprint}/file" in page
        assert "style=" not in page
        words = {"en": "By grade of data", "zh": "按数据分级"}[language]
        assert (words in page) is bool(held.request.strata)
    assert pages.get(f"/privacy/releases/{'0' * 64}").status_code == 404
    assert pages.get("/privacy/releases/short").status_code >= 400


def test_the_planner_draws_before_data_and_says_when_a_number_is_useless(pages, house):
    spent = house.spent
    assert "<svg" not in read(pages, "/privacy/plan")
    good = read(pages, "/privacy/plan?statistics=volume&epsilon=1&size=5000")
    assert "<svg" in good
    assert "useless" not in good
    bad = "statistics=prevalence&statistics=confusion&epsilon=0.1&size=50"
    assert "useless" in read(pages, f"/privacy/plan?{bad}&schedule=nightly-disjoint")
    both = read(pages, "/privacy/plan?statistics=volume&statistics=turnaround-quantiles")
    assert "invalid-input" in both
    assert "ranks" not in read(pages, "/privacy/plan?statistics=turnaround-quantiles&size=9000")
    assert house.spent == spent


def test_before_any_policy_the_pages_say_so(tmp_path):
    house = Hospital(tmp_path)
    with HttpBox(privacy=privacy_over(house)) as box:
        for path in ("/privacy", "/privacy/plan"):
            assert "No privacy policy" in read(box.client, path)
    house.close()
