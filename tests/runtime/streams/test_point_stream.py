"""The stream: equal to clip tracking, causal, bounded, and plain about clocks and sizes."""

import gc
import tracemalloc

import numpy as np
import pytest

from doubles.manifest import MATCHING
from doubles.passthrough import write_passthrough
from vditrack import InputError, Tracker
from vditrack.synthetic.layers.clips import render_clip


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    """A tracker on mean colours: exact and fast; its accuracy does not matter here."""
    return Tracker(write_passthrough(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module", params=[1, 4])
def cached(request, tmp_path_factory) -> Tracker:
    """The same behind an encoder with caches, with one and with four frames a latent."""
    folder = tmp_path_factory.mktemp("cached")
    return Tracker(write_passthrough(folder, frames=9, cached=True, temporal_stride=request.param))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_clip(seed=4, height=96, width=128, frames=14).frames


POINTS = np.float32([[30.5, 40.25], [64.0, 48.0], [100.75, 20.5], [12.5, 80.0]])


@pytest.mark.slow
@pytest.mark.parametrize("bundled", [False, True])
def test_stream_equals_clip_tracking(tracker, frames, bundled):
    check_stream_against_clip(Tracker.load() if bundled else tracker, frames)


def test_stream_with_caches_equals_clip_tracking(cached, frames):
    check_stream_against_clip(cached, frames)


def check_stream_against_clip(tracker, frames):
    starts = np.array([0, 0, 3, 7])
    queries = np.column_stack([starts, POINTS]).astype(np.float32)
    clip = tracker.track(frames, queries, mode="causal")
    stream = tracker.stream()
    for t, frame in enumerate(frames):
        update = stream.push(frame, t / 30)
        rows = update.ids
        np.testing.assert_allclose(update.points, clip.points[rows, t], atol=1e-4)
        np.testing.assert_allclose(
            update.forward_backward_error, clip.forward_backward_error[rows, t], atol=1e-4
        )
        assert (update.visible == clip.visible[rows, t]).all()
        assert update.age.tolist() == (t - starts[rows]).tolist()
        stream.add(POINTS[starts == t])
    assert stream.push(frames[-1], 1.0).ids.tolist() == [0, 1, 2, 3]


def test_the_future_does_not_change_the_past(tracker, cached, frames):
    queries = np.column_stack([np.zeros(4), POINTS])
    for one in (tracker, cached):
        whole = one.track(frames, queries, mode="causal")
        half = one.track(frames[:7], queries, mode="causal")
        np.testing.assert_array_equal(whole.points[:, :7], half.points)


def test_a_reset_stream_begins_anew(cached, frames):
    """In the middle of a group of frames, with points and caches."""
    stream, fresh = cached.stream(), cached.stream()
    for t, frame in enumerate(frames[:7]):
        stream.push(frame, float(t))
    stream.reset()
    for t, frame in enumerate(frames[7:]):
        after, anew = stream.push(frame, float(t)), fresh.push(frame, float(t))
        np.testing.assert_array_equal(after.points, anew.points)
        np.testing.assert_array_equal(after.confidence, anew.confidence)
        if t == 0:
            stream.add(POINTS)
            fresh.add(POINTS)


def test_ids_are_stable_and_never_used_again(tracker, frames):
    stream = tracker.stream()
    stream.push(frames[0], 0.0)
    first = stream.add(POINTS)
    stream.remove(first[1])
    assert stream.push(frames[1], 1.0).ids.tolist() == [0, 2, 3]
    assert stream.add(POINTS[:2]).tolist() == [4, 5]
    stream.remove([0, 5])
    assert stream.push(frames[2], 2.0).ids.tolist() == [2, 3, 4]
    with pytest.raises(InputError, match="no point with id 0"):
        stream.remove(0)


def test_the_same_stamp_is_the_same_frame(tracker, frames):
    stream = tracker.stream()
    stream.push(frames[0], 0.0)
    stream.add(POINTS)
    once = stream.push(frames[1], 1.0)
    again = stream.push(frames[1], 1.0)
    np.testing.assert_array_equal(once.points, again.points)
    assert once.age.tolist() == again.age.tolist() == [1, 1, 1, 1]


def test_time_does_not_go_back(tracker, frames, assert_stamps_rise):
    stream = tracker.stream()
    assert_stamps_rise(stream, frames[0])
    assert len(stream.push(frames[1], 4.0).ids) == 0
    assert stream.add(POINTS[:1]).tolist() == [0]


def coloured_dot(column: int) -> np.ndarray:
    """One red cell on grey that fills its surroundings, 96 x 64."""
    frame = np.full((64, 96, 3), 90, np.uint8)
    frame[24:40, column : column + 16] = (250, 20, 20)
    return frame


def test_dropped_frames_widen_the_search(tmp_path):
    settings = MATCHING.__class__(**{**_fields(MATCHING), "search_radius": 12.0})
    tracker = Tracker(write_passthrough(tmp_path, frames=1), settings=settings)

    def last_position(stamps):
        stream = tracker.stream()
        stream.push(coloured_dot(8), 0.0)
        stream.add([[16.0, 32.0]])
        for stamp in stamps[:-1]:
            stream.push(coloured_dot(8), stamp)
        return stream.push(coloured_dot(40), stamps[-1]).points[0, 0]

    assert last_position([0.1, 0.2, 0.3, 0.7]) == pytest.approx(48, abs=4)
    assert last_position([0.1, 0.2, 0.3, 0.4]) < 32


def test_missing_frames_of_a_clip_widen_the_search_in_both_directions(tmp_path):
    settings = MATCHING.__class__(**{**_fields(MATCHING), "search_radius": 12.0})
    tracker = Tracker(write_passthrough(tmp_path, frames=1), settings=settings)
    frames = np.stack([coloured_dot(column) for column in (8, 8, 8, 8, 40, 40, 40)])
    queries = [[0, 16.0, 32.0], [6, 48.0, 32.0]]
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9])
    for mode in ("offline", "causal"):
        x = tracker.track(frames, queries, mode=mode, times=times).points[..., 0]
        np.testing.assert_allclose(x[:, [0, 3, 4, 6]], [[16, 16, 48, 48]] * 2, atol=4)
        x = tracker.track(frames, queries, mode=mode).points[..., 0]
        assert x[0, 4] < 32 < x[1, 3]


