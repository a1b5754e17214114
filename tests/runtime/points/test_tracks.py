"""Tracks: joined shots, and the objects that points lie on."""

import numpy as np
import pytest

from doubles.tracks import TRACKS
from vditrack import InputError
from vditrack.points.object_ids import read_object_ids
from vditrack.points.tracks import concatenate_tracks


def test_joined_shots_keep_their_own_frames():
    whole = concatenate_tracks([TRACKS, TRACKS])
    assert whole.points.shape == (4, 4, 2)
    np.testing.assert_array_equal(whole.queries[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(whole.points[:2, :2], TRACKS.points)
    np.testing.assert_array_equal(whole.points[2:, 2:], TRACKS.points)
    np.testing.assert_array_equal(whole.points[0, 2:], TRACKS.points[[0, 0], 1])
    np.testing.assert_array_equal(whole.visible[2:, 2:], TRACKS.visible)
    assert not whole.visible[:2, 2:].any()
    assert not whole.visible[2:, :2].any()
    assert np.isinf(whole.forward_backward_error[2:, :2]).all()
    assert not whole.confidence[2:, :2].any()


def test_objects_of_points():
    """Pixel by pixel."""
    masks = np.zeros((2, 5, 4), np.uint8)
    masks[0, 2, 1], masks[1, 2, 1], masks[0, 4, 3], masks[1, 4, 3] = 9, 8, 7, 255
    tracks = TRACKS.on_objects(masks)
    # The first point is invisible in the second frame.
    np.testing.assert_array_equal(tracks.object_id, [[9, 0], [7, 255]])
    assert tracks.object_id.dtype == np.uint8
    with pytest.raises(InputError, match="give one a frame"):
        TRACKS.on_objects(masks[:1])


def test_points_outside_a_picture_are_on_no_object():
    points = np.float32([[-0.01, 1], [1, -0.01], [3, 1], [1, 2], [2.99, 1.99], [0, 0], [np.nan, 1]])
    found = read_object_ids(points, np.ones(7, bool), np.full((2, 3), 5, np.uint8))
    np.testing.assert_array_equal(found, [0, 0, 0, 0, 5, 5, 0])
    assert read_object_ids(points[:0], np.ones(0, bool), np.ones((2, 3), np.uint8)).shape == (0,)
