"""The transparency file says what the ledger says, in the registry's form and no other."""

import json
from dataclasses import replace

import pytest

from bedside_core.accounting import epsilon
from bedside_core.errors import InvalidInputError, NotFoundError
from bedside_core.ledger.entries import (
    EpochClosed,
    EpochOpened,
    Finished,
    LedgerPolicy,
    PolicySet,
    Reserved,
)
from bedside_core.ledger.state import Ledger, fold
from bedside_core.planner import DELTA
from bedside_core.release_document import gaussian_view
from bedside_core.transparency import (
    Publication,
    format_float,
    ledger_summary,
    registry_document,
    views,
    yaml_text,
)

CAP = 24_355_000_000
POLICY = LedgerPolicy(
    version="p1",
    epoch_cap=CAP,
    lifetime_cap=10 * CAP,
    requesters={"registry": CAP},
    purposes={"quality": CAP},
)


def reserved(name, cost, at):
    return Reserved(
        at=at,
        fingerprint=name,
        dataset="chest",
        epoch=1,
        requester="registry",
        purpose="quality",
        policy="p1",
        cost=cost,
    )


ENTRIES = [
    PolicySet(at=1, policy=POLICY, signers=2),
    EpochOpened(at=2, dataset="chest", number=1, starts=0, ends=1000),
    reserved("b", CAP // 2, 3),
    Finished(at=4, fingerprint="b", night=0, answer="a" * 64),
    reserved("a", CAP // 4, 5),
]
LEDGER = fold(ENTRIES)
ABOUT = Publication(
    hospital="St. Example",
    region="Germany",
    author="Eva Meier",
    published="2026-11-24",
    intended_use="Quality reports of the hospital's AI.",
)
LISTED = {
    "": {"url_slug", "status", "tier", "deployment"},
    "deployment": {
        "basic",
        "administrative",
        "dp_variant",
        "privacy_loss",
        "deployment_model",
        "accounting",
        "implementation",
    },
    "basic": {
        "name",
        "data_curators",
        "description",
        "intended_use",
        "data_product_type",
        "data_product_region",
        "publication_date",
        "data_product_sector",
    },
    "administrative": {"registry_authors"},
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {
        "privacy_unit",
        "privacy_unit_details",
        "privacy_parameters",
        "privacy_parameters_details",
    },
    "privacy_parameters": {"epsilon", "delta", "rho"},
    "deployment_model": {
        "model_name",
        "actors",
        "release_type",
        "release_type_details",
        "data_source_type",
        "data_source_type_details",
        "access_type",
        "access_type_details",
    },
    "accounting": {"post_processing", "composition"},
    "implementation": {
        "preprocessing_and_hyperparameter_tuning",
        "mechanisms",
        "justification",
    },
}


def document(ledger=LEDGER):
    return registry_document(ledger_summary(ledger, "chest", 1, "c/s/d"), ABOUT)


def test_the_file_has_every_listed_key_and_no_other():
    def walk(name, part):
        assert set(part) == LISTED[name]
        for key, value in part.items():
            if isinstance(value, dict):
                walk(key, value)
            else:
                assert isinstance(value, str | int | float | list)
                assert value not in ("", [])

    walk("", document())


def test_the_file_says_what_the_registry_expects_and_the_ledger_spent():
    found = document()
    assert (found["status"], found["tier"]) == ("Draft", 3)
    assert found["url_slug"] == "st-example-statistics-of-chest-epoch-1"
    inside = found["deployment"]
    assert inside["basic"]["data_product_type"] == "Summary statistics"
    assert inside["basic"]["data_product_sector"] == "Healthcare"
    assert inside["basic"]["description"].startswith("1 finished releases")
    assert inside["dp_variant"]["variant_name"] == "Zero-concentrated DP"
    model = inside["deployment_model"]
    assert (model["model_name"], model["release_type"]) == ("Central", "Many releases")
    assert model["data_source_type"] == "Dynamic"
    spent = CAP // 2 + CAP // 4
    parameters = inside["privacy_loss"]["privacy_parameters"]
    assert parameters["rho"] == pytest.approx(spent / 10**12)
    assert parameters["epsilon"] == pytest.approx(epsilon(spent, DELTA))
    assert parameters["delta"] == DELTA


def test_the_yaml_is_read_back_as_it_is_and_dates_stay_text():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the file was not read back")
    text = yaml_text(document())
    found = yaml.safe_load(text)
    assert found == document()
    assert found["deployment"]["basic"]["publication_date"] == "2026-11-24"
    assert 'publication_date: "2026-11-24"' in text


@pytest.mark.parametrize("word", ["2026-01-01", "yes", "null", "1e3", "a: b # c", "x\ny", "\u2028"])
def test_text_is_never_read_as_something_else(word):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: nothing was read back")
    assert yaml.safe_load(yaml_text({"a": word, "b": [word]})) == {"a": word, "b": [word]}


@pytest.mark.parametrize("value", [1e-06, 1.5, 1e22, 123456.789, 5e-324])
def test_numbers_are_read_back_by_old_and_new_readers(value):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: nothing was read back")
    assert float(format_float(value)) == value
    assert yaml.safe_load(f"a: {format_float(value)}") == {"a": value}


def test_what_the_form_cannot_hold_is_refused():
    for wrong in ({"A b": 1}, {"a": None}, {"a": True}, {"a": [{}]}):
        with pytest.raises(InvalidInputError):
            yaml_text(wrong)
    for changes in ({"published": "24.11.2026"}, {"hospital": " "}):
        fields = {name: getattr(ABOUT, name) for name in ABOUT.__slots__}
        with pytest.raises(InvalidInputError):
            Publication(**fields | changes)


def test_the_summary_lists_every_charge_with_its_price_and_what_is_left():
    found = ledger_summary(LEDGER, "chest", 1, "c/s/d")
    assert [(one["fingerprint"], one["state"]) for one in found["releases"]] == [
        ("a", "reserved"),
        ("b", "final"),
    ]
    assert found["scopes"][0]["left"]["units"] == CAP - CAP // 2 - CAP // 4
    assert found["scopes"][1]["name"] == "chest"
    assert found["entries"] == len(ENTRIES)
    assert not found["closed"]
    assert found["policy"] == "p1"
    assert json.loads(json.dumps(found)) == found
    closed = fold([EpochClosed(at=6, dataset="chest", number=1)], LEDGER)
    assert ledger_summary(closed, "chest", 1, "c/s/d")["closed"]
    later = fold([EpochOpened(at=7, dataset="chest", number=2, starts=1000, ends=2000)], closed)
    assert ledger_summary(later, "chest", 1, "c/s/d")["closed"]
    assert ledger_summary(later, "chest", 2, "c/s/d")["releases"] == []
    for dataset, number in (("knee", 1), ("chest", 2), ("chest", 0)):
        with pytest.raises(NotFoundError):
            ledger_summary(LEDGER, dataset, number, "c/s/d")


def test_budgets_of_grades_stand_in_the_summary():
    caps = dict.fromkeys("12345", CAP)
    policy = PolicySet(at=6, policy=replace(POLICY, grades=caps), signers=2)
    found = ledger_summary(fold([policy], LEDGER), "chest", 1, "c/s/d")
    assert [one["name"] for one in found["scopes"]][2:] == [f"chest#1/{g}" for g in "12345"]


def test_other_views_are_said_beside_the_gate():
    found = views(LEDGER, "chest", 1)
    gate = epsilon(CAP // 2 + CAP // 4, DELTA)
    assert found["gaussian-exact"] < gate < found["basic-composition"]
    one = next(iter(LEDGER.charges))
    mixed = views(LEDGER, "chest", 1, {one: 0.5})
    rest = sum(o.reserved.cost for n, o in LEDGER.charges.items() if n != one)
    assert mixed["gaussian-plus-pure"] == pytest.approx(gaussian_view(rest) + 0.5)
    assert mixed["basic-composition"] == pytest.approx(epsilon(rest, DELTA) + 0.5)
    pure = views(LEDGER, "chest", 1, dict.fromkeys(LEDGER.charges, 0.5))
    assert pure == {"gaussian-plus-pure": 1.0, "basic-composition": 1.0}
    assert ledger_summary(LEDGER, "chest", 1, "c/s/d", mixed)["not_the_gate"] == mixed
    assert views(Ledger(), "chest", 1) == {}
    bare = fold([EpochOpened(at=1, dataset="chest", number=1, starts=0, ends=9)])
    assert ledger_summary(bare, "chest", 1, "c/s/d")["policy"] == ""
