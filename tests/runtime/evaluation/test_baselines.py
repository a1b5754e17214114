"""Baselines with the interface of the tracker, on known motion."""

import cv2
import numpy as np
import pytest

from vditrack import Tracker
from vditrack.evaluation.baselines.point_baselines import (
    DenseFlow,
    LucasKanade,
    Patches,
    PointTracker,
    Still,
)
from vditrack.evaluation.baselines.raw_patch_masks import patch_features
from vditrack.synthetic.layers.textures import draw_pattern

SHIFT = np.array([2.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def panned():
    """A picture that moves by whole pixels: frames [8, 96, 128, 3], and queries in three frames."""
    picture = draw_pattern(np.random.default_rng(3), 160, 200)
    frames = [picture[40 - t : 136 - t, 60 - 2 * t : 188 - 2 * t] for t in range(8)]
    queries = np.array([[0, 40.5, 30.5], [4, 70.5, 60.5], [7, 90.5, 50.5]], np.float32)
    return np.ascontiguousarray(np.stack(frames)), queries


@pytest.mark.parametrize("baseline", [LucasKanade, DenseFlow, Patches])
def test_a_pan_is_tracked_forward_and_backward(panned, baseline):
    frames, queries = panned
    tracks = baseline().track(frames, queries)
    steps = np.arange(8) - queries[:, :1]
    expected = queries[:, None, 1:] + steps[..., None] * SHIFT
    distance = np.linalg.norm(tracks.points - expected, axis=2)
    assert np.median(distance) < 0.1
    assert distance.max() < 1
    assert tracks.visible.all()
    np.testing.assert_array_equal(tracks.confidence, tracks.visible)


def test_still_stays(panned):
    frames, queries = panned
    tracks = Still().track(frames, queries)
    np.testing.assert_array_equal(tracks.points, np.repeat(queries[:, None, 1:], 8, axis=1))
    assert tracks.visible.all()


@pytest.mark.parametrize("baseline", [LucasKanade, DenseFlow])
def test_lost_points_stay_lost(panned, baseline):
    frames, queries = panned
    frames = frames.copy()
    frames[3] = np.random.default_rng(0).integers(0, 255, frames[3].shape)
    tracks = baseline().track(frames, queries[:1])
    assert tracks.visible[0, :3].all()
    assert not tracks.visible[0, 3:].any()


def test_patches_find_what_comes_back(panned):
    frames, queries = panned
    frames = frames.copy()
    frames[3] = np.random.default_rng(0).integers(0, 255, frames[3].shape)
    visible = Patches().track(frames, queries[:1]).visible[0]
    assert visible.tolist() == [True, True, True, False, True, True, True, True]


@pytest.mark.parametrize("baseline", [LucasKanade, DenseFlow, Patches, Still])
def test_a_track_does_not_depend_on_the_others(panned, baseline):
    frames, queries = panned
    together = baseline().track(frames, queries)
    for n in range(len(queries)):
        alone = baseline().track(frames, queries[n : n + 1])
        np.testing.assert_array_equal(alone.points[0], together.points[n])
        np.testing.assert_array_equal(alone.visible[0], together.visible[n])


def test_no_query_gives_no_track(panned):
    frames, _ = panned
    for baseline in (LucasKanade, DenseFlow, Patches, Still):
        assert baseline().track(frames, np.zeros((0, 3), np.float32)).points.shape == (0, 8, 2)


def test_our_tracker_has_the_same_interface():
    assert isinstance(Tracker.load(), PointTracker)


PROPAGATORS = [LucasKanade, DenseFlow, Patches, Still]


def rectangle(left, top, width=30, height=20, index=2, size=(96, 128)):
    mask = np.zeros(size, np.uint8)
    mask[top : top + height, left : left + width] = index
    return mask


def overlap(found, truth, index=2):
    """Intersection over union."""
    return ((found == index) & (truth == index)).sum() / ((found == index) | (truth == index)).sum()


@pytest.mark.parametrize(("baseline", "least"), [(LucasKanade, 0.97), (DenseFlow, 0.9)])
def test_masks_are_propagated(panned, baseline, least):
    frames, _ = panned
    first = rectangle(40, 30) + rectangle(80, 60, index=7)
    masks = baseline().propagate(frames, first)
    np.testing.assert_array_equal(masks[0], first)
    assert masks.shape == (8, 96, 128) and masks.dtype == np.uint8
    assert set(np.unique(masks)) == {0, 2, 7}
    assert overlap(masks[7], rectangle(54, 37)) > least
    assert overlap(masks[7], rectangle(94, 67, index=7), 7) > least


@pytest.mark.parametrize("baseline", PROPAGATORS)
def test_masks_of_blank_frames_and_of_one_frame(baseline):
    blank = np.full((3, 40, 60, 3), 127, np.uint8)
    first = rectangle(5, 5, size=(40, 60))
    masks = baseline().propagate(blank, first)
    np.testing.assert_array_equal(masks[0], first)
    assert masks.shape == (3, 40, 60)
    np.testing.assert_array_equal(baseline().propagate(blank[:1], first), first[None])


def test_still_keeps_masks_where_they_are(panned):
    first = rectangle(40, 30)
    np.testing.assert_array_equal(Still().propagate(panned[0], first), [first] * 8)


def test_klt_turns_and_grows_masks():
    """The object turns by a tenth of a radian and grows by a tenth, about the frame's centre."""
    picture = draw_pattern(np.random.default_rng(5), 128, 128)
    first = rectangle(40, 44, 48, 40, size=(128, 128))
    turned = [cv2.getRotationMatrix2D((63.5, 63.5), 0.6 * t, 1 + 0.01 * t) for t in range(11)]
    frames = np.stack([cv2.warpAffine(picture, matrix, (128, 128)) for matrix in turned])
    truth = cv2.warpAffine(255 * (first > 0).astype(np.uint8), turned[-1], (128, 128)) >= 128
    found = LucasKanade().propagate(frames, first)[-1]
    assert overlap(found, 2 * truth) > 0.95 > overlap(first, 2 * truth)


def passing(size=(96, 160)):
    """Two squares of one picture pass one another; the second is in front."""
    backdrop = draw_pattern(np.random.default_rng(1), *size)
    square = draw_pattern(np.random.default_rng(2), 24, 24)
    frames, masks = [], []
    for t in range(21):
        frame, mask = backdrop.copy(), np.zeros(size, np.uint8)
        for index, (left, top) in enumerate([(20 + 5 * t, 34), (116 - 4 * t, 42)], start=1):
            place = slice(top, top + 24), slice(left, left + 24)
            frame[place], mask[place] = square, index
        frames.append(frame)
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def test_klt_keeps_the_identities_of_crossing_twins():
    frames, truth = passing()
    masks = LucasKanade().propagate(frames, truth[0])
    for t in range(21):
        for index in (1, 2):
            assert overlap(masks[t], truth[t], index) > 0.7


def test_an_object_that_leaves_the_picture_is_gone(panned):
    frames, _ = panned
    frames = frames[::-1]
    first = rectangle(0, 0, 12, 8)
    for baseline in (LucasKanade, DenseFlow):
        assert not (baseline().propagate(frames, first)[-1] == 2)[8:, 12:].any()


def test_patches_propagate_objects_that_differ_from_the_background():
    rng = np.random.default_rng(4)
    frames = rng.integers(0, 90, (8, 96, 128, 3), np.uint8)
    truth = np.stack([rectangle(24 + 4 * t, 16 + 2 * t, 56, 48) for t in range(8)])
    frames[truth == 2] += np.uint8(120)
    masks = Patches().propagate(frames, truth[0])
    np.testing.assert_array_equal(masks[0], truth[0])
    assert all(overlap(found, true) > 0.7 for found, true in zip(masks, truth, strict=True))
    assert set(np.unique(masks)) == {0, 2}


def test_patches_match_colours_in_the_middle_of_their_cells():
    frame = np.full((40, 80, 3), 127, np.uint8)
    frame[16:24, 40:48] = (255, 0, 0)
    features = patch_features(frame)
    assert features.shape == (5, 10, 192)
    bright = np.argwhere(np.linalg.norm(features, axis=2) > 0.999)
    assert [2, 5] in bright.tolist()
    same = features @ features[2, 5]
    assert same.argmax() == 2 * 10 + 5 and same[2, 5] == pytest.approx(1)
    assert patch_features(np.zeros((960, 1600, 3), np.uint8)).shape == (60, 100, 192)
    assert patch_features(np.zeros((481, 859, 3), np.uint8)).shape == (60, 107, 192)
