"""PCK-T of tracked joints, against plain loops."""

import math

import numpy as np
import pytest

from vditrack.evaluation.metrics.keypoints import keypoint_scores


def by_loops(true_points, visible, masks, points):
    hits = []
    for n in range(visible.shape[0]):
        for t in range(1, visible.shape[1]):
            if visible[n, 0] and visible[n, t]:
                apart = math.dist(true_points[n, t].tolist(), points[n, t].tolist())
                area = sum(value != 0 for value in masks[t].ravel().tolist())
                hits.append((apart < 0.2 * math.sqrt(area), apart < 3))
    return 100 * np.mean(hits, axis=0)


@pytest.mark.parametrize("seed", range(5))
def test_random_joints(seed):
    rng = np.random.default_rng(seed)
    true_points = rng.uniform(0, 40, (9, 7, 2)).astype(np.float32)
    points = true_points + rng.normal(0, 3, (9, 7, 2)).astype(np.float32)
    visible = rng.random((9, 7)) < 0.6
    masks = (rng.random((7, 40, 40)) < rng.random((7, 1, 1))).astype(np.uint8)
    scores = keypoint_scores(true_points, visible, masks, points)
    expected = by_loops(true_points, visible, masks, points)
    np.testing.assert_allclose([scores.by_area, scores.within_3], expected)
    assert 0 < scores.by_area < 100


def one(distance, area=400, visible=(True, True)):
    true_points = np.full((1, 2, 2), 5, np.float32)
    masks = np.zeros((2, 30, 30), np.uint8)
    masks[1].flat[:area] = 1
    points = true_points + np.float32([0, -distance])
    scores = keypoint_scores(true_points, np.array([visible]), masks, points)
    return scores.by_area, scores.within_3


def test_thresholds_are_strict():
    """An area of 400 allows less than 4 pixels, one of 625 less than 5."""
    assert one(2.5) == (100, 100)
    assert one(3) == (100, 0)
    assert one(4) == (0, 0)
    assert one(5, area=626) == (100, 0)
    assert one(5, area=625) == (0, 0)
    assert one(0, area=0) == (0, 100)


@pytest.mark.parametrize("visible", [(False, True), (True, False), (False, False)])
def test_nothing_to_count(visible):
    assert all(math.isnan(score) for score in one(0, visible=visible))


def test_no_joints():
    scores = keypoint_scores(
        np.zeros((0, 4, 2), np.float32),
        np.zeros((0, 4), bool),
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((0, 4, 2), np.float32),
    )
    assert math.isnan(scores.by_area)
    assert math.isnan(scores.within_3)


def test_joints_are_not_changed():
    visible = np.ones((1, 3), bool)
    keypoint_scores(
        np.zeros((1, 3, 2), np.float32),
        visible,
        np.ones((3, 4, 4), np.uint8),
        np.zeros((1, 3, 2), np.float32),
    )
    assert visible.all()
