"""`bedside-edge privacy` prices releases, draws the error, and says when a number is useless."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidInputError, UnknownStatisticError
from bedside_core.statistics.catalogue import CATALOGUE
from bedside_edge.cli import cli

TWELVE = [
    "prevalence", "device-counts", "sex-counts", "age-counts", "group-counts", "score-histogram",
    "confusion", "fairness-by-sex", "fairness-by-age", "auc", "finding-counts",
]  # fmt: skip


def run(*arguments):
    done = CliRunner().invoke(cli, ["privacy", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_twelve_statistics_a_night_are_warned_of():
    done = run(
        "plan", *TWELVE, "--size", "100", "--schedule", "nightly-disjoint", "--no-truncation"
    )
    assert "47 % error at 100 studies a night; weekly gives 18 %" in done.output
    assert "released weekly instead: 6.7 %" in done.output


def test_a_plan_as_json_has_price_and_lines(tmp_path):
    picture = tmp_path / "plan.svg"
    done = run("plan", "volume", "--size", "5000", "--json", "--picture", str(picture))
    found = json.loads(done.output)
    assert found["cost"] <= 24_355_970_359
    assert [line["cell"] for line in found["lines"]] == ["studies", "patients at the bound"]
    assert found["warnings"] == []
    assert picture.read_text().startswith("<svg")


def test_a_quantile_is_planned_by_rank():
    done = run("plan", "turnaround-quantiles", "--size", "30000", "--json")
    assert json.loads(done.output)["rank_error"] < 300
    assert "rank error" in run("plan", "score-quantiles", "--size", "30000").output


def test_the_catalogue_is_listed():
    assert json.loads(run("catalogue", "--json").output)["statistics"].keys() == CATALOGUE.keys()
    assert "fairness-by-sex" in run("catalogue").output


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["free query", "--size", "5"], UnknownStatisticError),
        (["volume", "--size", "5", "--epsilon", "nan"], InvalidInputError),
        (["volume", "--size", "5", "--epsilon", "-1"], InvalidInputError),
        (["volume", "--size", "5", "--epsilon", "1e9"], InvalidInputError),
        (["volume", "--size", "5", "--epsilon", "0"], InvalidInputError),
        (["volume", "--size", "5", "--c", "0"], InvalidInputError),
        (["score-quantiles", "volume", "--size", "5"], InvalidInputError),
        (["volume", "--size", "5", "--nights", "7"], InvalidInputError),
        (["score-mean", "--size", "5", "--weight", "once"], InvalidInputError),
    ],
)
def test_a_bad_plan_is_refused_with_its_code(arguments, error):
    with pytest.raises(error):
        run("plan", *arguments)


def test_a_size_of_nothing_is_a_usage_error():
    assert run("plan", "volume", "--size", "0").exit_code == 2
