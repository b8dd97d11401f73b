"""`bedside-edge privacy` prices releases, draws the error, and says when a number is useless."""

import json

import pytest
from click.testing import CliRunner

from bedside_core.errors import InvalidInputError, InvalidReleaseError, UnknownStatisticError
from bedside_core.planner import Schedule
from bedside_core.statistics.catalogue import CATALOGUE
from bedside_edge.cli import cli
from support.evidence_log import LOG_ED, LOG_ML
from support.privacy_house import DAY, OFFICER, ONE, Hospital

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


def test_a_running_total_is_verified_from_the_files_of_all_its_nights(tmp_path):
    house = Hospital(tmp_path).founded()
    schedule = Schedule.RUNNING
    asked = house.ask("volume", snapshot="year", schedule=schedule, nights=9, units=ONE // 2)
    name = house.service.open_schedule(asked, OFFICER)
    house.clock.advance(2 * DAY)
    assert house.service.nights() == 2
    files = [tmp_path / f"night-{night}.json" for night in range(2)]
    for night, path in enumerate(files):
        path.write_bytes(house.service.file(name, night))
    house.close()
    keys = [word for key in (LOG_ED.key, LOG_ML.key) for word in ("--vkey", key.text)]
    alone = run("verify", str(files[1]), *keys).output
    assert "totals were not derived again" in alone
    both = run("verify", *map(str, files), *keys).output
    assert "verified: entry" in both
    assert "not derived" not in both
    with pytest.raises(InvalidReleaseError):
        run("verify", str(files[1]), str(files[1]), *keys)


def test_noise_by_grade_is_planned_from_the_shipped_rules():
    graded = json.loads(run("plan", "volume", "--size", "5000", "--strata", "--json").output)
    plain = json.loads(run("plan", "volume", "--size", "5000", "--json").output)
    assert graded["cost"] == plain["cost"]
    assert graded["relative"] > 4 * plain["relative"]
    for more in (["--schedule", "nightly-disjoint"], ["--picture", "x.svg"]):
        name = "score-quantiles" if "--picture" in more else "volume"
        with pytest.raises(InvalidInputError):
            run("plan", name, "--size", "50", "--strata", *more)
