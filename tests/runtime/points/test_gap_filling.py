"""Gaps in tracks that are filled backward, on rendered frames whose motion is known."""

import msgspec
import numpy as np
import pytest

from doubles.moving_texture import GRID, SETTINGS, described, places, texture
from vditrack.bundle.redetection import GapFilling
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.gap_filling import GapFiller
from vditrack.points.optical_flow import grey_levels
from vditrack.points.track_blocks import empty_block, write_frame

POINTS = np.float32([[60, 50], [70, 90], [85, 70]])
OFFSETS = np.arange(24)[:, None] * np.float32([0.8, 0.3])
TRUTH = POINTS[:, None] + OFFSETS
COVERED = slice(6, 10)
"""Frames in which the points are covered."""
FOUND = 16
"""First frame after those that has a feature map, without which no point is found."""


def clip():
    frames = [texture(places(offset)) for offset in OFFSETS]
    for frame in frames[COVERED]:
        frame[30:120, 30:130] = (30, 160, 90)
    return frames


def track(*, gaps=None, wrong=()):
    """Track the points; return the block. ``wrong``: frames in which it says something else."""
    flow_tracking = msgspec.structs.replace(SETTINGS.flow_tracking, gaps=gaps)
    settings = msgspec.structs.replace(SETTINGS, flow_tracking=flow_tracking)
    tracker = FlowTracker(GRID, settings, flow_tracking)
    queries = np.column_stack([np.zeros(len(POINTS)), POINTS]).astype(np.float32)
    block = empty_block(queries, 100, np.arange(24) / 25, backward=False)
    block.known[:] = True
    filler = None if gaps is None else GapFiller(block, tracker, gaps)
    for number, frame in enumerate(clip()):
        features = described(frame) if number < COVERED.start or number >= FOUND else None
        image = grey_levels(frame)
        tracker.advance(features, image)
        if number == 0:
            tracker.add(np.arange(len(POINTS)), POINTS)
        write_frame(block, 100 + number, tracker)
        if number in wrong:
            block.visible[:, number] = True
            block.points[:, number] += (0, 30)
        if filler is not None:
            filler.observe(100 + number, image, features, 1.0)
    if filler is not None:
        filler.fill()
    return block


def test_a_gap_is_filled_from_the_return_to_the_cover():
    before, after = track(), track(gaps=GapFilling())
    gap = slice(COVERED.stop, FOUND)
    assert not before.visible[:, COVERED.start : FOUND].any()
    assert before.visible[:, FOUND + 1 :].all()
    assert after.visible[:, gap].all()
    assert np.linalg.norm(after.points - TRUTH, axis=2)[:, gap].max() < 0.5
    assert (after.confidence[:, gap] >= 0.75).all()
    assert np.isfinite(after.forward_backward_error[:, gap]).all()
    assert not after.visible[:, COVERED].any()
    kept = np.ones(24, np.bool_)
    kept[gap] = False
    np.testing.assert_array_equal(after.points[:, kept], before.points[:, kept])
    np.testing.assert_array_equal(after.visible[:, kept], before.visible[:, kept])


def test_a_gap_is_not_filled_with_less_confidence_than_asked_for():
    filled = track(gaps=GapFilling(min_confidence=1.0))
    np.testing.assert_array_equal(filled.visible, track().visible)


@pytest.mark.parametrize(
    ("wrong", "met"), [((14,), False), ((), True)], ids=["passes by", "meets nothing"]
)
def test_tracks_that_pass_each_other_are_left_as_they_are(wrong, met):
    """The point is said to be elsewhere in a frame of the gap, where only one can be right."""
    before, after = track(wrong=wrong), track(gaps=GapFilling(), wrong=wrong)
    changed = (after.visible != before.visible).any()
    assert changed == met
