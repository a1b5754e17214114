"""Colours of cells against another implementation of CIE L*a*b*, and against each frame alone."""

import msgspec
import numpy as np
import pytest
from skimage.color import rgb2lab

from doubles.passthrough import write_passthrough
from doubles.propagating import DISPLACEMENT, PROPAGATION, write_propagating
from vditrack import Tracker
from vditrack.bundle.configuration import CellColour
from vditrack.coordinates import Grid
from vditrack.features.cell_colour import add_colours, describe_colours, read_coloured_features
from vditrack.features.clip_frames import ArrayFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, normalise
from vditrack.features.fusion import FusedFeatures

GRID = Grid(6, 8, 4)
COLOUR = CellColour(weight=0.6, frequency=9.0)


def patches(seed, height=24, width=32):
    """A frame of 6 x 8 cells of one colour each."""
    colours = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.kron(colours, np.ones((height // 6, width // 8, 1), np.uint8))


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (12, 96, 128, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(24, 32), (48, 64)], ids=str)
def test_products_are_those_of_the_differences_of_colours(size):
    one, other = patches(0), patches(1)
    large = patches(1, *size)
    found = (
        describe_colours(one, GRID, COLOUR)[:, :, None, None]
        * describe_colours(large, GRID, COLOUR)
    ).sum(axis=-1)
    lab = [rgb2lab(picture[::4, ::4]) / 100 for picture in (one, other)]
    apart = lab[0][:, :, None, None] - lab[1]
    wanted = COLOUR.weight * np.cos(COLOUR.frequency * apart).mean(axis=-1)
    # OpenCV interpolates the curves of CIE L*a*b*.
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_cosines_are_weighted_means():
    rng = np.random.default_rng(2)
    plain = FeatureMap(GRID, rng.normal(size=(6, 8, 5)).astype(np.float32))
    colours = describe_colours(patches(4), GRID, COLOUR)
    both = normalise(add_colours(plain, colours).descriptors).reshape(48, -1)
    descriptors, flat = normalise(plain.descriptors).reshape(48, -1), colours.reshape(48, -1)
    wanted = (descriptors @ descriptors.T + flat @ flat.T) / (1 + COLOUR.weight)
    np.testing.assert_allclose(both @ both.T, wanted, atol=1e-6)


@pytest.mark.parametrize("first", [0, 1, 7])
@pytest.mark.parametrize(
    "form",
    [
        {"frames": 1},
        {"frames": 4},
        {"frames": 9, "temporal_stride": 4, "cached": True},
    ],
    ids=["single frames", "windows", "groups"],
)
def test_each_map_has_the_colours_of_its_own_frame(tmp_path, frames, form, first):
    bundle = write_passthrough(tmp_path, **form)
    extractor = FeatureExtractor(bundle)
    clip = ArrayFrames(frames, np.arange(len(frames)) / 30)
    found = list(read_coloured_features(extractor, clip, first, COLOUR))
    assert len(found) == len(frames) - first
    for features, frame in zip(found, frames[first:], strict=True):
        colours = features.descriptors[..., 3:]
        np.testing.assert_array_equal(colours, describe_colours(frame, features.grid, COLOUR))


@pytest.mark.parametrize("displacement", [None, DISPLACEMENT], ids=["fused", "displaced"])
def test_a_stream_has_the_colours_of_a_clip(tmp_path, frames, displacement):
    single = write_passthrough(tmp_path / "single", frames=1).root
    settings = msgspec.structs.replace(PROPAGATION, displacement=displacement, colour=COLOUR)
    bundle = write_propagating(tmp_path / "whole", settings, motion=single, appearance=single)
    features = FusedFeatures(bundle)
    window = features.window()
    clip = features.clip(ArrayFrames(frames, np.arange(len(frames)) / 30))
    for frame, fused in zip(frames, clip, strict=True):
        # A frame that is kept for later is kept at the model's size.
        for given in (frame, features.shrink(frame)):
            pushed = window.copy().push(given)
            np.testing.assert_array_equal(pushed.descriptors, fused.descriptors)
        window.push(frame)
        assert fused.descriptors.shape[2] == (3 if displacement is None else 0) + 3 + 6


def test_masks_end_where_colours_do(tmp_path):
    """Descriptors that are nearly the window's first at every frame do not see that it moves."""
    frames = np.full((4, 64, 96, 3), (90, 90, 90), np.uint8)
    truth = np.zeros((4, 64, 96), np.uint8)
    for t in range(4):
        frames[t, 16:48, 16 + 8 * t : 48 + 8 * t] = (90, 90, 140)
        truth[t, 16:48, 16 + 8 * t : 48 + 8 * t] = 1
    single = write_passthrough(tmp_path / "single", frames=4, context=50.0).root
    found = {}
    for name, colour in (("plain", None), ("coloured", CellColour(weight=1.0, frequency=20.0))):
        settings = msgspec.structs.replace(PROPAGATION, motion_weight=0.0, colour=colour)
        bundle = write_propagating(tmp_path / name, settings, motion=single, appearance=single)
        masks = Tracker(bundle).propagate(frames, truth[0])
        both = [(masks[t] > 0) & (truth[t] > 0) for t in range(1, 4)]
        either = [(masks[t] > 0) | (truth[t] > 0) for t in range(1, 4)]
        found[name] = min(a.sum() / b.sum() for a, b in zip(both, either, strict=True))
    assert found["coloured"] > 0.95
    assert found["plain"] < 0.5
