"""Pages and code say the same: settings, error codes, commands, routes, make targets, links."""

import re
from urllib.parse import unquote

import pytest
from pydantic import BaseModel, Field

from bedside_core.errors import BedsideError, RefusedError
from bedside_edge.config import Config, parse_config
from support import generated_docs as docs
from support.repository import ROOT, tracked_files

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", docs.PAGES)
def test_the_generated_part_of_a_page_is_in_step(name):
    page = docs.DOCS / name
    assert page.exists(), f"docs/{name} is missing; run `make docs`"
    in_step = page.read_text(encoding="utf-8") == docs.PAGES[name]()
    assert in_step, f"docs/{name} differs from the code; run `make docs` and read the difference"


def test_every_error_code_is_its_own_and_well_formed():
    kinds = list(docs.error_classes())
    codes = [kind.code for kind in kinds]
    assert len(kinds) > 30
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", code) for code in codes)


def test_every_error_says_what_it_means_and_what_a_client_sees():
    for kind in docs.error_classes():
        assert docs.first_sentence(kind)
        assert 400 <= kind.status < 600
        assert kind is BedsideError or kind.exit_code in {3, 4, 5}


def test_every_setting_is_described():
    settings = list(docs.setting_rows(Config))
    assert len(settings) > 10
    assert [name for name, field in settings if not field.description] == []


def test_every_example_of_settings_is_accepted():
    page = (docs.DOCS / "config.md").read_text(encoding="utf-8")
    examples = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        assert parse_config(example) != Config()


def test_an_undocumented_setting_is_seen():
    class Section(BaseModel):
        planted_s: float = Field(1.5, gt=0, description="Planted")

    class Planted(BaseModel):
        section: Section = Section()

    table = docs.settings_table(Planted)
    assert "| `section.planted_s` | float | > 0 | `1.5` | Planted |" in table
    assert docs.within_markers(docs.DOCS / "config.md", table) != docs.PAGES["config.md"]()


def test_an_undocumented_error_code_is_seen():
    page = (docs.DOCS / "errors.md").read_text(encoding="utf-8")

    class PlantedError(RefusedError):
        """Planted."""

        code = "planted"

    PlantedError.__module__ = "bedside_core.errors"
    try:
        assert "`planted`" in docs.errors_table()
        assert docs.within_markers(docs.DOCS / "errors.md", docs.errors_table()) != page
    finally:
        PlantedError.__module__ = __name__


def test_no_help_shows_its_layout_marks():
    assert "\\b" not in docs.commands_text()


def markdown_files():
    listed = tracked_files() or [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [path for path in listed if path.suffix == ".md"]


def test_every_link_between_pages_leads_somewhere():
    broken = []
    for page in markdown_files():
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            path = unquote(target.split("#")[0])
            if path and "://" not in path and not (page.parent / path).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_every_make_target_that_a_page_names_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = {
        (page.name, name)
        for page in markdown_files()
        for name in re.findall(r"`make ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    }
    assert named, "no page names a make target any more"
    assert {(page, name) for page, name in named if name not in targets} == set()


def test_every_debian_package_that_tests_use_is_named():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (packages,) = re.findall(r"^DEBIAN_PACKAGES := (.+)$", makefile, re.MULTILINE)
    for page in (ROOT / "README.md", docs.DOCS / "development.md"):
        words = set(re.findall(r"[a-z0-9-]+", page.read_text(encoding="utf-8")))
        assert set(packages.split()) <= words, f"{page.name} does not name them all"


def test_every_command_that_a_page_names_exists():
    known = {name for name in docs.commands_text().splitlines() if name.startswith("## ")}
    scripts = "|".join(docs.declared_commands())
    named = {
        (page.name, call)
        for page in markdown_files()
        for call in re.findall(rf"`((?:{scripts}) [a-z][a-z-]+)", page.read_text(encoding="utf-8"))
    }
    assert {(page, call) for page, call in named if f"## {call}" not in known} == set()
