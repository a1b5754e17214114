"""First patches on pictures that are warped in closed form."""

import numpy as np
import pytest

from moving_features import wave_field
from vditrack.bundle.configuration import PatchAlignment
from vditrack.points.patch_alignment import PatchAligner, Patches, Placement, place_unwarped

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
def aligner(request) -> PatchAligner:
    return PatchAligner(request.param, PatchAlignment())


def test_a_patch_equals_itself_whatever_the_light(aligner):
    patches = aligner.extract(picture(), POINTS)
    for gain, bias in [(1, 0), (0.4, 80), (1.7, -50)]:
        lit = picture(gain=gain, bias=bias)
        assert aligner.correlate(patches, lit, place_unwarped(POINTS)) == pytest.approx(1, abs=2e-3)
    inverted = picture(gain=-1)
    assert aligner.correlate(patches, inverted, place_unwarped(POINTS)) == pytest.approx(
        -1, abs=2e-3
    )


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(2),
        np.array([[1.15, 0.0], [0.0, 1.15]]),
        np.array([[0.98, -0.17], [0.17, 0.98]]),
        np.array([[1.1, 0.12], [-0.05, 0.9]]),
    ],
)
def test_shift_and_shape_are_found(aligner, matrix):
    offset = np.float32([3.7, -2.4])
    patches = aligner.extract(picture(), POINTS)
    later = picture(matrix, offset, gain=0.8, bias=12)
    truth = POINTS @ np.float32(matrix).T + offset
    start = place_unwarped(truth + np.float32([[1.3, -0.8], [-1.1, 1.2], [0.4, 1.5], [-1.4, -0.2]]))
    found = aligner.align(patches, later, start, rounds=30)
    assert np.linalg.norm(found.points - truth, axis=1).max() < 0.12
    # Damping keeps the shape of a small patch from following all the way.
    error = np.abs(found.shapes - np.float32(matrix)).max(axis=(1, 2))
    assert (error < 0.6 * np.abs(matrix - np.eye(2)).max() + 0.02).all()
    assert (aligner.correlate(patches, later, found) > 0.97).all()


def test_the_frames_own_size_goes_into_the_shape(aligner):
    """Patches of a frame are found in one of twice its size by shapes of twice theirs."""
    points = np.float32([[50.3, 40.2], [30.6, 20.1]])
    patches = aligner.extract(picture(), points)
    doubled = picture(2 * np.eye(2))
    start = place_unwarped(2 * points + 0.7)
    found = aligner.align(patches, doubled, Placement(start.points, 2 * start.shapes), rounds=20)
    assert np.linalg.norm(found.points - 2 * points, axis=1).max() < 0.2


def test_a_border_and_a_flat_picture_give_numbers_or_nothing_believable(aligner):
    corner = np.float32([[0.2, 0.3], [WIDTH - 0.1, HEIGHT - 0.1]])
    patches = aligner.extract(picture(), corner)
    assert aligner.correlate(patches, picture(), place_unwarped(corner)) == pytest.approx(
        1, abs=2e-3
    )
    flat = np.full((HEIGHT, WIDTH), 50, np.float32)
    assert np.abs(aligner.correlate(patches, flat, place_unwarped(corner))).max() < 0.05
    nothing = aligner.extract(flat, corner)
    found = aligner.align(nothing, picture(), place_unwarped(corner), rounds=8)
    assert np.isfinite(found.points).all() or not aligner.is_believable(found.shapes).all()


def test_shapes_that_no_surface_has(aligner):
    shapes = np.stack([np.eye(2), 3 * np.eye(2), 0.3 * np.eye(2), np.diag([1, 0.3]), np.eye(2)])
    shapes[4, 0, 0] = np.nan
    assert aligner.is_believable(shapes.astype(np.float32)).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_alignment_descends_as_its_own_numbers_say(aligner):
    """Steps are the least-squares solution: no small step leaves less of the difference."""
    patches = aligner.extract(picture(), POINTS[:1])
    assert isinstance(patches, Patches) and patches.pixels.shape[0] == 1
    near = place_unwarped(POINTS[:1] + np.float32([[0.4, -0.3]]))
    before = aligner.correlate(patches, picture(), near)
    after = aligner.correlate(patches, picture(), aligner.align(patches, picture(), near, rounds=1))
    assert after > before and 1 - after < 0.2 * (1 - before)
