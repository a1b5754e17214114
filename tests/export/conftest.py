"""Fixtures of all tests of the export package."""

from collections.abc import Iterator

import pytest

from doubles.pipelines import use_one_acceptance_clip
from doubles.quick_exports import speed_up_exports


@pytest.fixture(scope="session", autouse=True)
def quick_exports() -> Iterator[None]:
    """Export small graphs in less time."""
    with speed_up_exports():
        yield


@pytest.fixture(scope="module", autouse=True)
def one_acceptance_clip() -> Iterator[None]:
    """Track one acceptance clip in exports in place of four; `test_export_command` tracks all."""
    with use_one_acceptance_clip():
        yield
