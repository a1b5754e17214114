"""First patches on pictures that are warped in closed form."""

import numpy as np
import pytest

from moving_features import wave_field
from vditrack.points.patch_alignment import Patches, PatchLens, Placed, believable, unturned

HEIGHT, WIDTH = 120, 160
POINTS = np.float32([[50.3, 40.2], [80.5, 60.5], [100.9, 75.1], [70.2, 80.8]])
FIELD = wave_field(channels=1, seed=3, shortest=10)


def picture(matrix=((1, 0), (0, 1)), offset=(0.0, 0.0), gain=1.0, bias=0.0) -> np.ndarray:
    """A smooth random picture; its place x is seen at ``matrix x + offset``."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    seen_at = np.stack([x, y], axis=-1) - np.asarray(offset)
    places = seen_at @ np.linalg.inv(matrix).T
    return (gain * (128 + 30 * FIELD.at(places)[..., 0]) + bias).astype(np.float32)


@pytest.fixture(scope="module", params=[5, 14])
def lens(request) -> PatchLens:
    return PatchLens(request.param)


def test_a_patch_equals_itself_whatever_the_light(lens):
    patches = lens.take(picture(), POINTS)
    for gain, bias in [(1, 0), (0.4, 80), (1.7, -50)]:
        lit = picture(gain=gain, bias=bias)
        assert lens.correlation(patches, lit, unturned(POINTS)) == pytest.approx(1, abs=2e-3)
    inverted = picture(gain=-1)
    assert lens.correlation(patches, inverted, unturned(POINTS)) == pytest.approx(-1, abs=2e-3)


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(2),
        np.array([[1.15, 0.0], [0.0, 1.15]]),
        np.array([[0.98, -0.17], [0.17, 0.98]]),
        np.array([[1.1, 0.12], [-0.05, 0.9]]),
    ],
)
def test_shift_and_shape_are_found(lens, matrix):
    offset = np.float32([3.7, -2.4])
    patches = lens.take(picture(), POINTS)
    later = picture(matrix, offset, gain=0.8, bias=12)
    truth = POINTS @ np.float32(matrix).T + offset
    start = unturned(truth + np.float32([[1.3, -0.8], [-1.1, 1.2], [0.4, 1.5], [-1.4, -0.2]]))
    found = lens.align(patches, later, start, rounds=30)
    assert np.linalg.norm(found.points - truth, axis=1).max() < 0.12
    # Damping keeps the shape of a small patch from following all the way.
    error = np.abs(found.shapes - np.float32(matrix)).max(axis=(1, 2))
    assert (error < 0.6 * np.abs(matrix - np.eye(2)).max() + 0.02).all()
    assert (lens.correlation(patches, later, found) > 0.97).all()


def test_the_frames_own_size_goes_into_the_shape(lens):
    """Patches of a frame are found in one of twice its size by shapes of twice theirs."""
    points = np.float32([[50.3, 40.2], [30.6, 20.1]])
    patches = lens.take(picture(), points)
    doubled = picture(2 * np.eye(2))
    start = unturned(2 * points + 0.7)
    found = lens.align(patches, doubled, Placed(start.points, 2 * start.shapes), rounds=20)
    assert np.linalg.norm(found.points - 2 * points, axis=1).max() < 0.2


def test_a_border_and_a_flat_picture_give_numbers_or_nothing_believable(lens):
    corner = np.float32([[0.2, 0.3], [WIDTH - 0.1, HEIGHT - 0.1]])
    patches = lens.take(picture(), corner)
    assert lens.correlation(patches, picture(), unturned(corner)) == pytest.approx(1, abs=2e-3)
    flat = np.full((HEIGHT, WIDTH), 50, np.float32)
    assert np.abs(lens.correlation(patches, flat, unturned(corner))).max() < 0.05
    nothing = lens.take(flat, corner)
    found = lens.align(nothing, picture(), unturned(corner), rounds=8)
    assert np.isfinite(found.points).all() or not believable(found.shapes).all()


def test_shapes_that_no_surface_has():
    shapes = np.stack([np.eye(2), 3 * np.eye(2), 0.3 * np.eye(2), np.diag([1, 0.3]), np.eye(2)])
    shapes[4, 0, 0] = np.nan
    assert believable(shapes.astype(np.float32)).tolist() == [True, False, False, False, False]


def test_alignment_descends_as_its_own_numbers_say(lens):
    """Steps are the least-squares solution: no small step leaves less of the difference."""
    patches = lens.take(picture(), POINTS[:1])
    assert isinstance(patches, Patches) and patches.looks.shape[0] == 1
    near = unturned(POINTS[:1] + np.float32([[0.4, -0.3]]))
    before = lens.correlation(patches, picture(), near)
    after = lens.correlation(patches, picture(), lens.align(patches, picture(), near, rounds=1))
    assert after > before and 1 - after < 0.2 * (1 - before)
