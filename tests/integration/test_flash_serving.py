"""A serving box reads studies with what was flashed, under the rollout, and goes back."""

import json
import shutil
from pathlib import Path

import pytest

from bedside_core.errors import FlashRefusedError
from bedside_edge.box import Box
from bedside_edge.config import Config, Dicom, Http
from bedside_edge.config import Update as UpdateSettings
from bedside_edge.flashing import chunk_store
from bedside_edge.services.flashing import GOOD
from bedside_sync.distribution.chunks import package_files
from bedside_sync.distribution.manifest import TargetManifest
from support.ram import ram_folder
from support.repository import ROOT

pytestmark = pytest.mark.slow
NAME = "cxr-opacity"
SHIPPED = ROOT / "models" / "packages" / NAME / "1.0.0"


class House:
    """One box over one folder, started and stopped."""

    def __init__(self, folder: Path, **update: str) -> None:
        self.folder = folder
        self.config = Config(
            http=Http(port=0), dicom=Dicom(port=0), update=UpdateSettings(**update)
        )
        self.start()

    def start(self) -> None:
        self.box = Box(self.config, self.folder / "state")
        self.box.start()

    def again(self) -> None:
        self.box.stop()
        self.start()

    def package(self, version: str, counter: int) -> TargetManifest:
        place = self.folder / version
        shutil.copytree(SHIPPED, place)
        manifest = json.loads((place / "manifest.json").read_text())
        (place / "manifest.json").write_text(json.dumps(manifest | {"version": version}))
        return TargetManifest(
            kind="model",
            name=NAME,
            version=version,
            release_counter=counter,
            files=package_files(place, chunk_store(self.config, self.folder / "state")),
        )

    @property
    def active(self) -> str:
        return self.box.routing.rollout.deployment(NAME).active


def test_a_flashed_model_reads_from_then_on_and_gives_way_to_the_one_before():
    with ram_folder() as folder:
        house = House(folder)
        try:
            first, second = house.package("1.1.0", 1), house.package("1.2.0", 2)
            assert house.box.flashing.install(first).state == GOOD
            assert house.active == "1.1.0"
            house.again()  # what reads is durable
            assert house.active == "1.1.0"
            assert house.box.flashing.install(second).state == GOOD
            assert house.active == "1.2.0"
            house.box.routing.rollout.activate(NAME, "1.1.0", None, "person:ada")
            with pytest.raises(FlashRefusedError, match="still used"):
                house.box.flashing.install(house.package("1.3.0", 3))
            house.box.routing.rollout.activate(NAME, "1.2.0", None, "person:ada")
            assert house.box.flashing.roll_back(f"model/{NAME}").version == "1.1.0"
            assert house.active == "1.1.0"
            assert house.box.flashing.waiting == {}
        finally:
            house.box.stop()


def test_where_a_person_decides_a_flashed_model_is_offered_and_no_more():
    with ram_folder() as folder:
        house = House(folder, models="offer")
        try:
            assert house.box.flashing.install(house.package("1.1.0", 1)).state == GOOD
            assert house.active == "1.0.0"
            house.again()
            assert house.active == "1.0.0"
            offered = {str(one.model) for one in house.box.models.index()}
            assert f"{NAME}/1.1.0" in offered
            house.box.routing.rollout.activate(NAME, "1.1.0", None, "person:ada")
            assert house.active == "1.1.0"
        finally:
            house.box.stop()
