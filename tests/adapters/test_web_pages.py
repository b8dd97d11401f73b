"""Pages over the real application: who sees what, words, forms, files."""

import re

import pytest

from bedside_core.access import Role
from bedside_core.findings import Decision
from bedside_edge.ports import JobState, Priority
from bedside_edge.ports.worklist import Answer
from bedside_edge.services.access import CONSOLE
from bedside_edge.web.site import assets
from support.http_box import HERE, HttpBox

PASSWORD = "seventeen quiet herons"  # noqa: S105  of accounts in memory
ANSWER = Answer(
    decision=Decision.UNDETERMINED,
    probability=0.5,
    threshold=0.5,
    low=0.4,
    high=0.6,
    finding="Opacity",
    model="sample 1.0.0",
)
PAGE = {"Accept": "text/html"}


@pytest.fixture
def box():
    with HttpBox(known_peer=False) as box:
        yield box


def account(box, login, *roles, name="Wang^Xiaodong=王^晓东"):
    link = box.access.add_account(login, name, roles, CONSOLE)
    box.access.set_password_by_link(link.secret, PASSWORD)


def post(box, path, fields, **headers):
    body = "&".join(f"{name}={value}" for name, value in fields.items())
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": HERE}
    return box.client.post(path, content=body.encode(), headers=kind | headers)


