"""Administration pages over the real application: what they show, what they change, for whom."""

import html
import re

import pytest

from bedside_core.access import ALLOWED, Action, Role
from bedside_core.errors import GoldenMismatchError
from bedside_core.review import ReviewKind
from bedside_edge.ports import Alarm, JobState, Priority
from bedside_edge.services.access import CONSOLE
from bedside_edge.services.models import ModelId
from bedside_edge.services.rollout import Comparison
from bedside_edge.web.agreement import by_week
from bedside_edge.web.site import NAVIGATION
from support.http_box import HERE, HttpBox
from support.outputs import MemoryArchive, publishing_box
from support.ram import ram_folder
from support.synthetic import data_set, part10

PASSWORD = "seventeen quiet herons"  # noqa: S105  of accounts in memory
ADMIN_PAGES = ("/queues", "/routes", "/accounts", "/tokens", "/agreement", "/system")


@pytest.fixture(scope="module")
def archive():
    return MemoryArchive()


@pytest.fixture(scope="module")
def outgoing(archive):
    with ram_folder() as folder, publishing_box(folder / "state", archive) as box:
        yield box


@pytest.fixture(scope="module")
def box(outgoing):
    """One box for tests that leave their own things behind and disturb nobody else's."""
    with HttpBox(outgoing=outgoing, known_peer=False) as box:
        yield box


class Person:
    """Somebody in a browser without scripts."""

    def __init__(self, box, login, *roles):
        self.box = box
        link = box.access.add_account(login, f"{login.capitalize()}^Test", roles, CONSOLE)
        self.account = link.account
        box.access.set_password_by_link(link.secret, PASSWORD)
        session = box.access.log_in(login, PASSWORD, "127.0.0.1")
        self.cookie, self.csrf = f"bedside={session.secret}", session.csrf

    def get(self, path, **headers):
        sent = {"Accept": "text/html", "Cookie": self.cookie} | headers
        return self.box.client.get(path, headers=sent)

    def post(self, path, csrf=None, **fields):
        fields = {name.replace("__", "."): value for name, value in fields.items()}
        fields["csrf"] = self.csrf if csrf is None else csrf
        body = "&".join(f"{name}={value}" for name, value in fields.items())
        kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": HERE}
        sent = {"Accept": "text/html", "Cookie": self.cookie} | kind
        return self.box.client.post(path, content=body.encode(), headers=sent)

    def did(self, path, **fields):
        """Post, and return the page one is led to."""
        answer = self.post(path, **fields)
        assert answer.status_code == 303, answer.text
        return self.get(answer.headers["location"]).text


@pytest.fixture(scope="module")
def admin(box):
    return Person(box, "mueller", Role.ADMINISTRATOR)


@pytest.fixture(scope="module")
def auditor(box):
    return Person(box, "auditor", Role.AUDITOR)


# --- who sees what ---------------------------------------------------------------------------


def test_the_menu_shows_what_one_may_see_and_nothing_else(box, admin, auditor):
    def menu(person):
        nav = re.search(r'<nav aria-label="Main">.*?</nav>', person.get("/models").text, re.S)[0]
        return re.findall(r'href="([^"]+)"', nav)

    people = {
        Role.ADMINISTRATOR: admin,
        Role.AUDITOR: auditor,
        Role.PRIVACY_OFFICER: Person(box, "officer", Role.PRIVACY_OFFICER),
        Role.VENDOR: Person(box, "vendor", Role.VENDOR),
        Role.RADIOLOGIST: Person(box, "reader", Role.RADIOLOGIST),
    }
    menus = {role: menu(person) for role, person in people.items()}
    assert menus[Role.VENDOR] == ["/models"]
    assert menus[Role.RADIOLOGIST] == ["/", "/models"]
    assert "/accounts" in menus[Role.ADMINISTRATOR]
    assert "/patients" not in menus[Role.ADMINISTRATOR]
    for role, person in people.items():
        for item in NAVIGATION:
            shown = item.path in menus[role]
            assert shown == (item.action in ALLOWED[role]), (role, item.path)
            answer = person.get(item.path)
            # without its service a page says that it is not ready, and still only to its own
            assert answer.status_code in ((200, 503) if shown else (403,)), (role, item.path)


