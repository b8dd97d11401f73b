"""What leaks in diffprivlib is banned: ruff sees the import, this test sees the names.

Each row of the defect table of docs/statistics.md is here: either the path is banned, or ours is
shown to be free of it beside the library's, which is shown to have it.
"""

import ast
import os
import subprocess
import sys
from fractions import Fraction

import pytest

from bedside_edge.system.noise_diffprivlib import (
    ExactBinary,
    ExactDiscreteGaussian,
    ExactDiscreteLaplace,
    ExactExponential,
    ExactPermuteAndFlip,
    SystemNoise,
)
from support import leaky_tools
from support.repository import PACKAGES, ROOT, SOURCE_ROOTS, package_folder, run_tool

ONLY = package_folder("bedside_edge") / "system" / "noise_diffprivlib.py"
ALLOWED = {"DPMechanism", "Exponential", "PermuteAndFlip", "Binary", "BudgetError"}
BANNED = [
    "Bingham", "ExponentialCategorical", "ExponentialHierarchical", "Gaussian",
    "GaussianAnalytic", "GaussianDiscrete", "Geometric", "GeometricFolded", "GeometricTruncated",
    "Laplace", "LaplaceBoundedDomain", "LaplaceBoundedNoise", "LaplaceFolded", "LaplaceTruncated",
    "Snapping", "Staircase", "Uniform", "Vector", "DPMachine", "TruncationAndFoldingMixin",
    "BudgetAccountant", "tools", "models",
]  # fmt: skip


def library_names(source):
    """Every name a module takes from diffprivlib, and `*` for the module itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ("*" for name in node.names if name.name.split(".")[0] == "diffprivlib")
        elif (
            isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "diffprivlib"
        ):
            yield from (name.name for name in node.names)


def test_one_module_imports_the_library_and_only_what_is_allowed():
    for package in PACKAGES:
        for path in package_folder(package).rglob("*.py"):
            found = set(library_names(path.read_text(encoding="utf-8")))
            assert found == (ALLOWED if path == ONLY else set()), path


def test_every_mechanism_of_the_library_is_allowed_or_banned():
    exported = {
        name
        for name in dir(leaky_tools.mechanisms)
        if isinstance(getattr(leaky_tools.mechanisms, name), type)
    }
    assert exported <= ALLOWED | set(BANNED)


@pytest.mark.parametrize("name", BANNED)
def test_a_banned_name_is_seen(name):
    planted = f"from diffprivlib.mechanisms import {name}\n"
    assert not set(library_names(ONLY.read_text(encoding="utf-8") + planted)) <= ALLOWED


def test_ruff_bans_the_library_everywhere_else(tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text('"""P."""\n\nfrom diffprivlib import tools\n\nX = tools\n')
    config = ("--config", str(ROOT / "pyproject.toml"), "--no-cache", "--select", "TID251")
    done = run_tool("ruff", "check", *config, str(planted), folder=ROOT)
    assert done.returncode == 1
    assert "diffprivlib" in done.stdout
    clean = run_tool(
        "ruff", "check", "--no-cache", "--select", "TID251", *SOURCE_ROOTS, folder=ROOT
    )
    assert clean.returncode == 0, clean.stdout


# --- the defect table ----------------------------------------------------------------------------


def fresh(code):
    """Run code in a new process that knows the package folders."""
    paths = [str(ROOT / name) for name in ("edge", "sync")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_1_the_import_never_loads_the_models_nor_scikit_learn_s_trees():
    said = fresh(
        "import sys\nfrom bedside_edge.system import noise_diffprivlib\n"
        "print(any(m.startswith('sklearn.tree') for m in sys.modules),"
        " hasattr(sys.modules['diffprivlib.models'], '__file__'))"
    )
    assert said.split() == ["False", "False"]


def test_6_float_noise_is_not_used_ours_is_an_integer_for_any_scale():
    assert type(SystemNoise().laplace(0, l1=1, epsilon=Fraction(1, 10**30))) is int
    noisy = leaky_tools.mechanisms.Laplace(epsilon=1.0, sensitivity=1.0).randomise(0.0)
    assert noisy != int(noisy)


def test_13_no_cancellation_the_price_is_an_integer_rounded_up():
    one = ExactDiscreteGaussian(l2sq=1, rho_units=10**6, report_delta=1e-14)
    assert one.sigma2 == 500_000
    assert ExactDiscreteGaussian(l2sq=45, rho_units=24_355_000_000).epsilon < 1


def test_14_any_sensitivity_is_calibrated():
    assert ExactDiscreteGaussian(l2sq=20_000**2, rho_units=10**12).sigma2 == 2 * 10**8
    assert type(SystemNoise().gaussian(0, l2sq=10**30, rho_units=1)) is int


def test_15_a_huge_value_gets_noise_where_the_library_s_gets_none():
    geometric = leaky_tools.mechanisms.Geometric(epsilon=1.0, sensitivity=1)
    assert {geometric.randomise(2**60) for _ in range(30)} == {2**60}
    ours = ExactDiscreteLaplace(eps_num=1, eps_den=1, l1=1)
    assert len({ours.randomise(2**60) for _ in range(60)}) > 2
    geometric.randomise(True)
    with pytest.raises(TypeError):
        ours.randomise(True)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: ExactDiscreteGaussian(l2sq=1, rho_units=1, random_state=seed),
        lambda seed: ExactDiscreteLaplace(eps_num=1, eps_den=1, l1=1, random_state=seed),
        lambda seed: ExactExponential(
            epsilon=Fraction(1), sensitivity=1, utility=[0], random_state=seed
        ),
        lambda seed: ExactPermuteAndFlip(
            epsilon=Fraction(1), sensitivity=1, utility=[0], random_state=seed
        ),
        lambda seed: ExactBinary(epsilon=Fraction(1), value0="0", value1="1", random_state=seed),
    ],
)
def test_16_seeded_noise_is_refused_and_the_mechanism_shows_its_parameters(make):
    with pytest.raises(ValueError, match="seeded"):
        make(7)
    one = make(None)
    assert isinstance(one, leaky_tools.DPMechanism)
    assert type(one).__name__ in repr(one)


def test_16_two_seeded_sums_of_the_library_differ_by_the_record():
    def seeded(values):
        return leaky_tools.quiet(
            leaky_tools.tools.sum, values, bounds=(0, 1), epsilon=1.0, random_state=3
        )

    assert seeded([1.0] * 10) - seeded([1.0] * 9 + [0.0]) == pytest.approx(1)


def test_8_a_quantile_of_ties_is_the_tie_where_the_library_s_is_far_off():
    values = [37.0] * 1800 + [float(n) for n in range(200)]
    answers = [
        leaky_tools.quiet(leaky_tools.tools.median, values, bounds=(0, 599), epsilon=1.0)
        for _ in range(9)
    ]
    assert max(abs(answer - 37) for answer in answers) > 1
    below = [min(37, 0) + sum(v < x for v in values) for x in range(600)]
    utilities = [
        -max(0, 2 * below[x] - 2000, 2000 - 2 * (below[x] + values.count(float(x))))
        for x in range(600)
    ]
    ours = [SystemNoise().choose(utilities, sensitivity=1, epsilon=Fraction(1)) for _ in range(9)]
    assert ours == [37] * 9


@pytest.mark.parametrize("value", [0.0, "x", None])
def test_a_binary_response_takes_its_two_labels_only(value):
    one = ExactBinary(epsilon=Fraction(1), value0="0", value1="1")
    with pytest.raises((TypeError, ValueError)):
        one.randomise(value)
