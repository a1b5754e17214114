"""First patches on pictures that are warped in closed form."""

import numpy as np
import pytest

from moving_features import wave_field
from vditrack.bundle.configuration import PatchAlignment
from vditrack.points.array_tables import select_rows
from vditrack.points.patch_alignment import PatchAligner, Patches, Placement, place_unwarped
from vditrack.points.pyramid import Pyramid

HEIGHT, WIDTH = 120, 160
POINTS = np.float32([[50.3, 40.2], [80.5, 60.5], [100.9, 75.1], [70.2, 80.8]])
FIELD = wave_field(channels=1, seed=3, shortest=10)


def picture(matrix=((1, 0), (0, 1)), offset=(0.0, 0.0), gain=1.0, bias=0.0) -> Pyramid:
    """A smooth random picture; its place x is seen at ``matrix x + offset``."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    seen_at = np.stack([x, y], axis=-1) - np.asarray(offset)
    places = seen_at @ np.linalg.inv(matrix).T
    grey = gain * (128 + 30 * FIELD.at(places)[..., 0]) + bias
    return Pyramid(np.rint(np.clip(grey, 0, 255)).astype(np.uint8))


def extract(aligner, image, points):
    return aligner.prepare(aligner.read(image, place_unwarped(points)))


@pytest.fixture(scope="module", params=[5, 14])
def aligner(request) -> PatchAligner:
    return PatchAligner(request.param, PatchAlignment())


def test_a_patch_equals_itself_whatever_the_light(aligner):
    patches = extract(aligner, picture(), POINTS)
    for gain, bias in [(1, 0), (0.4, 80), (1.2, -30)]:
        lit = picture(gain=gain, bias=bias)
        assert aligner.correlate(patches, lit, place_unwarped(POINTS)) == pytest.approx(1, abs=2e-3)
    inverted = picture(gain=-1, bias=256)
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
    patches = extract(aligner, picture(), POINTS)
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
    patches = extract(aligner, picture(), points)
    doubled = picture(2 * np.eye(2))
    start = place_unwarped(2 * points + 0.7)
    found = aligner.align(patches, doubled, Placement(start.points, 2 * start.shapes), rounds=20)
    assert np.linalg.norm(found.points - 2 * points, axis=1).max() < 0.2


def test_a_border_and_a_flat_picture_give_numbers_or_nothing_believable(aligner):
    corner = np.float32([[0.2, 0.3], [WIDTH - 0.1, HEIGHT - 0.1]])
    patches = extract(aligner, picture(), corner)
    assert aligner.correlate(patches, picture(), place_unwarped(corner)) == pytest.approx(
        1, abs=2e-3
    )
    flat = Pyramid(np.full((HEIGHT, WIDTH), 50, np.uint8))
    assert np.abs(aligner.correlate(patches, flat, place_unwarped(corner))).max() < 0.05
    nothing = extract(aligner, flat, corner)
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
    patches = extract(aligner, picture(), POINTS[:1])
    assert isinstance(patches, Patches) and patches.pixels.shape[0] == 1
    near = place_unwarped(POINTS[:1] + np.float32([[0.4, -0.3]]))
    before = aligner.correlate(patches, picture(), near)
    after = aligner.correlate(patches, picture(), aligner.align(patches, picture(), near, rounds=1))
    assert after > before and 1 - after < 0.2 * (1 - before)


def test_pixels_beyond_the_border_do_not_count(aligner):
    """A patch that half left the picture still equals what is seen of it."""
    points = np.float32([[80, 60], [90, 50]])
    patches = extract(aligner, picture(), points)
    later = picture(offset=(78.0, 0.0))
    truth = points + np.float32([78, 0])
    placement = place_unwarped(truth)
    share = aligner.share_inside(patches, later, placement)
    assert 0.5 < share[0] < 0.72 and share[1] < 0.2
    assert aligner.correlate(patches, later, placement)[0] == pytest.approx(1, abs=5e-3)
    near = place_unwarped(truth + np.float32([-1.2, 0.9]))
    found = aligner.align(patches, later, near, rounds=20)
    assert np.linalg.norm(found.points[0] - truth[0]) < 0.2


def test_a_patch_is_aligned_as_if_it_were_alone(aligner):
    """A patch that the border cuts changes nothing for those beside it."""
    points = np.concatenate([POINTS, np.float32([[3.2, 60.4]])])
    patches = extract(aligner, picture(), points)
    later, start = picture(offset=(1.5, -1)), place_unwarped(points)
    together = aligner.align(patches, later, start, rounds=4)
    for row in range(len(points)):
        alone = aligner.align(
            select_rows(patches, np.array([row])), later, select_rows(start, np.array([row])), 4
        )
        np.testing.assert_array_equal(together.points[row], alone.points[0])


def test_alignment_ends_where_it_has_converged(aligner, monkeypatch):
    """Each patch by itself: one that has converged is not compared again."""
    compared, read = [], Pyramid.read_warped

    def count(image, points, *rest):
        compared.append(len(points))
        return read(image, points, *rest)

    monkeypatch.setattr(Pyramid, "read_warped", count)
    patches = extract(aligner, picture(), POINTS)
    start = POINTS.copy()
    start[1:] += np.float32([1.3, -0.8])
    found = aligner.align(patches, picture(), place_unwarped(start), rounds=40)
    assert np.linalg.norm(found.points - POINTS, axis=1).max() < 0.05
    assert compared[:2] == [4, 3] and len(compared) < 40


def test_the_expected_error_is_that_of_noisy_pictures():
    """Flatter and blurrier pictures locate a patch less well, and the estimate says so."""
    aligner, rng = PatchAligner(5, PatchAlignment()), np.random.default_rng(0)
    points = rng.uniform(20, 100, (60, 2)).astype(np.float32)
    measured, expected = [], []
    for gain in (1.0, 0.2, 0.05):
        image = picture(gain=gain, bias=128 * (1 - gain))
        patches = extract(aligner, image, points)
        noise = rng.normal(0, 1.5, (HEIGHT, WIDTH))
        noisy = Pyramid(np.clip(image.level(0) + noise, 0, 255).astype(np.uint8))
        found = aligner.align(patches, noisy, place_unwarped(points), rounds=12)
        measured.append(np.median(np.linalg.norm(found.points - points, axis=1)))
        expected.append(np.median(patches.expected_error))
    assert measured[0] < measured[1] < measured[2]
    assert expected[0] < expected[1] < expected[2]
    assert all(error < 3 * claim + 0.1 for error, claim in zip(measured, expected, strict=True))
