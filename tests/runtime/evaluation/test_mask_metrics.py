"""J and F of propagated masks against their definitions."""

import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from vditrack.evaluation.metrics.masks import mask_scores


def video(*masks):
    return np.array(masks, np.uint8)


def square(row, column, side=10, size=(40, 60)):
    mask = np.zeros(size, np.uint8)
    mask[row : row + side, column : column + side] = 1
    return mask


def edge(mask):
    """A pixel is on the boundary where the one to the right, below or across differs from it."""
    height, width = mask.shape
    found = np.zeros(mask.shape, bool)
    for y in range(height):
        for x in range(width):
            beyond = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            inside = [mask[at] for at in beyond if at[0] < height and at[1] < width]
            found[y, x] = any(value != mask[y, x] for value in inside)
    return found


def boundary_by_pairs(truth, found, reach):
    """F from the distances of all pairs of boundary pixels."""
    edges = np.argwhere(edge(truth)), np.argwhere(edge(found))
    if not len(edges[0]) or not len(edges[1]):
        return float(len(edges[0]) == len(edges[1]))
    apart = ((edges[0][:, None] - edges[1][None]) ** 2).sum(axis=2) <= reach**2
    recall, precision = apart.any(axis=1).mean(), apart.any(axis=0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_by_distance_transform(truth, found, reach):
    edges = edge(truth), edge(found)
    if not edges[0].any() or not edges[1].any():
        return float(edges[0].any() == edges[1].any())
    near = [distance_transform_edt(~one) <= reach for one in edges]
    recall, precision = near[1][edges[0]].mean(), near[0][edges[1]].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.slow
@pytest.mark.parametrize("boundary", [boundary_by_pairs, boundary_by_distance_transform])
@pytest.mark.parametrize(("height", "width"), [(12, 17), (30, 21), (60, 112)])
def test_random_masks(height, width, boundary):
    """Blobs of three objects, some absent or at the border, against plain loops."""
    rng = np.random.default_rng(height)
    coarse = rng.integers(0, 4, (2, 5, -(-height // 6), -(-width // 6)))
    truth, found = (
        coarse.repeat(6, axis=2).repeat(6, axis=3)[:, :, :height, :width].astype(np.uint8)
    )
    truth[0].flat[0] = 3
    truth[2][truth[2] == 1] = 0
    found[3][found[3] == 2] = 0
    found[2][found[2] == 1] = 0
    reach = math.ceil(0.008 * math.hypot(height, width))
    objects = []
    for number in (1, 2, 3):
        pairs = [(truth[t] == number, found[t] == number) for t in (1, 2, 3)]
        region = [(a & b).sum() / (a | b).sum() if (a | b).any() else 1 for a, b in pairs]
        objects.append((region, [boundary(a, b, reach) for a, b in pairs]))
    expected = 100 * np.array(objects)
    scores = mask_scores(truth, found)
    assert scores.objects == 3
    assert scores.region == pytest.approx(expected[:, 0].mean(axis=1).mean())
    assert scores.boundary == pytest.approx(expected[:, 1].mean(axis=1).mean())
    np.testing.assert_allclose(scores.per_frame[1:4], expected.mean(axis=(0, 1)))
    assert np.isnan(scores.per_frame[[0, 4]]).all()


def test_the_truth_itself():
    truth = video(*(square(5, 5 + t) for t in range(4)))
    scores = mask_scores(truth, truth)
    assert (scores.region, scores.boundary, scores.objects) == (100, 100, 1)
    np.testing.assert_array_equal(scores.per_frame, [np.nan, 100, 100, np.nan])


def test_a_shifted_square():
    """4 of 10 columns moved: J = 60 / 140. A diagonal of 72 pixels gives a reach of one.

    A boundary is a ring of 40 pixels, 11 x 11. The moved ring has 7 columns of its upper and lower
    row in common with the other and one more beside it, 16 pixels; of its sides, the one within the
    other ring has an end beside each of the other's rows, 2 pixels. So F = 18 / 40.
    """
    scores = mask_scores(video(*[square(10, 20)] * 3), video(*[square(10, 24)] * 3))
    assert scores.region == pytest.approx(100 * 60 / 140)
    assert scores.boundary == pytest.approx(45)


def test_one_pixel_is_within_reach_of_a_boundary_and_two_are_not():
    truth = video(*[square(10, 20)] * 3)
    assert mask_scores(truth, video(*[square(11, 20)] * 3)).boundary == 100
    assert mask_scores(truth, video(*[square(12, 20)] * 3)).boundary < 100
    larger = np.kron(truth, np.ones((1, 3, 3), np.uint8))
    assert mask_scores(larger, np.roll(larger, 2, axis=1)).boundary == 100


def test_objects_that_are_absent():
    """Rightly absent is right; wrongly there or missing is all wrong."""
    here, nothing = square(5, 5), np.zeros((40, 60), np.uint8)
    truth = video(here, nothing, nothing, here, here)
    found = video(here, nothing, here, nothing, here)
    scores = mask_scores(truth, found)
    np.testing.assert_array_equal(scores.per_frame, [np.nan, 100, 0, 0, np.nan])
    assert scores.region == scores.boundary == pytest.approx(100 / 3)


def test_objects_are_those_of_the_first_frame():
    """Up to the greatest index; what comes later or is found beside them is background."""
    first = square(5, 5) + 2 * square(20, 20)
    later = first + 4 * square(5, 40)
    scores = mask_scores(video(first, later, later), video(first, first + 7 * square(30, 3), first))
    assert (scores.region, scores.boundary, scores.objects) == (100, 100, 2)
    gap = mask_scores(video(*[3 * square(5, 5)] * 3), video(*[square(5, 5)] * 3))
    assert gap.objects == 3
    assert gap.region == pytest.approx(100 / 3)


def test_first_and_last_frame_do_not_count():
    truth = video(*[square(5, 5)] * 3)
    found = video(square(20, 20), square(5, 5), square(20, 20))
    assert mask_scores(truth, found).region == 100


@pytest.mark.parametrize(("length", "objects"), [(2, 1), (1, 1), (0, 0), (5, 0)])
def test_nothing_to_count(length, objects):
    truth = video(*[objects * square(5, 5)] * length).reshape(length, 40, 60)
    scores = mask_scores(truth, truth)
    assert math.isnan(scores.region)
    assert math.isnan(scores.boundary)
    assert scores.per_frame.shape == (length,)
    assert np.isnan(scores.per_frame).all()
    assert scores.objects == objects
