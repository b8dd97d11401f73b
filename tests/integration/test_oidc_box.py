"""Single sign-on against a real little provider: the way in, and every way that is none."""

import time
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from support.oidc_provider import CLIENT, SECRET, oidc_provider
from support.orthanc import free_port
from support.running_box import RunningBox

PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def provider():
    with oidc_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def box(provider, tmp_path_factory):
    folder = tmp_path_factory.mktemp("oidc")
    (folder / "secret").write_text(SECRET + "\n")
    settings = f"""
[oidc]
issuer = "{provider.issuer}"
client_id = "{CLIENT}"
client_secret_file = "{folder / "secret"}"
public_url = "http://127.0.0.1:{free_port()}"
[oidc.roles]
radiologist = ["radiology"]
auditor = ["audit", "inspectors"]
"""
    box = RunningBox(folder, settings)
    try:
        yield box
        assert box.stop() == 0
    finally:
        if box.process.poll() is None:
            box.kill()


@pytest.fixture(autouse=True)
def honest(provider):
    provider.says()


class Browser:
    """Follows the way by hand, so that a test can bend every step."""

    def __init__(self, box):
        self.http = httpx.Client(base_url=box.url, headers=PAGE, timeout=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def begin(self, wanted="/worklist"):
        answer = self.http.get("/login/oidc", params={"next": wanted})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def at_provider(self, url):
        back = httpx.get(url, timeout=10).headers["location"]
        return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}

    def back(self, answer):
        # as a browser would: a navigation that begins at another site
        headers = {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "navigate",
            "Sec-Fetch-Dest": "document",
        }
        return self.http.get("/login/oidc/callback?" + urlencode(answer), headers=headers)

    def log_in(self, wanted="/worklist"):
        return self.back(self.at_provider(self.begin(wanted)))

    def me(self):
        return self.http.get("/api/v1/me", headers={"Accept": "application/json"})

    def account(self, box):
        """The account behind the session, as an administrator's program sees it."""
        actor = self.me().json()["actor"].removeprefix("person:")
        return box.http.get(f"/api/v1/accounts/{actor}").json()


@pytest.fixture
def browser(box):
    with Browser(box) as browser:
        yield browser


def test_a_person_of_the_provider_logs_in_with_the_role_of_their_group(box, browser):
    answer = browser.log_in()
    assert answer.status_code == 200
    assert 'content="0;url=/worklist"' in answer.text
    assert "SameSite=strict" in answer.headers["set-cookie"]
    me = browser.me().json()
    assert me["roles"] == ["radiologist"]
    assert me["name"] == "Muster^Anna"
    assert browser.account(box)["login"] == "anna@127.0.0.1"
    assert browser.account(box)["password_set"] is False
    assert browser.http.get("/worklist").status_code == 200


def test_the_next_log_in_is_the_same_account_with_the_roles_of_today(provider, box, browser):
    browser.log_in()
    first = browser.me().json()
    provider.says(claims={"groups": ["audit"]})
    with Browser(box) as later:
        later.log_in()
        again = later.me().json()
    assert (again["actor"], again["roles"]) == (first["actor"], ["auditor"])
    assert browser.me().status_code == 401  # what was opened with more than that is over
    provider.says()
    browser.log_in()
    assert browser.me().json()["roles"] == ["radiologist"]


def test_an_equal_name_is_not_the_same_person(provider, box, browser):
    browser.log_in()
    first = browser.me().json()
    provider.says(claims={"sub": "user-2"})
    browser.log_in()
    assert browser.me().json()["actor"] != first["actor"]
    assert browser.account(box)["login"] == "anna2@127.0.0.1"


def test_nobody_becomes_anything_without_a_group(provider, browser):
    for groups in (["everyone"], [], None, "administrators", [{"x": 1}]):
        provider.says(claims={"sub": "user-3", "groups": groups})
        answer = browser.log_in()
        assert answer.status_code == 403, groups
        assert "no role" in answer.text
        assert browser.me().status_code == 401


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_every_allowed_signature_counts(provider, browser, algorithm):
    provider.says(sign=algorithm)
    assert browser.log_in().status_code == 200
    assert browser.me().status_code == 200


def refused(browser, answer):
    assert answer.status_code in (403, 502), answer.text
    assert "set-cookie" not in answer.headers or "bedside=" not in answer.headers["set-cookie"]
    assert browser.me().status_code == 401


