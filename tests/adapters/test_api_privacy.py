"""Statistics that leave, over HTTP, on a real ledger: priced, charged once, verified offline."""

import json
import time

import pytest

from bedside_core.access import Action, Actor, Role
from bedside_core.accounting import cap_units
from bedside_core.evidence.note import VerifierKey
from bedside_core.release_check import verify_release
from bedside_core.signatures import open_envelope
from bedside_core.transparency import SUMMARY_TYPE
from support.evidence_log import LOG_ED, LOG_ML, ORIGIN
from support.http_box import HttpBox
from support.privacy_desk import Ticking, privacy_over
from support.privacy_house import DAY, SHARES, T0, Hospital, policy_text, signed

KEYS: list[VerifierKey] = [LOG_ED.key, LOG_ML.key]
PATH = "/api/v1/privacy"
OFFICER = Actor(
    actor_id="person:anna",
    name="Muster^Anna",
    roles=frozenset({Role.PRIVACY_OFFICER}),
    actions=frozenset(Action),
)
ABOUT = {
    "hospital": "St. Example",
    "region": "Germany",
    "author": "Eva Meier",
    "published": "2026-11-24",
    "intended_use": "Quality reports.",
}


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    cap = cap_units(4.0, 1e-6)
    house = Hospital(tmp_path_factory.mktemp("house")).founded(policy_text(cap, cap))
    yield house
    house.close()


@pytest.fixture(scope="module")
def ticking():
    return Ticking()


@pytest.fixture(scope="module")
def http(house, ticking):
    with HttpBox(privacy=privacy_over(house, ticking)) as box:
        box.peer = OFFICER
        yield box.client


@pytest.fixture(scope="module")
def label(house):
    return house.snapshot()


def wish(label, **changes):
    body = {"statistics": ["prevalence"], "epsilon": 0.1, "snapshot": label, "purpose": "quality"}
    return body | changes


def test_the_catalogue_names_every_cell(http):
    found = http.get(f"{PATH}/catalogue").json()
    by_name = {one["name"]: one for one in found["statistics"]}
    assert by_name["prevalence"]["cells"] == ["studies", "positives"]
    assert by_name["turnaround-quantiles"]["cells"] == ["0.25", "0.5", "0.75", "0.95"]
    assert found["c"] == 3


def test_a_plan_prices_without_data_what_the_ledger_then_charges(http, house, label):
    asked = {"statistics": ["prevalence"], "epsilon": 0.1, "size": 40, "picture": True}
    plan = http.post(f"{PATH}/plan", json=asked).json()
    assert "error at 40 studies" in plan["warnings"][0]
    assert plan["picture"].startswith("<svg")
    before = house.spent
    made = http.post(f"{PATH}/releases", json=wish(label)).json()
    assert house.spent - before == plan["cost"] == made["document"]["cost"]["units"]
    quantile = {"statistics": ["turnaround-quantiles"], "epsilon": 1, "size": 9000}
    assert http.post(f"{PATH}/plan", json=quantile).json()["rank_error"] > 0


def test_asked_again_it_is_the_stored_answer_and_costs_nothing(http, house, label):
    first = http.post(f"{PATH}/releases", json=wish(label)).json()
    spent = house.spent
    assert http.post(f"{PATH}/releases", json=wish(label)).json() == first
    again = http.get(f"{PATH}/releases/{first['fingerprint']}").json()
    assert again == first
    assert house.spent == spent


def test_the_file_is_verified_offline_with_the_keys_alone(http, label):
    made = http.post(f"{PATH}/releases", json=wish(label)).json()
    answer = http.get(f"{PATH}/releases/{made['fingerprint']}/file")
    found = verify_release(answer.content, ORIGIN, KEYS)
    assert dict(found.checked.document) == made["document"]
    assert found.proven.index == made["entry"]
    page = http.get(f"{PATH}/releases/{made['fingerprint']}/page?language=zh")
    assert "attachment" in page.headers["content-disposition"]
    assert 'lang="zh-Hans"' in page.text
    picture = http.get(f"{PATH}/releases/{made['fingerprint']}/picture.svg")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert picture.text.startswith("<svg")


