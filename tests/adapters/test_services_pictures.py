"""Pictures for the viewer: rendered once, and forgotten with their study."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bedside_core.errors import NotFoundError
from bedside_core.imaging import Frame, Window
from bedside_edge.ports import StoredResult
from bedside_edge.services.pictures import PictureService, View
from bedside_edge.system.picture_pillow import PillowPicture
from support.sample_result import entry, result_body

PNG = b"\x89PNG\r\n\x1a\n"


class Holdings:
    """One study of one image, in the place of stores, queue and reader; counts what is asked."""

    def __init__(self) -> None:
        self.held = [
            SimpleNamespace(
                study_id="s", instance_id="i", object_name="o", object_key=b"", digest="d"
            )
        ]
        self.decoded = self.read_count = 0
        self.results = {}

    def instances(self, study_id):
        if study_id != "s" or not self.held:
            raise NotFoundError("no study of that id")
        return self.held

    def read(self, name, key):
        self.read_count += 1
        return b"object"

    def frame(self, data):
        self.decoded += 1
        return Frame(pixels=np.tile(np.arange(64, dtype=np.uint16), (32, 1)))

    def result(self, result_id):
        return self.results[result_id]


@pytest.fixture
def box():
    return Holdings()


@pytest.fixture
def pictures(box):
    return PictureService(box, box, box, box, PillowPicture())


def test_an_image_is_decoded_once_for_many_windows(box, pictures):
    for centre in range(20, 25):
        assert (
            pictures.image("s", "i", View(window=Window(centre=centre, width=30))).body[:8] == PNG
        )
    assert (box.decoded, box.read_count) == (1, 1)


def test_equal_questions_have_equal_tags_and_only_they(pictures):
    views = [
        View(),
        View(inverted=True),
        View(size=32),
        View(window=Window(centre=20, width=30)),
        View(window=Window(centre=20, width=31)),
        View(window=Window(centre=20, width=30, function="SIGMOID")),
    ]
    tags = [pictures.image("s", "i", view).tag for view in views]
    assert len(set(tags)) == len(views)
    assert tags == [pictures.tag("s", "i", view) for view in views]


def test_other_bytes_under_the_same_id_are_another_picture(box, pictures):
    before = pictures.image("s", "i", View()).tag
    box.held[0].digest = "other"
    assert pictures.image("s", "i", View()).tag != before


def test_nothing_is_shown_of_a_study_that_is_gone(box, pictures):
    pictures.image("s", "i", View())
    box.held = []
    for ask in (pictures.image, pictures.tag):
        with pytest.raises(NotFoundError):
            ask("s", "i", View())
    with pytest.raises(NotFoundError):
        pictures.grey_scale("s", "i")


def test_an_image_of_another_study_is_not_found(pictures):
    with pytest.raises(NotFoundError):
        pictures.image("other", "i", View())
    with pytest.raises(NotFoundError):
        pictures.image("s", "other", View())


def test_forgetting_a_study_drops_its_pixels(box, pictures):
    pictures.image("s", "i", View())
    pictures.forget("s")
    pictures.image("s", "i", View())
    assert box.decoded == 2


def test_a_picture_is_never_larger_than_the_image(pictures):
    assert pictures.grey_scale("s", "i")[1] == (32, 64)
    body = pictures.image("s", "i", View(size=4096)).body
    assert (int.from_bytes(body[16:20], "big"), int.from_bytes(body[20:24], "big")) == (64, 32)


def test_the_saliency_comes_alone_and_only_for_what_the_model_read(box, pictures):
    body = result_body([entry("i", (32, 64))])
    body["images"].append({"instance": "refused", "status": "not_processed"})
    box.results["r"] = StoredResult(
        result_id="r",
        job_id="j",
        study_id="s",
        created=0,
        superseded_by="",
        body=json.dumps(body).encode(),
    )
    found = pictures.saliency("r", "i")
    assert found.body[:8] == PNG
    assert found.body[25] == 6  # RGBA: the IHDR's colour type
    assert int.from_bytes(found.body[16:20], "big") == 2 * int.from_bytes(found.body[20:24], "big")
    assert pictures.saliency("r", "i").tag == found.tag
    with pytest.raises(NotFoundError):
        pictures.saliency("r", "refused")
