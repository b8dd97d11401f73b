"""The demonstration's report, its verdicts and its ways to fail, without a box."""

import copy
import io
import json
import re
import sys

import pytest
from PIL import Image
from rich.console import Console

from bedside_edge.demo.claims import judge
from bedside_edge.demo.plain import search_plain
from bedside_edge.demo.problem import DemoError
from bedside_edge.demo.report import render_report
from bedside_edge.demo.samples import deliveries
from bedside_edge.demo.screen import print_summary
from bedside_edge.demo.service import RunningBox
from bedside_edge.demo.story import as_document, digests
from support.dicom_files import bundled_path

NOTICE = "AI decision support only - not a diagnosis."
DIGEST = "sha256:" + "0123456789abcdef" * 4
HOSTILE = "<script>alert('x')</script>\" onload=\"alert(1)"


def picture(width=40, height=50):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (9, 9, 9)).save(out, "PNG")
    return out.getvalue()


def image(name, *, lossless=True, probability=0.4321, same_as=None):
    read = probability is not None
    return {
        "name": name,
        "about": "uncompressed",
        "lossless": lossless,
        "bytes": 7_200_056,
        "answer": "0x0000 Success",
        "status": "analysed" if read else "same_pixels",
        "probability": probability,
        "logit": -0.3 if read else None,
        "decision": "undetermined" if read else None,
        "reason": None,
        "same_as": same_as,
        "cells": [10, 10] if read else None,
        "checks": [],
        "operations": [],
    }


def entry(probability=0.4321):
    return {"logit": -0.3, "probability": probability, "cam": [[0.5, 1.0]]}


def chest():
    return {
        "key": "chest",
        "title": "Chest",
        "route": "C-STORE",
        "expects": "analysed",
        "status": "analysed",
        "reason": None,
        "value": {
            "probability": 0.4321,
            "decision": "undetermined",
            "threshold": 0.5,
            "undetermined": [0.3, 0.7],
            "image": "i1",
        },
        "finding": {
            "name": "opacity",
            "meaning": "Pneumonia",
            "scheme": "SCT",
            "code": "233604007",
        },
        "images": [
            image("a.dcm"),
            image("b.dcm"),
            image("c.dcm", lossless=False, probability=0.43),
            image("d.dcm", lossless=False, probability=None, same_as="c.dcm"),
        ],
        "document": {
            "images": [entry(), entry(), entry(0.43), {"same_as": "i3"}],
            "package": DIGEST,
            "engine": {"model_sha256": DIGEST},
            "pipeline": {"name": "cxr", "digest": DIGEST},
            "profile": {"name": "generic", "digest": DIGEST},
        },
        "result": "/api/v1/results/r1",
        "shown": "a.dcm",
        "pictures": {"unmarked": "chest.png", "overlay": "chest-overlay.png"},
        "send_s": 0.5,
        "result_s": 0.25,
    }


def refused():
    return {
        "key": "ct",
        "title": "CT slice",
        "route": "STOW-RS",
        "expects": "wrong-modality",
        "status": "not_processed",
        "reason": {"code": "wrong-modality", "detail": "modality CT"},
        "value": None,
        "images": [image("ct.dcm", probability=None)],
        "document": None,
        "result": "/api/v1/results/r2",
        "shown": "",
        "send_s": 0.1,
        "result_s": None,
    }


def repeated():
    return {
        "title": "Chest, again",
        "route": "STOW-RS",
        "answers": ["200 stored"] * 4,
        "outcomes": {"duplicate": 4},
        "send_s": 0.2,
        "jobs_unchanged": True,
        "result_unchanged": True,
    }


PLAIN = {"needles": 5, "in_sent": 9, "in_state": 0, "files": 7, "bytes": 1000}


def summary():
    return {
        "format": "bedside-demo/1",
        "notice": NOTICE,
        "made_at": "2026-11-24T12:20:00+00:00",
        "bedside": "0.1.0",
        "machine": "Linux",
        "model": {
            "name": "cxr-opacity",
            "version": "1.0.0",
            "release": 1,
            "intended_use": "Research.",
            "profile": "generic",
            "engine": {
                "name": "openvino",
                "version": "1",
                "device": "CPU",
                "precision": "f32",
                "threads": 1,
            },
        },
        "digests": [["Package", DIGEST]],
        "ready_s": 1.5,
        "took_s": 7.5,
        "studies": [chest(), refused()],
        "repeated": repeated(),
        "claims": [{"promise": "It reads", "held": True, "seen": "0.432"}],
        "held": True,
        "state": {"files": 7, "bytes": 1_000_000},
        "kept": False,
    }


PICTURES = {"chest.png": picture(), "chest-overlay.png": picture(40, 136)}


def text_of(page):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


def test_the_report_says_what_was_read_and_what_was_refused_and_why():
    words = text_of(render_report(summary(), PICTURES))
    assert NOTICE in words
    assert "0.432" in words
    assert "undetermined" in words
    assert "wrong-modality modality CT" in words
    assert "Read the image as if there were no model." in words
    assert "01234567 89abcdef" in words
    assert "removed with their keys" in words


def test_the_report_is_one_file_that_fetches_and_runs_nothing():
    page = render_report(summary(), PICTURES)
    assert page.count("data:image/png;base64,") == 2
    assert "<script" not in page
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert re.findall(r"https?://|url\(|@import", page) == []


