import threading

import numpy as np
import pytest

from bedside_core.errors import (
    EngineFailedError,
    GoldenMismatchError,
    InvalidPackageError,
    NotFoundError,
    WrongStateError,
)
from bedside_core.manifest import Manifest
from bedside_edge.services.models import ModelId, ModelService
from support.http_box import FakeAnalysis, tiny_manifest

FIRST = ModelId("sample", "1.0.0")


def analysis_of(model):
    fields = tiny_manifest().model_dump() | {"name": model.name, "version": model.version}
    analysis = FakeAnalysis()
    analysis.model.manifest = Manifest.model_validate(fields)
    return analysis


class House:
    def __init__(self, *known, most=3):
        self.known = [ModelId(*one.split("/")) for one in known]
        self.opened = {}
        self.failure = None
        self.first = analysis_of(FIRST)
        self.models = ModelService(
            self.first, open_model=self.open, known=lambda: self.known, most=most
        )

    def open(self, model):
        if self.failure is not None:
            raise self.failure
        self.opened.setdefault(model, []).append(analysis_of(model))
        return self.opened[model][-1]

    def ready(self):
        return [str(entry.model) for entry in self.models.index() if entry.state == "READY"]


def runs(analysis):
    engine = analysis.model.engine
    try:
        engine.run(np.zeros((1, 1, 32, 32), np.float32))
    except EngineFailedError:
        return False
    return True


def test_versions_sort_as_numbers_and_a_load_takes_the_newest():
    house = House("other/1.9.0", "other/1.10.0")
    assert house.models.load("other") == ModelId("other", "1.10.0")
    assert [str(e.model) for e in house.models.index()] == [
        "other/1.9.0",
        "other/1.10.0",
        "sample/1.0.0",
    ]


def test_a_bare_name_means_the_version_loaded_first_until_that_leaves():
    house = House("other/1.0.0", "other/2.0.0")
    house.models.load("other", "1.0.0")
    house.models.load("other", "2.0.0")
    assert house.models.model("other").manifest.version == "1.0.0"
    house.models.unload("other", "1.0.0")
    assert house.models.model("other").manifest.version == "2.0.0"


def test_loading_again_opens_nothing():
    house = House("other/1.0.0")
    house.models.load("other")
    house.models.load("other", "1.0.0")
    assert len(house.opened[ModelId("other", "1.0.0")]) == 1


def test_a_package_that_may_not_serve_leaves_everything_and_the_index_says_why():
    house = House("other/1.0.0")
    house.failure = GoldenMismatchError("one logit is off")
    with pytest.raises(GoldenMismatchError):
        house.models.load("other")
    assert house.ready() == ["sample/1.0.0"]
    (entry,) = [e for e in house.models.index() if e.model.name == "other"]
    assert entry.reason == "golden-mismatch: one logit is off"
    house.failure = None
    house.models.load("other")
    assert house.ready() == ["other/1.0.0", "sample/1.0.0"]


def test_a_folder_that_holds_another_package_is_refused_and_its_runtime_closed():
    house = House("other/1.0.0")
    impostor = analysis_of(ModelId("other", "9.9.9"))
    house.models = ModelService(
        house.first, open_model=lambda _: impostor, known=lambda: house.known, most=3
    )
    with pytest.raises(InvalidPackageError):
        house.models.load("other")
    assert not runs(impostor)


def test_no_more_packages_are_loaded_than_allowed():
    house = House("a1/1.0.0", "b1/1.0.0", most=2)
    house.models.load("a1")
    with pytest.raises(WrongStateError):
        house.models.load("b1")
    house.models.unload("a1")
    house.models.load("b1")
    assert house.ready() == ["b1/1.0.0", "sample/1.0.0"]


def test_the_model_that_reads_studies_is_never_unloaded():
    house = House()
    with pytest.raises(WrongStateError):
        house.models.unload("sample")
    assert runs(house.first)


def test_unknown_names_are_not_found():
    house = House("other/1.0.0")
    for call in (house.models.load, house.models.unload, house.models.model):
        with pytest.raises(NotFoundError):
            call("nothing")
    with pytest.raises(NotFoundError):
        house.models.load("other", "2.0.0")


def test_a_runtime_closes_after_its_last_call_and_not_before():
    house = House("other/1.0.0")
    model = house.models.load("other")
    (analysis,) = house.opened[model]
    inside, go_on = threading.Event(), threading.Event()
    seen = []

    def call():
        with house.models.use("other") as lent:
            inside.set()
            go_on.wait(10)
            seen.append(runs(lent))

    thread = threading.Thread(target=call)
    thread.start()
    assert inside.wait(10)
    house.models.unload("other")
    with pytest.raises(NotFoundError), house.models.use("other"):
        pass
    assert runs(analysis)
    go_on.set()
    thread.join(10)
    assert seen == [True]
    assert not runs(analysis)


def test_closing_closes_every_runtime():
    house = House("other/1.0.0")
    model = house.models.load("other")
    house.models.close()
    assert not runs(house.first)
    assert not runs(house.opened[model][0])
