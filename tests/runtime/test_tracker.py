"""The bundled model on clips whose motion is known: found, lost, found again; and bad input."""

import numpy as np
import pytest
from skimage.data import astronaut, coffee

from doubles.passthrough import write_passthrough
from vditrack import InputError, Tracker
from vditrack.synthetic.layers.clips import render_clip


@pytest.fixture(scope="module")
def tracker() -> Tracker:
    return Tracker.load()


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Tracker:
    return Tracker(write_passthrough(tmp_path_factory.mktemp("bundle")))


CELL = 10
"""Side of a cell of the bundled model's grid, in pixels of a frame of 320 x 240."""


def camera_at(x: int, y: int) -> np.ndarray:
    """View of a camera over a photograph of many different things: 320 x 240 pixels at (x, y)."""
    return astronaut()[y : y + 240, x : x + 320]


def grid(x: tuple[float, float], y: tuple[float, float], count: int) -> np.ndarray:
    xs, ys = np.meshgrid(np.linspace(*x, count), np.linspace(*y, count))
    return np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.float32)


def at_frame(t: int, points: np.ndarray) -> np.ndarray:
    return np.column_stack([np.full(len(points), t), points]).astype(np.float32)


@pytest.mark.slow
def test_a_synthetic_clip_is_followed(tracker):
    clip = render_clip(seed=21, height=240, width=320, frames=16, points=48)
    tracks = tracker.track(clip.frames, at_frame(0, clip.points[:, 0])[clip.visible[:, 0]])
    truth, seen = clip.points[clip.visible[:, 0]], clip.visible[clip.visible[:, 0]]
    error = np.linalg.norm(tracks.points - truth, axis=2)[seen]
    assert np.median(error) < 1.0
    assert (error < 8).mean() > 0.9
    assert (tracks.visible == seen).mean() > 0.85


@pytest.mark.slow
def test_panning_out_of_the_picture_and_back(tracker):
    """Points on the left leave the picture, are reported invisible, and are found again."""
    offsets = np.array([(-8 * min(t, 24 - t), 0) for t in range(25)])
    frames = np.stack([camera_at(90 - dx, 100) for dx, _ in offsets])
    points = grid((30, 60), (60, 180), 4)
    tracks = tracker.track(frames, at_frame(0, points))
    truth = points[:, None] + offsets
    inside = truth[..., 0] >= 0
    assert not inside[:, 12].any()
    assert tracks.visible[:, 12].mean() < 0.2
    assert tracks.visible[inside].mean() > 0.8
    assert tracks.visible[:, -1].mean() > 0.8
    error = np.linalg.norm(tracks.points - truth, axis=2)
    before = inside & (np.arange(25) < 12)
    assert (error[tracks.visible & before] < CELL / 2).mean() > 0.85
    assert np.median(error[:, -1]) < CELL / 2


@pytest.mark.slow
def test_an_occluder_passes(tracker):
    """A board passes before still points: hidden while it covers them, found when it is gone."""
    background, board = camera_at(100, 100), coffee()[:240, :320]
    frames = np.repeat(background[None], 20, axis=0)
    left = np.arange(20) * 24 - 100
    for frame, start in zip(frames, left, strict=True):
        columns = slice(max(start, 0), max(start + 100, 0))
        frame[:, columns] = np.roll(board, start, axis=1)[:, columns]
    points = grid((130, 190), (60, 180), 4)
    tracks = tracker.track(frames, at_frame(0, points))
    covered = (points[:, None, 0] >= left) & (points[:, None, 0] < left + 100)
    # At the board's edge a descriptor sees both: two frames on each side are not judged.
    deep = covered & np.roll(covered, 1, axis=1) & np.roll(covered, -1, axis=1)
    assert tracks.visible[deep].mean() < 0.4
    assert tracks.visible[:, -3:].mean() > 0.75
    error = np.linalg.norm(tracks.points - points[:, None], axis=2)
    assert np.median(error[:, -1]) < 1.5


