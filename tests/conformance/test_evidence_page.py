"""docs/evidence-log.md shows the bytes the code makes, and they verify as the page says."""

import re

import pytest

from bedside_core.evidence.entry import Kind, TimeSource, commits_to, is_about, parse_entry
from bedside_core.evidence.note import parse_verifier_key
from bedside_core.evidence.proof import verify_proof
from support.evidence_log import LOCAL_ID, ORIGIN, PAYLOAD, SALT, SUBJECT_KEY, example_blocks
from support.repository import ROOT

PAGE = (ROOT / "docs" / "evidence-log.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("caption", example_blocks())
def test_a_block_of_the_worked_example_is_what_the_code_makes(caption):
    assert example_blocks()[caption] in SHOWN


def test_the_page_shows_no_block_that_nobody_recomputes():
    assert len(SHOWN) == len(example_blocks())


def test_the_proof_file_on_the_page_verifies_with_the_key_on_the_page():
    blocks = dict(zip(example_blocks(), SHOWN, strict=True))
    key = parse_verifier_key(blocks["verifier key"])
    proven = verify_proof((blocks["proof file"] + "\n").encode(), ORIGIN, [key])
    entry = parse_entry(proven.entry)
    assert proven.entry.decode() == blocks["entries"].split("\n")[1]
    assert is_about(entry, SUBJECT_KEY, LOCAL_ID)
    assert commits_to(entry, SALT, PAYLOAD)


@pytest.mark.parametrize("word", [*Kind, *TimeSource])
def test_every_kind_and_time_source_is_on_the_page(word):
    assert f"`{word.value}`" in PAGE
