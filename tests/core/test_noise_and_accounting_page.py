"""The figures in docs/noise-and-accounting.md are those the code gives."""

import math

from bedside_core.accounting import (
    cap_units,
    epsilon,
    gaussian_cost,
    gaussian_half_width,
    gaussian_sigma2,
    gaussian_tail,
)
from support.repository import ROOT

PAGE = ROOT / "docs" / "noise-and-accounting.md"


def table(marker):
    """The rows of the table behind a marker, header first, as lists of cells."""
    after = PAGE.read_text(encoding="utf-8").split(f"<!-- {marker} -->\n\n")[1]
    lines = after.split("\n\n")[0].splitlines()
    return [
        [cell.strip() for cell in line.strip("|").replace(r"\|", "/").split("|")] for line in lines
    ]


def test_every_epsilon_of_the_page_is_the_code_s_rounded_up():
    header, _, *rows = table("epsilon table")
    deltas = [float(cell.removeprefix("delta ")) for cell in header[1:]]
    assert len(rows) >= 6
    for rho, *cells in rows:
        units = round(float(rho) * 10**12)
        shown = [math.ceil(epsilon(units, delta) * 1000) / 1000 for delta in deltas]
        assert [float(cell) for cell in cells] == shown


def test_every_cap_of_the_page_is_the_code_s():
    _, _, *rows = table("cap table")
    assert len(rows) >= 6
    for target, units in rows:
        assert int(units.replace(",", "")) == cap_units(float(target), 1e-6)


def test_the_worked_interval_can_be_recomputed():
    _, _, *rows = table("interval table")
    l2sq, asked, sigma2, charged, beyond_59, beyond_60, width, count, low, high = (
        float(value.replace(",", "")) for _, value in rows
    )
    assert l2sq == 3**2 * 5
    assert sigma2 == gaussian_sigma2(int(l2sq), int(asked))
    assert charged == gaussian_cost(int(l2sq), int(sigma2))
    assert beyond_59 == math.ceil(gaussian_tail(int(sigma2), 59) * 10_000) / 10_000
    assert beyond_60 == math.ceil(gaussian_tail(int(sigma2), 60) * 10_000) / 10_000
    assert width == gaussian_half_width(int(sigma2), 0.05) == 60
    assert (low, high) == (count - width, count + width)
