"""Tasks of rounds on a real box's own studies, under its policy, and what stays on the box."""

import json
import os

import numpy as np
import pytest

from bedside_core.errors import InvalidInputError, NotFoundError
from bedside_core.evidence.entry import Kind
from bedside_core.findings import Decision
from bedside_core.statistics.split import split_of
from bedside_core.uses import Purpose
from bedside_edge.learning.judging import worse
from bedside_edge.learning.personal import Cohort, personal
from bedside_edge.learning.roc import auc
from bedside_sync.secagg.machines import Box
from bedside_sync.tasks import kinds
from bedside_sync.tasks.head import solve_head
from bedside_sync.tasks.train import folded, make_settings
from support import synthetic
from support.learning_house import FINDING, PACKAGE, LearningBox, manifest_for
from support.synthetic import uid

CENSUS = kinds.KINDS["collect"].model_validate(
    {
        "most": 2,
        "tables": [
            {"name": "kind", "axes": [{"field": "image.modality", "keys": ["CR", "DX"]}]},
            {"name": "sex", "axes": [{"field": "patient.sex", "keys": ["F", "M"]}]},
        ],
    }
)
FUSE = kinds.KINDS["fuse"].model_validate(
    {
        "tables": [
            {
                "name": "agree",
                "axes": [
                    {"field": "reader.label", "keys": ["present", "absent"]},
                    {"field": "extra.lab", "keys": ["high"]},
                ],
            }
        ]
    }
)
CLEAN = kinds.KINDS["clean"].model_validate(
    {
        "numbers": [{"field": "image.kvp", "lower": 0, "upper": 200, "cells": 40}],
        "formats": [{"field": "image.exposure_unit", "keys": ["mAs", "uAs", "none"]}],
    }
)
VALIDATE = kinds.KINDS["validate"].model_validate(
    {
        "finding": FINDING,
        "group": "patient.sex",
        "keys": ["F", "M"],
        "parts": ["train", "validation", "test"],
        "veto_least_cases": 10,
    }
)
ANNOTATE = kinds.KINDS["annotate"].model_validate(
    {
        "finding": FINDING,
        "classes": ["absent", "present", "undetermined"],
        "items": [uid(n, 1, 1) for n in (1, 2, 3, 77)],
    }
)
TRAIN = make_settings(np.zeros(16), np.eye(8, 16), (FINDING,))


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """Thirty studies: odd numbers show the finding, all but number 30 are signed."""
    box = LearningBox(tmp_path_factory.mktemp("learning"))
    box.ids = {}
    for number in range(1, 31):
        say = Decision.PRESENT if number % 2 else Decision.ABSENT
        values = {"PatientSex": "F" if number % 3 else "M"}
        if number % 5:
            values["KVP"] = "120" if number != 7 else "9000"
        box.ids[number] = box.study(number, say=None if number == 30 else say, **values)
    yield box
    box.close()


def run(box, task, settings, patients=None, **changes):
    manifest = manifest_for(task, settings, **changes)
    material = box.learning.materials[task]
    found = material.patients(manifest, settings.encode())
    wanted = found if patients is None else patients
    return found, material.vector(manifest, settings.encode(), wanted)


def says(task, settings, total):
    return kinds.reading(task, settings.encode(), total, 0.0)


def cells(found, table):
    return {tuple(one["keys"]): one["count"] for one in found["tables"][table]["cells"]}


def test_a_census_counts_every_study_once_and_nobody_who_was_not_charged(box):
    patients, total = run(box, "collect", CENSUS)
    assert len(patients) == 30
    found = says("collect", CENSUS, total)
    assert cells(found, "kind") == {("CR",): 30, ("DX",): 0, ("other",): 0}
    assert cells(found, "sex") == {("F",): 20, ("M",): 10, ("other",): 0}
    _, some = run(box, "collect", CENSUS, patients[:4])
    assert cells(says("collect", CENSUS, some), "kind")["CR",] == 4
    _, gone = run(box, "collect", CENSUS, ["erased-since"])
    assert not gone.any()


