"""Matching and consistency on descriptor fields whose motion is known in closed form."""

import msgspec
import numpy as np
import pytest

from doubles.manifest import MATCHING
from moving_features import WaveField, cell_centres, translated_maps, wave_field
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import match
from vditrack.points.forward_backward import backward_error

GRID = Grid(16, 20, 8)
SETTINGS = msgspec.structs.replace(MATCHING, temperature=0.01, argmax_radius=8, search_radius=40)
EVERYWHERE = np.zeros(1, np.bool_)


def moved(field: WaveField, offset) -> FeatureMap:
    maps = translated_maps(field, np.array([offset], float), GRID.rows, GRID.columns, GRID.stride)
    return FeatureMap(GRID, maps[0])


@pytest.fixture(scope="module")
def field() -> WaveField:
    return wave_field(channels=64, seed=3, shortest=48)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(45.3, 115.1, 6), np.linspace(44.7, 84.9, 5))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@pytest.mark.parametrize("offset", [(0, 0), (8, -16), (3.3, 5.7), (-21.2, 11.4), (0.5, 0.25)])
@pytest.mark.parametrize("limited", [True, False])
def test_translation_is_found(field, points, offset, limited):
    templates = moved(field, (0, 0)).sample(points, 3.0)
    found = match(templates, moved(field, offset), points, np.full(30, limited), SETTINGS)
    error = np.linalg.norm(found.points - (points + np.float32(offset)), axis=1)
    assert np.median(error) < 0.5
    assert error.max() < 1.5
    assert found.similarity.min() > 0.97


def test_search_radius_limits_and_reach_widens(field, points):
    templates, target = moved(field, (0, 0)).sample(points, 3.0), moved(field, (30, 0))
    narrow = msgspec.structs.replace(SETTINGS, search_radius=20.0)
    limited = np.ones(len(points), np.bool_)
    held = match(templates, target, points, limited, narrow)
    assert np.linalg.norm(held.points - points, axis=1).max() <= 20 + 1e-3
    reaching = match(templates, target, points, limited, narrow, radius_factor=2.0)
    assert np.abs(reaching.points - (points + np.float32([30, 0]))).max() < 1.5


def test_a_very_long_reach_is_the_whole_map(field, points):
    templates, target = moved(field, (0, 0)).sample(points, 3.0), moved(field, (30, 0))
    limited = np.ones(len(points), np.bool_)
    far = match(templates, target, points, limited, SETTINGS, radius_factor=1e6)
    free = match(templates, target, points, ~limited, SETTINGS)
    np.testing.assert_array_equal(far.points, free.points)


def test_soft_argmax_of_a_ridge_stays_in_the_picture():
    """Constant descriptors have no best place: the mean of the disc within the picture."""
    target = FeatureMap(GRID, np.ones((16, 20, 4), np.float32))
    template = np.full((1, 4), 0.5, np.float32)
    corner = np.array([[0.5, 0.5]], np.float32)
    found = match(template, target, corner, EVERYWHERE, SETTINGS)
    offsets = np.array([(x, y) for y in range(9) for x in range(9) if x * x + y * y <= 64])
    np.testing.assert_allclose(found.points[0], offsets.mean(axis=0) + 0.5, atol=1e-3)


def test_softmax_weights_by_hand():
    """One cell is better than all others: the paper's weights, written out pixel by pixel."""
    descriptors = np.tile(np.array([1, 0], np.float32), (16, 20, 1))
    descriptors[7, 9] = (1, 1)
    template = np.array([[0, 1]], np.float32)
    settings = msgspec.structs.replace(SETTINGS, temperature=0.7, argmax_radius=6.0)
    found = match(
        template, FeatureMap(GRID, descriptors), np.float32([[8, 8]]), EVERYWHERE, settings
    )
    y, x = np.mgrid[:128, :160] + 0.5
    lift = np.maximum(0, 1 - np.abs(x / 8 - 0.5 - 9)) * np.maximum(0, 1 - np.abs(y / 8 - 0.5 - 7))
    cosine = lift / np.hypot(1, lift)
    row, column = np.unravel_index(cosine.argmax(), cosine.shape)
    disc = (y - y[row, column]) ** 2 + (x - x[row, column]) ** 2 <= 36
    weights = np.exp(cosine / 0.7) * disc
    expected = [(weights * x).sum() / weights.sum(), (weights * y).sum() / weights.sum()]
    np.testing.assert_allclose(found.points[0], expected, atol=1e-3)
    np.testing.assert_allclose(found.similarity[0], cosine.max(), atol=1e-5)


def test_a_match_does_not_depend_on_the_other_points(field, points):
    templates, target = moved(field, (0, 0)).sample(points, 3.0), moved(field, (5, 3))
    limited = np.arange(30) % 2 == 0
    together = match(templates, target, points, limited, SETTINGS)
    for i in range(0, 30, 7):
        one = slice(i, i + 1)
        alone = match(templates[one], target, points[one], limited[one], SETTINGS)
        np.testing.assert_allclose(alone.points, together.points[one], atol=1e-3)


def test_no_points():
    found = match(
        np.zeros((0, 4), np.float32),
        FeatureMap(GRID, np.ones((16, 20, 4), np.float32)),
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.bool_),
        SETTINGS,
    )
    assert found.points.shape == (0, 2)


def test_backward_error_of_a_true_and_a_false_track(field, points):
    offsets = np.array([(0, 0), (4.5, 1), (9, 2), (13.5, 3)])
    maps = [moved(field, offset) for offset in offsets]
    truth = (points[:, None] + offsets).astype(np.float32)
    seen, age = np.ones(truth.shape[:2], np.bool_), np.full(len(points), 3)
    assert backward_error(maps, truth, seen, age, SETTINGS).max() < 1.5
    false = truth.copy()
    false[:, -1] += 24
    assert backward_error(maps, false, seen, age, SETTINGS).min() > 12


def test_backward_error_by_hand(field):
    """The way back of a perfect match differs from the trail by what was added to the trail."""
    maps = [moved(field, (0, 0))] * 3
    trail = np.repeat(np.float32([[[84, 68]]]), 3, axis=1)
    trail[:, 0] += (3, 4)
    trail[:, 1] += (0, 2)
    seen, age = np.ones((1, 3), np.bool_), np.array([2])
    error = backward_error(maps, trail, seen, age, SETTINGS)
    np.testing.assert_allclose(error, np.sqrt((25 + 4) / 2), atol=0.3)
    hidden = np.array([[True, False, True]])
    np.testing.assert_allclose(backward_error(maps, trail, hidden, age, SETTINGS), 5, atol=0.3)
    young = np.array([1])
    np.testing.assert_allclose(backward_error(maps, trail, seen, young, SETTINGS), 2, atol=0.3)


def test_a_point_seen_in_no_frame_cannot_be_checked(field):
    maps = [moved(field, (0, 0))] * 3
    trail = np.full((1, 3, 2), 64, np.float32)
    unseen = np.zeros((1, 3), np.bool_)
    assert np.isinf(backward_error(maps, trail, unseen, np.array([2]), SETTINGS))[0]


def test_cell_centres_are_model_pixels():
    assert cell_centres(2, 2, 8)[1, 0].tolist() == [4.0, 12.0]
