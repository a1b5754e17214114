"""Fixtures of the tests of the export command: one checkpoint and one bundle for all of them."""

import json
from pathlib import Path

import pytest

from doubles.pipelines import ExportedBundle, run_export
from doubles.tiny_checkpoint import MASK_SECTIONS, TINY_CARD, save_tiny_checkpoint
from vditrack.bundle.folder import load_bundle


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the bundled model's kind. Tests that change it copy it first."""
    return save_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def exported_points(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> ExportedBundle:
    """The bundle of a card that has a section for masks, exported without ``--masks``."""
    folder = tmp_path_factory.mktemp("points")
    card, output = folder / "small.toml", folder / "made" / "bundle"
    card.write_text(TINY_CARD + MASK_SECTIONS)
    done = run_export(card, "--weights", tiny_checkpoint, "-o", output, "--json")
    assert done.exception is None, done.output
    return ExportedBundle(load_bundle(output), json.loads(done.stdout))
