"""Small checkpoints, and the card of one that diffusers saved."""

import shutil
from pathlib import Path

import pytest

from doubles.pipelines import card_text, save_pipeline
from doubles.wan_checkpoint import WanCheckpoint
from vditrack_export.card import Card, load_card


@pytest.fixture(scope="session")
def wan(tmp_path_factory: pytest.TempPathFactory) -> WanCheckpoint:
    """The checkpoint; tests do not change it."""
    return WanCheckpoint(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="session")
def saved_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of Wan. Tests that change it copy it first."""
    return save_pipeline(tmp_path_factory.mktemp("pipeline"), "wan")


@pytest.fixture
def checkpoint(saved_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the pipeline."""
    return Path(shutil.copytree(saved_pipeline, tmp_path / "checkpoint"))


@pytest.fixture
def card_file(tmp_path: Path) -> Path:
    """The file of the pipeline's card."""
    path = tmp_path / "small.toml"
    path.write_text(card_text("wan"))
    return path


@pytest.fixture
def card(card_file: Path) -> Card:
    """The card of the pipeline."""
    return load_card(str(card_file))
