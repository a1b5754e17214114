"""Fixtures for the tests of engine builds."""

import shutil
from pathlib import Path

import pytest

from vditrack.bundle.folder import bundled_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy the bundled model, without engines, into a folder of its own."""
    ignore = shutil.ignore_patterns("engines", "__pycache__")
    return shutil.copytree(bundled_model(), tmp_path / "bundle", ignore=ignore)