@pytest.mark.parametrize("task", ["collect", "fuse", "clean", "validate", "annotate"])
def test_any_one_patient_moves_the_sum_within_the_signed_bounds(box, task):
    settings = {
        "collect": CENSUS,
        "fuse": FUSE,
        "clean": CLEAN,
        "validate": VALIDATE,
        "annotate": ANNOTATE,
    }[task]
    if task == "annotate":
        box.agree(box.ids[1], Purpose.ANNOTATION)
    manifest = manifest_for(task, settings)
    material = box.learning.materials[task]
    patients = list(material.patients(manifest, settings.encode()))
    whole = material.vector(manifest, settings.encode(), patients)
    for one in patients[:3]:
        rest = [patient for patient in patients if patient != one]
        moved = whole - material.vector(manifest, settings.encode(), rest)
        assert moved.any()
        assert sum(int(v) ** 2 for v in moved) <= manifest.sensitivity2
        assert int(np.abs(moved).max()) <= manifest.largest


def test_a_manifest_with_other_bounds_or_settings_is_refused_before_any_patient(box):
    manifest = manifest_for("collect", CENSUS)
    material = box.learning.materials["collect"]
    with pytest.raises(InvalidInputError):
        material.patients(manifest.model_copy(update={"sensitivity2": 1}), CENSUS.encode())
    with pytest.raises(InvalidInputError):
        material.vector(manifest, CLEAN.encode(), [])
    other = CENSUS.model_copy(update={"cleaning": "f" * 64})
    with pytest.raises(InvalidInputError, match="cleaning version"):
        run(box, "collect", other)


def test_a_fusion_joins_readers_with_another_source_by_patient(box):
    rows = [("", f"T{number}", "high" if number < 5 else "low") for number in range(1, 40)]
    known, unknown = box.learning.add_source("lab", rows, "person:dpo")
    assert (known, unknown) == (30, 9)
    patients, total = run(box, "fuse", FUSE)
    assert len(patients) == 30
    found = cells(says("fuse", FUSE, total), "agree")
    assert found["present", "high"] == 2
    assert found["absent", "high"] == 2
    assert found["present", "other"] == 13
    assert found["other", "other"] == 1


def test_cleaning_is_found_together_and_applied_here_with_a_report(box):
    _, total = run(box, "clean", CLEAN)
    found = says("clean", CLEAN, total)
    assert found["numbers"]["image.kvp"]["missing_permille"] == 200
    digest = box.learning.take_cleaning(found | {"round": "round-1"}, "person:dpo")
    assert box.learning.take_cleaning(found, "person:dpo") == digest
    report = box.learning.cleaning_report()
    assert report.digest == digest
    assert report.filled == {"image.kvp": 6}
    assert report.fenced == {"image.kvp": 1}
    assert (box.ids[7], ("image.kvp",)) in report.touched
    assert len(report.touched) == 7
    # the version is an input of later rounds
    banded = kinds.KINDS["collect"].model_validate(
        {
            "cleaning": digest,
            "tables": [{"name": "kv", "axes": [{"field": "image.kvp", "keys": ["100-200"]}]}],
        }
    )
    assert cells(says("collect", banded, run(box, "collect", banded)[1]), "kv")["100-200",] == 30
    with pytest.raises(NotFoundError):
        box.learning.cleaning_report("0" * 64)
    with pytest.raises(InvalidInputError):
        box.learning.take_cleaning({"numbers": {}}, "person:dpo")


def test_validation_scores_signed_cases_by_group_and_another_model_reads_them_anew(box):
    patients, total = run(box, "validate", VALIDATE)
    assert len(patients) == 29
    found = says("validate", VALIDATE, total)
    counted = {name: one["positives"] + one["negatives"] for name, one in found["groups"].items()}
    assert counted == {"F": 20, "M": 9, "other": 0}
    assert not found["veto"]
    with pytest.raises(NotFoundError):  # before anybody is charged
        run(box, "validate", VALIDATE, model="ee" * 32)
    with pytest.raises(NotFoundError):
        run(box, "train", TRAIN, model="ee" * 32)
    before = box.lent
    _, again = run(box, "validate", VALIDATE, model="cd" * 32)
    assert box.lent > before
    assert (again == total).all()  # the other digest is the same network


