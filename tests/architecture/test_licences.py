"""The default install carries no GPL, and the lock says exactly what it is."""

import re
from email import message_from_string
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from support.licences import BANNED, objections
from support.repository import ROOT


def locked():
    """Requirements of requirements.txt that apply to this machine, by name."""
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    lines = [line.removesuffix("\\").strip() for line in text.splitlines()]
    parsed = [Requirement(line) for line in lines if line and not line.startswith(("#", "--hash"))]
    return {r.name: r for r in parsed if r.marker is None or r.marker.evaluate()}


@pytest.mark.parametrize("name", sorted(locked()))
def test_no_locked_distribution_is_under_a_strong_copyleft_licence(name):
    assert objections(metadata.metadata(name)) == []


def test_the_default_install_has_no_banned_distribution():
    assert not BANNED & set(locked())
    installed = {dist.name.lower().replace("_", "-") for dist in metadata.distributions()}
    assert not BANNED & installed


def test_no_dependency_asks_for_an_extra_that_brings_the_banned_package():
    project = metadata.metadata("bedside")
    for line in project.get_all("Requires-Dist", []):
        requirement = Requirement(line)
        if requirement.name in {"pylibjpeg", "highdicom"}:
            assert not requirement.extras & {"all", "libjpeg"}


@pytest.mark.parametrize(
    "statement",
    [
        "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)",
        "Classifier: License :: OSI Approved :: GNU Lesser General Public License v2 (LGPLv2)",
        "License-Expression: GPL-3.0-or-later",
        "License-Expression: MIT AND AGPL-3.0-only",
        "License: GPLv2",
        "License: LGPL",
    ],
)
def test_a_copyleft_statement_is_objected_to(statement):
    assert objections(message_from_string(f"Name: planted\n{statement}\n\n"))


@pytest.mark.parametrize(
    "statement",
    [
        "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
        "License-Expression: BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1",
        "License: MIT",
    ],
)
def test_a_permitted_statement_passes(statement):
    assert objections(message_from_string(f"Name: planted\n{statement}\n\n")) == []


def test_the_gpl_decoder_is_banned_whatever_its_metadata_says():
    assert objections(message_from_string("Name: pylibjpeg_libjpeg\nLicense: MIT\n\n"))


def test_every_locked_requirement_is_pinned_and_hashed():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) > 40
    for block in blocks:
        assert re.match(r"[a-z0-9.-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_what_is_installed_is_what_is_locked():
    wrong = {
        name: metadata.version(name)
        for name, requirement in locked().items()
        if not requirement.specifier.contains(metadata.version(name), prereleases=True)
    }
    assert wrong == {}, "run `make install`: the environment drifted from requirements.txt"


def test_the_default_install_needs_no_training_package():
    assert not {"torch", "onnx", "nncf"} & set(locked())
