"""Fixtures of the tests of checkpoints."""

import pytest

from doubles.wan_checkpoint import WanCheckpoint


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> WanCheckpoint:
    """The checkpoint; tests do not change it."""
    return WanCheckpoint(tmp_path_factory.mktemp("wan"))