def test_only_consented_pool_studies_are_voted_on_and_the_odd_one_out_is_queued(box):
    for number in (1, 2, 3):
        box.agree(box.ids[number], Purpose.ANNOTATION)
    patients, total = run(box, "annotate", ANNOTATE)
    assert len(patients) == 3
    found = says("annotate", ANNOTATE, total)
    assert list(found["consensus"].values()) == ["present", "absent", "present", None]
    assert box.learning.relabel() == []
    theirs = found | {"consensus": found["consensus"] | {uid(2, 1, 1): "present"}}
    box.learning.take_consensus(theirs, "person:dpo")
    (odd,) = box.learning.relabel()
    assert (odd.study_id, odd.here, odd.consensus) == (box.ids[2], "absent", "present")


def test_without_consent_nobody_is_trained_on_and_with_it_each_patient_once(box):
    patients, total = run(box, "train", TRAIN)
    assert len(patients) == 0
    assert not total.any()
    subjects = {box.agree(box.ids[number], Purpose.TRAINING): number for number in range(1, 30)}
    expected = [
        case.subject_id
        for case in box.state.learning.cases(list(subjects))
        if split_of(case.patient) == "train"
    ]
    patients, _ = run(box, "train", TRAIN, patients=[])
    assert list(patients) == expected
    first, second = patients[:8], patients[8:]
    _, one = run(box, "train", TRAIN, patients=first)
    # another night: whoever is in the first batch is not offered, and not taken if asked for
    offered, other = run(box, "train", TRAIN, patients=patients, round_name="round-2")
    assert list(offered) == list(second)
    task = TRAIN.task
    everybody = [int(t[task.features - 1]) for t in (one, other)]
    assert everybody[0] > 0
    assert everybody[1] > 0
    # another model is another batch; a round the box is not part of frees its own
    offered, _ = run(box, "train", TRAIN, patients=[], model="cd" * 32)
    assert list(offered) == expected
    box.state.sync.file_record(0, "round-1", bytes(32), Box.EXCLUDED)
    offered, _ = run(box, "train", TRAIN, patients=[], round_name="round-3")
    assert list(offered) == list(first)
    box.state.sync.file_record(1, "round-2", bytes(32), Box.EXCLUDED)
    _, total = run(box, "train", TRAIN, round_name="round-4")
    weights, offset = folded(TRAIN, solve_head(task, [total], 0.0))
    for number in (1, 2):
        features = box.state.learning.features(box.ids[number], PACKAGE)
        assert len(features) == 1  # kept when the study was read
        score = next(iter(features.values())).astype(float) @ weights + offset
        assert (score[0] > 0.5) == (number % 2 == 1)


def test_a_site_vetoes_a_model_that_reads_its_own_cases_worse():
    settings = VALIDATE.model_copy(update={"veto_least_cases": 20, "veto_drop_permille": 100})
    good = [(0.9 if n % 2 else 0.1, 0.8 if n % 2 else 0.2, bool(n % 2)) for n in range(40)]
    bad = [(1 - new, old, label) for new, old, label in good]
    assert not worse(good, settings)
    assert worse(bad, settings)
    assert not worse(bad[:19], settings)
    assert not worse(bad, settings.model_copy(update={"veto_drop_permille": 1000}))
    assert not worse([one for one in bad if one[2]], settings)  # one class alone says nothing


def test_a_head_of_its_own_helps_where_the_joint_model_errs_and_not_where_it_does_not():
    rng = synthetic.generator(8)

    def cohort(count, *, errs):
        x = rng.standard_normal((count, 8))
        y = x[:, 0] + 0.3 * rng.standard_normal(count) > 0
        seen = x[:, 1] if errs else x[:, 0]
        return Cohort(x=x, p=1 / (1 + np.exp(-3 * seen)), y=y)

    helped = personal(cohort(200, errs=True), cohort(100, errs=True))
    assert helped.helps
    assert helped.own > helped.joint + 0.2
    same = personal(cohort(60, errs=False), cohort(100, errs=False))
    assert same.joint > 0.9
    assert abs(same.own - same.joint) < 0.05
    assert personal(cohort(10, errs=True), cohort(100, errs=True)) is None
    one = Cohort(x=np.zeros((25, 8)), p=np.full(25, 0.5), y=np.ones(25, bool))
    assert personal(cohort(60, errs=True), one).joint is None


