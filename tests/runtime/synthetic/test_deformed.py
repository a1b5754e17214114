"""The deformed benchmark: points move with the picture, and nothing folds."""

import cv2
import numpy as np
import pytest

from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.deformed import deform_clip, draw_deformation, render_deformed
from vditrack.synthetic.layers.suite import render_suite


def spots(points, size=96):
    """Return a picture with a soft spot, whose centre of mass is easily found, at each point."""
    y, x = np.mgrid[:size, :size] + 0.5
    frame = np.zeros((size, size), np.float64)
    for px, py in points:
        frame += np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    return np.repeat((frame * 200).astype(np.uint8)[:, :, None], 3, axis=2)


@pytest.mark.parametrize("seed", range(4))
def test_points_move_with_the_picture(seed):
    points = np.float32([[40, 44], [20, 60], [70, 30], [48, 80]])
    deformation = draw_deformation(np.random.default_rng(seed), 96, 96, 20)
    moved = []
    for time in (0, 7, 19):
        frame = deformation.warp(spots(points), time)[:, :, 0].astype(np.float64)
        there = deformation.displace(points, time)
        moved.append(np.linalg.norm(there - points, axis=1).max())
        y, x = np.mgrid[:96, :96] + 0.5
        for px, py in there:
            weight = frame * ((x - px) ** 2 + (y - py) ** 2 < 49)
            centre = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
            assert np.hypot(centre[0] - px, centre[1] - py) < 0.5
    assert max(moved) > 0.3


@pytest.mark.parametrize("seed", range(8))
def test_nothing_folds_and_the_border_stays(seed):
    deformation = draw_deformation(np.random.default_rng(seed), 90, 120, 20)
    for time in range(0, 20, 5):
        step = deformation.at(time)
        assert not step[[0, -1]].any()
        assert not step[:, [0, -1]].any()
        across, down = np.gradient(step, axis=1), np.gradient(step, axis=0)
        determinant = (1 + across[..., 0]) * (1 + down[..., 1]) - across[..., 1] * down[..., 0]
        assert determinant.min() > 0.1


def test_points_outside_the_frame_stay():
    deformation = draw_deformation(np.random.default_rng(0), 96, 96, 20)
    outside = np.float32([[-5, 40], [96.5, 40], [40, 200]])
    np.testing.assert_array_equal(deformation.displace(outside, 3), outside)


def test_frames_are_left_out_with_their_annotations():
    rng = np.random.default_rng(0)
    frames = np.arange(12, dtype=np.uint8)[:, None, None, None] * 20 + np.zeros(
        (12, 64, 64, 3), np.uint8
    )
    points = rng.uniform(20, 40, (5, 12, 2)).astype(np.float32)
    visible = np.ones((5, 12), np.bool_)
    visible[0, 1:] = False
    lengths = set()
    for seed in range(12):
        clip = AnnotatedClip("grey", frames, points, visible)
        found = deform_clip(clip, np.random.default_rng(seed))
        lengths.add(len(found.frames))
        assert found.points.shape == (*found.visible.shape, 2)
        assert len(found.frames) == found.visible.shape[1]
        # A point that is visible in the first frame alone may be in no frame that is kept.
        assert len(found.points) in (4, 5)
        assert found.visible.any(axis=1).all()
    assert lengths == {4, 6, 12}


def test_clips_are_those_of_the_suite_and_repeat():
    first, again = (next(render_deformed(3)) for _ in range(2))
    original = next(render_suite(3))
    assert first.name == f"deformed-{original.name}"
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.points, again.points)
    assert first.frames.shape[1:] == original.frames.shape[1:]
    assert cv2.norm(first.frames[0], original.frames[0], cv2.NORM_L1) > 0
