"""Peers: the same interface as the tracker, on motion that is known."""

import numpy as np
import pytest

from vditrack import Tracker
from vditrack.evaluation.peers import DenseFlow, LucasKanade, Patches, PointTracker, Still
from vditrack.synthetic.textures import pattern

SHIFT = np.array([2.0, 1.0], np.float32)


@pytest.fixture(scope="module")
def panned():
    """A picture that moves by whole pixels: frames [8, 96, 128, 3], queries in three frames."""
    picture = pattern(np.random.default_rng(3), 160, 200)
    frames = [picture[40 - t : 136 - t, 60 - 2 * t : 188 - 2 * t] for t in range(8)]
    queries = np.array([[0, 40.5, 30.5], [4, 70.5, 60.5], [7, 90.5, 50.5]], np.float32)
    return np.ascontiguousarray(np.stack(frames)), queries


@pytest.mark.parametrize("peer", [LucasKanade, DenseFlow, Patches])
def test_a_pan_is_followed_forward_and_backward(panned, peer):
    frames, queries = panned
    tracks = peer().track(frames, queries)
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


@pytest.mark.parametrize("peer", [LucasKanade, DenseFlow])
def test_what_is_lost_stays_lost(panned, peer):
    frames, queries = panned
    frames = frames.copy()
    frames[3] = np.random.default_rng(0).integers(0, 255, frames[3].shape)
    tracks = peer().track(frames, queries[:1])
    assert tracks.visible[0, :3].all()
    assert not tracks.visible[0, 3:].any()


def test_patches_find_what_comes_back(panned):
    frames, queries = panned
    frames = frames.copy()
    frames[3] = np.random.default_rng(0).integers(0, 255, frames[3].shape)
    visible = Patches().track(frames, queries[:1]).visible[0]
    assert visible.tolist() == [True, True, True, False, True, True, True, True]


@pytest.mark.parametrize("peer", [LucasKanade, DenseFlow, Patches, Still])
def test_a_track_does_not_depend_on_the_others(panned, peer):
    frames, queries = panned
    together = peer().track(frames, queries)
    for n in range(len(queries)):
        alone = peer().track(frames, queries[n : n + 1])
        np.testing.assert_array_equal(alone.points[0], together.points[n])
        np.testing.assert_array_equal(alone.visible[0], together.visible[n])


def test_no_query_gives_no_track(panned):
    frames, _ = panned
    for peer in (LucasKanade, DenseFlow, Patches, Still):
        assert peer().track(frames, np.zeros((0, 3), np.float32)).points.shape == (0, 8, 2)


def test_our_tracker_has_the_same_interface():
    assert isinstance(Tracker.load(), PointTracker)


def test_flow_carries_masks(panned):
    frames, _ = panned
    first = np.zeros(frames.shape[1:3], np.uint8)
    first[30:50, 40:70] = 2
    masks = DenseFlow().propagate(frames, first)
    expected = np.zeros_like(first)
    expected[37:57, 54:84] = 2
    overlap = ((masks[7] == 2) & (expected == 2)).sum() / ((masks[7] == 2) | (expected == 2)).sum()
    assert overlap > 0.9
    np.testing.assert_array_equal(Still().propagate(frames, first)[7], first)
