"""Values the core's tests share."""

import pytest

from support.sample_manifest import sample_manifest


@pytest.fixture
def manifest():
    return sample_manifest()
