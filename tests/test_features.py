"""Feature maps against direct interpolation, and windows against the frames they must cover."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from passthrough import write_passthrough
from vditrack import BundleError
from vditrack.features import FeatureExtractor, FeatureMap, causal_features, clip_features
from vditrack.grid import Grid, cells_from_pixels, pixels_from_cells


def upsampled(descriptors: np.ndarray, stride: int) -> np.ndarray:
    """Return descriptors at every pixel centre, interpolated one by one: the plain way."""
    maps = torch.from_numpy(descriptors).permute(2, 0, 1)[None]
    full = torch.nn.functional.interpolate(
        maps, scale_factor=stride, mode="bilinear", align_corners=False
    )
    return full[0].permute(1, 2, 0).numpy()


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 4, 5, 8]))
@settings(max_examples=40, deadline=None)
def test_norms_of_interpolated_descriptors(seed, rows, columns, stride):
    descriptors = np.random.default_rng(seed).normal(size=(rows, columns, 3)).astype(np.float32)
    features = FeatureMap(Grid(rows, columns, stride), descriptors)
    expected = 1 / np.linalg.norm(upsampled(descriptors, stride), axis=2)
    np.testing.assert_allclose(features.pixel_inverse_norms, expected, rtol=2e-3)


def test_half_cells_lie_between_cells():
    descriptors = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
    half = FeatureMap(Grid(2, 2, 8), descriptors).half_cell_inverse_norms
    assert half.shape == (3, 3)
    middle = descriptors.reshape(-1, 5).mean(axis=0)
    np.testing.assert_allclose(half[1, 1], 1 / np.linalg.norm(middle), rtol=1e-5)
    np.testing.assert_allclose(half[0, 2], 1 / np.linalg.norm(descriptors[0, 1]), rtol=1e-5)


def test_sample_reads_what_upsampling_holds():
    """Away from the border, a sample is the weighted mean of the 3 x 3 upsampled pixels."""
    descriptors = np.random.default_rng(1).normal(size=(4, 6, 7)).astype(np.float32)
    features = FeatureMap(Grid(4, 6, 8), descriptors)
    full = upsampled(descriptors, 8)
    y, x = (axis.ravel() for axis in np.mgrid[6:26, 6:42])
    expected = np.zeros((len(x), 7))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            expected += np.exp(-3 * np.hypot(dx, dy)) * full[y + dy, x + dx]
    expected /= np.exp(-3 * np.hypot(*np.mgrid[-1:2, -1:2])).sum()
    centres = np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float32)
    np.testing.assert_allclose(features.sample(centres), expected, atol=1e-5)


def test_cell_centres_follow_the_convention():
    assert cells_from_pixels(np.array([4.0, 12.0]), 8).tolist() == [0.0, 1.0]
    assert pixels_from_cells(np.array([0.0, 1.0]), 8).tolist() == [4.0, 12.0]


def numbered_frames(count: int) -> np.ndarray:
    """Frames whose grey level is their index plus one."""
    return np.stack([np.full((64, 96, 3), i + 1, np.uint8) for i in range(count)])


@pytest.mark.parametrize(
    ("window", "encoder_frames", "described"),
    [(1, 1, 1), (2, 1, 1), (2, 2, 2), (4, 1, 4), (4, 2, 3), (4, 4, 1), (4, 4, 4)],
)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11])
def test_every_frame_has_its_own_features(tmp_path, window, encoder_frames, described, count):
    bundle = write_passthrough(
        tmp_path, frames=window, encoder_frames=encoder_frames, described=described
    )
    extractor = FeatureExtractor(bundle)
    frames = numbered_frames(count)
    for source in (clip_features, causal_features):
        levels = [float(features.descriptors.mean()) for features in source(extractor, frames)]
        assert levels == [float(i + 1) for i in range(count)]


def test_frames_are_resized_to_the_model(tmp_path):
    extractor = FeatureExtractor(write_passthrough(tmp_path, rows=8, columns=12))
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:240] = 200
    (features,) = clip_features(extractor, [frame])
    assert features.descriptors.shape == (8, 12, 3)
    np.testing.assert_array_equal(features.descriptors[:4], 200)
    np.testing.assert_array_equal(features.descriptors[4:], 0)


def test_a_graph_that_is_not_what_the_manifest_claims_is_named(tmp_path):
    small = write_passthrough(tmp_path / "small", rows=4, columns=4)
    large = write_passthrough(tmp_path / "large")
    (large.root / "features.onnx").write_bytes(small.features.read_bytes())
    with pytest.raises(BundleError, match=r"features\.onnx.*descriptors"):
        FeatureExtractor(large)