def test_no_administration_page_has_an_inline_script_style_or_handler(admin):
    pages = (*ADMIN_PAGES, "/models/sample", "/models/sample/change?what=threshold")
    for path in (*pages, f"/accounts/{admin.account.account_id}"):
        text = admin.get(path).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|hx-vals", text), path
        assert not re.search(r'(?:src|href)="(?:https?:)?//', text), path


def test_every_form_of_a_page_carries_the_token_and_fails_without(box, admin):
    job = box.queue.add("csrf", state=JobState.DEAD, reason="timed-out")
    for path in (*ADMIN_PAGES, "/models/sample", f"/queues/jobs/{job.job_id}"):
        text = admin.get(path).text
        for form in re.findall(r'<form method="post"[^>]*>.*?</form>', text, re.S):
            assert f'name="csrf" value="{admin.csrf}"' in form, (path, form)
    refused = admin.post("/queues/jobs/csrf/retry", csrf="x")
    assert refused.status_code == 403
    assert box.queue.job("csrf").state is JobState.DEAD
    box.queue.by_id.clear()


# --- queues ----------------------------------------------------------------------------------


def test_a_dead_letter_shows_why_and_what_to_do_and_is_tried_again(box, admin):
    box.queue.add("dead", study_id="study-dead", state=JobState.DEAD, reason="engine-failed")
    box.queue.add("busy", study_id="study-busy", state=JobState.READY, priority=Priority.STAT)
    page = admin.get("/queues").text
    assert "The inference engine failed" in page
    assert "roll the model back" in page
    assert 'href="/studies/study-dead"' in page
    assert "study-busy" not in page  # the failed ones come first
    assert "study-busy" in admin.get("/queues?show=open").text
    assert "Put back" in admin.did("/queues/jobs/dead/retry")
    assert box.queue.job("dead").state is JobState.READY
    faster = admin.post("/queues/jobs/dead/retry")
    assert faster.status_code == 409
    assert "Somebody or the box itself was faster" in faster.text
    box.queue.by_id.clear()


def test_all_dead_letters_are_tried_again_at_once(box, admin):
    for number in range(3):
        box.queue.add(f"d{number}", state=JobState.DEAD, reason="interrupted")
    assert "Try all 3 again" in admin.get("/queues").text
    admin.did("/queues/retry")
    assert {job.state for job in box.queue.by_id.values()} == {JobState.READY}
    box.queue.by_id.clear()


def test_a_job_is_steered_on_its_page(box, admin):
    box.queue.add("j1", study_id="s1")
    page = admin.get("/queues/jobs/j1").text
    assert "Analyse now" in page
    assert "The priority was changed" in admin.did("/queues/jobs/j1/priority", priority="stat")
    assert box.queue.job("j1").priority is Priority.STAT
    assert admin.post("/queues/jobs/j1/priority", priority="at once").status_code == 422
    admin.did("/queues/jobs/j1/complete")
    assert box.ingest.completed == ["s1"]
    assert "Cancelled" in admin.did("/queues/jobs/j1/cancel")
    assert box.queue.job("j1").state is JobState.CANCELLED
    assert admin.get("/queues/jobs/none").status_code == 404
    box.queue.by_id.clear()


def test_the_fragment_asks_again_without_keeping_the_session_alive(admin):
    part = admin.get("/queues/part?show=ended", **{"HX-Request": "true"}).text
    assert "<html" not in part
    assert 'hx-get="/queues/part?show=ended"' in part
    assert "Bedside-Background" in part


def test_the_age_of_the_oldest_and_alarms_are_shown(box, admin):
    box.queue.add("old", state=JobState.READY, created=1_700_000_000_000 - 3 * 3_600_000)
    box.queue.add("new", state=JobState.READY)
    box.alarms.append(Alarm(code="conflicting-instance", study_id="s9", at=1))
    page = admin.get("/queues").text
    assert re.search(r"oldest\s+3 h", page)
    assert "Find out which sender gave the second" in page
    assert 'href="/studies/s9"' in page
    box.alarms.clear()
    box.queue.by_id.clear()


