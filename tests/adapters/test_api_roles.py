"""Every route x every role x nobody x a token without the scope, from the table of the app itself.

A route that names no action, or several, fails here until somebody decides who may use it.
"""

import asyncio

import pytest
from starlette.responses import Response

from bedside_core.access import ALLOWED, PERSONS_ONLY, Action, Role
from bedside_edge.api.doors import OPEN, Doors
from bedside_edge.api.guard import needs
from bedside_edge.api.reply import Reply
from bedside_edge.api.shell import HotRoute, Shell
from bedside_edge.services.access import CONSOLE
from support.http_box import HttpBox
from support.role_table import shell_of, ways

PASSWORD = "violet otter climbs stairs"  # noqa: S105


class People:
    """One person of every role, logged in, and tokens of every cut."""

    def __init__(self, access):
        self.sessions = {}
        for role in Role:
            link = access.add_account(role.value, f"{role.value}^x", [role], CONSOLE)
            access.set_password_by_link(link.secret, PASSWORD)
            self.sessions[role] = access.log_in(role.value, PASSWORD, "127.0.0.1")
        every = set(Action) - PERSONS_ONLY
        self.all_but = {
            action: access.create_token(f"no {action}", every - {action}, CONSOLE)[1]
            for action in every
        }
        self.every = access.create_token("all", every, CONSOLE)[1]

    def cookie(self, role):
        session = self.sessions[role]
        return {"Cookie": f"bedside={session.secret}", "X-CSRF-Token": session.csrf}


@pytest.fixture(scope="module")
def box():
    with HttpBox(known_peer=False) as box:
        yield box


@pytest.fixture(scope="module")
def people(box):
    return People(box.access)


@pytest.fixture(scope="module")
def table(box):
    return ways(box.app)


async def stub(scope, receive, send):
    await Response(status_code=204)(scope, receive, send)


async def hot_stub(request):
    return Reply(status=204, body=b"")


@pytest.fixture(scope="module")
def ask(box):
    """Ask the shell as wired, with handlers that only say that they were reached."""
    wired = shell_of(box.app)
    hot = [HotRoute(one.template, one.path, hot_stub, one.action) for one in wired["hot"]]
    shell = Shell(stub, **(wired | {"hot": hot}))

    def status(way, headers):
        sent = []

        async def send(message):
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        raw = [(b"host", b"127.0.0.1:8642")]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": way.method,
            "path": way.path,
            "query_string": b"",
            "headers": raw,
            "scheme": "http",
            "client": ("127.0.0.1", 1),
        }
        asyncio.run(shell(scope, receive, send))
        return sent[0]["status"]

    return status


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_every_route_is_open_or_names_exactly_one_action(table):
    assert len(table) > 40
    assert [way for way in table if way.open == (way.action is not None)] == []


def test_the_open_set_holds_no_route_that_does_not_exist(table):
    pages_to_come = {"/login", "/setup"}
    assert OPEN - {way.template for way in table} <= pages_to_come


def test_nobody_reaches_anything_but_what_is_open(box, table):
    for way in table:
        answer = box.client.request(way.method, way.path)
        assert (answer.status_code == 401) == (not way.open), way
        if not way.open:
            assert answer.headers["www-authenticate"] == 'Bearer realm="bedside"'


def test_every_role_reaches_what_its_table_says_and_nothing_else(ask, people, table):
    for role in Role:
        for way in table:
            allowed = way.open or way.action in ALLOWED[role]
            assert ask(way, people.cookie(role)) == (204 if allowed else 403), (role, way)


def test_a_token_without_the_scope_is_refused_and_one_with_it_is_not(ask, people, table):
    for way in table:
        if way.open:
            continue
        if way.action in PERSONS_ONLY:
            assert ask(way, bearer(people.every)) == 403, way
            continue
        assert ask(way, bearer(people.all_but[way.action])) == 403, way
        assert ask(way, bearer(people.every)) == 204, way


def test_a_refusal_happens_before_the_framework_looks_at_the_request(box, people, table):
    """The whole application, not the shell alone: a forbidden request never runs its route."""
    for way in table:
        if way.open or way.action in ALLOWED[Role.VENDOR]:
            continue
        headers = people.cookie(Role.VENDOR) | {"Content-Type": "application/json"}
        answer = box.client.request(way.method, way.path, content=b"{", headers=headers)
        assert answer.status_code == 403, way
        assert "forbidden" in answer.text, way


def test_a_route_that_names_no_action_or_two_stays_shut():
    planted = HttpBox(known_peer=False)

    @planted.app.get("/api/v1/planted")
    def without():
        return "reached"

    @planted.app.get("/api/v1/twice", dependencies=[needs(Action.MONITOR), needs(Action.VIEW_OWN)])
    def twice():
        return "reached"

    with planted as box:
        token = box.access.create_token("all", set(Action) - PERSONS_ONLY, CONSOLE)[1]
        for path in ("/api/v1/planted", "/api/v1/twice"):
            answer = box.client.get(path, headers=bearer(token))
            assert answer.status_code == 403
            assert "names no action" in answer.json()["detail"]
        assert [w for w in ways(box.app) if w.open == (w.action is not None)] != []


def test_the_framework_checks_a_second_time():
    """A door that was read wrongly is not enough: the route's own guard refuses as well."""
    box = HttpBox(known_peer=False)
    kwargs = shell_of(box.app)
    box.app.user_middleware.clear()
    everything = Doors(lambda: [])
    everything.find = lambda scope: None  # a table that knows no door
    shell = Shell(box.app.build_middleware_stack(), **(kwargs | {"doors": everything}))
    token = box.access.create_token("m", [Action.MONITOR], CONSOLE)[1]
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/jobs",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "app": box.app,
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    asyncio.run(shell(scope, receive, send))
    assert sent[0]["status"] == 403