@pytest.mark.parametrize(
    ("times", "message"),
    [([0.0, 1.0], r"one a frame: \[3\]"), ([0, 1, 1], "ascend"), ([0, np.nan, 2], "ascend")],
)
def test_times_that_are_none_are_refused(tracker, frames, times, message):
    with pytest.raises(InputError, match=message):
        tracker.track(frames[:3], [[0, 16.0, 32.0]], times=times)


def _fields(struct) -> dict:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_points_keep_their_place_when_the_size_changes(tracker):
    stream = tracker.stream()
    frame = coloured_dot(40)
    larger = frame.repeat(2, axis=0).repeat(3, axis=1)
    stream.push(frame, 0.0)
    stream.add([[48.0, 32.0]])
    np.testing.assert_allclose(stream.push(frame, 1.0).points, [[48, 32]], atol=4)
    for stamp in (2.0, 3.0):
        update = stream.push(larger, stamp)
        np.testing.assert_allclose(update.points, [[144, 64]], atol=12)
        assert update.visible.all()


def test_points_are_checked_on_entry(tracker, frames):
    stream = tracker.stream()
    with pytest.raises(InputError, match="before the first frame"):
        stream.add(POINTS)
    stream.push(frames[0], 0.0)
    for bad in ([[128.0, 5.0]], [[5.0, -0.1]], [[np.nan, 5.0]], [[5.0, np.inf]]):
        with pytest.raises(InputError, match="not inside the frame of 128 x 96"):
            stream.add(bad)
    with pytest.raises(InputError, match=r"\[N, 2\]"):
        stream.add([1.0, 2.0, 3.0])
    assert len(stream.add(np.zeros((0, 2)))) == 0
    assert len(stream.push(frames[1], 1.0).ids) == 0


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[[1, 2, 3]]],
    ],
)
def test_what_is_no_frame_is_refused(tracker, frame):
    with pytest.raises(InputError, match="a frame"):
        tracker.stream().push(frame, 0.0)


@pytest.mark.slow
def test_memory_does_not_grow(tracker, frames):
    stream = tracker.stream()
    sizes = []
    tracemalloc.start()
    for t in range(160):
        stream.push(frames[t % len(frames)], float(t))
        if t % 10 == 0:
            stream.remove(stream.push(frames[t % len(frames)], float(t)).ids)
            stream.add(POINTS)
        if t in (59, 159):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # One feature map kept a frame would be 2 MB.
    assert sizes[1] - sizes[0] < 100_000
