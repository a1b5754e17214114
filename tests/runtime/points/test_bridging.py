"""Points that optical flow alone carries through a frame, on pictures that move by a known step."""

import cv2
import numpy as np

from vditrack.bundle.configuration import CameraMotion, LiveTracking
from vditrack.points.bridging import carry_points

STEP = np.float32([6, 2])
SIZE = (192, 256)


def frames():
    """Two grey frames of one textured picture that moves by STEP, with a flat square in it."""
    values = np.random.default_rng(0).normal(size=(220, 300))
    values = cv2.GaussianBlur(values, (0, 0), 4)
    picture = np.clip(128 + 50 * values / values.std(), 0, 255).astype(np.uint8)
    picture[80:140, 100:160] = 128
    x, y = STEP.astype(int)
    return picture[y : y + 192, x : x + 256].copy(), picture[:192, :256].copy()


CAMERA = CameraMotion()


def carry(places, textureless, camera=CAMERA):
    return carry_points(
        *frames(), np.float32(places), np.array(textureless), LiveTracking(), camera
    )


def test_a_textured_point_goes_where_flow_leads():
    carried, held = carry([[60, 60]], [False])
    assert held.all()
    assert np.abs(carried[0] - (60, 60) - STEP).max() < 0.1


def test_a_point_that_leaves_across_the_border_is_not_believed():
    for camera in (CAMERA, None):
        _, held = carry([[253.5, 60], [200, 60]], [False, False], camera)
        assert held[1]
    _, held = carry([[253.5, 60]], [False])
    assert not held[0]


def test_a_textureless_point_goes_with_the_camera_or_is_not_believed():
    flat = [[124, 108]]
    carried, held = carry(flat, [True])
    assert held.all()
    assert np.abs(carried[0] - flat[0] - STEP).max() < 0.3
    _, held = carry(flat, [True], camera=None)
    assert not held.any()


def test_a_point_that_flow_leaves_at_the_border_is_not_believed():
    """A strip at the border stands still, as dirt on the lens does, and flow sticks to it."""
    before, image = frames()
    image[:, -12:] = before[:, -12:]
    places, textureless = np.float32([[251.5, 60]]), np.array([False])
    stuck, held = carry_points(before, image, places, textureless, LiveTracking(), None)
    assert held.all() and np.abs(stuck - places).max() < 0.5
    _, held = carry_points(before, image, places, textureless, LiveTracking(), CAMERA)
    assert not held.any()