def test_the_own_head_is_judged_on_this_box_s_consented_cases(box):
    for number in range(1, 30):
        box.agree(box.ids[number], Purpose.TRAINING)
    assert box.learning.own_head() is None  # thirty studies are too few to judge on


def test_the_area_under_the_curve_counts_every_pair():
    rng = synthetic.generator(9)
    scores = rng.integers(0, 6, 60).astype(float)
    labels = rng.random(60) < 0.4
    pairs = [(s > t) + (s == t) / 2 for s in scores[labels] for t in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs))
    assert auc(scores, np.zeros(60, bool)) is None


def test_a_withdrawal_or_an_erasure_takes_a_patient_out_of_every_task(tmp_path):
    box = LearningBox(tmp_path)
    try:
        first, second, third = (box.study(n, say=Decision.PRESENT) for n in (1, 2, 3))
        gone = box.agree(first, Purpose.TRAINING)
        box.agree(second, Purpose.TRAINING)
        box.learning.add_source("lab", [("", "T3", "high")], "person:dpo")
        box.consents.withdraw(gone, "all", "person:dpo")
        patients, _ = run(box, "collect", CENSUS)
        assert gone not in patients
        assert len(patients) == 2
        assert box.state.learning.features(third, PACKAGE)
        erased = box.state.subjects.subject_of(third)
        plan = box.state.erasure.plan_subject(erased)
        box.state.erasure.erase(plan, actor="person:dpo", reason="request")
        assert box.state.learning.features(third, PACKAGE) == {}
        assert box.state.learning.extras([erased]) == {}
        patients, _ = run(box, "collect", CENSUS)
        assert len(patients) == 1
        assert not box.state.database.read(
            lambda c: c.execute(
                "SELECT count(*) FROM features WHERE study_id = ?", (third,)
            ).fetchone()[0]
        )
    finally:
        box.close()


def test_features_that_are_missing_are_computed_from_the_stored_object(box):
    study = box.ids[4]
    kept = box.state.learning.features(study, PACKAGE)
    box.state.database.write(
        lambda c: c.execute("DELETE FROM features WHERE study_id = ?", (study,))
    )
    (case,) = [case for case in box.state.learning.cases() if case.study_id == study]
    reads = box.learning._reads
    mean = reads.features(case, PACKAGE)
    assert np.allclose(mean, next(iter(kept.values())))
    again = box.state.learning.features(study, PACKAGE)
    assert {name: one.tolist() for name, one in again.items()} == {
        name: one.tolist() for name, one in kept.items()
    }
    with pytest.raises(NotFoundError):
        reads.features(case, "ee" * 32)


def test_what_is_kept_of_a_patient_lies_encrypted(box):
    def blobs(c):
        found = [row[0] for row in c.execute("SELECT body FROM features")]
        return found + [row[0] for row in c.execute("SELECT body FROM extras")]

    box.learning.add_source("note", [("", "T5", "plain-word-of-a-laboratory")], "person:dpo")
    for blob in box.state.database.read(blobs):
        assert b"plain-word" not in blob
        assert b"high" not in blob
    (study,) = [box.ids[5]]
    values = next(iter(box.state.learning.features(study, PACKAGE).values()))
    assert values.tobytes()[:16] not in b"".join(box.state.database.read(blobs))


def test_uses_of_many_cases_leave_one_entry_for_equal_facts(tmp_path):
    box = LearningBox(tmp_path)
    try:
        for number in (1, 2, 3):
            box.study(number)
        before = decisions(box)
        run(box, "collect", CENSUS)
        assert decisions(box) == before + 1
    finally:
        box.close()


def decisions(box):
    entries = box.state.evidence.entries(0, box.state.evidence.size())
    return sum(one.entry.kind is Kind.DECISION for one in entries)


def test_documents_of_rounds_are_plain_json(box):
    found = says("clean", CLEAN, run(box, "clean", CLEAN)[1])
    assert json.loads(json.dumps(found)) == found
    assert os.sep not in found
