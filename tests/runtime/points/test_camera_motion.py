"""The camera's motion on pictures that are warped in closed form."""

import numpy as np
import pytest

from moving_features import wave_field
from vditrack.bundle.configuration import CameraMotion, OpticalFlow
from vditrack.points.camera_motion import estimate_motion
from vditrack.points.pyramid import Pyramid

FIELD = wave_field(channels=1, seed=4, shortest=14)


def picture(height, width, matrix=((1, 0), (0, 1)), offset=(0, 0)) -> np.ndarray:
    """A smooth picture, 256 wide before it is enlarged; its place x is at ``matrix x + offset``."""
    y, x = np.mgrid[:height, :width] + 0.5
    places = (np.stack([x, y], axis=-1) - np.asarray(offset)) @ np.linalg.inv(matrix).T
    grey = 128 + 35 * FIELD.at(places * 256 / width)[..., 0]
    return np.clip(grey, 0, 255).astype(np.uint8)


def estimate(before, image):
    return estimate_motion(Pyramid(before), Pyramid(image), CameraMotion(), OpticalFlow())


TURN = np.array([[np.cos(0.03), -np.sin(0.03)], [np.sin(0.03), np.cos(0.03)]])


@pytest.mark.parametrize("width", [256, 900])
@pytest.mark.parametrize("matrix", [np.eye(2), 1.02 * np.eye(2), TURN])
def test_translation_scale_and_rotation_are_found(width, matrix):
    height = width * 3 // 4
    offset = np.array([4.0, -2.5]) * width / 256
    motion = estimate(picture(height, width), picture(height, width, matrix, offset))
    points = np.float32([[10, 10], [width - 10, 20], [width / 2, height]])
    truth = points @ matrix.T + offset - points
    assert motion.known
    assert np.linalg.norm(motion.step(points) - truth, axis=1).max() < 0.4 * width / 256


def test_a_moving_object_is_not_the_camera():
    before = picture(192, 256)
    image = before.copy()
    image[40:120, 60:150] = picture(192, 256, offset=(9, 3))[40:120, 60:150]
    motion = estimate(before, image)
    assert motion.known and np.abs(motion.step(np.float32([[30, 150], [200, 30]]))).max() < 0.1


def test_an_object_on_a_plain_backdrop_says_nothing_about_the_camera():
    frames = []
    for left in (60, 66):
        frame = np.full((192, 256), 120, np.uint8)
        frame[60:110, left : left + 50] = picture(192, 256)[:50, :50]
        frames.append(frame)
    motion = estimate(*frames)
    assert not motion.known
    assert np.abs(motion.step(np.float32([[70, 80]]))).max() == 0
