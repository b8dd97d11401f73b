"""The data table is read carefully, patients stay together, and shortcuts get no weight."""

import shutil

import numpy as np
import pytest

from bedside_core.errors import InvalidInputError
from bedside_core.imaging import PipelineSpec
from bedside_models import data
from bedside_models.draws import seeded


@pytest.fixture(scope="module")
def dataset(collection):
    return data.load_dataset(collection)


@pytest.fixture
def copied(collection, tmp_path):
    shutil.copytree(collection, tmp_path / "copy")
    return tmp_path / "copy"


def edit(root, old, new):
    table = root / "labels.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))


def test_a_patient_in_two_splits_is_refused(copied):
    edit(copied, "P0001_02.png,P0001,1,train", "P0001_02.png,P0001,1,test")
    with pytest.raises(InvalidInputError, match="two splits"):
        data.load_dataset(copied)


def test_an_image_name_with_a_path_is_refused(copied):
    edit(copied, "P0001_01.png", "../P0001_01.png")
    with pytest.raises(InvalidInputError, match=r"labels\.csv"):
        data.load_dataset(copied)


def test_a_missing_image_is_refused_without_naming_it(copied):
    (copied / "images" / "P0002_01.png").unlink()
    with pytest.raises(InvalidInputError) as refusal:
        data.load_dataset(copied)
    assert "P0002" not in str(refusal.value)


def test_a_folder_without_a_table_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"no labels\.csv"):
        data.load_dataset(tmp_path)


def test_a_changed_pixel_changes_the_digest(copied, dataset):
    assert data.load_dataset(copied).digest == dataset.digest
    image = copied / "images" / "P0003_01.png"
    shutil.copyfile(copied / "images" / "P0004_01.png", image)
    assert data.load_dataset(copied).digest != dataset.digest


def test_knowing_the_stratum_says_nothing_about_the_label(dataset):
    index = dataset.indices("train")
    weights = data.sample_weights(dataset, index, other_weight=1.0)
    assert weights.mean() == pytest.approx(1.0)
    for stratum in ("AP", "PA"):
        total = {
            label: sum(
                float(w)
                for w, i in zip(weights, index.tolist(), strict=True)
                if (dataset.rows[i].stratum, dataset.rows[i].label) == (stratum, label)
            )
            for label in (0, 1)
        }
        assert total[0] == pytest.approx(total[1], rel=0.02)


def test_all_images_of_a_patient_share_a_fold(dataset):
    index = dataset.indices("train", "val")
    folds = data.patient_folds(dataset, index, 3, seeded(2))
    patients = dataset.patients()[index]
    assert set(folds.tolist()) == {0, 1, 2}
    assert all(len(set(folds[patients == p].tolist())) == 1 for p in np.unique(patients))


def test_tensors_come_from_the_box_pipeline_with_true_proportions(dataset):
    tensors, seen = data.tensors(dataset, dataset.indices("val"), PipelineSpec(size=64))
    assert tensors.shape == (len(seen), 1, 64, 64)
    wide = next(
        i
        for i, row in enumerate(dataset.rows[r] for r in dataset.indices("val"))
        if row.common_size
    )
    rows_used = np.flatnonzero(np.abs(tensors[wide, 0]).sum(1))
    assert rows_used.size == round(64 * 2048 / 2500)


def test_the_data_card_holds_sums_and_no_names(dataset):
    card = data.data_card(dataset)
    assert sum(part["images"] for part in card["splits"].values()) == len(dataset.rows)
    assert not any(row.file in str(card) for row in dataset.rows)