def test_stored_fresh_and_refused_leave_on_the_grid(http, label, ticking):
    ticking.left_at.clear()
    body = wish(label, epsilon=0.11)
    for sent in (body, body, wish(label, statistics=["nothing"]), wish("no-such-snapshot")):
        ticking.at += 0.013
        http.post(f"{PATH}/releases", json=sent)
    http.get(f"{PATH}/releases/{'0' * 64}")
    graded = wish(label, epsilon=0.11, strata=True)
    for sent in (graded, graded, wish(label, strata=True, pure=True), wish(label, epsilon=900)):
        ticking.at += 0.017
        http.post(f"{PATH}/releases", json=sent)
    http.post(f"{PATH}/local-answers", json={"study": "x", "recipient": "y", "epsilon": 1})
    assert len(ticking.left_at) == 10
    assert all((at / 0.25) % 1 < 1e-9 for at in ticking.left_at)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"statistics": ["nothing"]}, 404, "unknown-statistic"),
        ({"statistics": []}, 422, None),
        ({"epsilon": -1}, 422, None),
        ({"epsilon": 1e300}, 422, None),
        ({"epsilon": 0}, 400, "invalid-input"),
        ({"epsilon": 0.1, "units": 5}, 400, "invalid-input"),
        ({"epsilon": 900}, 422, "budget-exhausted"),
        ({"purpose": "advertising"}, 422, "budget-exhausted"),
        ({"snapshot": "made-up"}, 404, "not-found"),
        ({"statistics": ["volume", "turnaround-quantiles"]}, 400, "invalid-input"),
        ({"strata": True, "pure": True}, 400, "invalid-input"),
        ({"strata": True, "epsilon": 900}, 422, "budget-exhausted"),
        ({"strata": True, "statistics": ["score-quantiles"]}, 400, "invalid-input"),
        ({"strata": [1, 1, 1, 1, 1]}, 422, None),
        ({"weight": "grams"}, 422, None),
        ({"surprise": 1}, 422, None),
    ],
)
def test_bad_requests_are_refused_by_code_and_charge_nothing(
    http, house, label, changes, status, code
):
    spent = house.spent
    answer = http.post(f"{PATH}/releases", json=wish(label, **changes))
    assert answer.status_code == status
    assert house.spent == spent
    if code:
        assert answer.json()["type"].endswith(code)


def test_a_price_that_is_no_number_is_refused(http, house, label):
    spent = house.spent
    nan = json.dumps(wish(label)).replace("0.1", "NaN")
    sent = http.post(
        f"{PATH}/releases", content=nan.encode(), headers={"Content-Type": "application/json"}
    )
    assert sent.status_code in (400, 422)
    assert house.spent == spent


def test_the_budget_says_what_is_spent_and_how_it_grew(http, house, label):
    http.post(f"{PATH}/releases", json=wish(label))
    found = http.get(f"{PATH}/budget").json()
    scopes = {(one["kind"], one["name"]): one for one in found["scopes"]}
    epoch = scopes["dataset-epoch", "studies#1"]
    assert epoch["spent"]["units"] == found["growth"][-1]["units"] == house.spent
    assert epoch["left"]["units"] == epoch["cap"]["units"] - epoch["spent"]["units"]
    assert scopes["requester", "person:anna"]["spent"]["units"] == house.spent
    assert found["not_the_gate"]["gaussian-exact"] < epoch["spent"]["epsilon"]
    assert found["locked"] is False
    assert [one["at"] for one in found["growth"]] == sorted(one["at"] for one in found["growth"])


def test_every_kind_of_noise_is_in_the_printed_total_and_noise_by_grade_says_so(http, house, label):
    catalogue = http.get(f"{PATH}/catalogue").json()
    assert catalogue["grades"] == {str(grade): rho for grade, rho in SHARES.items()}
    pure = http.post(f"{PATH}/releases", json=wish(label, pure=True)).json()["document"]
    asked = wish(label, statistics=["turnaround-quantiles"])
    quantiles = http.post(f"{PATH}/releases", json=asked).json()["document"]
    graded = http.post(f"{PATH}/releases", json=wish(label, strata=True)).json()["document"]
    assert len(graded["grades"]) == 5
    epsilons = [one["not_the_gate"]["pure epsilon of this release"] for one in (pure, quantiles)]
    assert all(0 < one < 1 for one in epsilons)
    assert "exact Gaussian epsilon of this release" in graded["not_the_gate"]
    found = http.get(f"{PATH}/epochs/1/accounting").json()
    assert found["spent"]["units"] == house.spent
    # choices stand in it with their pure epsilon, so with quantiles it may be above the gate's
    assert sum(epsilons) * 0.5 < found["not_the_gate"]["pld"]
    assert found["not_the_gate"]["pld"] < found["not_the_gate"]["gaussian-plus-pure"]
    assert http.get(f"{PATH}/epochs/9/accounting").json()["releases"] == 0
    planned = http.post(f"{PATH}/plan", json=plan_of(strata=True)).json()
    assert planned["cost"] == http.post(f"{PATH}/plan", json=plan_of()).json()["cost"]
    assert planned["relative"] > 4 * http.post(f"{PATH}/plan", json=plan_of()).json()["relative"]
    for bad in ({"schedule": "nightly-disjoint", "nights": 9}, {"statistics": ["score-quantiles"]}):
        refused = http.post(f"{PATH}/plan", json=plan_of(strata=True, **bad))
        assert refused.json()["type"].endswith("invalid-input")


