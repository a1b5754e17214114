"""Corners that are tracked, and replaced as they are lost."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from doubles.passthrough import write_passthrough
from doubles.video_files import moving_texture
from vditrack import Tracker
from vditrack.bundle.configuration import Visibility
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.features.clip_frames import ArrayFrames
from vditrack.points.feature_renewal import FeatureRenewal
from vditrack.points.ragged_tracks import LivingPoints, collect_ragged

COUNT, LOST_AFTER = 20, 0.2
RENEWAL = FeatureRenewal(count=COUNT, quality=0.01, lost_after=LOST_AFTER, interval=0.08)


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    """By flow; the maps come from the frames without a model."""
    bundle = write_passthrough(tmp_path_factory.mktemp("bundle"), frames=4, described=3)
    settings = load_bundle(bundled_model()).manifest.matching
    # Margins and weights of the bundled model's descriptors would not suit those of pixels.
    weights = Visibility(
        bias=-8.191,
        correlation=4.106,
        first_similarity=7.232,
        template_similarity=2.635,
        distance=-0.08157,
    )
    flow_tracking = msgspec.structs.replace(
        settings.flow_tracking, certain=None, paths=None, visibility=weights
    )
    return Tracker(bundle, settings=msgspec.structs.replace(settings, flow_tracking=flow_tracking))


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """A texture that moves by (-2, -1) pixels a frame, nothing for 8 frames, and another one."""
    return np.concatenate(
        [moving_texture(14), np.full((8, 96, 128, 3), 90, np.uint8), moving_texture(14)[:, ::-1]]
    )


@pytest.fixture(scope="module")
def tracks(tracker, clip):
    times = np.arange(len(clip)) / 25
    return collect_ragged(tracker.track_features(ArrayFrames(clip, times), RENEWAL))


def test_each_corner_is_tracked_as_if_it_had_been_asked_for(tracker, clip, tracks):
    times = np.arange(len(clip)) / 25
    expected = tracker.track(clip, tracks.queries, times=times)
    places = tracks.ids, tracks.frames
    assert_allclose(tracks.points, expected.points[places], atol=1e-3)
    assert_array_equal(tracks.visible, expected.visible[places])
    assert_allclose(tracks.confidence, expected.confidence[places], atol=1e-3)


def test_corners_follow_the_motion_and_are_renewed_where_others_leave(tracks):
    count = np.bincount(tracks.frames[tracks.visible], minlength=36)
    assert count[0] == COUNT
    assert (count[[9, 13]] >= 0.8 * COUNT).all()
    assert (count[24:] >= 0.8 * COUNT).all()
    # None is found in the frames without texture.
    starts = tracks.queries[:, 0]
    assert not ((starts >= 14) & (starts < 22)).any()
    assert ((starts > 0) & (starts < 14)).any()
    assert (starts >= 22).sum() >= COUNT / 2
    first = tracks.visible & (tracks.frames < 14)
    steps = tracks.frames[first] - starts[tracks.ids[first]]
    moved = tracks.points[first] - tracks.queries[tracks.ids[first], 1:]
    error = np.linalg.norm(moved - steps[:, None] * [-2, -1], axis=1)
    assert (error < 1).mean() > 0.95
    new = np.flatnonzero((starts > 0) & (starts < 14))
    for query in tracks.queries[new]:
        others = (tracks.frames == query[0]) & tracks.visible
        distances = np.linalg.norm(tracks.points[others] - query[1:], axis=1)
        assert np.sort(distances)[1] > 5


def test_the_number_of_points_is_bounded_and_lost_ones_end(tracks):
    assert np.bincount(tracks.frames).max() <= 2 * COUNT
    hidden = 0
    for one in range(len(tracks.queries)):
        rows = tracks.ids == one
        frames = tracks.frames[rows]
        assert_array_equal(frames, np.arange(frames[0], frames[-1] + 1))
        assert frames[0] == tracks.queries[one, 0]
        seen = frames[tracks.visible[rows]]
        assert frames[-1] - seen[-1] <= LOST_AFTER * 25
        hidden += int(frames[-1] > seen[-1])
    assert hidden


def test_points_that_are_lost_for_longest_end_if_there_are_too_many(tracker):
    random = np.random.default_rng(0)
    scenes = random.integers(0, 256, (9, 12, 16, 3)).astype(np.uint8)
    frames = np.repeat(np.kron(scenes, np.ones((1, 8, 8, 1), np.uint8)), 3, axis=0)
    renewal = replace(RENEWAL, lost_after=9.0, interval=0.0)
    living = list(tracker.track_features(ArrayFrames(frames, np.arange(27) / 25), renewal))
    assert max(len(one.ids) for one in living) == 2 * COUNT
    # Some have ended.
    assert living[-1].ids.max() >= 2 * COUNT


def test_rows_become_rectangles():
    empty = np.zeros(0, np.float32)

    def living(frame, ids, x):
        points = np.stack([x, x], axis=1).astype(np.float32) if ids else np.zeros((0, 2))
        flags = np.ones(len(ids), bool)
        return LivingPoints(frame, np.array(ids, np.int32), points, flags, *[np.float32(x)] * 2)

    tracks = collect_ragged(
        [
            living(0, [0, 1], [10, 20]),
            living(1, [0, 2], [11, 30]),
            living(2, [], empty),
            living(3, [2], [34]),
        ]
    )
    assert_array_equal(tracks.queries, [[0, 10, 10], [0, 20, 20], [1, 30, 30]])
    filled = tracks.fill_rectangle(0, 4)
    nan = np.nan
    x = [[10, 11, nan, nan], [20, nan, nan, nan], [nan, 30, nan, 34]]
    assert_array_equal(filled.points[..., 0], x)
    assert_array_equal(filled.visible, np.isfinite(x))
    assert_array_equal(filled.forward_backward_error, np.nan_to_num(x, nan=np.inf))
    assert_array_equal(tracks.fill_rectangle(1, 3).points[..., 1], np.array(x)[:, 1:3])
    assert_array_equal(tracks.count_visible(), [2, 1, 2])
    assert_allclose(tracks.measure_variances(np.array([1, 0.5]))[0], [0.25, 0.0625])
    kept = tracks.select_points(np.array([0, 2]))
    assert_array_equal(kept.queries, tracks.queries[[0, 2]])
    assert_array_equal(kept.ids, [0, 0, 1, 1])
    assert_array_equal(kept.fill_rectangle(0, 4).points, filled.points[[0, 2]])
