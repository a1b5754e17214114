"""Points held to their pixels, on rendered frames whose motion is known in closed form."""

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from doubles.manifest import MATCHING
from doubles.moving_texture import (
    GRID,
    SETTINGS,
    SIZE,
    WEIGHTS,
    described,
    places,
    texture,
)
from vditrack.bundle.configuration import LiveTracking
from vditrack.points.factory import create_point_tracker
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.match_tracker import MatchTracker


def followed(frames, points, settings=SETTINGS):
    """Places [N, T, 2] and visibility [N, T] of points of the first frame."""
    alive = create_point_tracker(GRID, settings, LiveTracking())
    alive.advance(described(frames[0]), frames[0])
    alive.add(np.arange(len(points)), np.float32(points))
    tracks, visible = [alive.points], [alive.visible]
    for frame in frames[1:]:
        alive.advance(described(frame), frame)
        tracks.append(alive.points)
        visible.append(alive.visible)
    return np.stack(tracks, axis=1), np.stack(visible, axis=1)


def test_the_settings_say_how_points_are_followed():
    assert isinstance(create_point_tracker(GRID, SETTINGS, LiveTracking()), FlowTracker)
    assert isinstance(create_point_tracker(GRID, MATCHING, LiveTracking()), MatchTracker)


@pytest.mark.slow
def test_first_patches_take_back_the_drift_of_flow():
    """Eighty frames to and fro: what is left is not the sum of eighty errors."""
    rng = np.random.default_rng(0)
    points = rng.uniform((40, 40), (150, 100), (40, 2))
    phase = np.arange(80) * 2 * np.pi / 40
    offsets = np.stack([18 * np.sin(phase), 9 * (1 - np.cos(phase))], axis=1)
    noise = rng.normal(0, 20, (80, *SIZE, 3))
    frames = [
        np.clip(texture(places(offset)) + n, 0, 255).astype(np.uint8)
        for offset, n in zip(offsets, noise, strict=True)
    ]
    tracks, visible = followed(frames, points)
    errors = np.linalg.norm(tracks - points[:, None] - offsets, axis=2)
    assert visible.mean() > 0.99
    assert errors[:, -5:].mean() < 1.5 * errors[:, 1:6].mean() + 0.02


@pytest.mark.slow
def test_a_bar_hides_points_and_they_come_back_to_their_places():
    offsets = np.arange(50)[:, None] * np.float32([0.6, 0.2])
    points = np.float32([[60, 50], [70, 90], [85, 70], [95, 60]])
    frames = []
    for t, offset in enumerate(offsets):
        frame = texture(places(offset))
        left = int(12 * t - 160)
        frame[:, max(0, left) : max(0, left + 50)] = (30, 160, 90)
        frames.append(frame)
    tracks, visible = followed(frames, points)
    truth = points[:, None] + offsets
    edges = (12 * np.arange(50) - 160)[None]
    hidden = (truth[..., 0] >= edges) & (truth[..., 0] < edges + 50)
    assert hidden.any(axis=1).all()
    # A frame at either edge of the bar may count either way.
    inner = hidden[:, 1:-1] & hidden[:, :-2] & hidden[:, 2:]
    assert not visible[:, 1:-1][inner].any()
    assert visible[:, -10:].all()
    assert np.linalg.norm(tracks - truth, axis=2)[:, -10:].max() < 0.5


@pytest.mark.parametrize("nearer", [0, 1])
def test_look_alikes_that_cross_are_not_confused(nearer):
    """Two identical squares pass each other, one before the other, on a plain backdrop."""
    side, rate = 44, 6.0
    square = texture(np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1) + 0.5)
    lefts = np.stack([10 + rate * np.arange(21), 140 - rate * np.arange(21)]).round().astype(int)
    frames = []
    for t in range(21):
        frame = np.full((*SIZE, 3), 120, np.uint8)
        for one in (1 - nearer, nearer):
            frame[50 : 50 + side, lefts[one, t] : lefts[one, t] + side] = square
        frames.append(frame)
    inside = np.float32([[15, 65], [30, 65], [15, 80], [30, 80]])
    across = np.float32([1, 0])
    points = np.concatenate([inside + lefts[one, 0] * across for one in (0, 1)])
    tracks, visible = followed(frames, points)
    ends = np.concatenate([inside + lefts[one, -1] * across for one in (0, 1)])
    right = np.linalg.norm(tracks[:, -1] - ends, axis=1) < 2
    # One that is covered for longer than a course is believed in may go to the twin.
    assert right.sum() >= 7, tracks[:, -1] - ends
    assert visible[right, -1].all()