def test_dead_deliveries_show_the_reason_and_are_sent_again_all_at_once(
    box, admin, outgoing, archive
):
    result = outgoing.analysed(study=7)
    outgoing.publisher.step()
    archive.refuses |= {one.sop_instance_uid for one in outgoing.outputs(result)}
    outgoing.run_for(4 * 3_600_000)  # one waits behind the other
    page = admin.get("/queues").text
    assert "Archive refused the object" in page
    assert "look into its log" in page
    assert "Send all 2 again" in page
    archive.refuses.clear()
    assert "sends again now" in admin.did("/queues/destinations/pacs/retry")
    outgoing.settle()
    assert len(archive.arrived) == 2
    assert "Send all" not in admin.get("/queues").text


# --- routes ----------------------------------------------------------------------------------


def test_a_dry_run_says_which_model_would_read_and_why_not_the_others(admin):
    page = admin.get("/routes?modality=DX&view=PA").text
    assert "sample would read it." in page
    page = admin.get("/routes?modality=CT").text
    assert "No model would read it." in page
    assert "the rule wants CR, DX" in html.unescape(page)
    assert "no longer on the box" in admin.get("/routes?study=gone").text
    fragment = admin.get("/routes?modality=DX", **{"HX-Request": "true"}).text
    assert "<html" not in fragment


def test_the_beginning_of_a_file_is_tried_and_nothing_of_it_is_kept(box, admin):
    data = part10(data_set(study=3, Modality="DX", BodyPartExamined="CHEST", ViewPosition="PA"))
    kind = {"Content-Type": "application/dicom", "X-CSRF-Token": admin.csrf, "Origin": HERE}
    sent = {"Cookie": admin.cookie} | kind
    tried = box.client.post("/routes/file?cut=false", content=data, headers=sent)
    assert "sample would read it." in tried.text
    assert (box.ingest.begun, box.ingest.arrivals) == (0, [])
    for name in ("Doe", str(data_set(study=3).PatientID)):
        assert name not in tried.text
    odd = box.client.post("/routes/file", content=b"no dicom", headers=sent)
    assert "This is no DICOM file" in odd.text
    large = box.client.post("/routes/file", content=bytes(5 << 20), headers=sent)
    assert large.status_code == 413
    assert box.client.post("/routes/file", content=b"", headers=sent | {"Content-Type": "x/y"})


def test_a_destination_is_asked_and_says_what_it_said(admin, archive):
    assert "here" in admin.post("/routes/destinations/pacs/test").text
    archive.up = False
    page = admin.post("/routes/destinations/pacs/test")
    assert (page.status_code, "gone" in page.text) == (200, True)
    archive.up = True
    assert admin.post("/routes/destinations/other/test").status_code == 404


# --- models ----------------------------------------------------------------------------------


@pytest.fixture
def versions(box):
    """A second version of the model, put away again with everything that was done to it."""
    box.known.append(ModelId("sample", "1.1.0"))
    yield
    now = box.routing.rollout.deployment("sample")
    if now.active != "1.0.0":
        box.routing.rollout.activate("sample", "1.0.0", None, "system:test")
    box.known.pop()


def revision(text):
    return re.search(r'name="revision" value="(\d+)"', text)[1]


def test_a_change_says_what_will_happen_and_happens_when_confirmed(box, admin, versions):
    ask = admin.get("/models/sample/change?what=activate&version=1.1.0").text
    assert "From the next study on sample 1.1.0 reads. 1.0.0 stays ready" in ask
    sent = {"what": "activate", "version": "1.1.0", "revision": revision(ask)}
    assert "this version reads from now on" in admin.did("/models/sample/change", **sent)
    assert box.routing.rollout.deployment("sample").active == "1.1.0"
    again = admin.post("/models/sample/change", **sent)
    assert again.status_code == 412
    assert "Somebody else changed the model while this page was open" in again.text
    ask = admin.get("/models/sample/change?what=rollback").text
    assert "1.0.0 reads again instead of 1.1.0" in ask
    page = admin.did("/models/sample/change", what="rollback", revision=revision(ask))
    assert "Rolled back." in page
    assert "Mueller, Test" in page  # in the history, by name
    assert box.routing.rollout.deployment("sample").active == "1.0.0"


