"""`bedside_core` takes bytes and values and returns values; nothing in it can reach the world."""

import pytest

from support.core_rules import violations
from support.repository import package_folder


def test_the_core_uses_only_what_the_allow_list_names():
    assert violations(package_folder("bedside_core")) == []


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        ("import os", "import os"),
        ("import urllib.request", "import urllib.request"),
        ("from datetime import datetime", "import datetime"),
        ("from pathlib import Path", "import pathlib"),
        ("import importlib", "import importlib"),
        ("import pydicom", "import pydicom"),
        ("import pydantic", "import pydantic"),
        ("from cryptography.hazmat.primitives import hashes", "import cryptography"),
        ("import bedside_edge", "import bedside_edge"),
        ("from .errors import BedsideError", "relative import"),
        ("def f(p):\n    return open(p)", "builtin open"),
        ("def f(p):\n    print(p)", "builtin print"),
        ("def f(p):\n    return eval(p)", "builtin eval"),
        ("f = __import__", "builtin __import__"),
        ("import numpy as np\nnp.load('a')", "numpy.load"),
        ("import numpy\nx = numpy.memmap", "numpy.memmap"),
        ("from numpy import fromfile", "numpy.fromfile"),
        ("import numpy as np\nnp.zeros(3).tofile('a')", "numpy.tofile"),
        ("import numpy as np\nx = np.random.default_rng(1)", "numpy.random"),
        ("from numpy.random import default_rng", "import numpy.random"),
    ],
)
def test_a_planted_breach_is_named(tmp_path, planted, named):
    (tmp_path / "rule.py").write_text(planted + "\n")
    assert any(named in breach for breach in violations(tmp_path))


def test_the_modules_in_square_brackets_may_use_their_library(tmp_path):
    (tmp_path / "manifest.py").write_text("from pydantic import BaseModel\nimport numpy as np\n")
    (tmp_path / "signatures.py").write_text("from cryptography.exceptions import InvalidTag\n")
    assert violations(tmp_path) == []
