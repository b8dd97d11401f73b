"""Logging in over HTTP: cookies, forged requests, log-in pages, headers, tokens, accounts."""

import asyncio
import json

import pytest
from fastapi import Request
from fastapi.responses import StreamingResponse

from bedside_core.access import PERSONS_ONLY, Action, Role
from bedside_edge.api.auth import safe_next
from bedside_edge.api.guard import needs
from bedside_edge.services.access import CONSOLE
from support.asgi_client import in_pieces
from support.http_box import HERE, HttpBox

GOOD = "violet otter climbs stairs"
OTHER = "nine green apples fall up"
PAGE = {"Accept": "text/html,application/xhtml+xml"}


class Browser:
    """Sends what a browser would: its cookie, and the token when asked to."""

    def __init__(self, client):
        self._client, self.cookie, self.csrf = client, "", ""

    def log_in(self, login="anna", password=GOOD):
        answer = self.ask("POST", "/api/v1/login", json={"login": login, "password": password})
        if answer.status_code == 200:
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
            self.csrf = answer.json()["csrf"]
        return answer

    def ask(self, method, path, *, csrf=False, headers=None, **options):
        headers = dict(headers or {})
        headers |= {"Cookie": self.cookie} if self.cookie else {}
        headers |= {"X-CSRF-Token": self.csrf} if csrf else {}
        self._client._client.cookies.clear()
        return self._client.request(method, path, headers=headers, **options)


@pytest.fixture
def box():
    with HttpBox(known_peer=False) as box:
        link = box.access.ensure_setup()
        box.access.set_password_by_link(link.secret, GOOD, login="anna", name="Muster^Anna")
        yield box


@pytest.fixture
def browser(box):
    return Browser(box.client)


def code(answer):
    return answer.json()["type"].rpartition(":")[2]


def test_the_cookie_is_for_this_site_and_no_script(browser):
    answer = browser.log_in()
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("bedside=")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {p.strip() for p in cookie.split(";")}
    assert browser.cookie.partition("=")[2] not in answer.text


