"""Fixtures for tests of annotation."""

import pytest

from doubles.annotations import make_annotation


@pytest.fixture
def annotation():
    """Make an annotation of a specification, and what its file says of itself."""
    return make_annotation
