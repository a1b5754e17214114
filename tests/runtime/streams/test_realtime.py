"""The live stream: at a camera's pace with a slow model, and as the plain one with a quick one."""

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from doubles.passthrough import write_passthrough
from doubles.slow_model import WAIT, SlowModel, await_description
from vditrack import InputError, Tracker
from vditrack.errors import BackendError
from vditrack.features.windows import SlidingWindow
from vditrack.streams.realtime import LiveStream
from vditrack.synthetic.layers.clips import render_clip

POINTS = np.float32([[30.5, 40.25], [64.0, 48.0], [100.75, 20.5], [12.5, 80.0]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Mean colours: exact and fast; its accuracy does not matter here."""
    return write_passthrough(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def clip():
    return render_clip(seed=4, height=96, width=128, frames=14)


def push_and_add(live, frame, stamp) -> None:
    live.push(frame, stamp)
    live.add(POINTS)


def moving(count, step=(1.5, -0.75), size=(240, 320)):
    """A photograph-like texture that moves by a known step a frame, and its frames."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (size[0] // 8 + 30, size[1] // 8 + 30, 3), np.uint8)
    sheet = cv2.resize(coarse, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    frames = []
    for t in range(count):
        shift = np.float32([[1, 0, step[0] * t - 100], [0, 1, step[1] * t - 100]])
        frames.append(cv2.warpAffine(sheet, shift, size[::-1], flags=cv2.INTER_LINEAR))
    return frames


def test_with_a_quick_model_it_equals_the_stream(bundle, clip):
    tracker = Tracker(bundle)
    stream = tracker.stream()
    with tracker.live() as live:
        # A frame every ten seconds: the model keeps pace whatever the machine does.
        for t, frame in enumerate(clip.frames):
            wanted, got = stream.push(frame, 10.0 * t), live.push(frame, 10.0 * t)
            assert not got.bridged
            for name in ("ids", "points", "visible", "confidence", "forward_backward_error"):
                np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
            np.testing.assert_array_equal(got.age, wanted.age)
            assert (got.seconds_since_model == 0).all()
            if t in (0, 5):
                assert (stream.add(POINTS) == live.add(POINTS)).all()
            if t == 8:
                stream.remove([1, 6])
                live.remove([1, 6])
        assert live.ids.tolist() == [0, 2, 3, 4, 5, 7]
        assert live.described_rate == pytest.approx(0.1)


def test_flow_carries_points_while_the_model_works(bundle):
    """Positions in closed form, though the model has described nothing but the first frame."""
    slow, frames = SlowModel(bundle), moving(8)
    slow.let.release()
    with slow.live() as live:
        first = np.float32([[100, 120], [160.5, 80.25], [220, 150]])
        live.push(frames[0], 0.0)
        live.add(first)
        for t in range(1, 8):
            update = live.push(frames[t], t / 30)
            truth = first + np.float32([1.5, -0.75]) * t
            assert update.bridged
            assert update.visible.all()
            np.testing.assert_allclose(update.points, truth, atol=0.3)
            np.testing.assert_allclose(update.seconds_since_model, t / 30, atol=1e-6)
            assert (update.age == t).all()
        slow.let.release(100)


def test_what_the_model_says_of_an_earlier_frame_is_carried_to_the_newest(tiny_bundle):
    """Flow that went astray is mended: the mistake is made here, the truth in closed form."""
    slow, frames = SlowModel(tiny_bundle), moving(8)
    slow.let.release()
    first = np.float32([[100, 120], [160.5, 80.25], [220, 150]])
    with slow.live() as live:
        live.push(frames[0], 0.0)
        live.add(first)
        for t in range(1, 5):
            live.push(frames[t], t / 30)
        # The model has begun on frame 1. Meanwhile the first point has slipped off its surface.
        live._points.places[0] += 12
        assert np.linalg.norm(live.push(frames[5], 5 / 30).points[0] - first[0]) > 12
        live._job.frame.places[0] += 12
        slow.let.release()
        await_description(live)
        update = live.push(frames[6], 6 / 30)
        slow.let.release(100)
    np.testing.assert_allclose(update.points, first + np.float32([1.5, -0.75]) * 6, atol=0.5)
    assert update.bridged
    np.testing.assert_allclose(update.seconds_since_model, 5 / 30, atol=1e-6)


def test_points_added_while_the_model_works_get_their_template_where_flow_is(tiny_bundle):
    slow, frames = SlowModel(tiny_bundle), moving(10)
    slow.let.release()
    late = np.float32([[150, 100]])
    with slow.live() as live:
        live.push(frames[0], 0.0)
        for t in range(1, 4):
            live.push(frames[t], t / 30)
        (new,) = live.add(late)
        # Frame 1 was begun before: it says nothing of the point.
        slow.let.release()
        await_description(live)
        live.push(frames[4], 4 / 30)
        assert len(live._tracker.ids) == 0
        slow.let.release()
        await_description(live)
        update = live.push(frames[5], 5 / 30)
        assert live._tracker.ids.tolist() == [new]
        np.testing.assert_allclose(update.seconds_since_model, 1 / 30, atol=1e-6)
        np.testing.assert_allclose(update.points, late + np.float32([3, -1.5]), atol=0.3)
        slow.let.release(100)


def test_a_point_that_flow_loses_is_invisible_until_the_model_places_it(tiny_bundle):
    slow, frames = SlowModel(tiny_bundle), moving(6)
    slow.let.release()
    noise = np.random.default_rng(0).integers(0, 255, frames[0].shape, np.uint8)
    first = np.float32([[100, 120], [160, 80]])
    with slow.live() as live:
        live.push(frames[0], 0.0)
        live.add(first)
        update = live.push(noise, 1 / 30)
        assert not update.visible.any()
        assert (update.confidence < 0.5).all()
        live.push(frames[1], 2 / 30)
        slow.let.release()  # The noise.
        await_description(live)
        live.push(frames[1], 3 / 30)
        slow.let.release()
        await_description(live)
        update = live.push(frames[1], 4 / 30)
        slow.let.release(100)
    # The model has seen the picture again: what it finds is visible, to half a cell.
    assert update.visible.any()
    truth = first + np.float32([1.5, -0.75])
    np.testing.assert_allclose(update.points[update.visible], truth[update.visible], atol=5)


def test_a_slow_model_never_makes_a_push_wait(bundle):
    """Else this test would wait for as long as the model is held: for ever."""
    slow, frames = SlowModel(bundle), moving(30)
    slow.let.release()
    with slow.live() as live:
        for t, frame in enumerate(frames):
            live.push(frame, t / 30)
            if t == 0:
                live.add(POINTS)
        assert slow.runs == 1
        slow.let.release(100)


def test_frames_missed_while_a_push_waits_do_not_make_the_model_look_quick(bundle, monkeypatch):
    """A camera that keeps only its newest frame, and a caller with work of its own."""
    tracker, frames, period, seconds = Tracker(bundle), moving(40), 0.02, 0.3
    push = SlidingWindow.push

    def slowly(window, frame):
        time.sleep(seconds)
        return push(window, frame)

    monkeypatch.setattr(SlidingWindow, "push", slowly)
    began, bridged = time.perf_counter(), []
    with tracker.live() as live:
        for t in range(10):
            shown = int((time.perf_counter() - began) / period)
            update = live.push(frames[shown % len(frames)], shown * period)
            if t == 0:
                live.add(POINTS)
            bridged.append(update.bridged)
            time.sleep(seconds / 2)
    assert bridged == [False] + 9 * [True]


def test_removed_points_stay_removed_when_the_model_is_done(bundle):
    slow, frames = SlowModel(bundle), moving(6)
    slow.let.release()
    with slow.live() as live:
        push_and_add(live, frames[0], 0.0)
        live.push(frames[1], 1 / 30)
        live.add(POINTS)
        live.push(frames[2], 2 / 30)
        live.remove([0, 5])
        for t in (3, 4, 5):
            slow.let.release()
            await_description(live)
            update = live.push(frames[t], t / 30)
            assert update.ids.tolist() == [1, 2, 3, 4, 6, 7]
        assert sorted(live._tracker.ids.tolist()) == [1, 2, 3, 4, 6, 7]
        with pytest.raises(InputError, match="no point with id 5"):
            live.remove(5)
        slow.let.release(100)


def test_the_models_error_is_told_and_the_stream_goes_on(bundle):
    slow, frames = SlowModel(bundle, fails={2}), moving(6)
    slow.let.release()
    with slow.live() as live:
        push_and_add(live, frames[0], 0.0)
        live.push(frames[1], 1 / 30)
        slow.let.release()
        await_description(live)
        with pytest.raises(BackendError, match="fell off the bus"):
            live.push(frames[2], 2 / 30)
        # The last frame that was pushed without an error counts.
        assert live.add(POINTS[:1]).tolist() == [4]
        live.push(frames[3], 3 / 30)
        slow.let.release()
        await_description(live)
        assert live.push(frames[4], 4 / 30).ids.tolist() == [0, 1, 2, 3, 4]
        slow.let.release(100)


def test_reset_forgets_what_the_model_still_works_on(bundle):
    slow, frames = SlowModel(bundle), moving(6)
    slow.let.release()
    with slow.live() as live:
        push_and_add(live, frames[0], 5.0)
        live.push(frames[1], 5.1)
        live.reset()
        slow.let.release(100)
        update = live.push(frames[2], 0.0)
        assert len(update.ids) == 0
        assert not update.bridged
        assert live.add(POINTS).tolist() == [4, 5, 6, 7]
        assert live.described_rate is None


def test_sizes_may_change(tiny_bundle):
    slow, frames = SlowModel(tiny_bundle), moving(4, step=(0, 0))
    slow.let.release()
    small = [cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames]
    first = np.float32([[100, 120], [160, 80]])
    with slow.live() as live:
        live.push(frames[0], 0.0)
        live.add(first)
        live.push(frames[1], 1 / 30)
        np.testing.assert_allclose(live.push(small[2], 2 / 30).points, first / 2, atol=0.1)
        slow.let.release()
        await_description(live)
        # What the model says of a large frame counts in a small one.
        update = live.push(small[3], 3 / 30)
        np.testing.assert_allclose(update.points, first / 2, atol=0.5)
        slow.let.release(100)


def test_stamps_are_treated_as_by_the_stream(bundle, clip):
    with Tracker(bundle).live() as live:
        live.push(clip.frames[0], 1.0)
        live.add(POINTS)
        once = live.push(clip.frames[1], 2.0)
        again = live.push(clip.frames[2], 2.0)
        np.testing.assert_array_equal(again.points, once.points)
        np.testing.assert_array_equal(again.age, once.age)
        with pytest.raises(InputError, match=r"older than the last frame's, 2\.0"):
            live.push(clip.frames[3], 1.5)
        with pytest.raises(InputError, match="not a time"):
            live.push(clip.frames[3], float("nan"))
        assert live.push(clip.frames[3], 3.0).stamp == 3.0


def test_points_are_checked_where_they_come_in(bundle, clip):
    with Tracker(bundle).live() as live:
        with pytest.raises(InputError, match="Push a frame first"):
            live.add(POINTS)
        live.push(clip.frames[0], 0.0)
        with pytest.raises(InputError, match="not inside the frame"):
            live.add([[500, 10]])
        with pytest.raises(InputError, match="not inside the frame"):
            live.add([[np.nan, 10]])


def test_streams_share_one_thread(bundle, clip):
    tracker = Tracker(bundle)
    with ThreadPoolExecutor(1) as worker:
        left, right = tracker.live(worker), tracker.live(worker)
        for t, frame in enumerate(clip.frames):
            a, b = left.push(frame, 10.0 * t), right.push(frame[:, ::-1].copy(), 10.0 * t)
            if t == 0:
                left.add(POINTS)
                right.add(np.float32([128, 0]) + POINTS * np.float32([-1, 1]))
        assert isinstance(left, LiveStream)
        alone = tracker.stream()
        for t, frame in enumerate(clip.frames):
            wanted = alone.push(frame, 10.0 * t)
            if t == 0:
                alone.add(POINTS)
        np.testing.assert_array_equal(a.points, wanted.points)
        assert len(b.ids) == 4
        left.close()
        worker.submit(int).result(WAIT)


def test_points_on_flat_surfaces_stay_visible_between_the_models_frames(bundle):
    """As on asphalt, which shades so little that flow's own threshold gives it up."""
    slow = SlowModel(bundle)
    slow.let.release()
    rng = np.random.default_rng(0)
    asphalt = 100 + cv2.GaussianBlur(rng.normal(0, 8, (240, 320)), None, 3)
    noise = rng.normal(0, 0.3, (4, 240, 320))
    frames = [np.uint8(np.repeat((asphalt + one)[..., None].round(), 3, axis=2)) for one in noise]
    first = np.float32([[100, 120], [160.5, 80.25], [220, 150]])
    with slow.live() as live:
        live.push(frames[0], 0.0)
        live.add(first)
        for t in (1, 2, 3):
            update = live.push(frames[t], t / 30)
        slow.let.release(100)
    assert update.visible.all()
    np.testing.assert_allclose(update.points, first, atol=1.5)
