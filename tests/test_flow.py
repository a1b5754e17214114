"""Refinement on pictures that move by a known fraction of a pixel."""

import cv2
import numpy as np
import pytest

from moving_features import wave_field
from vditrack.refine import grey_levels, refine

POINTS = np.float32([[60.3, 50.2], [80.5, 60.5], [100.9, 75.1], [130.2, 90.8]])


def picture(offset=(0.0, 0.0), seed=0) -> np.ndarray:
    """A smooth random picture, uint8 [144, 192, 3], carried by an offset in pixels."""
    y, x = np.mgrid[:144, :192] + 0.5
    places = np.stack([x, y], axis=-1) - np.asarray(offset)
    waves = wave_field(channels=3, seed=seed, shortest=12).at(places)
    return np.clip(128 + 30 * waves, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("offset", [(0.0, 0.0), (0.37, -0.81), (5.25, 3.5), (-9.6, 7.1)])
def test_a_coarse_match_becomes_sub_pixel(offset):
    truth = POINTS + np.float32(offset)
    coarse = truth + np.float32([[2, -1], [-3, 2], [1, 3], [0, -2]])
    before, after = grey_levels(picture()), grey_levels(picture(offset))
    refined = refine(before, after, POINTS, coarse, radius=6)
    assert np.linalg.norm(refined - truth, axis=1).max() < 0.1


def test_a_large_motion_is_found_from_the_match():
    offset = np.float32([60, 31])
    before, after = grey_levels(picture()), grey_levels(picture(offset))
    inside = POINTS[:2]
    refined = refine(before, after, inside, inside + offset + 1.5, radius=6)
    assert np.linalg.norm(refined - inside - offset, axis=1).max() < 0.1


def test_flow_that_contradicts_the_match_is_not_taken():
    before, after = grey_levels(picture()), grey_levels(picture((1.0, 1.0)))
    # Where the match points there is another part of the picture.
    matched = POINTS[:, ::-1] + 20
    refined = refine(before, after, POINTS, np.ascontiguousarray(matched), radius=3)
    assert np.linalg.norm(refined - matched, axis=1).max() <= 3


def test_pictures_with_nothing_in_common_leave_the_match():
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (144, 192, 3), np.uint8) for _ in range(2)]
    refined = refine(grey_levels(noise[0]), grey_levels(noise[1]), POINTS, POINTS + 1, radius=8)
    assert np.linalg.norm(refined - POINTS - 1, axis=1).max() <= 8
    assert (refined == POINTS + 1).all(axis=1).mean() >= 0.5


@pytest.mark.parametrize("size", [(2, 3), (17, 9), (31, 200)])
def test_small_frames(size):
    frame = cv2.resize(picture(), size[::-1])
    centre = np.float32([[size[1] / 2, size[0] / 2]])
    refined = refine(grey_levels(frame), grey_levels(frame), centre, centre, radius=2)
    assert np.linalg.norm(refined - centre) < 0.1