@pytest.mark.parametrize(
    "sign",
    [
        "none",
        "hmac-with-public-key",
        "hmac-with-client-secret",
        "stranger",
        "own-jwk",
        "tampered",
    ],
)
def test_a_token_nobody_signed_is_refused(provider, browser, sign):
    provider.says(sign=sign)
    refused(browser, browser.log_in())
    provider.says()
    assert browser.log_in().status_code == 200  # it was the signature, and nothing else


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-client"},
        {"aud": ["another-client"]},
        {"aud": [CLIENT, "another"]},
        {"aud": CLIENT, "azp": "another"},
        {"aud": None},
        {"iss": "http://127.0.0.1:1"},
        {"iss": None},
        {"exp": -100},
        {"exp": None},
        {"exp": "never"},
        {"iat": -4000},
        {"iat": 4000},
        {"nbf": 4000},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": ""},
        {"sub": 7},
    ],
    ids=str,
)
def test_a_token_for_another_time_place_or_log_in_is_refused(provider, browser, claims):
    now = int(time.time())
    provider.says(
        claims={n: now + v if isinstance(v, int) and n != "sub" else v for n, v in claims.items()}
    )
    refused(browser, browser.log_in())
    provider.says()
    assert browser.log_in().status_code == 200  # it was the claim, and nothing else


def test_a_state_counts_once(browser, box):
    answer = browser.at_provider(browser.begin())
    assert browser.back(answer).status_code == 200
    with Browser(box) as other:
        other.http.cookies.update(browser.http.cookies)
        assert other.back(answer).status_code == 403


def test_an_answer_for_another_browser_is_refused(browser, box):
    """Log-in CSRF: the attacker's own answer, followed by the victim."""
    attackers = browser.at_provider(browser.begin())
    with Browser(box) as victim:
        refused(victim, victim.back(attackers))
        victim.begin()
        refused(victim, victim.back(victim.at_provider(victim.begin()) | {"state": "made-up"}))


def test_an_answer_of_another_provider_is_refused(browser):
    answer = browser.at_provider(browser.begin()) | {"iss": "https://evil.example"}
    refused(browser, browser.back(answer))


def test_a_code_of_another_log_in_is_refused_by_its_verifier(browser, box):
    with Browser(box) as other:
        stolen = other.at_provider(other.begin())["code"]
    mine = browser.at_provider(browser.begin()) | {"code": stolen}
    refused(browser, browser.back(mine))


def test_the_persons_no_is_said_and_ends_the_log_in(browser):
    answer = browser.at_provider(browser.begin())
    said = browser.back({"state": answer["state"], "error": "access_denied"})
    assert said.status_code == 403
    assert "did not succeed" in said.text
    refused(browser, browser.back(answer))


def test_the_way_back_never_leads_to_another_site(browser):
    for wanted in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:x"):
        assert 'content="0;url=/"' in browser.log_in(wanted).text


@pytest.mark.parametrize(
    "answer", [{}, {"id_token": 7}, {"id_token": "a.b.c"}, {"id_token": "x" * 20_000}, []]
)
def test_an_answer_that_is_none_is_refused(provider, browser, answer):
    provider.says(answer=answer)
    refused(browser, browser.log_in())


def test_a_disabled_account_stays_out(provider, box, browser):
    provider.says(claims={"sub": "user-9", "preferred_username": "leaver"})
    assert browser.log_in().status_code == 200
    account = browser.me().json()["actor"]
    done = box.http.put(
        f"/api/v1/accounts/{account.removeprefix('person:')}/disabled", json={"disabled": True}
    )
    assert done.status_code == 200, done.text
    assert browser.log_in().status_code == 422
    assert browser.me().status_code == 401


def test_new_keys_of_the_provider_are_found_and_unknown_ones_do_not_flood_it(
    provider, box, browser
):
    assert browser.log_in().status_code == 200
    provider.says(new_keys=True)
    assert browser.log_in().status_code == 200
    before = provider.calls("/jwks")
    provider.says(new_keys=True)
    for _ in range(5):
        browser.log_in()
    assert provider.calls("/jwks") <= before + 1


def test_without_the_provider_local_accounts_log_in_and_the_page_says_so(provider, box, browser):
    started = browser.begin()
    assert started
    provider.stop()
    try:
        with Browser(box) as later:
            page = later.http.get("/login")
            assert page.status_code == 200
            assert "/login/oidc" in page.text
            # the addresses are remembered for an hour; the exchange is what fails
            state = parse_qs(urlsplit(later.begin()).query)["state"][0]
            away = later.back({"state": state, "code": "x"})
            assert away.status_code == 502
            assert "Local accounts still work" in away.text
            assert 'name="password"' in away.text
    finally:
        provider.start()
