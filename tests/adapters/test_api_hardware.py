"""What the box runs on, over HTTP and on its page."""

import pytest

from bedside_core.hardware.profile import parse_profile
from bedside_edge.services.hardware import HardwareService, Serving
from support.boards import PROFILES, recorded
from support.fake_clock import FakeClock
from support.http_box import HttpBox
from support.memory_hardware import MemoryHardware, verdict

PROFILE = parse_profile((PROFILES / "generic" / "x86-64-v4.toml").read_bytes(), built_in=True)


@pytest.fixture(scope="module")
def box():
    hardware = HardwareService(MemoryHardware(), FakeClock())
    with HttpBox(hardware=hardware) as box:
        box.hardware = hardware
        yield box


@pytest.fixture
def serving(box):
    box.hardware.serving = Serving(
        profile=PROFILE,
        board=recorded("generic-x86-64-v4"),
        record=verdict(),
        passed_over=(("nvidia-l4#1", "pci: 10de:27b8 absent"),),
    )
    yield box.hardware.serving
    box.hardware.serving = None


def test_board_profile_verdict_and_level_are_told(box, serving):
    found = box.client.get("/api/v1/hardware").json()
    assert found["level"] == "measured-on-site"
    assert found["profile"]["evidence"] == "measured"
    assert found["acceptance_digest"] == serving.record.digest
    assert found["acceptance"]["subject"]["engine"] == "openvino"
    assert found["board"]["format"] == "bedside-probe/1"
    assert found["profiles_passed_over"] == [
        {"name": "nvidia-l4#1", "reason": "pci: 10de:27b8 absent"}
    ]


def test_a_box_that_accepted_nothing_has_nothing_to_tell(box):
    assert box.client.get("/api/v1/hardware").status_code == 404
