"""Acceptance over real runtimes: what is measured, and what surrounds it."""

import dataclasses
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bedside_core.errors import AcceptanceFailedError, InvalidPackageError, ProfileMismatchError
from bedside_core.hardware.acceptance import judge
from bedside_core.hardware.board import PciDevice
from bedside_core.hardware.profile import Power, parse_profile
from bedside_edge.engine.acceptance import run_cases, subject_of
from bedside_edge.engine.conditions import power_state, surroundings, sync_ms, temperature_c
from bedside_edge.engine.opening import RUNTIMES, open_engine
from bedside_edge.engine.package import open_package
from bedside_edge.engine.probe import probe
from support.boards import PROFILES
from support.tiny_onnx import tiny_network
from support.tiny_package import to_ir, write_tiny_package

V3 = (PROFILES / "generic" / "x86-64-v3.toml").read_text().replace("n = 60", "n = 8")


def profile(*changes):
    text = V3
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return parse_profile(text.encode())


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return open_package(write_tiny_package(tmp_path_factory.mktemp("package")))


def verdict(package, loaded, opened=None):
    board = probe()
    opened = opened or open_engine(package, loaded, board)
    return judge(
        loaded,
        subject_of(opened, package, loaded, board),
        run_cases(opened, package, loaded),
        surroundings(loaded.profile, None),
        at=1,
        probe_digest=board.digest,
        tolerance=opened.variant.tolerance.golden_logit,
    )


def test_a_real_engine_is_accepted_with_what_it_read_back(package):
    record = verdict(package, profile())
    assert record.failures == ()
    about, (report,) = record.subject, record.reports
    assert about.properties == {
        "session.intra_op.allow_spinning": "0",
        "providers": "CPUExecutionProvider",
    }
    assert about.kernel == os.uname().release
    assert (report.n, report.bit_repeatable, report.argmax_equal) == (8, True, True)
    assert 0 < report.p50_ms <= report.p99_ms


def test_ceilings_no_unit_can_keep_refuse_by_name(package):
    tight = profile(("p50_ms = 250", "p50_ms = 1e-4"), ("p99_ms = 1500", "p99_ms = 1e-3"))
    told = " ".join(verdict(package, tight).failures)
    assert "p50" in told
    assert "p99" in told
    small = profile(("rss_mib = 2048", "rss_mib = 128"))
    assert any("MiB resident, 128 allowed" in one for one in verdict(package, small).failures)


def test_an_engine_whose_bits_wander_is_not_accepted(package):
    loaded = profile()
    opened = open_engine(package, loaded, probe())
    engine, calls = opened.engine, []

    class Wandering:
        info, census, readback = engine.info, engine.census, engine.readback
        close = engine.close

        def run(self, tensor):
            calls.append(1)
            outputs = engine.run(tensor)
            return replace(outputs, logit=outputs.logit + 1e-7 * (len(calls) % 2))

    record = verdict(package, loaded, dataclasses.replace(opened, engine=Wandering()))
    assert record.failures == ("*: two runs gave different bits",)


def test_engines_that_were_not_accepted_are_passed_over_with_their_reason(package):
    loaded = profile()
    first, second = loaded.profile.engines
    why = AcceptanceFailedError("p99 is too long")
    opened = open_engine(package, loaded, probe(), passed_over=[(first, why)])
    assert opened.choice == second
    assert opened.refused == (("onnxruntime f32", "p99 is too long"),)
    both = [(first, why), (second, AcceptanceFailedError("too hot"))]
    with pytest.raises(AcceptanceFailedError, match="openvino f32: too hot"):
        open_engine(package, loaded, probe(), passed_over=both)
    mixed = [(first, why), (second, InvalidPackageError("no export"))]
    with pytest.raises(ProfileMismatchError, match="no engine of"):
        open_engine(package, loaded, probe(), passed_over=mixed)


def test_more_images_at_once_than_the_profile_allows_are_refused(tmp_path):
    io = open_package(write_tiny_package(tmp_path / "one")).manifest.io.model_dump()
    for part in io.values():
        part["shape"] = [2, *part["shape"][1:]]
    folder = write_tiny_package(tmp_path / "two")
    opened = open_package(folder)
    manifest = opened.manifest.model_copy(update={"io": type(opened.manifest.io)(**io)})
    twice = dataclasses.replace(opened, manifest=manifest)
    with pytest.raises(ProfileMismatchError, match="takes 2 images, 1 allowed"):
        open_engine(twice, profile(), probe(), runtimes={"onnxruntime": RUNTIMES["onnxruntime"]})