def test_shadow_canary_and_threshold_are_set_and_ended(box, admin, versions):
    def change(what, **fields):
        now = str(box.routing.rollout.deployment("sample").revision)
        return admin.post("/models/sample/change", what=what, revision=now, **fields)

    held = lambda: box.routing.rollout.deployment("sample")  # noqa: E731
    assert change("shadow", version="1.1.0").status_code == 303
    assert change("canary", version="1.1.0", percent="7").status_code == 303
    assert (held().shadow, held().canary, held().percent) == ("1.1.0", "1.1.0", 7)
    assert "Share" in admin.get("/models/sample/change?what=canary&version=1.1.0").text
    assert change("canary", version="1.1.0", percent="x").status_code == 422
    assert change("shadow-off").status_code == 303
    assert change("canary-off").status_code == 303
    assert (held().shadow, held().canary) == ("", "")
    assert change("threshold", threshold="0,5", low="0.4", high="0.6").status_code == 303
    assert held().site.rule.threshold == 0.5
    wrong = change("threshold", threshold="0.9", low="0.4", high="0.6")
    assert wrong.status_code == 400
    assert 'value="0.9"' in wrong.text  # what was typed is kept
    assert change("threshold-off").status_code == 303
    assert held().site is None
    assert change("nonsense").status_code == 404


def test_a_package_that_fails_its_self_test_says_so_and_changes_nothing(box, admin, versions):
    box.fail_open = GoldenMismatchError("case 3 is off by 0.4")
    sent = {"what": "activate", "version": "1.1.0", "revision": "0"}
    now = box.routing.rollout.deployment("sample")
    answer = admin.post("/models/sample/change", **sent | {"revision": str(now.revision)})
    box.fail_open = None
    assert answer.status_code >= 400
    assert "case 3 is off by 0.4" in answer.text
    assert box.routing.rollout.deployment("sample") == now


def test_packages_are_loaded_and_unloaded(box, admin):
    assert "second" in admin.get("/models").text
    assert "not loaded" in admin.get("/models/second").text
    admin.did("/models/second/change", what="load", version="1.0.0")
    assert box.models.holds("second", "1.0.0")
    admin.did("/models/second/change", what="unload", version="1.0.0")
    assert not box.models.holds("second", "1.0.0")
    stays = admin.post("/models/sample/change", what="unload", version="1.0.0")
    assert stays.status_code == 409
    assert admin.get("/models/none").status_code == 404


def test_shadow_agreement_is_a_table_and_a_chart(box, admin, auditor):
    told = [("present", "present", 0.01), ("present", "absent", 0.4), ("absent", "failed", 0.0)]
    for decision, beside, difference in told:
        box.deployments.compared(
            Comparison(
                name="sample",
                version="1.0.0",
                shadow="1.1.0",
                decision=decision,
                shadow_decision=beside,
                difference=difference,
            )
        )
    page = admin.get("/models/sample").text
    assert "3 studies, 1 with the same decision (33.3 %)" in page
    assert "0.4000" in page
    assert "&#34;kind&#34;: &#34;bars&#34;" in page or '"kind": "bars"' in page
    seen = auditor.get("/models/sample").text
    assert "3 studies" in seen
    assert "/change?" not in seen
    assert auditor.get("/models/sample/change?what=threshold").status_code == 403


# --- accounts --------------------------------------------------------------------------------


def test_an_account_is_added_with_a_link_that_is_shown_once_and_works(box, admin):
    sent = {"login": "li", "family": "Li", "given": "Na", "role__radiologist": "on"}
    page = admin.post("/accounts", **sent)
    link = re.search(r'value="(http://[^"]+/setup\?link=(\w+))"', page.text)
    assert link[1].startswith(HERE)
    assert "no password yet" in admin.get("/accounts").text
    assert link[2] not in admin.get("/accounts").text
    assert box.access.set_password_by_link(link[2], PASSWORD).name == "Li^Na"
    taken = admin.post("/accounts", **sent)
    assert (taken.status_code, 'value="Li"' in taken.text) == (409, True)
    assert admin.post("/accounts", login="nobody", family="No").status_code == 422  # without a role


