"""Fixtures for the tests of engine builds."""

import shutil
from pathlib import Path

import pytest

from doubles.propagating import write_with_appearance
from vditrack.bundle.folder import bundled_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Copy the bundled model, without engines, into a folder of its own."""
    ignore = shutil.ignore_patterns("engines", "__pycache__")
    return shutil.copytree(bundled_model(), tmp_path / "bundle", ignore=ignore)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Write a bundle with a bundle of appearance within it."""
    return write_with_appearance(tmp_path / "bundle").root
