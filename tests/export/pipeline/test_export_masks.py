"""``vditrack export --masks`` end to end on a random checkpoint."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from doubles.pipelines import ExportedBundle, run_export
from doubles.tiny_checkpoint import (
    MASK_SECTIONS,
    TINY_CARD,
    make_tiny_transformer,
)
from vditrack import Tracker
from vditrack.bundle.folder import load_bundle
from vditrack.errors import InputError
from vditrack.features.clip_frames import ArrayFrames
from vditrack.features.fusion import FusedFeatures
from vditrack_export.families.tiny.autoencoder import TinyEncoder

pytestmark = pytest.mark.slow


def run(card: str, tiny_checkpoint: Path, output: Path, *options: str) -> Any:
    path = output.parent / "small.toml"
    path.write_text(card)
    return run_export(path, "--weights", tiny_checkpoint, "-o", output, *options)


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("exported") / "bundle"
    result = run(TINY_CARD + MASK_SECTIONS, tiny_checkpoint, output, "--masks")
    assert result.exception is None, result.output
    return output


def test_each_part_is_a_bundle_of_its_own(exported: Path) -> None:
    bundle = load_bundle(exported)
    assert bundle.manifest.propagation.motion_weight == 0.6
    motion, appearance = bundle.motion.manifest, bundle.appearance.manifest
    assert (motion.name, appearance.name) == ("small, motion", "small, appearance")
    assert motion.input.overlap == 2
    assert (motion.source.tensor, motion.source.noise_level) == ("hidden", 0.7)
    assert motion.source.checkpoint_sha256 == bundle.manifest.source.checkpoint_sha256
    assert (appearance.output.rows, appearance.output.columns) == (8, 10)
    for part in (motion, appearance):
        assert part.propagation is None
        assert set(part.parity) == {"encoder_vs_original", "features_vs_full_model"}
        assert all(0 < error <= 1e-5 for error in part.parity.values())


@torch.no_grad()
def hidden(
    tiny_checkpoint: Path, frames: np.ndarray, block: int, noise: float, seed: int
) -> Tensor:
    """What the unmodified model's block puts out: [T, rows, columns, width]."""
    encoder = TinyEncoder.load(tiny_checkpoint)
    model = make_tiny_transformer().eval()
    given = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
    latents = encoder(given).transpose(0, 1)[None]
    drawn = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    caught = []
    model.blocks[block].register_forward_hook(lambda _m, _i, output: caught.append(output))
    mixed = (1 - noise) * latents + noise * drawn
    model(mixed, torch.tensor([1000 * noise]), torch.zeros(1, 1, 16))
    return caught[0].reshape(latents.shape[2], *latents.shape[3:], -1)


def test_fused_features_are_those_of_the_whole_model(exported: Path, tiny_checkpoint: Path) -> None:
    # As many pixels as appearance takes; a 2:1 window of motion would need a resize of its own.
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
    bundle = load_bundle(exported)
    fused = FusedFeatures(bundle, settings=_weighted(bundle, 1.0))
    found = np.stack(
        [
            _of_length_one(fused_map.descriptors)
            for fused_map in fused.clip(ArrayFrames(frames, np.arange(5.0)))
        ]
    )
    expected = hidden(tiny_checkpoint, frames, 2, 0.7, 0).numpy()
    there = np.stack([_resampled(features, 8, 10) for features in expected])
    np.testing.assert_allclose(found, _of_length_one(there), atol=2e-5)


def _weighted(bundle: Any, weight: float) -> Any:
    return msgspec.structs.replace(bundle.manifest.propagation, motion_weight=weight)


def _of_length_one(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def _resampled(features: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Torch's own bilinear interpolation, between the centres of cells."""
    given = torch.from_numpy(features).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(
        given, (rows, columns), mode="bilinear", align_corners=False
    )
    return resized[0].permute(1, 2, 0).numpy()


def test_masks_are_propagated_with_it(exported: Path) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (9, 40, 60, 3), np.uint8)
    first = np.zeros((40, 60), np.uint8)
    first[8:24, 10:30] = 3
    masks = Tracker.load(exported).propagate(frames, first)
    assert masks.shape == (9, 40, 60)
    assert set(np.unique(masks)) <= {0, 3}
    np.testing.assert_array_equal(masks[0], first)


def test_without_the_option_the_parts_are_left_out(exported_points: ExportedBundle) -> None:
    bundle = exported_points.bundle
    assert bundle.manifest.propagation is None
    assert not (bundle.root / "motion").exists()
    with pytest.raises(InputError, match="tracks points alone"):
        Tracker.load(bundle.root).mask_stream()


def test_a_card_without_masks_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = run(TINY_CARD, tiny_checkpoint, tmp_path / "bundle", "--masks")
    assert isinstance(result.exception, InputError)
    assert "has no [masks]" in str(result.exception)
    assert not (tmp_path / "bundle").exists()


def test_appearance_is_of_single_frames(tiny_checkpoint: Path, tmp_path: Path) -> None:
    wrong = MASK_SECTIONS.replace("frames = 1\n", "frames = 2\n")
    result = run(TINY_CARD + wrong, tiny_checkpoint, tmp_path / "bundle", "--masks")
    assert "appearance is read from single frames" in str(result.exception)


def test_motion_may_be_the_displacement_of_appearance(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    head, _, rest = MASK_SECTIONS.partition("[masks.motion.input]")
    displacement = """
[masks.propagation.displacement]
frames = 2
reach = 2.0
temperature = 0.02
spread = 0.5
slack = 2.0
drift = 0.5
gain = 1.5
deviation = 0.5
falloff = 0.05
uncovered = 0.02
"""
    both = run(
        TINY_CARD + MASK_SECTIONS + displacement, tiny_checkpoint, tmp_path / "both", "--masks"
    )
    assert "motion is either a part of its own, or a displacement" in str(both.exception)
    alone = (
        head
        + displacement
        + "[masks.appearance.input]"
        + rest.partition("[masks.appearance.input]")[2]
    )
    result = run(TINY_CARD + alone, tiny_checkpoint, tmp_path / "bundle", "--masks")
    assert result.exception is None, result.output
    tracker = Tracker.load(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / "motion").exists()
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 3), np.uint8)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 3
    assert tracker.propagate(frames, mask).shape == (4, 32, 48)