def test_roles_name_and_standing_of_an_account_are_changed(box, admin):
    person = Person(box, "okafor", Role.RADIOLOGIST)
    path = f"/accounts/{person.account.account_id}"
    assert "The roles were changed" in admin.did(f"{path}/roles", role__auditor="on")
    assert box.access.account(person.account.account_id).roles == {Role.AUDITOR}
    admin.did(f"{path}/name", name="Okafor%5EAda")
    assert box.access.account(person.account.account_id).name == "Okafor^Ada"
    assert admin.post(f"{path}/roles").status_code == 422
    assert "The account is disabled" in admin.did(f"{path}/disable")
    assert person.get("/account").status_code == 303
    assert "The account is enabled" in admin.did(f"{path}/enable")
    assert "shown this once" in admin.post(f"{path}/link").text


def test_the_last_administrator_stays(admin):
    path = f"/accounts/{admin.account.account_id}"
    refused = admin.post(f"{path}/disable")
    assert refused.status_code == 409
    assert "last administrator" in refused.text
    assert admin.get("/accounts").status_code == 200


def test_a_log_in_of_somebody_else_is_ended(box, admin):
    person = Person(box, "brown", Role.RADIOLOGIST)
    (session,) = box.access.sessions(person.account.account_id)
    path = f"/accounts/{person.account.account_id}/sessions/{session.session_id}/end"
    assert "The log-in was ended" in admin.did(path)
    assert person.get("/account").status_code == 303
    other = f"/accounts/{admin.account.account_id}/sessions/{session.session_id}/end"
    assert admin.post(other).status_code == 404


def test_a_token_is_made_with_its_scopes_shown_once_and_revoked(box, admin):
    page = admin.post("/tokens", label="pacs", days="30", action__store="on").text
    secret = re.search(r'value="(bst_\w+)"', page)[1]
    assert box.access.token(secret).actions == {Action.STORE}
    listed = admin.get("/tokens").text
    assert "pacs" in listed
    assert secret not in listed
    (token,) = [one for one in box.access.tokens() if one.label == "pacs"]
    assert token.expires
    assert "revoked" in admin.did(f"/tokens/{token.token_id}/revoke")
    assert box.access.token(secret) is None


def test_a_token_asks_for_too_much_or_nothing(admin):
    assert 'name="action.review"' not in admin.get("/tokens").text
    for fields in ({"label": "x"}, {"label": "", "action__store": "on"}):
        assert admin.post("/tokens", **fields).status_code == 422
    signs = admin.post("/tokens", label="x", action__review="on")
    assert "none may sign off" in signs.text
    more = admin.post("/tokens", label="x", action__release="on")
    assert (more.status_code, "release" in more.text) == (422, True)
    for days in ("0", "1.5", "-1", "soon"):
        assert admin.post("/tokens", label="x", days=days, action__store="on").status_code == 422


# --- agreement and system --------------------------------------------------------------------


def test_agreement_is_shown_by_reader_and_by_version(box, admin, auditor, outgoing):
    reader = Person(box, "wang", Role.RADIOLOGIST)
    actor = box.access.session(reader.cookie.partition("=")[2]).actor
    for number in (11, 12, 13):
        result = outgoing.analysed(study=number, probability=0.9 if number < 13 else 0.1)
        outgoing.reviews.sign(result, reader=actor, kind=ReviewKind.ACCEPT, expected=0)
    page = auditor.get("/agreement").text
    assert "Wang, Test" in page
    assert "1.00" in page
    assert "needs verdicts of at least two weeks" in page
    outgoing.clock.advance(8 * 86_400_000)
    outgoing.reviews.sign(
        outgoing.analysed(study=14), reader=actor, kind=ReviewKind.ACCEPT, expected=0
    )
    assert "data-chart" in auditor.get("/agreement").text
    weeks = by_week(outgoing.reviews.labels(after=0, limit=10))
    assert weeks["pairs"] == [3, 1]
    assert weeks["share"] == [1.0, 1.0]
    assert all(low < 1 for low in weeks["low"])
    assert weeks["x"][1] - weeks["x"][0] in (7 * 86_400, 14 * 86_400)
    assert reader.get("/agreement").status_code == 403


def test_the_system_page_shows_health_evidence_and_policy(box, auditor):
    page = auditor.get("/system").text
    assert "self-test passed" in page
    assert "50 %" in page
    assert box.log.origin in page
    assert box.governance.policies.stored.document.digest[:8] in page