@pytest.mark.parametrize("kind", ["onnxruntime", "openvino"])
def test_weights_swapped_under_equal_size_and_time_never_answer_with_the_old_ones(tmp_path, kind):
    folder = write_tiny_package(tmp_path)
    name = "model.onnx" if kind == "onnxruntime" else "model.bin"
    onnx = tiny_network(scale=0.25)
    swapped = onnx if kind == "onnxruntime" else to_ir(onnx)[1]
    path = folder / name
    before = path.stat()
    assert len(swapped) == before.st_size
    head, first, second = V3.split("[[engines]]")
    limits = second[second.index("[limits]") :]
    own = first + limits if kind == "onnxruntime" else second
    only = f"{head}[[engines]]{own}"
    package = open_package(folder)
    path.write_bytes(swapped)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InvalidPackageError, match=name):  # the very bytes are hashed
        open_engine(package, parse_profile(only.encode()), probe())
    with pytest.raises(InvalidPackageError):
        open_package(folder)


def test_drivers_of_the_matched_devices_are_part_of_the_tuple(package):
    loaded = profile(
        ("[match]\n", '[match]\npci = [{ vendor = "10de", device = ["27b8"] }]\n'),
    )
    opened = open_engine(package, profile(), probe())
    card = PciDevice(vendor="10de", device="27b8", driver="nvidia", driver_version="570.124")
    other = PciDevice(vendor="8086", device="1234", driver="e1000e")
    board = probe().model_copy(update={"pci": (card, other)})
    assert subject_of(opened, package, loaded, board).drivers == ("nvidia 570.124",)


# --- what surrounds it -------------------------------------------------------------------------


def zone(root, number, kind, temperature):
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    folder.mkdir(parents=True)
    (folder / "type").write_text(kind + "\n")
    (folder / "temp").write_text(temperature + "\n")


def test_the_warmest_of_the_profiles_zones_counts(tmp_path):
    zone(tmp_path, 0, "cpu-thermal", "61500")
    zone(tmp_path, 1, "gpu-thermal", "72000")
    zone(tmp_path, 2, "nvme", "99000")
    zone(tmp_path, 3, "asleep", "")
    assert temperature_c(["cpu-thermal", "gpu-thermal"], tmp_path) == 72.0
    assert temperature_c([], tmp_path) == 99.0
    assert temperature_c(["none"], tmp_path) is None
    assert probe(tmp_path).thermal_zones == ("cpu-thermal", "gpu-thermal", "nvme")


def tool(folder, name, text):
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '{text}'\n")
    path.chmod(0o755)


def test_the_power_mode_is_read_from_the_tool_the_profile_names(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    jetson = Power(tool="nvpmodel", mode="15W", watts=15)
    assert power_state(jetson) == (None, None), "no such tool: unknown, and unknown is refused"
    tool(tmp_path, "nvpmodel", "NV Power Mode: 15W\\n2\\n")
    assert power_state(jetson) == ("15W", None)
    card = Power(tool="nvidia-smi", watts=72)
    tool(tmp_path, "nvidia-smi", "72.00\\n")
    assert power_state(card) == (None, 72)
    tool(tmp_path, "nvidia-smi", "[N/A]\\n")
    assert power_state(card) == (None, None)
    for number, governor in enumerate(("performance", "performance")):
        policy = tmp_path / f"sys/devices/system/cpu/cpufreq/policy{number}"
        policy.mkdir(parents=True)
        (policy / "scaling_governor").write_text(governor + "\n")
    assert power_state(Power(tool="cpufreq", mode="performance"), tmp_path) == ("performance", None)
    assert power_state(Power()) == (None, None)


def test_the_disk_of_the_state_folder_is_tried_and_nothing_is_left_there(tmp_path):
    assert sync_ms(tmp_path) >= 0
    assert list(tmp_path.iterdir()) == []
    seen = surroundings(profile().profile, tmp_path)
    assert seen.free_mib is not None
    assert seen.rss_mib > 10


def test_pci_devices_their_drivers_and_the_devicetree_are_read(tmp_path):
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "device").write_text("0x27b8\n")
    driver = tmp_path / "sys/bus/pci/drivers/nvidia"
    driver.mkdir(parents=True)
    (device / "driver").symlink_to(driver)
    module = tmp_path / "sys/module/nvidia"
    module.mkdir(parents=True)
    (module / "version").write_text("570.124.06\n")
    odd = tmp_path / "sys/bus/pci/devices/0000:02:00.0"
    odd.mkdir()
    (odd / "vendor").write_text("garbage\n")
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    kernel = tmp_path / "proc/sys/kernel"
    kernel.mkdir(parents=True)
    (kernel / "osrelease").write_text("6.12.25\n")
    board = probe(Path(tmp_path))
    assert board.pci == (
        PciDevice(vendor="10de", device="27b8", driver="nvidia", driver_version="570.124.06"),
    )
    assert board.dt_compatible == ("raspberrypi,5-model-b", "brcm,bcm2712")
    assert board.kernel == "6.12.25"
    assert {one.kind for one in board.engines} == {"onnxruntime", "openvino"}
    assert all(one.devices is None for one in board.engines)


def test_the_runtimes_are_asked_for_their_devices_only_on_request():
    found = {one.kind: one.devices for one in probe(ask_engines=True).engines}
    assert "CPU" in found["openvino"]
    assert "CPUExecutionProvider" in found["onnxruntime"]
