"""Corners of an image, away from the points that are there."""

import cv2
import numpy as np

from vditrack.points.corners import detect_corners

SIZE = (120, 160)
NOBODY = np.zeros((0, 2), np.float32)
QUALITY = 0.01


def test_corners_are_found_where_they_are():
    # Squares with corners known; the grey in between has none.
    frame = np.full(SIZE, 90, np.uint8)
    for left, top in ((30, 30), (100, 60)):
        frame[top : top + 20, left : left + 20] = 220
    true = np.array(
        [(x + dx, y + dy) for x, y in ((30, 30), (100, 60)) for dx in (0, 20) for dy in (0, 20)]
    )
    found = detect_corners(frame, 20, 64, NOBODY, QUALITY)
    assert len(found) == 8
    assert np.linalg.norm(found[:, None] - true, axis=2).min(axis=1).max() < 1.5
    # Away from the living.
    rest = detect_corners(frame, 20, 64, found[:3], QUALITY)
    assert len(rest) == 5
    assert len(detect_corners(np.full(SIZE, 90, np.uint8), 20, 64, NOBODY, QUALITY)) == 0


def test_corners_agree_with_the_convention():
    # A bright pixel's corner neighbourhood is symmetric about its centre: at +0.5.
    frame = np.zeros((40, 40), np.uint8)
    frame[20, 10] = 255
    frame = cv2.GaussianBlur(frame, (0, 0), 2.0)
    found = detect_corners(frame, 1, 4, NOBODY, QUALITY)
    np.testing.assert_array_equal(found, [[10.5, 20.5]])


def test_corners_are_taken_in_the_area_only():
    frame = np.full(SIZE, 90, np.uint8)
    for left in (20, 110):
        frame[50:70, left : left + 20] = 220
    allowed = np.zeros(SIZE, np.uint8)
    allowed[:, 80:] = 1
    found = detect_corners(frame, 20, 64, NOBODY, 0.01, allowed)
    assert len(found) == 4 and (found[:, 0] > 100).all()
    assert len(detect_corners(frame, 20, 64, NOBODY, 0.01, 0 * allowed)) == 0


def test_noise_is_no_corner_where_the_good_ones_are_taken():
    frame = np.full(SIZE, 90, np.uint8)
    frame[30:50, 30:50] = 220
    frame[90, 120] = 92
    found = detect_corners(frame, 20, 64, NOBODY, QUALITY)
    assert len(found) == 4
    assert len(detect_corners(frame, 20, 64, found, QUALITY)) == 0