def test_points_keep_their_patches_when_the_frames_size_changes():
    """The second half of the clip comes at twice the size, and is followed as closely."""
    offsets = np.arange(24)[:, None] * np.float32([1.1, -0.4])
    points = np.float32([[50, 70], [90, 90], [110, 60]])
    frames = [texture(places(offset)) for offset in offsets]
    larger = [cv2.resize(f, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC) for f in frames[12:]]
    alive = create_point_tracker(GRID, SETTINGS, LiveTracking())
    for t, frame in enumerate(frames[:12] + larger):
        alive.advance(described(frame), frame)
        if t == 0:
            alive.add(np.arange(3), points)
    assert alive.visible.all()
    # The first patches are compared at the new frames' scale.
    assert (alive.evidence[:, 0] > 0.9).all()
    assert np.linalg.norm(alive.points - 2 * (points + offsets[-1]), axis=1).max() < 0.6


def test_what_is_forgotten_leaves_the_others_as_they_are():
    frames = [texture(places((1.5 * t, 0.5 * t))) for t in range(8)]
    points = np.float32([[40, 50], [70, 80], [100, 60]])
    whole, _ = followed(frames, points)
    alive = create_point_tracker(GRID, SETTINGS, LiveTracking())
    for t, frame in enumerate(frames):
        alive.advance(described(frame), frame)
        if t == 0:
            alive.add(np.arange(3), points)
        if t == 3:
            alive.keep(np.array([True, False, True]))
    assert alive.ids.tolist() == [0, 2]
    np.testing.assert_allclose(alive.points, whole[[0, 2], -1], atol=1e-4)


def test_flat_surfaces_lose_no_numbers():
    """Nothing to hold on to: the points stay finite, and are not claimed where all is gone."""
    frames = [np.full((*SIZE, 3), 128, np.uint8) for _ in range(6)]
    frames[3:] = [texture(places((0, 0)))] * 3
    tracks, visible = followed(frames, np.float32([[40, 50], [5, 5], [180, 130]]))
    assert np.isfinite(tracks).all()
    assert not visible[:, 4:].any()


def test_confidence_is_the_logistic_of_the_evidence():
    frames = [texture(places((2.0 * t, 0))) for t in range(5)]
    alive = create_point_tracker(GRID, SETTINGS, LiveTracking())
    for t, frame in enumerate(frames):
        alive.advance(described(frame), frame)
        if t == 0:
            alive.add(np.arange(2), np.float32([[60, 50], [90, 90]]))
    likely = WEIGHTS.bias + alive.evidence @ np.array(WEIGHTS.of_evidence)
    np.testing.assert_allclose(alive.confidence, 1 / (1 + np.exp(-likely)), rtol=1e-5)
    assert (alive.visible == (alive.confidence >= 0.5)).all()
    correlation, first, template, distance = alive.evidence.T
    assert (correlation > 0.95).all() and (first > 0.9).all() and (distance < 0.1).all()
    assert (template >= first - 0.05).all()


def test_a_hidden_point_does_not_return_to_one_of_its_copies():
    """A tile that repeats has many places as good as the one that is covered."""
    tile = texture(np.stack(np.meshgrid(np.arange(48), np.arange(48)), axis=-1) + 0.5)
    frame = np.tile(tile, (SIZE[0] // 48 + 1, SIZE[1] // 48 + 1, 1))[: SIZE[0], : SIZE[1]]
    covered = frame.copy()
    covered[24:96, 48:120] = 120
    tracks, visible = followed([frame, frame, *[covered] * 16], [[84, 60]])
    assert visible[0, :2].all()
    assert not visible[0, 2:].any()
    assert np.linalg.norm(tracks[0] - (84, 60), axis=1).max() < 3


def test_lost_points_are_searched_as_if_each_were_alone():
    """All places of all lost points are one batch; the plain form takes one after the other."""
    points = np.float32([[30, 40], [70, 60], [72, 64], [100, 90], [186, 20]])
    frames = [texture(places((2 * t, t))) for t in range(10)]
    for frame in frames[3:6]:
        frame[30:110, 50:130] = 128
    found, visible = followed(frames, points)
    assert not visible[1, 4] and visible[1, 9]
    for row in range(len(points)):
        alone, seen = followed(frames, points[row : row + 1])
        np.testing.assert_allclose(found[row], alone[0], atol=2e-4)
        np.testing.assert_array_equal(visible[row], seen[0])


def test_points_are_added_in_one_thread(monkeypatch):
    """A second BLAS thread spun for 5 ms of processor time an image, 20 ms after each product."""
    threads, start = [], FlowTracker._start_points

    def start_points(self, *given):
        # Other tests may have loaded SciPy, which has a BLAS of its own.
        threads.extend(
            part["num_threads"]
            for part in threadpool_info()
            if part["user_api"] == "blas" and "numpy" in part["filepath"]
        )
        start(self, *given)

    monkeypatch.setattr(FlowTracker, "_start_points", start_points)
    tracker = create_point_tracker(GRID, SETTINGS, LiveTracking())
    frame = texture(places((0, 0)))
    with threadpool_limits(2, "blas"):
        tracker.advance(described(frame), frame)
        tracker.add(np.arange(1), np.float32([[50, 40]]))
    assert threads
    assert set(threads) == {1}
