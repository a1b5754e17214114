"""The points for estimators: gaps, velocities, jumps and outliers."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vditrack_ros.features import FeatureSelector, find_epipolar_outliers

FOCAL = 400.0
CENTRE = np.array([320.0, 240.0])
RNG = np.random.default_rng(0)
SCENE = np.column_stack([RNG.uniform(-2, 2, (40, 2)), RNG.uniform(3, 6, 40)])


def view(n):
    """Pixels [40, 2] of a scene before a camera that moves and turns, in the n-th image."""
    turn = cv2.Rodrigues(np.array([0.0, 0.004 * n, 0.0]))[0]
    seen = SCENE @ turn.T + np.array([0.02 * n, 0.0, 0.01 * n])
    return (seen[:, :2] / seen[:, 2:] * FOCAL + CENTRE).astype(np.float32)


class Camera:
    """Shows the scene image by image, with faults, and selects features."""

    def __init__(self, settings, **changes):
        changes = {"features_rate": 0.0, **changes}
        self.settings = replace(settings, **changes)
        self.selector, self.n = FeatureSelector(), 0

    def shoot(self, *, hidden=(), moved=None, confidence=None, seconds=1 / 30):
        pixels = view(self.n)
        if moved is not None:
            rows, offset = moved
            pixels[rows] += np.float32(offset)
        visible = np.ones(len(SCENE), np.bool_)
        visible[list(hidden)] = False
        update = SimpleNamespace(
            stamp=self.n * seconds,
            ids=np.arange(len(SCENE)),
            points=pixels,
            visible=visible,
            confidence=np.full(len(SCENE), 0.9) if confidence is None else confidence,
        )
        self.n += 1
        rays = ((pixels - CENTRE) / FOCAL).astype(np.float32)
        return self.selector.select(update, rays, FOCAL, self.settings)


def test_a_point_is_a_feature_once_its_velocity_is_certain(settings):
    camera = Camera(settings)
    assert len(camera.shoot().ids) == 0
    assert len(camera.shoot().ids) == 0
    features = camera.shoot()
    assert len(features.ids) == len(SCENE)
    expected = (view(2) - view(1)) / FOCAL * 30
    np.testing.assert_allclose(features.velocities, expected, atol=1e-3)
    np.testing.assert_array_equal(camera.shoot().ids, features.ids)


@pytest.mark.parametrize("fault", ["hidden", "unsure"])
def test_a_new_id_after_a_gap(settings, fault):
    """Before, the id stayed: an estimator took images 1 and 3 for consecutive ones."""
    camera = Camera(settings)
    before = [camera.shoot() for _ in range(3)][-1]
    unsure = np.full(len(SCENE), 0.9)
    unsure[5] = 0.4
    camera.shoot(**({"hidden": [5]} if fault == "hidden" else {"confidence": unsure}))
    for _ in range(2):
        assert len(camera.shoot().ids) == len(SCENE) - 1
    after = camera.shoot()
    assert len(after.ids) == len(SCENE)
    assert len(set(after.ids) - set(before.ids)) == 1 and max(after.ids) == len(SCENE)
    # The others are the same, and no velocity spans the gap.
    assert len(set(after.ids) & set(before.ids)) == len(SCENE) - 1
    assert np.abs(after.velocities - (view(6) - view(5)) / FOCAL * 30).max() < 1e-3


def test_a_gap_between_two_messages_counts(settings):
    camera = Camera(settings, features_rate=10.0)
    messages = [camera.shoot(hidden=[7] if n == 4 else ()) for n in range(13)]
    sent = [n for n, message in enumerate(messages) if message is not None]
    assert sent == [0, 3, 6, 9, 12]
    assert len(messages[6].ids) == len(SCENE) - 1
    changed = set(messages[9].ids.tolist()) - set(messages[3].ids.tolist())
    assert len(changed) == 1


@pytest.mark.parametrize(("rate", "expected"), [(0.0, 30), (10.0, 10), (15.0, 15), (1000.0, 30)])
def test_rate(settings, rate, expected):
    camera = Camera(settings, features_rate=rate)
    assert sum(camera.shoot() is not None for _ in range(30)) == expected


def test_a_correction_gives_no_velocity_and_another_id(settings):
    """A point that is put 9 pixels away has moved at 270 pixels a second in no scene."""
    camera = Camera(settings, features_outlier_distance=0.0)
    for _ in range(3):
        before = camera.shoot()
    jumped = [camera.shoot(moved=([4], (9, 0))) for _ in range(2)]
    assert [len(one.ids) for one in jumped] == [len(SCENE) - 1] * 2
    again = camera.shoot(moved=([4], (9, 0)))
    assert len(again.ids) == len(SCENE) and len(set(again.ids) - set(before.ids)) == 1
    for features in (*jumped, again):
        assert np.abs(features.velocities).max() < 1.0


def test_a_point_that_is_found_again_and_then_corrected_gives_no_velocity(settings):
    camera = Camera(settings, features_outlier_distance=0.0)
    for _ in range(3):
        camera.shoot()
    camera.shoot(hidden=[4])
    camera.shoot(moved=([4], (15, 8)))
    for _ in range(5):
        assert np.abs(camera.shoot().velocities).max() < 1.0


def test_shaking_of_the_camera_is_no_jump(settings):
    camera = Camera(settings, features_outlier_distance=0.0)
    for _ in range(3):
        before = camera.shoot()
    shaken = camera.shoot(moved=(slice(None), (12, -7)))
    np.testing.assert_array_equal(shaken.ids, before.ids)


def test_outliers_of_the_epipolar_geometry_are_left_out(settings):
    camera = Camera(settings, features_max_jump=0.0)
    camera.shoot()
    # Without a limit for jumps, velocities are not compared.
    before = camera.shoot()
    features = camera.shoot(moved=([3, 20], (0, 6)))
    assert len(set(before.ids) - set(features.ids)) == 2
    assert len(features.ids) == len(SCENE) - 2


@pytest.mark.parametrize(
    ("turn", "shift"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((0, 0.03, 0.01), (0, 0, 0)),
        ((0, 0.01, 0), (0.1, 0, 0.02)),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_a_camera_that_stands_still_or_turns_has_no_outliers(turn, shift, flat):
    rng = np.random.default_rng(3)
    scene = SCENE * (1, 1, not flat) + (0, 0, 4.0 * flat)
    moved = scene @ cv2.Rodrigues(np.array(turn, float))[0].T + shift
    rays = [one[:, :2] / one[:, 2:] + rng.normal(0, 0.2 / FOCAL, (40, 2)) for one in (scene, moved)]
    assert find_epipolar_outliers(*rays, FOCAL, 1.0).mean() < 0.1


def test_a_clock_that_goes_back_and_ids_that_go_on(settings):
    camera = Camera(settings)
    before = [camera.shoot() for _ in range(3)][-1]
    camera.n = 0
    assert len(camera.shoot().ids) == 0
    after = [camera.shoot() for _ in range(2)][-1]
    assert min(after.ids) > max(before.ids)
