"""Levels of a pyramid, read at positions of the frame."""

import numpy as np
import pytest

from vditrack.points.pyramid import Pyramid


@pytest.fixture(scope="module")
def ramp() -> Pyramid:
    """Grey levels that are known everywhere: 20 + x + y / 2 at (x, y)."""
    y, x = np.mgrid[:120, :160] + 0.5
    return Pyramid(np.rint(20 + x + y / 2).astype(np.uint8))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_every_level_has_the_same_coordinates(ramp, level):
    positions = np.float32([[[40.5, 80.2, 99.9], [40.5, 61.3, 70.1]]])
    read = ramp.read(positions, np.array([level]))
    assert read[0] == pytest.approx(20 + positions[0, 0] + positions[0, 1] / 2, abs=0.8)


def test_levels_follow_the_size_of_a_pixel(ramp):
    assert ramp.last_level == 2
    assert ramp.nearest_levels(np.float32([0.3, 1, 1.5, 2.2, 100])).tolist() == [0, 0, 1, 1, 2]


def test_the_border_belongs_to_the_frame_on_its_left_and_upper_side(ramp):
    positions = np.float32([[[0, 159.9, 160, -0.1], [0, 119.9, 60, 60]]])
    assert ramp.contains(positions).tolist() == [[True, True, False, False]]
    beyond = ramp.read(np.float32([[[-50], [60.5]]]), np.array([0]))
    assert beyond == ramp.read(np.float32([[[0.5], [60.5]]]), np.array([0]))


def test_more_places_than_opencv_takes_at_once(ramp):
    """A cut may lose 10,000 points at once, and each is tried at several places."""
    x = np.linspace(5, 30, 70_000, dtype=np.float32)
    points, shapes = np.stack([x, x], axis=1), np.tile(np.eye(2, dtype=np.float32), (len(x), 1, 1))
    offsets, levels = np.zeros((2, 1), np.float32), np.zeros(len(x), np.intp)
    read = ramp.read_warped(points, shapes, offsets, levels)
    few = slice(69_000, None)
    np.testing.assert_array_equal(
        read[few], ramp.read_warped(points[few], shapes[few], offsets, levels[few])
    )
