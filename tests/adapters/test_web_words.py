"""The pages' words: the same in both languages, all in the catalogues, none missing, none stale."""

import re
import string
from html.parser import HTMLParser

import pytest

from bedside_core.access import Action
from bedside_core.errors import RefusedError
from bedside_edge.api.errors import BY_CODE
from bedside_edge.web.language import DEFAULT, LANGUAGES, choose, words
from bedside_edge.web.people import date, shown
from bedside_sync.agent import Outcome, Step
from bedside_sync.secagg.machines import Box
from support.repository import package_folder

WEB = package_folder("bedside_edge") / "web"
TEMPLATES = sorted((WEB / "templates").rglob("*.html"))
JINJA = re.compile(r"{#.*?#}|{%.*?%}|{{.*?}}", re.DOTALL)
LETTERS = re.compile(r"[^\W\d_]")
READ_ALOUD = {"aria-label", "alt", "title", "placeholder"}
# text that is the same in every language
NEUTRAL = {"kbd"}


class Bare(HTMLParser):
    """Collects text that a person reads and that no catalogue holds."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.inside.append(tag)
        self.found += [v for name, v in attrs if name in READ_ALOUD and v and LETTERS.search(v)]

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        if LETTERS.search(data) and not NEUTRAL & set(self.inside):
            self.found.append(data.strip())


def bare_text(source: str) -> list[str]:
    parser = Bare()
    parser.feed(JINJA.sub("", source))
    return parser.found


def test_every_key_exists_in_both_languages():
    keys = {code: words(code).keys for code in LANGUAGES}
    first, *others = keys.values()
    assert len(first) > 200
    assert all(other == first for other in others)


def test_a_text_has_the_same_places_to_fill_in_every_language():
    def places(code, key):
        text = words(code)(key)
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    differing = [k for k in words("en").keys if places("en", k) != places("zh", k)]
    assert differing == []


def test_chinese_is_chinese():
    han = re.compile(r"[\u4e00-\u9fff]")
    # a name and what consists of places alone
    same = {"site.name", "viewer.real", "check.other", "system.check_other", "how.other"}
    same |= {"hold.other"}
    assert {key for key in words("zh").keys if not han.search(words("zh")(key))} <= same


def test_whatever_a_token_may_or_a_night_does_has_words():
    """Such keys are put together in the templates: a missing one is a page that does not open."""
    wanted = {f"action.{one.value}" for one in Action}
    wanted |= {f"nights.is_{one.value}" for one in Box if one is not Box.IDLE}
    wanted |= {f"nights.step_{one.value}" for one in Step}
    wanted |= {f"nights.was_{one.value}" for one in Outcome}
    assert wanted <= words(DEFAULT).keys


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_bare_text(path):
    assert bare_text(path.read_text(encoding="utf-8")) == []


def test_bare_text_would_be_seen():
    assert bare_text('<p>{{ t("a.b") }} Studies</p>') == ["Studies"]
    assert bare_text('<p aria-label="Studies">{% if x %}1{% endif %}</p>') == ["Studies"]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_key_a_template_names_is_in_the_catalogue(path):
    known = words("en").keys
    source = path.read_text(encoding="utf-8")
    named = set(re.findall(r'\bt\(\s*"([^"]+)"\s*[,)]', source))
    counted = set(re.findall(r'\bt\.count\(\s*"([^"]+)"', source))
    begun = set(re.findall(r'\bt(?:\.either)?\(\s*"([^"]+)"\s*~', source))
    assert named - known == set()
    assert {f"{key}.one" for key in counted} | {f"{key}.other" for key in counted} <= known
    assert {b for b in begun if not any(key.startswith(b) for key in known)} == set()


def test_no_key_is_left_that_no_page_uses():
    sources = [p for p in WEB.rglob("*") if p.suffix in {".html", ".py", ".js"}]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.is_file())
    # keys that are put together: their beginning stands in a template
    begun = tuple(re.findall(r'"([a-z_]+[._][a-z_.]*)"\s*~', text))
    unused = {
        key
        for key in words("en").keys
        if f'"{key}"' not in text
        and f'"{key.rpartition(".")[0]}"' not in text
        and not key.startswith(begun)
    }
    assert unused == set()


def test_every_refusal_of_an_image_has_words_of_its_own():
    images = {c for c, kind in BY_CODE.items() if issubclass(kind, RefusedError)}
    told = {key.removeprefix("reason.") for key in words("en").keys if key.startswith("reason.")}
    assert {"wrong-modality", "outlier-image", "undecodable-transfer-syntax"} <= told & images
    alarms = {"instance-in-two-studies", "hold-overdue"}
    assert told - set(BY_CODE) <= {"other", "interrupted", "given-up"} | alarms


def test_every_problem_with_words_is_a_code_that_exists():
    codes = {key.split(".")[1] for key in words("en").keys if key.startswith("problem.")}
    assert codes <= set(BY_CODE)


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", DEFAULT),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "de-DE, en;q=0.7, zh;q=0.8", "zh"),
        ("", "fr", DEFAULT),
        ("zh", "en", "zh"),
        ("xx", "zh", "zh"),
        ("", "zh;q=" + "." * 9, DEFAULT),
        ("", "zh;q=1.2.3, en", "en"),
        ("", ",;=\x00" * 50, DEFAULT),
    ],
)
def test_the_cookie_goes_before_what_the_browser_asks_for(cookie, accepted, language):
    assert choose(cookie, accepted) == language


@pytest.mark.parametrize(
    ("name", "english", "chinese"),
    [
        ("Doe^Jane", "Doe, Jane", "Doe, Jane"),
        ("Wang^Xiaodong=王^小东", "Wang, Xiaodong (王小东)", "王小东 (Wang, Xiaodong)"),
        ("=王^小东", "王小东", "王小东"),
        ("王小东", "王小东", "王小东"),
        ("Müller^Jana^^Dr.", "Müller, Dr. Jana", "Müller, Dr. Jana"),
        (
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            "Yamada, Tarou (山田太郎)",
            "山田太郎 (Yamada, Tarou)",
        ),
        ("", "", ""),
        ("^^^^", "", ""),
    ],
)
def test_names_are_written_as_the_readers_language_writes_them(name, english, chinese):
    assert shown(name, "en") == english
    assert shown(name, "zh") == chinese


def test_dates_are_iso_and_what_is_no_date_stays():
    assert date("20240102") == "2024-01-02"
    assert date("2024") == "2024"
