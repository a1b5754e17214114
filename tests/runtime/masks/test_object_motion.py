"""How objects move as a whole, against velocities that are known."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from vditrack.bundle.configuration import Displacement, Propagation
from vditrack.masks.object_motion import ObjectMotion, extents
from vditrack.masks.objects import MaskedObjects

Ways = Callable[[float], tuple[float, float]]

REST = ObjectMotion(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))
HOW = Displacement(
    frames=1,
    reach=2.0,
    temperature=0.05,
    gain=1.0,
    deviation=0.5,
    spread=0.5,
    slack=1.5,
    drift=0.2,
    falloff=0.05,
    uncovered=0.02,
)
SETTINGS = Propagation(
    motion_weight=0.5, temperature=0.03, top_k=5, radius=10.0, context=8, displacement=HOW
)


def labels(mask: np.ndarray) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[mask]


def test_it_is_the_mean_of_an_objects_cells():
    rng = np.random.default_rng(0)
    mask, velocity = rng.integers(0, 2, (6, 7)), rng.normal(size=(6, 7, 2)).astype(np.float32)
    found = REST.measured(labels(mask), velocity, extents(labels(mask)))
    for label in (0, 1):
        np.testing.assert_allclose(
            found.velocity[label], velocity[mask == label].mean(0), atol=1e-6
        )


def test_an_object_goes_on_while_it_is_covered():
    whole, part = np.zeros((2, 6, 8), np.intp)
    whole[1:5, 2:6], part[1, 2:6] = 1, 1
    right = np.broadcast_to(np.float32([1, 0]), (6, 8, 2))
    moving = REST.measured(labels(whole), right, extents(labels(whole)))
    nothing, largest = labels(np.zeros_like(whole)), np.float32([48, 16])
    covered = moving.measured(nothing, -right, largest)
    np.testing.assert_allclose(covered.velocity, [[-1, 0], [1, 0]], atol=1e-6)
    # Of a quarter of it, it takes a quarter of the difference.
    glimpsed = moving.measured(labels(part), -right, largest)
    np.testing.assert_allclose(glimpsed.velocity[1], [0.5, 0], atol=1e-6)
    later = moving.moved_on().moved_on()
    np.testing.assert_allclose(later.travelled[1], [2, 0], atol=1e-6)


def test_cells_that_are_shared_count_little():
    shares = np.array([[[1, 0], [0.5, 0.5], [0, 1]]], np.float32)
    np.testing.assert_allclose(extents(shares), [1.25, 1.25])


def test_later_objects_rest():
    velocity = np.array([[0.5, 0], [1, 2]], np.float32)
    three = ObjectMotion(velocity, 4 * velocity).of(3)
    np.testing.assert_array_equal(three.velocity, [[0.5, 0], [1, 2], [0, 0]])
    np.testing.assert_array_equal(three.travelled, [[2, 0], [4, 8], [0, 0]])


def straight(t: float) -> tuple[float, float]:
    """Two that pass through one another."""
    return 8 + 1.5 * t, 40 - 1.5 * t


def turning(t: float) -> tuple[float, float]:
    """One that passes behind the other, turns round, and comes back in front of it."""
    return 8 + 30 * np.sin(np.pi * t / 24), 23 + 0 * t


def kept(settings: Propagation, ways: Ways) -> float:
    """Least intersection over union, at the end, of two objects of one feature on their ways."""
    objects, size, across = MaskedObjects(settings), (10, 50), np.mgrid[:10, :50][1]
    for t in range(25):
        mask, velocity = np.zeros(size, np.uint8), np.zeros((*size, 2), np.float32)
        for index, now, later in zip((1, 2), ways(t), ways(t + 1), strict=True):
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
@pytest.mark.parametrize("ways", [straight, turning])
def test_nothing_but_motion_tells_objects_apart(ways):
    assert kept(SETTINGS, ways) > 0.8
    assert kept(msgspec.structs.replace(SETTINGS, displacement=None), ways) < 0.7