def test_over_tls_the_cookie_is_bound_to_the_host(box):
    body = json.dumps({"login": "anna", "password": GOOD}).encode()
    url = HERE.replace("http:", "https:") + "/api/v1/login"
    answer = box.client.post(url, content=body, headers={"Content-Type": "application/json"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-bedside=")
    assert "Secure" in cookie
    assert "Domain" not in cookie
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    value = cookie.partition(";")[0].partition("=")[2]
    https = HERE.replace("http:", "https:") + "/api/v1/me"
    box.client._client.cookies.clear()
    planted = box.client.get(https, headers={"Cookie": f"bedside={value}"})
    assert planted.status_code == 401
    good = box.client.get(https, headers={"Cookie": f"__Host-bedside={value}"})
    assert good.status_code == 200


def test_who_is_logged_in_is_told_with_what_they_may_do(browser):
    browser.log_in()
    me = browser.ask("GET", "/api/v1/me").json()
    assert (me["name"], me["roles"]) == ("Muster^Anna", ["administrator"])
    assert "manage-accounts" in me["actions"]
    assert me["csrf"] == browser.csrf


def test_wrong_and_unknown_get_the_same_answer(browser):
    wrong = browser.ask("POST", "/api/v1/login", json={"login": "anna", "password": OTHER})
    unknown = browser.ask("POST", "/api/v1/login", json={"login": "nobody", "password": OTHER})
    assert wrong.status_code == unknown.status_code == 401
    first, second = wrong.json(), unknown.json()
    assert {k: v for k, v in first.items() if k != "instance"} == {
        k: v for k, v in second.items() if k != "instance"
    }
    assert "set-cookie" not in wrong.headers


def test_too_many_guesses_are_told_how_long_to_wait(browser):
    for _ in range(5):
        assert browser.log_in(password=OTHER).status_code == 401
    answer = browser.log_in()
    assert (answer.status_code, code(answer)) == (429, "too-many-attempts")
    assert answer.headers["retry-after"] == "1"


def test_a_password_is_in_no_answer_and_no_error(browser):
    for body in (
        {"login": "anna", "password": [GOOD]},
        {"login": "anna", "password": GOOD, "more": GOOD},
        {"login": "anna", "password": GOOD * 100},
    ):
        answer = browser.ask("POST", "/api/v1/login", json=body)
        assert answer.status_code == 422
        assert GOOD not in answer.text


def test_log_in_replaces_the_session_the_browser_came_with(box, browser):
    browser.log_in()
    planted = browser.cookie
    browser.log_in()
    assert browser.cookie != planted
    old = Browser(box.client)
    old.cookie = planted
    assert old.ask("GET", "/api/v1/me").status_code == 401


def test_a_cookie_that_was_planted_before_log_in_never_counts(box, browser):
    browser.cookie = "bedside=" + "0" * 64
    assert browser.ask("GET", "/api/v1/me").status_code == 401
    browser.log_in()
    assert browser.cookie != "bedside=" + "0" * 64


def test_of_two_cookies_neither_counts(box, browser):
    browser.log_in()
    own = browser.cookie
    browser.cookie = f"bedside={'0' * 64}; {own}"
    assert browser.ask("GET", "/api/v1/me").status_code == 401


def test_log_out_ends_the_session_and_takes_the_cookie(browser):
    browser.log_in()
    answer = browser.ask("POST", "/api/v1/logout", csrf=True)
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert browser.ask("GET", "/api/v1/me").status_code == 401


# --- forged requests -----------------------------------------------------------------------------


CHANGES = (
    ("POST", "/api/v1/logout"),
    ("POST", "/api/v1/accounts"),
    ("PUT", "/api/v1/models/sample/active"),
    ("DELETE", "/api/v1/tokens/x"),
    ("POST", "/dicom-web/studies"),
    ("POST", "/v2/models/sample/infer"),
    ("POST", "/api/v1/studies:analyze"),
)


def test_a_change_by_cookie_needs_the_sessions_own_token(box, browser):
    browser.log_in()
    other = box.access.log_in("anna", GOOD, "10.0.0.1").csrf
    for method, path in CHANGES:
        for shown in (
            {},
            {"X-CSRF-Token": ""},
            {"X-CSRF-Token": "0" * 64},
            {"X-CSRF-Token": other},
        ):
            answer = browser.ask(method, path, headers=shown)
            assert answer.status_code == 403, (method, path, shown)
            assert "foreign-request" in answer.text
    assert browser.ask("GET", "/api/v1/me").status_code == 200


def test_a_plain_form_may_carry_the_token_as_a_field(browser):
    browser.log_in()
    right = browser.ask("POST", "/api/v1/logout", data={"other": "x", "csrf": browser.csrf})
    assert right.status_code == 204


def test_a_form_with_another_token_does_nothing(browser):
    browser.log_in()
    assert browser.ask("POST", "/api/v1/logout", data={"csrf": "0" * 64}).status_code == 403
    assert browser.ask("POST", "/api/v1/logout", data={}).status_code == 403
    many = "&".join(f"f{number}=1" for number in range(2000))
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = browser.ask("POST", "/api/v1/logout", content=many, headers=kind)
    assert answer.status_code == 403
    assert browser.ask("GET", "/api/v1/me").status_code == 200


def test_a_form_without_end_is_not_gathered_for_its_token(browser):
    browser.log_in()
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    for path in ("/api/v1/logout", "/dicom-web/studies", "/api/v1/studies:analyze"):
        body = in_pieces([b"a" * (1 << 20)] * 6)
        assert browser.ask("POST", path, content=body, headers=kind).status_code == 413, path


def test_the_body_of_a_form_still_reaches_its_route(browser, box):
    seen = []

    @box.app.post("/form", dependencies=[needs(Action.VIEW_OWN)])
    async def form(request: Request):
        seen.append(await request.body())

    browser.log_in()
    browser.ask("POST", "/form", data={"csrf": browser.csrf, "a": "b"})
    assert seen == [f"csrf={browser.csrf}&a=b".encode()]


def test_a_token_needs_no_other_token(box):
    secret = box.access.create_token("t", [Action.MANAGE_ACCOUNTS], CONSOLE)[1]
    body = {"login": "bert", "name": "B^B", "roles": ["auditor"]}
    headers = {"Authorization": f"Bearer {secret}"}
    assert box.client.post("/api/v1/accounts", json=body, headers=headers).status_code == 201


def test_a_token_that_does_not_count_is_not_made_up_for_by_a_cookie(browser):
    browser.log_in()
    for shown in ("Bearer ", "Bearer bst_0", "Basic YTpi", "bst_0", "", "Bearer \xff"):
        headers = {"Authorization": shown.encode("latin-1")}
        answer = browser.ask("GET", "/api/v1/me", headers=headers)
        assert (answer.status_code, code(answer)) == (401, "unauthenticated")


@pytest.mark.parametrize("end", ["log-out", "roles", "token"])
def test_a_stream_of_events_ends_with_the_right_to_read_it(box, browser, end):
    @box.app.get("/stream", dependencies=[needs(Action.VIEW_WORKLIST)])
    async def stream() -> StreamingResponse:
        async def events():
            for number in range(3):
                yield f"data: {number}\n\n"
                await asyncio.get_running_loop().run_in_executor(None, stop, number)
            pytest.fail("nobody listened any more")

        return StreamingResponse(events(), media_type="text/event-stream")

    def stop(number):
        if number < 1:
            return
        if end == "token":
            box.access.revoke_token(token.token_id, CONSOLE)
        elif end == "log-out":
            box.access.log_out(session.secret)
        else:
            box.access.set_roles(account.account_id, [Role.AUDITOR], CONSOLE)

    link = box.access.add_account("bert", "B^B", [Role.RADIOLOGIST], CONSOLE)
    account = box.access.set_password_by_link(link.secret, GOOD)
    session = box.access.log_in("bert", GOOD, "127.0.0.1")
    token, secret = box.access.create_token("t", [Action.VIEW_WORKLIST], CONSOLE)
    bearer = {"Authorization": f"Bearer {secret}"}
    cookie = {"Cookie": f"bedside={session.secret}"}
    answer = box.client.get("/stream", headers=bearer if end == "token" else cookie)
    assert answer.text == "data: 0\n\ndata: 1\n\n"


@pytest.mark.parametrize(
    "by_itself", [{"Bedside-Background": "1"}, {"Accept": "text/event-stream"}]
)
def test_what_a_page_asks_by_itself_keeps_no_session_alive(box, browser, by_itself):
    browser.log_in()
    (before,) = box.access.sessions()
    box.clock.advance(10 * 60_000)
    assert browser.ask("GET", "/api/v1/me", headers=by_itself).status_code == 200
    assert box.access.sessions() == [before]
    assert browser.ask("GET", "/api/v1/me").status_code == 200
    assert box.access.sessions()[0].seen == before.seen + 10 * 60_000


# --- pages ---------------------------------------------------------------------------------------


def test_a_person_without_a_session_is_led_to_the_log_in_page_and_back(browser):
    answer = browser.ask("GET", "/studies/a1?tab=2&x=y", headers=PAGE)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/studies/a1%3Ftab%3D2%26x%3Dy"
    assert browser.ask("GET", "/", headers=PAGE).headers["location"] == "/login"


def test_a_program_is_told_401_whatever_it_accepts(browser):
    for path in ("/api/v1/jobs", "/v2/models/x", "/dicom-web/studies", "/metrics"):
        assert browser.ask("GET", path, headers=PAGE).status_code == 401


def test_a_part_of_a_page_leads_the_whole_page_to_log_in(browser):
    answer = browser.ask("GET", "/worklist", headers=PAGE | {"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login")


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "",
        "evil.example",
        "/a\r\nSet-Cookie: x=1",
        "/a\tb",
        "/\x00",
        "\\/evil",
        "/" + "a" * 3000,
    ],
)
def test_nobody_is_led_to_another_site(wanted):
    assert safe_next(wanted) == "/"


@pytest.mark.parametrize("wanted", ["/", "/studies/a1?tab=2", "/a//b", "/études"])
def test_our_own_pages_are_led_to(wanted):
    assert safe_next(wanted) == wanted


def test_a_link_from_another_site_shows_a_page_and_nothing_else(browser):
    navigation = {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    assert browser.ask("GET", "/", headers=PAGE | navigation).status_code == 303
    for method, path, changed in (
        ("POST", "/", {}),
        ("GET", "/api/v1/jobs", {}),
        ("GET", "/", {"Sec-Fetch-Dest": "iframe"}),
        ("GET", "/", {"Sec-Fetch-Mode": "no-cors"}),
    ):
        answer = browser.ask(method, path, headers=PAGE | navigation | changed)
        assert answer.status_code == 403


def test_every_answer_carries_the_strict_headers(browser):
    for path in ("/livez", "/api/v1/jobs", "/nowhere", "/v2/models/x"):
        headers = browser.ask("GET", path).headers
        policy = headers["content-security-policy"]
        for part in ("default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
            assert part in policy
        assert "unsafe" not in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in headers


def test_the_box_answers_to_the_names_it_was_given():
    with HttpBox(known_peer=False, names=["Bedside.hospital.example", "10.1.2.3"]) as box:
        for host in ("bedside.hospital.example", "bedside.hospital.example:8642", "10.1.2.3:1"):
            headers = {"Host": host, "Origin": f"https://{host}"}
            assert box.client.get("/livez", headers=headers).status_code == 200
        for host in ("evil.example", "bedside.hospital.example.evil.example", "10.1.2.3:x"):
            assert box.client.get("/livez", headers={"Host": host}).status_code == 403
        foreign = {"Host": "10.1.2.3", "Origin": "https://evil.example"}
        assert box.client.get("/livez", headers=foreign).status_code == 403


# --- accounts and tokens -------------------------------------------------------------------------


def test_an_administrator_adds_a_reader_who_sets_a_password_and_logs_in(box, browser):
    browser.log_in()
    body = {"login": "bert", "name": "Beispiel^Bert", "roles": ["radiologist"]}
    added = browser.ask("POST", "/api/v1/accounts", csrf=True, json=body)
    assert added.status_code == 201
    secret = added.json()["link"].partition("link=")[2]
    weak = browser.ask("POST", "/api/v1/setup", json={"link": secret, "password": "short"})
    assert (weak.status_code, code(weak)) == (422, "weak-password")
    done = browser.ask("POST", "/api/v1/setup", json={"link": secret, "password": OTHER})
    assert done.json()["password_set"]
    spent = browser.ask("POST", "/api/v1/setup", json={"link": secret, "password": GOOD})
    assert spent.status_code == 404
    reader = Browser(box.client)
    assert reader.log_in("bert", OTHER).json()["roles"] == ["radiologist"]
    assert reader.ask("GET", "/api/v1/accounts").status_code == 403


def test_accounts_are_changed_and_the_last_administrator_is_not(box, browser):
    browser.log_in()
    link = box.access.add_account("bert", "B^B", [Role.AUDITOR], CONSOLE)
    bert, anna = link.account.account_id, box.access.by_login("anna").account_id
    listed = browser.ask("GET", "/api/v1/accounts").json()["accounts"]
    assert [one["login"] for one in listed] == ["anna", "bert"]
    path = f"/api/v1/accounts/{bert}"
    roles = {"roles": ["vendor", "auditor"]}
    changed = browser.ask("PUT", f"{path}/roles", csrf=True, json=roles)
    assert changed.json()["roles"] == ["auditor", "vendor"]
    off = browser.ask("PUT", f"{path}/disabled", csrf=True, json={"disabled": True})
    assert off.json()["disabled"]
    assert browser.ask("GET", path).json()["disabled"]
    assert browser.ask("POST", f"{path}:reset-link", csrf=True).json()["link"]
    last = browser.ask(
        "PUT", f"/api/v1/accounts/{anna}/disabled", csrf=True, json={"disabled": True}
    )
    assert (last.status_code, code(last)) == (409, "wrong-state")
    assert browser.ask("GET", "/api/v1/accounts/none").status_code == 404


def test_tokens_are_made_listed_and_revoked_within_one_request(box, browser):
    browser.log_in()
    body = {"label": "pacs", "actions": ["view-worklist"], "days": 30}
    made = browser.ask("POST", "/api/v1/tokens", csrf=True, json=body)
    assert made.status_code == 201
    bearer = {"Authorization": f"Bearer {made.json()['secret']}"}
    assert box.client.get("/api/v1/jobs", headers=bearer).status_code == 200
    listed = browser.ask("GET", "/api/v1/tokens").json()["tokens"]
    assert [one["label"] for one in listed] == ["pacs"]
    assert made.json()["secret"] not in json.dumps(listed)
    path = f"/api/v1/tokens/{made.json()['token']['id']}"
    assert browser.ask("DELETE", path, csrf=True).status_code == 204
    assert box.client.get("/api/v1/jobs", headers=bearer).status_code == 401
    robot = {"label": "robot", "actions": ["review"]}
    refused = browser.ask("POST", "/api/v1/tokens", csrf=True, json=robot)
    assert (refused.status_code, code(refused)) == (422, "refused")


def test_people_see_and_end_their_own_log_ins_and_nobody_elses(box, browser):
    browser.log_in()
    link = box.access.add_account("bert", "B^B", [Role.AUDITOR], CONSOLE)
    box.access.set_password_by_link(link.secret, GOOD)
    reader = Browser(box.client)
    reader.log_in("bert")
    elsewhere = box.access.log_in("bert", GOOD, "10.0.0.1")
    own = reader.ask("GET", "/api/v1/me/sessions").json()["sessions"]
    assert len(own) == 2
    admins = browser.ask("GET", "/api/v1/me/sessions").json()["sessions"][0]["id"]
    assert reader.ask("DELETE", f"/api/v1/me/sessions/{admins}", csrf=True).status_code == 404
    path = f"/api/v1/me/sessions/{elsewhere.session_id}"
    assert reader.ask("DELETE", path, csrf=True).status_code == 204
    assert box.access.session(elsewhere.secret) is None
    everybody = browser.ask("GET", "/api/v1/sessions").json()["sessions"]
    assert {one["account"] for one in everybody} == {
        box.access.by_login(login).account_id for login in ("anna", "bert")
    }
    (last,) = reader.ask("GET", "/api/v1/me/sessions").json()["sessions"]
    assert browser.ask("DELETE", f"/api/v1/sessions/{last['id']}", csrf=True).status_code == 204
    assert reader.ask("GET", "/api/v1/me").status_code == 401


def test_a_changed_password_ends_every_other_log_in(box, browser):
    browser.log_in()
    other = box.access.log_in("anna", GOOD, "10.0.0.1").secret
    body = {"old": GOOD, "new": OTHER}
    answer = browser.ask("POST", "/api/v1/me/password", csrf=True, json=body)
    assert answer.status_code == 200
    assert box.access.session(other) is None
    assert browser.ask("GET", "/api/v1/me").status_code == 401
    browser.cookie = answer.headers["set-cookie"].partition(";")[0]
    assert browser.ask("GET", "/api/v1/me").status_code == 200


def test_a_token_has_no_password_and_no_sessions(box):
    every = set(Action) - PERSONS_ONLY
    bearer = {"Authorization": f"Bearer {box.access.create_token('t', every, CONSOLE)[1]}"}
    me = box.client.get("/api/v1/me", headers=bearer).json()
    assert (me["name"], me["csrf"], me["session"]) == ("t", None, None)
    body = {"old": GOOD, "new": OTHER}
    refused = box.client.post("/api/v1/me/password", json=body, headers=bearer)
    assert refused.status_code == 409
    own = box.client.get("/api/v1/me/sessions", headers=bearer)
    assert own.json() == {"sessions": []}
