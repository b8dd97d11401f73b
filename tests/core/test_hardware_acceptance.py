"""A verdict names every promise that was not kept, and holds for one tuple only."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedside_core.errors import InvalidProfileError
from bedside_core.hardware.acceptance import (
    CaseRuns,
    Subject,
    Surroundings,
    judge,
    parse_record,
    percentile,
)
from bedside_core.hardware.profile import parse_profile
from support.boards import PROFILES

TEXT = (PROFILES / "generic" / "x86-64-v3.toml").read_text().replace("n = 60", "n = 4")
PROFILE = parse_profile(TEXT.encode())
SUBJECT = Subject(
    profile_id="generic-x86-64-v3",
    profile_seq=2,
    profile_digest=PROFILE.digest,
    package_digest="sha256:" + "1" * 64,
    engine="onnxruntime",
    engine_version="1.32.0",
    device="CPU",
    precision="f32",
    streams=2,
    threads=1,
    latency_threads=2,
    properties={"session.intra_op.allow_spinning": "0"},
    drivers=("nvidia 570",),
    kernel="6.12.9",
)


def runs(name="clear", known=1.0, **changes):
    fields = {
        "name": name,
        "tensor_sha256": "sha256:" + "2" * 64,
        "known_logit": known,
        "known_probability": 0.7,
        "known_decision": "present",
        "logits": (known, known),
        "probabilities": (0.7, 0.7),
        "decisions": ("present", "present"),
        "times_ms": (4.0, 5.0),
        "repeated": True,
    }
    return CaseRuns(**(fields | changes))


BOTH = (runs(), runs("dense", 3.0))
AROUND = Surroundings(rss_mib=300, sync_ms=2.0, free_mib=50_000)


def verdict(cases=BOTH, around=AROUND, text=TEXT, subject=SUBJECT, tolerance=0.002):
    return judge(
        parse_profile(text.encode()),
        subject,
        cases,
        around,
        at=1_000,
        probe_digest="sha256:" + "3" * 64,
        tolerance=tolerance,
    )


def test_what_keeps_every_promise_is_accepted_with_its_figures():
    record = verdict()
    assert record.accepted
    (report,) = record.reports
    assert (report.n, report.p50_ms, report.p99_ms, report.max_abs) == (4, 4.0, 5.0, 0.0)
    assert record.document()["format"] == "bedside-acceptance/1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"logits": (1.0, 1.0002)}, r"\*: logit off by 2\.00e-04, 0\.0001 allowed"),
        ({"logits": (1.0, 0.9)}, r"off by 5\.00e-02 of the range"),
        ({"decisions": ("present", "absent")}, "a decision is not the known one"),
        ({"repeated": False}, "two runs gave different bits"),
        ({"probabilities": (0.7, 0.8)}, r"probability off by 1\.00e-01"),
        ({"times_ms": (4.0, 2000.0)}, r"p99 2000\.00 ms, 1500 allowed"),
        ({"times_ms": (400.0, 400.0)}, r"p50 400\.00 ms, 250 allowed"),
        ({"times_ms": (4.0,)}, "3 runs, 4 asked"),
    ],
)
def test_each_broken_promise_is_named(change, told):
    cases = (runs(**change), runs("dense", 3.0))
    if "p50" in told:
        cases = (runs(**change), runs("dense", 3.0, **change))
    record = verdict(cases)
    assert not record.accepted
    assert any(re.search(told, failure) for failure in record.failures)


def test_the_packages_tolerance_holds_beside_the_profiles():
    loose = TEXT.replace("max_abs = 1e-4", "max_abs = 1.0").replace("1e-4", "1.0")
    cases = (runs(logits=(1.0, 1.001)), runs("dense", 3.0))
    assert verdict(cases, text=loose).accepted
    assert not verdict(cases, text=loose, tolerance=1e-4).accepted


@pytest.mark.parametrize(
    ("around", "text", "told"),
    [
        ({"rss_mib": 4096}, "", "4096 MiB resident, 2048 allowed"),
        ({"sync_ms": 900.0}, "", "a durable write takes 900.0 ms, 200 allowed"),
        ({"free_mib": 10}, "", "10 MiB free, 1024 needed"),
        (
            {"power_mode": "powersave"},
            '[power]\ntool = "cpufreq"\nmode = "performance"\n',
            "power mode is powersave, not performance",
        ),
        (
            {"power_watts": 40},
            '[power]\ntool = "nvidia-smi"\nwatts = 72\n',
            "power limit is 40 W, not 72",
        ),
        (
            {"temperature_c": 90.0},
            "",
            "90.0 degrees, the limit is 80.0",
        ),
    ],
)
def test_memory_disk_power_and_heat_count_too(around, text, told):
    hot = TEXT.replace(
        "job_timeout_s = 120", "job_timeout_s = 120\ntemp_warn_c = 70\ntemp_stop_c = 80\n" + text
    )
    fine = {"power_mode": "performance", "power_watts": 72, "temperature_c": 50.0}
    assert verdict(around=dataclasses.replace(AROUND, **fine), text=hot).accepted
    record = verdict(around=dataclasses.replace(AROUND, **(fine | around)), text=hot)
    assert record.failures == (told,)


def test_what_cannot_be_told_is_not_held_against_the_unit():
    assert verdict(around=Surroundings(rss_mib=300)).accepted


def test_a_precision_without_a_case_is_not_accepted():
    other = dataclasses.replace(SUBJECT, precision="bf16")
    assert verdict(subject=other).failures == ("the profile has no acceptance case for bf16",)


def test_a_case_the_package_lacks_is_not_accepted():
    named = TEXT.replace('case = "*"', 'case = "other"')
    assert verdict(text=named).failures == ("other: the package has no such golden case",)
    held = TEXT.replace('case = "*"', 'case = "dense"').replace("n = 4", "n = 2")
    assert verdict(text=held).accepted, "one case has no range: its size stands in"


def test_a_case_pinned_to_a_tensor_refuses_another():
    digest = "sha256:" + "9" * 64
    pinned = TEXT.replace('case = "*"', f'case = "*"\ngolden_sha256 = "{digest}"')
    assert verdict(text=pinned).failures == ("*: another tensor",)
    same = tuple(dataclasses.replace(one, tensor_sha256=digest) for one in BOTH)
    assert verdict(same, text=pinned).accepted


@pytest.mark.parametrize(
    "change",
    [
        {"profile_seq": 3},
        {"profile_digest": "sha256:" + "0" * 64},
        {"package_digest": "sha256:" + "0" * 64},
        {"engine_version": "1.33.0"},
        {"drivers": ("nvidia 571",)},
        {"kernel": "6.12.10"},
        {"properties": {}},
        {"threads": 2},
    ],
)
def test_any_change_of_the_tuple_is_another_verdict(change):
    assert dataclasses.replace(SUBJECT, **change).key != SUBJECT.key
    assert dataclasses.replace(SUBJECT).key == SUBJECT.key


def test_a_record_reads_back_as_it_was_written():
    record = verdict((runs(logits=(1.0, 5.0)), runs("dense", 3.0)))
    again = parse_record(record.data())
    assert again == record
    assert again.digest == record.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: b"[]",
        lambda data: data.replace(b"acceptance/1", b"acceptance/2"),
        lambda data: data.replace(b'"subject"', b'"object"'),
        lambda data: data.replace(b'"kernel"', b'"krnl"'),
    ],
)
def test_what_is_no_record_is_refused(change):
    with pytest.raises(InvalidProfileError):
        parse_record(change(verdict().data()))


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_so_many_do_not_exceed(values, percent):
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