def plan_of(**more):
    return {"statistics": ["volume"], "epsilon": 0.5, "size": 1000, "picture": True} | more


def test_ledger_and_releases_are_listed(http, house, label):
    made = http.post(f"{PATH}/releases", json=wish(label)).json()
    listed = http.get(f"{PATH}/releases").json()["releases"]
    held = next(one for one in listed if one["fingerprint"] == made["fingerprint"])
    assert (held["state"], held["statistics"], held["answered"]) == ("final", ["prevalence"], 1)
    ledger = http.get(f"{PATH}/ledger?limit=1000").json()
    assert [one["seq"] for one in ledger["entries"]] == list(range(1, ledger["size"] + 1))
    assert http.get(f"{PATH}/ledger:verify").json() == {
        "entries": ledger["size"],
        "verified": True,
    }
    assert "[caps]" in http.get(f"{PATH}/policy").json()["text"]
    assert http.get(f"{PATH}/snapshots").json()["snapshots"][0]["label"] == label


def test_a_schedule_is_opened_and_has_no_answer_yet(http, house):
    body = wish("year-1", schedule="running-total", nights=30)
    made = http.post(f"{PATH}/releases", json=body).json()
    assert made["document"] is None
    assert http.get(f"{PATH}/releases/{made['fingerprint']}").status_code == 404


def test_an_epoch_is_published_with_its_signed_summary(http, house, label):
    http.post(f"{PATH}/releases", json=wish(label))
    found = http.post(f"{PATH}/epochs/1/transparency", json=ABOUT).json()
    assert 'publication_date: "2026-11-24"' in found["yaml"]
    envelope = json.dumps(found["summary"]).encode()
    keys = {LOG_ED.key.key_id.hex(): LOG_ED.key.public}
    summary = json.loads(open_envelope(envelope, SUMMARY_TYPE, keys, 1))
    assert summary["spent"]["units"] == house.spent
    assert http.get(f"{PATH}/epochs/1/summary").status_code == 200
    assert http.get(f"{PATH}/epochs/9/summary").status_code == 404


def test_epochs_and_policies_are_opened_over_http(tmp_path):
    house = Hospital(tmp_path)
    with HttpBox(privacy=privacy_over(house)) as box:
        box.peer, http = OFFICER, box.client
        assert http.get(f"{PATH}/catalogue").status_code == 409  # before any policy
        assert http.get(f"{PATH}/budget").json()["scopes"] == []
        envelope = json.loads(signed(policy_text()))
        assert http.request("PUT", f"{PATH}/policy", json=envelope).status_code == 200
        assert http.get(f"{PATH}/epochs").json() == {"epoch": None}
        body = {"starts": T0 - DAY, "ends": T0 + 90 * DAY}
        made = http.post(f"{PATH}/epochs", json=body)
        assert (made.status_code, made.json()["epoch"]["number"]) == (201, 1)
        frozen = http.post(f"{PATH}/snapshots", json={}).json()
        assert frozen["starts"] == T0 - DAY
        assert http.post(f"{PATH}/epochs:close", json={}).json()["epoch"]["closed"] is True
    house.close()


def test_without_the_services_it_says_so():
    with HttpBox() as box:
        assert box.client.get(f"{PATH}/budget").status_code == 503


def test_a_replay_costs_little_beside_its_slot(http, house, label):
    made = http.post(f"{PATH}/releases", json=wish(label)).json()
    began = time.perf_counter()
    for _ in range(20):
        http.get(f"{PATH}/releases/{made['fingerprint']}")
    assert (time.perf_counter() - began) / 20 < 0.1
