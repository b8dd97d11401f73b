"""A box serves only under a verdict on this unit; heat stops reading before it breaks anything."""

import dataclasses

import pytest

from bedside_core.errors import (
    AcceptanceFailedError,
    InvalidProfileError,
    RollbackRefusedError,
)
from bedside_core.hardware.acceptance import CaseRuns, Surroundings
from bedside_core.hardware.profile import parse_profile
from bedside_edge.config import Config, Sync, Update
from bedside_edge.services.hardware import Candidate, HardwareService, Serving
from bedside_edge.services.heat import Heat
from bedside_edge.services.windows import under_profile
from support.boards import PROFILES, recorded
from support.fake_clock import FakeClock
from support.memory_hardware import MemoryHardware, subject

TEXT = (PROFILES / "generic" / "x86-64-v4.toml").read_text()
PROFILE = parse_profile(TEXT.replace('"generic-x86-64-v4"', '"acme-box"').encode())


class Unit:
    """A candidate whose runs are made up, and how often it was measured."""

    def __init__(self, ms=4.0, **changes):
        self.measured, self.ms = 0, ms
        self.candidate = Candidate(
            profile=PROFILE,
            board=recorded("generic-x86-64-v4"),
            subject=subject(**changes),
            tolerance=0.002,
            measure=self.measure,
        )

    def measure(self):
        self.measured += 1
        runs = CaseRuns(
            name="clear",
            tensor_sha256="sha256:" + "0" * 64,
            known_logit=1.0,
            known_probability=0.7,
            known_decision="present",
            logits=(1.0,) * 60,
            probabilities=(0.7,) * 60,
            decisions=("present",) * 60,
            times_ms=(self.ms,) * 60,
            repeated=True,
        )
        return [runs], Surroundings(rss_mib=200)


def service(store=None):
    return HardwareService(store or MemoryHardware(), FakeClock(5_000))


def test_the_first_start_measures_and_later_ones_do_not():
    hardware, unit = service(), Unit()
    first = hardware.ensure(unit.candidate)
    assert (first.accepted, first.at) == (True, 5_000)
    assert hardware.ensure(unit.candidate) == first
    assert unit.measured == 1
    assert hardware.verdicts() == [first]


@pytest.mark.parametrize(
    "change",
    [{"package_digest": "sha256:" + "9" * 64}, {"engine_version": "2027.1"}, {"kernel": "6.13"}],
)
def test_whatever_changes_of_the_tuple_is_measured_anew(change):
    store = MemoryHardware()
    service(store).ensure(Unit().candidate)
    changed = Unit(**change)
    service(store).ensure(changed.candidate)
    assert changed.measured == 1


def test_a_slow_unit_is_refused_by_name_kept_and_measured_again_at_the_next_start():
    store, slow = MemoryHardware(), Unit(ms=400.0)
    with pytest.raises(AcceptanceFailedError, match=r"p50 400\.00 ms, 250 allowed"):
        service(store).ensure(slow.candidate)
    assert [one.accepted for one in store.records] == [False]
    slow.ms = 4.0
    assert service(store).ensure(slow.candidate).accepted
    assert slow.measured == 2


def test_an_older_revision_of_a_profile_is_refused_even_with_a_verdict_of_before():
    store, old = MemoryHardware(), Unit()
    service(store).ensure(old.candidate)
    service(store).ensure(Unit(profile_seq=3).candidate)
    with pytest.raises(RollbackRefusedError, match="older than revision 3"):
        service(store).ensure(old.candidate)


def test_a_dry_run_keeps_nothing():
    hardware = service()
    assert hardware.try_out(Unit().candidate).accepted
    assert hardware.verdicts() == []


def test_the_level_here_is_measured_on_site_only_with_a_verdict():
    hardware = service()
    record = hardware.ensure(Unit().candidate)
    serving = Serving(profile=PROFILE, board=recorded("generic-x86-64-v4"), record=record)
    assert serving.level == "measured-on-site"
    refused = dataclasses.replace(serving, record=dataclasses.replace(record, failures=("no",)))
    assert refused.level == "measured"


# --- heat --------------------------------------------------------------------------------------


def test_heat_stops_reading_until_it_is_below_the_lower_limit():
    now = [60.0]
    heat = Heat(lambda: now[0], 80, 95)
    seen = []
    for now[0] in (79, 85, 94.9, 95, 90, 80, 79.9, 85):
        seen.append(heat.resting())
    assert seen == [False, False, False, True, True, True, False, False]
    assert heat.told() == (True, "85 degrees Celsius, warns at 80, stops at 95")


def test_a_zone_that_cannot_be_read_and_a_profile_without_limits_stop_nothing():
    assert not Heat(lambda: None, 80, 95).resting()
    assert not Heat(lambda: None, 80, 95).watched
    assert not Heat(lambda: 200.0, None, None).resting()
    assert Heat(lambda: None, 80, 95).told()[0]


# --- the window for the hub --------------------------------------------------------------------

WINTER, SUMMER = 1_768_000_000_000, 1_783_000_000_000  # January and July 2026


def windowed(start, end, zone):
    text = TEXT + f'[[windows]]\nstart = "{start}"\nend = "{end}"\ntz = "{zone}"\n'
    return parse_profile(text.encode()).profile


@pytest.mark.parametrize(
    ("start", "end", "zone", "now", "told"),
    [
        ("22:00", "05:00", "UTC", WINTER, (1320, 420)),
        ("01:30", "05:00", "Europe/Berlin", WINTER, (30, 210)),
        ("01:30", "05:00", "Europe/Berlin", SUMMER, (1410, 210)),
        ("00:00", "00:00", "Asia/Shanghai", WINTER, (960, 1440)),
    ],
)
def test_the_profiles_window_becomes_the_boxs_in_utc(start, end, zone, now, told):
    config = under_profile(Config(), windowed(start, end, zone), now)
    assert (config.sync.window_start_minute, config.sync.window_minutes) == told


def test_a_window_of_the_settings_goes_before_the_profiles():
    own = Config(sync=Sync(window_start_minute=77))
    for profile in (windowed("01:00", "05:00", "UTC"), PROFILE.profile):
        assert under_profile(own, profile, WINTER).sync == own.sync


def test_the_stricter_of_settings_and_profile_says_how_large_a_package_may_be():
    assert PROFILE.profile.storage.slot_mib == 2048
    for settings, room in ((8192, 2048), (100, 100)):
        config = Config(update=Update(slot_mib=settings))
        assert under_profile(config, PROFILE.profile, WINTER).update.slot_mib == room


def test_a_zone_nobody_knows_is_refused():
    with pytest.raises(InvalidProfileError, match="no time zone"):
        under_profile(Config(), windowed("01:00", "05:00", "Mars/Base"), WINTER)