def log_in(box, login="wang", roles=(Role.RADIOLOGIST,)):
    account(box, login, *roles)
    answer = post(box, "/login", {"login": login, "password": PASSWORD, "next": "/models"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/models")
    return answer.headers["set-cookie"].partition(";")[0]


def get(box, path, cookie="", **headers):
    sent = PAGE | ({"Cookie": cookie} if cookie else {}) | headers
    return box.client.get(path, headers=sent)


def csrf_on(page):
    return re.search(r'data-csrf="([^"]*)"', page.text)[1]


def test_who_is_not_logged_in_is_led_to_the_log_in_page_and_back(box):
    answer = get(box, "/studies/abc?image=1")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=/studies/abc%3Fimage%3D1"


def test_the_log_in_page_sends_nobody_to_another_site(box):
    for wanted in ("//evil.example/", "https://evil.example/", "/\\evil.example"):
        page = get(box, "/login?next=" + wanted)
        assert 'name="next" value="/"' in page.text


def test_a_wrong_password_says_so_without_telling_who_exists(box):
    account(box, "wang", Role.RADIOLOGIST)
    texts = {
        re.sub(r"\s+", " ", post(box, "/login", {"login": name, "password": "x" * 12}).text)
        for name in ("wang", "nobody")
    }
    assert len(texts) == 1
    assert "Login name or password is wrong." in texts.pop()


def test_log_out_ends_the_session_and_needs_the_forms_token(box):
    cookie = log_in(box)
    token = csrf_on(get(box, "/models", cookie))
    assert post(box, "/logout", {"csrf": "x"}, Cookie=cookie).status_code == 403
    assert get(box, "/models", cookie).status_code == 200
    assert post(box, "/logout", {"csrf": token}, Cookie=cookie).status_code == 303
    assert get(box, "/models", cookie).status_code == 303


def test_a_fresh_box_is_set_up_with_its_link_once(box):
    secret = box.access.ensure_setup().secret
    assert "Set up this box" in get(box, f"/setup?link={secret}").text
    fields = {"link": secret, "login": "jana", "family": "Mueller", "given": "Jana"}
    differ = post(box, "/setup", fields | {"password": PASSWORD, "again": "other"})
    assert "The two new passwords differ." in differ.text
    weak = post(box, "/setup", fields | {"password": "password1234", "again": "password1234"})
    assert weak.status_code >= 400
    assert "Too easy to guess" in weak.text
    done = post(box, "/setup", fields | {"password": PASSWORD, "again": PASSWORD})
    assert (done.status_code, done.headers["location"]) == (303, "/login?done=password-set")
    assert [one.name for one in box.access.accounts()] == ["Mueller^Jana"]
    assert "does not count any more" in get(box, f"/setup?link={secret}").text


def test_ones_own_password_is_changed_on_ones_account_page(box):
    cookie = log_in(box)
    token = csrf_on(get(box, "/account", cookie))
    new = "eleven louder herons"
    fields = {"csrf": token, "old": "x" * 12, "password": new, "again": new}
    wrong = post(box, "/account/password", fields, Cookie=cookie)
    assert "The present password is wrong." in wrong.text
    done = post(box, "/account/password", fields | {"old": PASSWORD}, Cookie=cookie)
    assert done.status_code == 303
    fresh = done.headers["set-cookie"].partition(";")[0]
    assert fresh != cookie
    assert "The password is changed." in get(box, done.headers["location"], fresh).text
    assert get(box, "/account", cookie).status_code == 303


def test_the_worklist_shows_whose_study_it_is_where_it_stands_and_why(box):
    box.work_rows.add("s1", "Doe^Jane", answer=ANSWER)
    box.work_rows.add(
        "s2",
        "Muster^Ada",
        state=JobState.REFUSED,
        reason="wrong-modality",
        priority=Priority.STAT,
    )
    page = get(box, "/", log_in(box)).text
    for text in ("Doe, Jane", "ID-s1", "Undetermined", "0.50", "Not signed", "STAT"):
        assert text in page
    assert "Not a modality this model reads" in page
    assert page.index("Muster, Ada") < page.index("Doe, Jane")


def test_the_worklist_is_not_for_those_who_may_not_see_patients(box):
    box.work_rows.add("s1", "Doe^Jane")
    for role in (Role.VENDOR, Role.AUDITOR, Role.PRIVACY_OFFICER):
        cookie = log_in(box, role.value, (role,))
        for path in ("/", "/worklist", "/api/v1/worklist"):
            answer = get(box, path, cookie)
            assert answer.status_code == 403, (role, path)
            assert "Doe" not in answer.text
        assert (
            'href="/"' not in re.search(r"<nav.*?</nav>", get(box, "/models", cookie).text, re.S)[0]
        )


def test_the_worklist_is_searched_filtered_and_paged_without_scripts(box):
    for number in range(60):
        box.work_rows.add(f"s{number}", f"Doe^Jane{number}")
    cookie = log_in(box)
    page = get(box, "/?size=25&page=2", cookie).text
    assert "26 to 50 of 60 studies" in page
    assert 'rel="prev"' in page
    assert 'rel="next"' in page
    found = get(box, "/?q=jane7", cookie).text
    assert "1 to 1 of 1 study" in found
    assert "No study matches." in get(box, "/?q=nobody", cookie).text
    assert get(box, "/?show=signed", cookie).text.count("<tr id=") == 0


def test_the_worklist_for_programs_says_the_same(box):
    box.work_rows.add("s1", "Doe^Jane", answer=ANSWER)
    answer = get(box, "/api/v1/worklist?q=doe", log_in(box)).json()
    assert answer["total"] == 1
    (study,) = answer["studies"]
    assert study["patient_name"] == "Doe^Jane"
    assert study["answer"]["undetermined"] == [0.4, 0.6]
    assert study["review"] == "unsigned"


def test_names_that_look_like_markup_are_text(box):
    box.work_rows.add("s1", "<script>alert(1)</script>^\"'")
    page = get(box, "/?q=%22%3E%3Cscript%3E", log_in(box)).text
    assert "<script>" not in page
    page = get(box, "/", log_in(box, "second")).text
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_language_is_chosen_and_remembered(box):
    cookie = log_in(box)
    assert 'lang="en"' in get(box, "/models", cookie).text
    assert 'lang="zh-Hans"' in get(box, "/models", cookie, **{"Accept-Language": "zh-CN"}).text
    switched = get(box, "/language/zh?next=/models", cookie)
    assert (switched.status_code, switched.headers["location"]) == (303, "/models")
    both = f"{cookie}; {switched.headers['set-cookie'].partition(';')[0]}"
    page = get(box, "/models", both, **{"Accept-Language": "en"}).text
    assert "工作列表" in page
    assert get(box, "/language/zh?next=//evil.example", cookie).headers["location"] == "/"
    assert get(box, "/language/xx", cookie).status_code == 404


def test_an_error_is_a_page_with_words_and_its_code(box):
    cookie = log_in(box)
    page = get(box, "/studies/none", cookie)
    assert page.status_code == 404
    assert "There is nothing at this address" in page.text
    assert "<code>not-found</code>" in page.text
    part = get(box, "/studies/none", cookie, **{"HX-Request": "true"})
    assert "<html" not in part.text
    assert "There is nothing at this address" in part.text


def test_errors_outside_of_pages_are_pages_too_for_a_person_and_problems_for_a_program(box):
    cookie = log_in(box, "vendor", (Role.VENDOR,))
    refused = get(box, "/", cookie)
    assert (refused.status_code, "may not do this" in refused.text) == (403, True)
    assert 'class="brand" href="/models"' in refused.text
    assert "There is nothing at this address" in get(box, "/nowhere", cookie).text
    stale = post(box, "/account/password", {"csrf": "x"}, Cookie=cookie, **PAGE)
    assert "did not come from a page of this box" in stale.text
    program = box.client.get("/api/v1/jobs/none", headers={"Cookie": cookie, **PAGE})
    assert program.headers["content-type"] == "application/problem+json"


def test_one_begins_where_one_may(box):
    account(box, "auditor", Role.AUDITOR)
    sent = {"login": "auditor", "password": PASSWORD, "next": "/"}
    assert post(box, "/login", sent).headers["location"] == "/models"


def test_the_model_card_is_shown_and_nothing_in_it_is_markup(box):
    text = "# Card\n<script>alert(1)</script>\n\n[x](javascript:alert(1))\n\n![ROC](roc.png)\n"
    text += "\n| a | b |\n|--:|---|\n| 1 | 2 |\n"
    box.analysis.model.card = text.encode()
    page = get(box, "/models/sample/card", log_in(box)).text
    assert "<h1>Card</h1>" in page
    assert "&lt;script&gt;" in page
    assert 'href="javascript' not in page
    assert '<td class="number">1</td>' in page
    assert "style=" not in page


def test_no_page_has_an_inline_script_style_or_handler(box):
    box.work_rows.add("s1", "Doe^Jane", answer=ANSWER)
    cookie = log_in(box)
    for path in ("/", "/models", "/models/sample/card", "/account", "/login?x", "/nowhere-page"):
        text = get(box, path, cookie if path != "/login?x" else "").text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text)
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|hx-vals", text)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', text)


def test_files_of_the_pages_may_be_kept_and_pages_may_not(box):
    login = get(box, "/login")
    assert login.headers["cache-control"] == "no-store"
    address = re.search(r'href="(/static/bedside.css\?v=\w+)"', login.text)[1]
    found = get(box, address)
    assert found.headers.get_list("cache-control") == ["public, max-age=31536000, immutable"]
    assert found.headers["content-type"] == "text/css; charset=utf-8"
    stale = get(box, "/static/bedside.css?v=old")
    assert stale.headers.get_list("cache-control") == ["no-cache", "no-store"]


@pytest.mark.parametrize("name", ["../site.py", "..%2fsite.py", "none.css", "vendor/", ""])
def test_only_files_that_are_there_are_given_out(box, name):
    assert get(box, f"/static/{name}").status_code in (303, 404)


def test_vendored_files_come_with_version_and_licence():
    vendored = [name for name in assets() if name.startswith("vendor/")]
    assert sorted(vendored) == [
        "vendor/htmx-4.0.1.min.js",
        "vendor/uplot-1.6.32.min.css",
        "vendor/uplot-1.6.32.min.js",
    ]
    from support.repository import package_folder

    folder = package_folder("bedside_edge") / "web" / "static" / "vendor"
    for name in ("htmx-4.0.1", "uplot-1.6.32"):
        assert "ermission" in (folder / f"{name}.LICENSE").read_text()


def test_a_form_of_another_kind_or_size_is_refused(box):
    cookie = log_in(box)
    token = csrf_on(get(box, "/account", cookie))
    sent = {"Cookie": cookie, "Origin": HERE, "X-CSRF-Token": token}
    as_json = box.client.post(
        "/account/password", content=b"{}", headers=sent | {"Content-Type": "application/json"}
    )
    assert as_json.status_code == 415
    large = post(box, "/account/password", {"old": "x" * 70_000}, **sent)
    assert large.status_code == 413
