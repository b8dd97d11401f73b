"""Two vendors, two boxes, one hub on loopback: flashed, tried, confirmed; and what is bad told."""

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from bedside_edge.config import Config
from bedside_edge.config import Update as UpdateSettings
from bedside_edge.flashing import check_whole, chunk_store, flashing_service, member_name
from bedside_edge.ports.sync import Member
from bedside_edge.services.update_night import Hub, UpdateNight
from bedside_edge.state_folder import open_folder
from bedside_edge.system.clock import SystemClock
from bedside_edge.system.random_os import OsRandom
from bedside_edge.updating import hub_source, report_inventory, update_service
from bedside_sync.distribution.gateway import site_of
from bedside_sync.hub.inventories import inventories
from bedside_sync.hub.store_sqlite import HubStore
from support.hub_child import HubProcess
from support.hub_sites import Site, Sites, command
from support.package_houses import House
from support.repository import ROOT

pytestmark = pytest.mark.slow
PROFILE = (ROOT / "hw_profiles" / "generic" / "x86-64-v3.toml").read_text()


class NightBox:
    """A member's box, stopped, that does its nights when told to; `start` is a start of the box."""

    def __init__(self, folder: Path, site: Site, root: Path, url: str) -> None:
        self.folder = folder
        self.config = Config(update=UpdateSettings(root=str(root)))
        self.open()
        transport = site.transport.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        welcome = site.welcome.model_copy(update={"url": url})
        member = Member(
            box=site.name,
            organisation=site.organisation,
            helper=False,
            identity=site.key.private_bytes_raw(),
            transport=transport,
            welcome=welcome.encode(),
        )
        self.state.sync.keep_member(member, "person:ada", "joined")
        self.site = site_of(site.key.public_key().public_bytes_raw().hex())

    def open(self) -> None:
        clock = SystemClock()
        self.state = open_folder(self.config, self.folder, clock, OsRandom())
        self.flashing = flashing_service(self.config, self.state, clock, None, lambda: None)
        self.flashing.start()
        chunks = chunk_store(self.config, self.folder)
        updates = update_service(self.config, self.state, clock, chunks, self.flashing.running)
        self.updates = UpdateNight(
            updates,
            self.flashing,
            Hub(
                lend=lambda: hub_source(self.state),
                report=lambda inventory: report_inventory(self.state, inventory),
                name=lambda: member_name(self.state),
            ),
            clock,
            check=lambda: check_whole(self.state),
            alarms=lambda: 0,
            window=(0, 1440),
            restart=lambda: None,
        )

    def start(self) -> None:
        self.state.close()
        time.sleep(1.0)  # the next inventory is newer by a whole second
        self.open()

    def night(self):
        night = self.updates.run()
        assert night.codes == (), night
        return [(one.state, one.code) for one in night.outcomes]


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "sites").mkdir()
    sites = Sites(tmp_path / "sites", 2)
    house = House(sites.hub, now=int(time.time())).begin()
    for vendor in ("acme", "bolt"):
        house.add_vendor(vendor)
    process = HubProcess(sites.hub, options=["--status-port", "0"])
    root = tmp_path / "root.json"
    root.write_bytes(house.root)
    boxes = [
        NightBox(tmp_path / name, sites.sites[name], root, process.url)
        for name in ("box-0", "box-1")
    ]
    yield sites, house, boxes, process
    for box in boxes:
        box.state.close()
    process.close()


def profile(vendor: str, wrong: bool = False) -> dict[str, bytes]:
    text = PROFILE.replace('vendor = "generic"', f'vendor = "{vendor}"')
    if wrong:  # pins what this machine will not read back
        text = text.replace("CPUExecutionProvider", "CUDAExecutionProvider")
        text = text.replace('INFERENCE_PRECISION_HINT = "f32"', 'INFERENCE_PRECISION_HINT = "bf16"')
    return {"board.toml": text.encode()}


def plan(folder: Path, name: str, path: str) -> Path:
    lines = [f'name = "{name}"', f'path = "{path}"', "soak_hours = 0"]
    for group in ("box-0", "box-1"):
        lines += ["[[groups]]", f'name = "first-{group}"', f'boxes = ["{group}"]']
    file = folder / f"{name}.toml"
    file.write_text("\n".join(lines))
    return file


def test_flash_trial_confirm_and_a_bad_profile_that_falls_back_and_is_told(hub, tmp_path):
    sites, house, (first, second), process = hub
    at = ("--folder", sites.hub)
    facts = {"kind": "profile", "name": "generic-x86-64-v3"}
    good = house.publish(profile("acme"), vendor="acme", version="1.0", release_counter=1, **facts)
    made = command("rollout", "create", plan(tmp_path, "good-1", good.path), *at)
    assert made["reached"] == ["box-0"]
    assert house.repository.assignment(second.site) is None
    assert first.night() == [("good", "")]
    first.start()  # a profile is in force from the next start
    assert first.night() == []
    assert command("rollout", "advance", "good-1", *at)["reached"] == ["box-0", "box-1"]
    assert second.night() == [("good", "")]
    second.start()
    second.night()
    assert command("rollout", "advance", "good-1", *at)["state"] == "done"

    # the other vendor's profile pins what no board here reads back
    bad = house.publish(
        profile("bolt", wrong=True), vendor="bolt", version="2.0", release_counter=2, **facts
    )
    command("rollout", "create", plan(tmp_path, "bad-2", bad.path), *at)
    time.sleep(1.0)
    assert first.night() == [("bad", "profile-mismatch")]
    held = first.flashing.serving("profile")
    assert held.manifest.vendor == "acme"
    assert first.flashing.running().floors["profile"] == 1

    store = HubStore(sites.hub)
    told = {slot.state: slot for slot in inventories(store)["box-0"].slots}
    store.close()
    assert (told["good"].serving, told["bad"].reason) == (1, "profile-mismatch")
    assert told["good"].record
    shown = command("rollout", "show", "bad-2", *at)
    assert (shown["verdict"], shown["boxes"]) == ("stop", {"box-0": "bad"})
    # the serving hub looks by itself within a minute; a command does not wait for it
    ended = command("rollout", "stop", "bad-2", "--why", "asked by the test", *at)
    assert ended["state"] == "stopped"
    assert [i.path for i in house.repository.assignment(first.site).items] == [good.path]
    assert house.repository.assignment(second.site).items[0].path == good.path
    time.sleep(1.0)
    assert first.night() == []
    assert json.loads(process_page(process))["rollouts"][0]["state"] == "stopped"


def process_page(process: HubProcess) -> str:
    import httpx

    return httpx.get(f"{process.status_url}rounds.json").text