@pytest.mark.parametrize(
    "plant",
    [
        lambda s: s["studies"][1].update(title=HOSTILE),
        lambda s: s["studies"][1]["reason"].update(detail=HOSTILE),
        lambda s: s["studies"][0].update(title=HOSTILE),
        lambda s: s["studies"][0]["images"][1].update(name=HOSTILE),
        lambda s: s["studies"][0]["images"][1].update(answer=HOSTILE),
        lambda s: s["studies"][0]["finding"].update(meaning=HOSTILE),
        lambda s: s["repeated"].update(outcomes={HOSTILE: 1}),
        lambda s: s["claims"][0].update(seen=HOSTILE),
        lambda s: s["model"].update(intended_use=HOSTILE),
        lambda s: s["digests"].append([HOSTILE, DIGEST]),
        lambda s: s.update(notice=HOSTILE),
    ],
)
def test_hostile_text_stays_text(plant):
    planted = summary()
    plant(planted)
    page = render_report(planted, PICTURES)
    assert "alert" in page
    assert "<script" not in page
    assert 'onload="' not in page


def test_a_saved_summary_gives_the_same_page():
    fresh = summary()
    saved = json.loads(json.dumps(as_document(fresh)))
    assert "document" not in saved["studies"][0]
    assert render_report(saved, PICTURES) == render_report(fresh, PICTURES)


def test_every_decision_is_explained():
    pages = set()
    for decision in ("present", "absent", "undetermined"):
        changed = summary()
        changed["studies"][0]["value"]["decision"] = decision
        pages.add(text_of(render_report(changed, PICTURES)))
    assert len(pages) == 3


def test_a_report_without_any_reading_still_has_its_refusals():
    changed = summary()
    changed["studies"] = [refused()]
    assert "wrong-modality" in text_of(render_report(changed, {}))


def test_a_broken_promise_is_shown_as_broken():
    changed = summary()
    changed["claims"][0]["held"] = False
    assert "BROKEN" in text_of(render_report(changed, PICTURES))


def test_all_claims_hold_for_a_good_run():
    assert [c for c in judge([chest(), refused()], repeated(), 0, PLAIN) if not c.held] == []


def spoil_logit(studies, again, plain):
    studies[0]["document"]["images"][1]["logit"] = -0.300001


def spoil_cam(studies, again, plain):
    studies[0]["document"]["images"][1]["cam"] = [[0.5, 1.0001]]


def spoil_reading(studies, again, plain):
    studies[0].update(status="not_processed", value=None, reason={"code": "outlier", "detail": "x"})


def spoil_same(studies, again, plain):
    studies[0]["images"][3]["same_as"] = None


def spoil_duplicate(studies, again, plain):
    again["outcomes"] = {"duplicate": 3, "stored": 1}


def spoil_job(studies, again, plain):
    again["jobs_unchanged"] = False


def spoil_code(studies, again, plain):
    studies[1]["reason"]["code"] = "no-pixels"


def spoil_number(studies, again, plain):
    studies[1]["value"] = studies[0]["value"]


def spoil_state(studies, again, plain):
    plain["in_state"] = 1


def spoil_search(studies, again, plain):
    plain["in_sent"] = 0


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_logit,
        spoil_cam,
        spoil_reading,
        spoil_same,
        spoil_duplicate,
        spoil_job,
        spoil_code,
        spoil_number,
        spoil_state,
        spoil_search,
    ],
)
def test_each_claim_can_break(spoil):
    studies, again, plain = [chest(), refused()], repeated(), copy.deepcopy(PLAIN)
    spoil(studies, again, plain)
    assert len([c for c in judge(studies, again, 0, plain) if not c.held]) == 1


def test_an_alarm_breaks_a_claim():
    assert [c.held for c in judge([chest(), refused()], repeated(), 1, PLAIN)].count(False) == 1


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_terminal_shows_every_word_of_the_reasons(width, tmp_path):
    out = io.StringIO()
    changed = summary()
    changed["studies"][1]["reason"]["detail"] = "the pixel data ended early or cannot be decoded"
    print_summary(Console(file=out, width=width), changed, tmp_path)
    words = out.getvalue().split()
    for expected in ("wrong-modality: the pixel data ended early or cannot be decoded", NOTICE):
        assert set(expected.split()) <= set(words)
    assert "0.432100" in words
    assert max(len(line) for line in out.getvalue().splitlines() if "report:" not in line) <= width


def test_results_of_one_run_must_name_the_same_digests():
    other = copy.deepcopy(chest())
    assert len(digests([chest(), other])) == 4
    other["document"]["package"] = "sha256:" + "f" * 64
    with pytest.raises(DemoError, match="2 different"):
        digests([chest(), other])


def test_the_search_finds_what_lies_in_the_clear(tmp_path):
    sent = bundled_path("CT_small")
    (tmp_path / "sealed").write_bytes(b"\x01" * 500)
    assert search_plain(tmp_path, [sent])["in_state"] == 0
    (tmp_path / "leak").write_bytes(sent.read_bytes())
    found = search_plain(tmp_path, [sent])
    assert found["in_state"] == found["in_sent"] > 0


def test_missing_sample_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "data_store", None)
    with pytest.raises(DemoError, match="pip install pydicom-data"):
        deliveries(tmp_path)


def test_a_box_that_does_not_start_shows_the_end_of_its_log(tmp_path):
    (tmp_path / "ready.json.part").mkdir()  # where the box writes that it is ready
    with RunningBox(tmp_path) as box, pytest.raises(DemoError, match="before it was ready") as told:
        box.wait_until_ready()
    assert "bedside-edge:" in str(told.value)
    assert box.stop() != 0
