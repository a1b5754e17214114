"""Streams of models whose latents share frames: positions in closed form between the maps."""

import cv2
import msgspec
import numpy as np
import pytest

from doubles.grouped import write_grouped
from doubles.propagating import write_propagating
from doubles.slow_model import SlowModel, await_description
from vditrack import Tracker
from vditrack.stage_timing import record_stages
from vditrack.synthetic.layers.clips import render_clip

STRIDE, STEP = 4, np.float32([1.5, -0.75])
POINTS = np.float32([[30.5, 40.25], [64.0, 48.0], [100.75, 30.5]])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The bundled model, which sees the last frame of each latent."""
    return write_grouped(tmp_path_factory.mktemp("bundle"), STRIDE)


@pytest.fixture(scope="module", params=["flow", "match"])
def tracker(request, bundle):
    """Points by optical flow and patches, or by matches alone."""
    matching = bundle.manifest.matching
    if request.param == "match":
        matching = msgspec.structs.replace(matching, flow_tracking=None)
    return Tracker(bundle, settings=matching)


@pytest.fixture(scope="module")
def picture():
    return render_clip(seed=4, height=160, width=256, frames=1).frames[0]


def pan(picture, t: int, hidden: bool = False):
    """Frame t of a camera that moves so that points move by STEP, in whole pixels of the sheet."""
    shift = np.float32([[1, 0, STEP[0] * t - 70], [0, 1, STEP[1] * t - 20]])
    frame = cv2.warpAffine(picture, shift, (128, 96), flags=cv2.INTER_LINEAR)
    if hidden:
        frame[:] = np.random.default_rng(t).integers(0, 256, frame.shape, np.uint8)
    return frame


def test_networks_run_once_a_latent_and_points_do_not_lag(tracker, picture):
    """In frames with a map and in those between, to what the model matches from frame to frame."""
    stream, spent = tracker.stream(), []
    limit = 0.5 if tracker.settings.flow_tracking else 3.0
    with record_stages(lambda name, _: spent.append((t, name))):
        for t in range(14):
            update = stream.push(pan(picture, t), t / 30)
            if t == 0:
                stream.add(POINTS)
                continue
            assert update.visible.all() and (update.confidence >= 0.5).all()
            errors = np.linalg.norm(update.points - (POINTS + t * STEP), axis=1)
            assert errors.max() < limit, (t, errors)
    for name in ("encoder", "transformer"):
        assert [t for t, stage in spent if stage == name] == [0, 4, 8, 12]


def test_a_clip_is_tracked_as_the_stream_is(tracker, picture):
    frames = np.stack([pan(picture, t) for t in range(11)])
    queries = np.float32([[0, *POINTS[0]], [2, *POINTS[1]], [6, *POINTS[2]]])
    tracks, stream = tracker.track(frames, queries, mode="causal"), tracker.stream()
    for t, frame in enumerate(frames):
        update = stream.push(frame, t / 30)
        np.testing.assert_array_equal(update.points, tracks.points[update.ids, t])
        np.testing.assert_array_equal(update.visible, tracks.visible[update.ids, t])
        stream.add(queries[queries[:, 0] == t, 1:])
    assert tracks.visible.mean() > 0.9


def test_a_point_that_is_added_inside_a_latent_is_described_with_it(tracker, picture):
    stream = tracker.stream()
    for t in range(7):
        stream.push(pan(picture, t), t / 30)
    (new,) = stream.add(POINTS[:1])
    for t in range(7, 14):
        update = stream.push(pan(picture, t), t / 30)
        assert stream._tracker.undescribed.tolist() == [t < 8]
        assert update.visible.all()
        errors = np.linalg.norm(update.points - (POINTS[:1] + (t - 6) * STEP), axis=1)
        assert errors.max() < 4
    # It is searched for by its descriptor once it is lost.
    for t in range(14, 17):
        assert not stream.push(pan(picture, t, hidden=True), t / 30).visible.any()
    found = [stream.push(pan(picture, t), t / 30) for t in range(17, 25)]
    assert [update.visible[0] for update in found[-2:]] == [True, True]
    assert np.linalg.norm(found[-1].points[0] - (POINTS[0] + 18 * STEP)) < 6
    assert found[-1].ids.tolist() == [new]


def test_a_lost_point_is_invisible_until_the_next_map(tracker, picture):
    """Between maps nothing says that it is back, and it does not flicker."""
    stream = tracker.stream()
    for t in range(5):
        stream.push(pan(picture, t), t / 30)
        if t == 0:
            stream.add(POINTS)
    assert not stream.push(pan(picture, 5, hidden=True), 5 / 30).visible.any()
    for t in (6, 7):
        update = stream.push(pan(picture, t), t / 30)
        assert not update.visible.any() and (update.confidence < 0.5).all()


def test_a_point_that_is_lost_before_it_is_described_is_not_found_by_chance(tracker, picture):
    stream = tracker.stream()
    for t in range(6):
        stream.push(pan(picture, t), t / 30)
    stream.add(POINTS)
    for t in range(6, 14):
        update = stream.push(pan(picture, t, hidden=True), t / 30)
        assert not update.visible.any()


def test_a_live_stream_equals_the_stream(tracker, picture):
    """A frame every ten seconds: the model keeps pace whatever the machine does."""
    stream = tracker.stream()
    with tracker.live() as live:
        for t in range(12):
            frame = pan(picture, t)
            wanted, got = stream.push(frame, 10.0 * t), live.push(frame, 10.0 * t)
            for name in ("ids", "points", "visible", "confidence", "forward_backward_error", "age"):
                np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
            assert got.bridged == (t % STRIDE > 0)
            if t > 0:
                assert got.seconds_since_model[0] == 10.0 * (t % STRIDE)
            if t in (0, 6):
                assert (stream.add(POINTS) == live.add(POINTS)).all()
        assert live.described_rate == pytest.approx(0.1 / STRIDE)


def test_a_slow_model_gets_the_newest_frames_of_each_latent(bundle, picture, monkeypatch):
    slow = SlowModel(bundle)
    slow.let.release()
    groups = []
    with slow.live() as live:
        encode = live._extractor.encoder.encode
        monkeypatch.setattr(
            live._extractor.encoder,
            "encode",
            lambda group, state: (
                groups.append([int(f[0, 0, 0]) for f in group]),
                encode(group, state),
            )[1],
        )
        for t in range(20):
            frame = pan(picture, t)
            frame[:8, :8] = t
            update = live.push(frame, t / 30)
            if t == 0:
                live.add(POINTS)
            else:
                errors = np.linalg.norm(update.points - (POINTS + t * STEP), axis=1)
                assert update.bridged and errors.max() < 4
            if t == 13:
                slow.let.release()
                await_description(live)
        slow.let.release(100)
        await_description(live)
    # It is busy with the latent of frames 1 to 4 until frame 13.
    assert groups == [[0], [1, 2, 3, 4], [11, 12, 13, 14]]


def test_a_restart_describes_points_inside_a_latent(tracker, picture):
    with tracker.live() as live:
        for t in range(3):
            live.push(pan(picture, t), 10.0 * t)
        kept = live.add(POINTS)
        assert live.restart(kept).tolist() == kept.tolist()
        assert not live._tracker.undescribed.any()
        for t in range(6):
            update = live.push(pan(picture, 2), float(t))
        assert update.visible.all()
        assert np.abs(update.points - POINTS).max() < 4


SIDE = 32


def square(t: int, index: int = 1):
    mask, left = np.zeros((96, 128), np.uint8), 8 + 3 * t
    mask[30 : 30 + SIDE, left : left + SIDE] = index
    return mask


def shot(t: int):
    rng = np.random.default_rng(0)
    frame = rng.integers(60, 120, (96, 128, 3)).astype(np.uint8)
    texture = rng.integers(100, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    texture[..., 2] = 20
    frame[square(t) > 0] = texture.reshape(-1, 3)
    return frame


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.fixture(scope="module")
def masked(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("masked")
    return Tracker(write_propagating(folder, motion=bundle.root, appearance=bundle.root))


@pytest.mark.parametrize("marked", [0, 2])
def test_masks_do_not_lag_between_maps(masked, marked):
    """Marked in a frame with a map or in one without; the object moves by 3 pixels a frame."""
    stream = masked.mask_stream()
    for t in range(11):
        update = stream.push(shot(t), t / 30)
        if t == marked:
            stream.add_masks(square(t))
            update = stream.push(shot(t), t / 30)
            np.testing.assert_array_equal(update.mask, square(t))
        if t >= marked:
            assert iou(update.mask == 1, square(t) > 0) > 0.8, t
            assert update.indices.tolist() == [1]
            assert update.agreement[0] > 0
        if marked == 0:
            assert update.frames_since_marked.tolist() == [t]
    stream.remove(1)
    assert not stream.push(shot(10), 10 / 30).mask.any()


def test_a_late_mask_of_a_frame_without_a_map(masked):
    stream = masked.mask_stream()
    for t in range(10):
        stream.push(shot(t), t / 30)
    assert stream.add_masks(square(6), 6 / 30) == 6 / 30
    assert iou(stream.push(shot(10), 10 / 30).mask == 1, square(10) > 0) > 0.7


def test_a_causal_clip_of_masks_is_that_of_the_stream(masked):
    frames, marks = np.stack([shot(t) for t in range(10)]), {1: square(1), 6: square(6, 2)}
    clip, stream = masked.propagate(frames, marks, mode="causal"), masked.mask_stream()
    for t, frame in enumerate(frames):
        update = stream.push(frame, t / 30)
        if t in marks:
            stream.add_masks(marks[t])
            update = stream.push(frame, t / 30)
        np.testing.assert_array_equal(update.mask, clip[t])
    assert iou(clip[9] == 2, square(9) > 0) > 0.7
