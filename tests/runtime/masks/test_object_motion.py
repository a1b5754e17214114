"""Motion of whole objects, against known velocities."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from doubles.propagating import DISPLACEMENT
from vditrack.bundle.configuration import Propagation
from vditrack.masks.object_motion import ObjectMotion, measure_areas
from vditrack.masks.objects import MaskedObjects

Paths = Callable[[float], tuple[float, float]]

REST = ObjectMotion(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))
SETTINGS = Propagation(
    motion_weight=0.5, temperature=0.03, top_k=5, radius=10.0, context=8, displacement=DISPLACEMENT
)


def labels(mask: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[mask]


def test_velocity_is_the_mean_over_an_objects_cells():
    rng = np.random.default_rng(0)
    mask, velocity = rng.integers(0, 2, (6, 7)), rng.normal(size=(6, 7, 2)).astype(np.float32)
    found = REST.update(labels(mask), velocity, measure_areas(labels(mask)))
    for label in (0, 1):
        np.testing.assert_allclose(
            found.velocity[label], velocity[mask == label].mean(0), atol=1e-6
        )


def test_an_occluded_object_keeps_its_velocity():
    whole, part = np.zeros((2, 6, 8), np.intp)
    whole[1:5, 2:6], part[1, 2:6] = 1, 1
    right = np.broadcast_to(np.float32([1, 0]), (6, 8, 2))
    moving = REST.update(labels(whole), right, measure_areas(labels(whole)))
    nothing, largest = labels(np.zeros_like(whole)), np.float32([48, 16])
    covered = moving.update(nothing, -right, largest)
    np.testing.assert_allclose(covered.velocity, [[-1, 0], [1, 0]], atol=1e-6)
    # A quarter of it is visible, so a quarter of the difference is corrected.
    glimpsed = moving.update(labels(part), -right, largest)
    np.testing.assert_allclose(glimpsed.velocity[1], [0.5, 0], atol=1e-6)
    later = moving.predict().predict()
    np.testing.assert_allclose(later.translation[1], [2, 0], atol=1e-6)


def test_shared_cells_count_little():
    shares = np.array([[[1, 0], [0.5, 0.5], [0, 1]]], np.float32)
    np.testing.assert_allclose(measure_areas(shares), [1.25, 1.25])


def test_new_objects_are_at_rest():
    velocity = np.array([[0.5, 0], [1, 2]], np.float32)
    three = ObjectMotion(velocity, 4 * velocity).extend(3)
    np.testing.assert_array_equal(three.velocity, [[0.5, 0], [1, 2], [0, 0]])
    np.testing.assert_array_equal(three.translation, [[2, 0], [4, 8], [0, 0]])


def straight(t: float) -> tuple[float, float]:
    """Two objects that pass through one another."""
    return 8 + 1.5 * t, 40 - 1.5 * t


def turning(t: float) -> tuple[float, float]:
    """An object that passes behind the other, turns round, and comes back in front of it."""
    return 8 + 30 * np.sin(np.pi * t / 24), 23 + 0 * t


def final_overlap(settings: Propagation, paths: Paths) -> float:
    """Lowest final intersection over union of two objects with equal features on two paths."""
    objects, size, across = MaskedObjects(settings), (10, 50), np.mgrid[:10, :50][1]
    for t in range(25):
        mask, velocity = np.zeros(size, np.uint8), np.zeros((*size, 2), np.float32)
        for index, now, later in zip((1, 2), paths(t), paths(t + 1), strict=True):
            inside = np.abs(across - now) <= 2.5
            inside[[0, 1, 8, 9]] = False
            mask[inside], velocity[inside, 0] = index, later - now
        appearance = 0.5 * np.eye(2, dtype=np.float32)[(mask > 0).astype(int)]
        objects.advance(appearance, size, velocity)
        if t == 0:
            objects.add_masks(mask)
    pairs = [(objects.mask == index, mask == index) for index in (1, 2)]
    return min((found & true).sum() / (found | true).sum() for found, true in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("paths", [straight, turning])
def test_motion_alone_tells_equal_objects_apart(paths):
    assert final_overlap(SETTINGS, paths) > 0.8
    assert final_overlap(msgspec.structs.replace(SETTINGS, displacement=None), paths) < 0.7
