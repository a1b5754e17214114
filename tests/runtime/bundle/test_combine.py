"""Bundles that were exported apart, joined to one that propagates masks."""

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from doubles.commands import run_command
from doubles.propagating import PROPAGATION, write_propagating
from vditrack.bundle.combine import combine_bundles
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle, seal_bundle
from vditrack.cli.combine import combine
from vditrack.errors import InputError
from vditrack.tracker import Tracker


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Bundle, Bundle]:
    """Two bundles of other names: that for appearance takes single frames."""
    return _renamed(tmp_path / "m", "moves", 2), _renamed(tmp_path / "a", "looks", 1)


def _renamed(folder: Path, name: str, frames: int) -> Bundle:
    """Copy the bundled model's manifest and graphs; its window is only claimed to be ``frames``."""
    folder.mkdir()
    for graph in bundled_model().glob("*.onnx"):
        shutil.copy(graph, folder)
    manifest = load_bundle(bundled_model()).manifest
    window = msgspec.structs.replace(manifest.input, frames=frames, described_frames=1)
    return seal_bundle(
        folder, msgspec.structs.replace(manifest, name=name, input=window, propagation=None)
    )


def test_each_part_keeps_what_it_says_of_itself(
    tmp_path: Path, parts: tuple[Bundle, Bundle], tiny_bundle: Bundle
) -> None:
    motion, appearance = parts
    points = tiny_bundle
    combine_bundles(points, motion, appearance, PROPAGATION, tmp_path / "whole")
    whole = load_bundle(tmp_path / "whole")
    assert whole.manifest.propagation == PROPAGATION
    assert whole.manifest.name == points.manifest.name
    assert whole.motion.manifest == motion.manifest
    assert whole.appearance.manifest == appearance.manifest


def test_parts_that_a_bundle_has_already_are_replaced(
    tmp_path: Path, parts: tuple[Bundle, Bundle]
) -> None:
    old = write_propagating(tmp_path / "old")
    settings = msgspec.structs.replace(PROPAGATION, motion_weight=0.7)
    whole = combine_bundles(old, *parts, settings, tmp_path / "old")
    assert whole.motion.manifest.name == "moves"
    assert load_bundle(tmp_path / "old").manifest.propagation == settings


def test_a_part_that_propagates_masks_itself_gives_its_own_features_alone(
    tmp_path: Path, parts: tuple[Bundle, Bundle]
) -> None:
    nested = write_propagating(tmp_path / "nested")
    whole = combine_bundles(nested, nested, parts[1], PROPAGATION, tmp_path / "whole")
    assert whole.motion.manifest.propagation is None
    assert not (whole.motion.root / "motion").exists()


def test_the_command_joins_what_then_propagates(tmp_path: Path) -> None:
    single = tmp_path / "single"
    tiny = write_propagating(tmp_path / "tiny")
    _single_frames(tiny.appearance, single)
    out = tmp_path / "whole"
    bundles = [str(tiny.root), "--motion", str(tiny.motion.root), "--appearance", str(single)]
    settings = ["--motion-weight", "1", "--temperature", "0.05"]
    result = run_command(combine, *bundles, "-o", out, *settings)
    assert result.exit_code == 0, result.output
    # Motion alone, whose graphs really are of the windows that they claim.
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    first = np.zeros((48, 64), np.uint8)
    first[10:30, 10:30] = 1
    masks = Tracker.load(out).propagate(frames, first)
    assert masks.shape == (3, 48, 64)
    np.testing.assert_array_equal(masks[0], first)


def _single_frames(bundle: Bundle, folder: Path) -> None:
    shutil.copytree(bundle.root, folder)
    window = msgspec.structs.replace(bundle.manifest.input, frames=1, described_frames=1)
    seal_bundle(folder, msgspec.structs.replace(bundle.manifest, input=window))


def test_appearance_of_windows_is_refused_and_nothing_is_left(
    tmp_path: Path, parts: tuple[Bundle, Bundle], tiny_bundle: Bundle
) -> None:
    tiny, windows = tiny_bundle, parts[0]
    with pytest.raises(InputError, match="windows of 2 frames"):
        combine_bundles(tiny, tiny, windows, PROPAGATION, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("option", ["--temperature", "--radius"])
@pytest.mark.parametrize("value", ["nan", "0", "-1", "inf"])
def test_settings_that_are_no_numbers_above_zero_are_refused(option: str, value: str) -> None:
    tiny = str(bundled_model())
    arguments = [tiny, "--motion", tiny, "--appearance", tiny, "-o", "nowhere"]
    result = run_command(combine, *arguments, option, value)
    assert isinstance(result.exception, InputError)
    assert f"{option} {value}" in str(result.exception)
