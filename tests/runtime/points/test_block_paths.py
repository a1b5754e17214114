"""Paths that are chosen through a block, on rendered frames whose motion is known."""

import cv2
import msgspec
import numpy as np
import pytest

from doubles.moving_texture import GRID, SETTINGS, SIZE, described
from vditrack.bundle.path_choice import PathChoice
from vditrack.points.block_paths import PathChooser, make_reader
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.optical_flow import grey_levels
from vditrack.points.track_blocks import empty_block, write_frame

SURFACE = cv2.GaussianBlur(
    np.random.default_rng(0).uniform(0, 255, (200, 320, 3)).astype(np.float32), (0, 0), 4.0
)
SURFACE = np.clip(128 + 10 * (SURFACE - SURFACE.mean(axis=(0, 1))), 0, 255).astype(np.uint8)
"""A picture in which no two places are alike."""
CHOICE = PathChoice(
    bias=-3.0,
    similarity=1.0,
    distinction=0.5,
    near_correlation=1.0,
    wide_correlation=1.0,
    tracked=0.3,
    tracked_confidence=0.05,
    forward_error=0.0,
    backward_error=0.0,
    step=0.5,
    step_on=0.5,
    step_beside=1.0,
    step_off=-0.3,
    step_disagreement=-0.5,
    lost=-2.0,
    found=-2.0,
    hidden=0.5,
)
POINTS = np.float32([[72, 66], [102, 84], [36, 90]])
FRAMES = 16
OFFSETS = np.arange(FRAMES)[:, None] * np.float32([1.5, 0.5])
TRUTH = POINTS[:, None] + OFFSETS
WRONG = slice(6, 11)
"""Frames in which the tracker is made to be elsewhere, and to doubt it."""
FLOW_TRACKING = msgspec.structs.replace(SETTINGS.flow_tracking, gaps=None)


def picture(offset):
    """Return the frame in which the surface is moved by an offset (x, y)."""
    height, width = SIZE
    move = np.float32([[1, 0, offset[0] - 60], [0, 1, offset[1] - 20]])
    return cv2.warpAffine(SURFACE, move, (width, height), borderMode=cv2.BORDER_REFLECT)


def track(*, wrong=(), confidence=0.3, covered=(), without_map=(), offsets=OFFSETS, added=0):
    """Track the points through a block from frame ``added`` on; return it and its chooser.

    Args:
        wrong: rows of the points that the tracker is made to place elsewhere.
        confidence: with which it does.
        covered: frames in which all points are covered.
        without_map: frames without a feature map.
        offsets: [FRAMES, 2] of the picture.
        added: the frame of the queries.

    """
    settings = msgspec.structs.replace(SETTINGS, flow_tracking=FLOW_TRACKING)
    tracker = FlowTracker(GRID, settings, FLOW_TRACKING)
    queries = np.column_stack([np.full(3, added), POINTS + offsets[added]]).astype(np.float32)
    block = empty_block(queries, 0, np.arange(FRAMES) / 25, backward=False)
    reader = make_reader(GRID, settings, FLOW_TRACKING)
    chooser = PathChooser(block, tracker, reader)
    for number, offset in enumerate(offsets):
        frame = picture(offset)
        if number in covered:
            frame[:] = (30, 160, 90)
        features = None if number in without_map else described(frame)
        image = grey_levels(frame)
        tracker.advance(features, image)
        if number == added:
            tracker.add(np.arange(3), queries[:, 1:])
        write_frame(block, number, tracker)
        chooser.observe(number, image, features)
    for row in wrong:
        block.points[row, WRONG] += (0, 24)
        block.confidence[row, WRONG] = confidence
        block.visible[row, WRONG] = confidence >= 0.5
    return block, chooser


@pytest.mark.parametrize("confidence", [0.3, 0.9])
def test_a_point_is_put_where_its_descriptor_and_later_frames_say(confidence):
    block, chooser = track(wrong=[1], confidence=confidence)
    before = block.points.copy()
    chooser.choose(CHOICE)
    assert np.linalg.norm(before[1, WRONG] - TRUTH[1, WRONG], axis=1).min() > 20
    assert np.linalg.norm(block.points - TRUTH, axis=2).max() < 1
    assert block.visible.all()
    assert (block.confidence[1, WRONG] >= 0.5).all()
    # Points that the tracker is sure of, and frames in which it was right, stay bit by bit.
    kept = np.ones((3, FRAMES), np.bool_)
    kept[1, WRONG] = False
    np.testing.assert_array_equal(block.points[kept], before[kept])


def test_a_query_within_the_block():
    block, chooser = track(wrong=[0, 2], added=3)
    chooser.choose(CHOICE)
    assert np.linalg.norm(block.points - TRUTH, axis=2)[:, 3:].max() < 1
    assert not block.points[:, :3].any()
    np.testing.assert_array_equal(block.points[:, 3], TRUTH[:, 3])


def test_points_under_a_cover_stay_hidden():
    covered = range(6, 11)
    block, chooser = track(covered=covered)
    chooser.choose(CHOICE)
    assert not block.visible[:, covered].any()
    assert block.visible[:, 12:].all()
    assert np.linalg.norm(block.points - TRUTH, axis=2)[:, 12:].max() < 1


def test_points_that_are_followed_out_of_the_picture_stay_hidden():
    # The texture repeats nowhere, but something always resembles a point a little.
    leaving = np.arange(FRAMES)[:, None] * np.float32([-9, 0])
    block, chooser = track(offsets=leaving)
    truth = POINTS[:, None] + leaving
    outside = truth[:, :, 0] < -2
    assert outside.sum() > 10
    chooser.choose(CHOICE)
    assert not block.visible[outside].any()


def test_a_block_with_frames_without_a_map_stays_as_it_is():
    block, chooser = track(wrong=[1], without_map=[8])
    before = block.points.copy()
    chooser.choose(CHOICE)
    np.testing.assert_array_equal(block.points, before)


def test_points_do_not_depend_on_those_beside_them():
    several, chooser = track(wrong=[0, 1, 2])
    chooser.choose(CHOICE)
    for row in range(3):
        alone, chooser = track(wrong=[row])
        chooser.choose(CHOICE)
        np.testing.assert_allclose(alone.points[row], several.points[row], atol=1e-3)


def test_no_paths_without_a_search_for_lost_points():
    without = msgspec.structs.replace(FLOW_TRACKING, recovery=None)
    assert make_reader(GRID, SETTINGS, without) is None
    forgetful = msgspec.structs.replace(FLOW_TRACKING, remember_query=False)
    assert make_reader(GRID, SETTINGS, forgetful) is None