@pytest.mark.slow
def test_queries_in_the_middle_are_followed_both_ways(tracker):
    offsets = np.array([(3 * t, -2 * t) for t in range(11)])
    frames = np.stack([camera_at(100 - dx, 100 - dy) for dx, dy in offsets])
    points = grid((140, 200), (90, 150), 3)
    tracks = tracker.track(frames, at_frame(5, points))
    truth = points[:, None] + offsets - offsets[5]
    error = np.linalg.norm(tracks.points - truth, axis=2)
    assert error[:, 5].max() == 0
    assert np.median(error) < 0.5
    assert error.max() < CELL
    assert tracks.visible.mean() > 0.95


def test_confidence_is_a_half_at_the_edge_of_visibility(tracker):
    clip = render_clip(seed=3, height=120, width=160, frames=10, points=40)
    tracks = tracker.track(clip.frames, at_frame(0, clip.points[:, 0])[clip.visible[:, 0]])
    assert ((tracks.confidence >= 0.5) == tracks.visible).all()
    assert 0 <= tracks.confidence.min() < tracks.confidence.max() <= 1


@pytest.mark.slow
def test_a_track_depends_on_its_own_query_alone(tracker):
    frames = render_clip(seed=8, height=96, width=128, frames=6).frames
    queries = np.float32([[0, 20, 30], [2, 64, 48], [5, 100, 70]])
    together = tracker.track(frames, queries)
    for i in range(3):
        alone = tracker.track(frames, queries[i : i + 1])
        np.testing.assert_allclose(alone.points[0], together.points[i], atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_frame_is_tracked(small, count):
    frames = render_clip(seed=9, height=64, width=96, frames=count).frames
    done = []
    tracks = small.track(
        frames, [[count - 1, 40, 30]], progress=lambda now, total: done.append((now, total))
    )
    assert tracks.points.shape == (1, count, 2)
    assert np.isfinite(tracks.points).all()
    assert (tracks.confidence > 0).all()
    assert done[-1] == (len(done), len(done))


def test_no_queries(small):
    tracks = small.track(np.zeros((3, 32, 48, 3), np.uint8), np.zeros((0, 3)))
    assert tracks.points.shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([3, 5, 5], "frames are 0 to 2"),
        ([-1, 5, 5], "frames are 0 to 2"),
        ([0.5, 5, 5], "frames are 0 to 2"),
        ([np.nan, 5, 5], "frames are 0 to 2"),
        ([0, 48, 5], r"\(48, 5\) is not inside the frame of 48 x 32"),
        ([0, 5, 32], "not inside"),
        ([0, -0.001, 5], "not inside"),
        ([0, np.nan, 5], "not inside"),
        ([0, 5], r"\[N, 3\]"),
    ],
)
def test_queries_are_checked(small, query, message):
    with pytest.raises(InputError, match=message):
        small.track(np.zeros((3, 32, 48, 3), np.uint8), [query])


@pytest.mark.parametrize("shape", [(0, 32, 48, 3), (32, 48, 3), (3, 32, 48), (3, 32, 48, 4)])
def test_clips_are_checked(small, shape):
    with pytest.raises(InputError, match=r"frame.*\[(T, )?H, W, 3\]"):
        small.track(np.zeros(shape, np.uint8), [[0, 5, 5]])


def test_a_mode_that_there_is_not_is_refused(tracker):
    clip = np.zeros((3, 64, 96, 3), np.uint8)
    with pytest.raises(
        InputError, match=r"no mode 'heft'\. Give one of offline, causal, reference"
    ):
        tracker.track(clip, [[0, 5, 5]], mode="heft")
    with pytest.raises(InputError, match=r"no mode 'reference'\. Give one of offline, causal"):
        tracker.propagate(clip, clip[0, :, :, 0], mode="reference")
