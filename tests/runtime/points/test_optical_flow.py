"""Optical flow on pictures that move by a known fraction of a pixel."""

import cv2
import numpy as np
import pytest

from moving_features import wave_field
from vditrack.bundle.configuration import OpticalFlow
from vditrack.points.optical_flow import (
    grey_levels,
    is_consistent,
    resize_grey,
    track_forward_backward,
)

POINTS = np.float32([[60.3, 50.2], [80.5, 60.5], [100.9, 75.1], [130.2, 90.8]])


def picture(offset=(0.0, 0.0), seed=0) -> np.ndarray:
    """A smooth random picture, uint8 [144, 192, 3], carried by an offset in pixels."""
    y, x = np.mgrid[:144, :192] + 0.5
    places = np.stack([x, y], axis=-1) - np.asarray(offset)
    waves = wave_field(channels=3, seed=seed, shortest=12).at(places)
    return np.clip(128 + 30 * waves, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.37, -0.81), (5.25, 3.5), (-9.6, 7.1)])
def test_a_known_motion_is_found_to_a_fraction_of_a_pixel(offset):
    before, after = grey_levels(picture()), grey_levels(picture(offset))
    there, distance = track_forward_backward(before, after, POINTS, POINTS, OpticalFlow())
    assert np.linalg.norm(there - POINTS - np.float32(offset), axis=1).max() < 0.1
    assert distance.max() < 0.1


def test_a_large_motion_is_found_from_a_guess():
    offset = np.float32([60, 31])
    before, after = grey_levels(picture()), grey_levels(picture(offset))
    inside = POINTS[:2]
    there, distance = track_forward_backward(
        before, after, inside, inside + offset + 1.5, OpticalFlow()
    )
    assert np.linalg.norm(there - inside - offset, axis=1).max() < 0.1
    assert distance.max() < 0.1


def test_pictures_with_nothing_in_common_do_not_lead_back():
    rng = np.random.default_rng(0)
    before, after = (grey_levels(rng.integers(0, 255, (144, 192, 3), np.uint8)) for _ in range(2))
    points = rng.uniform((10, 10), (180, 130), (200, 2)).astype(np.float32)
    there, distance = track_forward_backward(before, after, points, points, OpticalFlow())
    assert there.shape == points.shape
    assert is_consistent(distance, before.shape, 1.0).mean() < 0.2


def test_a_flat_picture_has_nothing_to_follow():
    grey = np.full((144, 192), 90, np.uint8)
    _, distance = track_forward_backward(grey, grey, POINTS, POINTS, OpticalFlow())
    assert np.isinf(distance).all()


def test_one_pixel_is_allowed_at_a_width_of_256_and_as_much_more_as_frames_are_larger():
    distance = np.float32([0.9, 1.1, 2.4, 2.6])
    assert is_consistent(distance, (144, 192), 1.0).tolist() == [True, False, False, False]
    assert is_consistent(distance, (480, 640), 1.0).tolist() == [True, True, True, False]


@pytest.mark.parametrize("size", [(2, 3), (17, 9), (31, 200)])
def test_small_frames(size):
    grey = grey_levels(cv2.resize(picture(), size[::-1]))
    centre = np.float32([[size[1] / 2, size[0] / 2]])
    there, distance = track_forward_backward(grey, grey, centre, centre, OpticalFlow())
    assert np.isinf(distance).all() or np.linalg.norm(there - centre) < 0.1


def test_an_image_of_another_size_shows_the_same_places():
    grey = grey_levels(picture())
    half = resize_grey(grey, (72, 96))
    assert half.shape == (72, 96)
    assert np.abs(half - grey.reshape(72, 2, 96, 2).mean(axis=(1, 3))).max() <= 0.5
    assert resize_grey(grey, grey.shape) is grey
