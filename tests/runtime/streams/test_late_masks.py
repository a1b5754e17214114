"""Masks that come late, for frames that were pushed or skipped, and objects that are removed."""

import gc
import tracemalloc

import msgspec
import numpy as np
import pytest

from doubles.passthrough import write_passthrough
from doubles.propagating import DISPLACEMENT, PROPAGATION, write_propagating
from vditrack import InputError, Tracker
from vditrack.bundle.configuration import MaskHistory
from vditrack.errors import LateMaskError

HEIGHT, WIDTH = 96, 128
RATE = 30.0
SIDE, STEP = 32, 4


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """On mean colours: fast; motion in groups of 4 frames behind an encoder with caches."""
    folder = tmp_path_factory.mktemp("parts")
    motion = write_passthrough(folder / "motion", frames=9, cached=True, temporal_stride=4)
    single = write_passthrough(folder / "appearance", frames=1, rows=12, columns=16)
    return write_propagating(folder / "whole", motion=motion.root, appearance=single.root)


@pytest.fixture(scope="module")
def tracker(bundle):
    return Tracker(bundle)


def limited(tracker, **limits):
    """A stream with another history."""
    tracker.streaming = msgspec.structs.replace(
        Tracker(tracker.bundle).streaming, mask_history=MaskHistory(**limits)
    )
    stream = tracker.mask_stream()
    tracker.streaming = Tracker(tracker.bundle).streaming
    return stream


def square(n, index=1):
    """Where the square is in frame n, which may be a fraction."""
    mask, left = np.zeros((HEIGHT, WIDTH), np.uint8), round(4 + STEP * n)
    mask[24 : 24 + SIDE, left : left + SIDE] = index
    return mask


def green(n, index=9):
    """Where the second object is, which goes up."""
    mask, top = np.zeros((HEIGHT, WIDTH), np.uint8), round(70 - 2 * n)
    mask[top : top + 20, 100:120] = index
    return mask


def shot(n):
    frame = (
        np.random.default_rng(round(4 * n)).integers(80, 100, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    )
    frame[..., 2] += 40
    frame[square(n) > 0] = (210, 40, 30)
    frame[green(n) > 0] = (20, 200, 20)
    return frame


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def assert_equal_updates(late, timely):
    np.testing.assert_array_equal(late.mask, timely.mask)
    assert late.indices.tolist() == timely.indices.tolist()
    assert late.frames_since_marked.tolist() == timely.frames_since_marked.tolist()


MASKS = {1: [square(1)], 4: [green(4), square(4, 3)], 6: [square(6)]}


@pytest.mark.parametrize("order", [(1, 4, 6), (6, 1, 4), (4, 6, 1)], ids=str)
@pytest.mark.parametrize("displacement", [None, DISPLACEMENT], ids=["motion", "displacement"])
@pytest.mark.parametrize("pushes", [0, 1], ids=["at once", "one by one"])
def test_late_masks_are_as_if_they_had_come_in_time(bundle, displacement, order, pushes):
    """Any order in which they come: what was marked later is propagated again as well."""
    settings = msgspec.structs.replace(PROPAGATION, displacement=displacement)
    tracker = Tracker(bundle, propagation=settings)
    timely, late = tracker.mask_stream(), tracker.mask_stream()
    for t in range(9):
        timely.push(shot(t), t / RATE)
        late.push(shot(t), t / RATE)
        for mask in MASKS.get(t, []):
            timely.add_masks(mask)
    newest = 8
    for t in order:
        for mask in MASKS[t]:
            assert late.add_masks(mask, t / RATE) == t / RATE
        for _ in range(pushes):
            newest += 1
            timely.push(shot(newest), newest / RATE)
            late.push(shot(newest), newest / RATE)
    for t in range(newest, 14):
        assert_equal_updates(late.push(shot(t), t / RATE), timely.push(shot(t), t / RATE))
    assert iou(late.push(shot(13), 13 / RATE).mask == 1, square(13) > 0) > 0.7


def test_a_mask_on_the_newest_frame_would_miss_the_object(tracker):
    """What late masks cost before: the square has moved by its own width."""
    newest, placed = tracker.mask_stream(), tracker.mask_stream()
    for t in range(9):
        newest.push(shot(t), t / RATE)
        placed.push(shot(t), t / RATE)
    newest.add_masks(square(0))
    assert iou(newest.push(shot(9), 9 / RATE).mask == 1, square(9) > 0) < 0.1
    placed.add_masks(square(0), 0.0)
    assert iou(placed.push(shot(9), 9 / RATE).mask == 1, square(9) > 0) > 0.7


@pytest.mark.parametrize("model", ["colours", pytest.param("bundled", marks=pytest.mark.slow)])
def test_a_mask_of_a_skipped_frame(tracker, model):
    """The model had time for every fourth frame alone. IoU is within 0.05 of a mask in time."""
    # The square moves by 1 pixel a frame for the bundled model: 150 pixels a second at 640 x 480.
    speed = 0.25 if model == "bundled" else 1.0
    tracker = Tracker.load() if model == "bundled" else tracker
    frames = [shot(speed * t) for t in range(17)]
    masks = [square(speed * t) + green(speed * t) for t in range(17)]
    timely, late, found = tracker.mask_stream(), tracker.mask_stream(), {}
    for t in range(17):
        if t == 6 or t % 4 == 0:
            timely.push(frames[t], t / RATE)
        if t == 6:
            timely.add_masks(masks[6])
        if t % 4:
            late.keep(frames[t], t / RATE)
            continue
        late.push(frames[t], t / RATE)
        if t == 12:
            assert late.add_masks(masks[6], 6 / RATE) == 6 / RATE
        if t > 8:
            found[t] = [stream.push(frames[t], t / RATE).mask for stream in (timely, late)]
    for t in (12, 16):
        for index in np.unique(masks[t])[1:]:
            in_time, after = (iou(mask == index, masks[t] == index) for mask in found[t])
            assert after > in_time - 0.05 and after > 0.5


def test_a_mask_of_a_frame_that_was_lost_is_put_on_the_nearest(tracker):
    stream = tracker.mask_stream()
    for t in (0, 1, 3, 4, 9):
        stream.push(shot(t), t / RATE)
    assert stream.add_masks(square(2), 2.1 / RATE) == 3 / RATE
    with pytest.raises(LateMaskError, match=r"no frame has its stamp.* 0.0667 s away"):
        stream.add_masks(square(6), 6 / RATE)


def test_masks_that_come_too_late_are_refused(tracker):
    stream = limited(tracker, seconds=0.2)
    for t in range(10):
        stream.push(shot(t), t / RATE)
    with pytest.raises(LateMaskError, match=r"0.3 s older than the newest frame.* kept for 0.2 s"):
        stream.add_masks(square(0), 0.0)
    stream.add_masks(square(5), 5 / RATE)
    with pytest.raises(InputError, match="later than the last frame's"):
        stream.add_masks(square(9), 1.0)
    with pytest.raises(InputError, match="later than the last frame's"):
        stream.add_masks(square(9), float("nan"))
    with pytest.raises(InputError, match="the mask is 96 x 128, the frame 128 x 96"):
        stream.add_masks(np.ones((WIDTH, HEIGHT), np.uint8), 5 / RATE)


def test_a_slow_model_keeps_the_frames_that_it_skips(tracker):
    """Before, skipped frames were dropped as soon as two pushed ones were far apart."""
    stream = limited(tracker, seconds=0.3)
    speed = 1 / 8
    stream.push(shot(0), 0.0)
    for first in (1, 17, 33):
        for t in range(first, first + 15):
            stream.keep(shot(speed * t), t / RATE)
        stream.push(shot(speed * (first + 15)), (first + 15) / RATE)
        t = first + 10
        assert stream.add_masks(square(speed * t), t / RATE) == t / RATE
    found = stream.push(shot(speed * 49), 49 / RATE).mask
    assert iou(found == 1, square(speed * 49) > 0) > 0.7


def test_held_frames_outlast_the_limit_of_time(tracker):
    stream = limited(tracker, seconds=0.1)
    for t in range(3):
        stream.push(shot(t), t / RATE)
    stream.hold([1 / RATE, 2 / RATE])
    for t in range(3, 9):
        stream.keep(shot(t), t / RATE - 0.01)
        stream.push(shot(t), t / RATE)
    assert stream.add_masks(square(1), 1 / RATE) == 1 / RATE
    assert iou(stream.push(shot(9), 9 / RATE).mask == 1, square(9) > 0) > 0.7
    stream.hold([])
    stream.push(shot(10), 10 / RATE)
    with pytest.raises(LateMaskError, match="older than the newest frame"):
        stream.add_masks(square(1), 1 / RATE)
    assert len(stream._history.encoded) <= 6


def test_a_mask_has_the_size_of_its_own_frame(tracker):
    stream = tracker.mask_stream()
    stream.push(shot(0), 0.0)
    stream.push(shot(1).repeat(2, 0).repeat(2, 1), 1 / RATE)
    stream.add_masks(square(0), 0.0)
    found = stream.push(shot(2).repeat(2, 0).repeat(2, 1), 2 / RATE).mask
    assert iou(found == 1, square(2).repeat(2, 0).repeat(2, 1) > 0) > 0.7


def test_memory_is_bounded(tracker):
    stream = limited(tracker, seconds=1e6, megabytes=1)
    stream.push(shot(0), 0.0)
    for t in range(1, 100):
        stream.keep(shot(t % 16), t / RATE)
        stream.push(shot(t % 16), t / RATE + 1e-3)
    assert stream._history.nbytes < 1.2e6
    with pytest.raises(LateMaskError, match=r"at most 1e\+06 s and 1 MB"):
        stream.add_masks(square(0), 0.0)


@pytest.mark.slow
def test_a_detector_that_marks_five_times_a_second_does_not_fill_the_memory(tracker):
    """Before, each frame that was marked stayed until a reset."""
    stream = limited(tracker, seconds=0.5)

    def watch(first, frames=54):
        for t in range(first, first + frames):
            stream.push(shot(t % 16), t / RATE)
            if t % 6 == 5:
                stream.add_masks(square((t - 5) % 16, 1 + t // 6 % 3), (t - 5) / RATE)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    # Until the last marked frames of each of three objects are those that are kept.
    watch(0, 162)
    tracemalloc.start()
    try:
        before = watch(162)
        assert watch(216) - before < 100_000
    finally:
        tracemalloc.stop()


def test_each_object_keeps_its_last_marked_frames(bundle):
    """Beyond their number, older masks of an object have no effect."""
    settings = msgspec.structs.replace(PROPAGATION, references=2, context=1)
    tracker = Tracker(bundle, propagation=settings)
    stream = tracker.mask_stream()
    kept = lambda: [  # noqa: E731
        sorted(frame.given) for frame in stream._history.encoded[-1].objects._annotated
    ]
    marks = {0: square(0) + green(0), 1: square(1), 2: square(2), 4: square(4), 5: green(5)}
    for t in range(7):
        stream.push(shot(t), t / RATE)
        if t in marks:
            stream.add_masks(marks[t])
    # The first frame is there for the second object, until that was marked twice more.
    assert kept() == [[1, 9], [1], [1], [9]]
    stream.add_masks(green(6))
    stream.push(shot(7), 7 / RATE)
    assert kept() == [[1], [1], [9], [9]]
    assert iou(stream.push(shot(8), 8 / RATE).mask == 1, square(8) > 0) > 0.7


def test_a_removed_object_is_gone_also_from_earlier_frames(tracker):
    stream = tracker.mask_stream()
    for t in range(6):
        stream.push(shot(t), t / RATE)
        if t == 1:
            stream.add_masks(square(1))
        if t == 3:
            stream.add_masks(green(3))
    stream.remove(1)
    update = stream.push(shot(5), 5 / RATE)
    assert update.indices.tolist() == [9] and not (update.mask == 1).any()
    assert iou(update.mask == 9, green(5) > 0) > 0.7
    # A mask of an earlier frame does not bring it back.
    stream.add_masks(green(2, 4), 2 / RATE)
    update = stream.push(shot(6), 6 / RATE)
    assert set(update.indices.tolist()) == {4, 9} and not (update.mask == 1).any()
    with pytest.raises(InputError, match="no object with index 1"):
        stream.remove(1)
    # The index may be used again, and then means the new object alone.
    stream.remove(4)
    stream.remove(9)
    stream.add_masks(green(6, 1))
    stream.add_masks(square(5, 2), 5 / RATE)
    update = stream.push(shot(7), 7 / RATE)
    assert iou(update.mask == 1, green(7) > 0) > 0.7
    assert iou(update.mask == 2, square(7) > 0) > 0.7


def test_the_last_object_can_be_removed(tracker):
    stream = tracker.mask_stream()
    with pytest.raises(InputError, match="no object with index 3"):
        stream.remove(3)
    for t in range(3):
        stream.push(shot(t), t / RATE)
    stream.add_masks(square(2, 3))
    stream.remove(3)
    update = stream.push(shot(2), 2 / RATE)
    assert not update.mask.any() and not len(update.indices)
    stream.push(shot(3), 3 / RATE)
    stream.add_masks(square(3, 5))
    assert iou(stream.push(shot(4), 4 / RATE).mask == 5, square(4) > 0) > 0.7


@pytest.mark.parametrize("late", [0, 5])
def test_an_object_in_a_box(tracker, late):
    """The outline is found inside the box; also in a frame of five frames ago."""
    stream = tracker.mask_stream()
    for t in range(9):
        stream.push(shot(t), t / RATE)
    t = 8 - late
    left = 4 + STEP * t
    boxes = [[left - 4, 18, left + SIDE + 3, 24 + SIDE + 5], [96.5, 66 - 2 * t, 124, 95 - 2 * t]]
    mask = stream.segment_boxes(boxes, [1, 9], t / RATE)
    assert iou(mask == 1, square(t) > 0) > 0.9 and iou(mask == 9, green(t) > 0) > 0.75
    stream.add_masks(mask, t / RATE)
    found = stream.push(shot(9), 9 / RATE).mask
    assert iou(found == 1, square(9) > 0) > 0.7


def test_boxes_without_an_outline_are_filled(tracker):
    stream = tracker.mask_stream()
    with pytest.raises(InputError, match="before the first frame"):
        stream.segment_boxes([[0, 0, 4, 4]], [1])
    stream.push(np.full((HEIGHT, WIDTH, 3), 90, np.uint8), 0.0)
    boxes = [[-20, -20, 40.4, 30.6], [10, 10, 14, 14], [0, 0, 1000, 1000]]
    mask = stream.segment_boxes(boxes, [5, 6, 7])
    assert (mask[10:14, 10:14] == 6).all() and mask[50, 50] == 7
    assert mask[30, 39] == 5 and mask[31, 39] == mask[30, 40] == 7


@pytest.mark.parametrize(
    ("box", "index", "message"),
    [
        ([4, 4, 4, 9], 1, "x0 must be below x1"),
        ([4, 4, float("nan"), 9], 1, "x0 must be below x1"),
        ([400, 4, 410, 9], 1, "no pixel in the image of 128 x 96"),
        ([4, 4, 9, 9], 256, "from 1 to 255"),
        ([4, 4, 9], 1, "boxes have shape"),
    ],
)
def test_what_is_no_box_is_refused(tracker, box, index, message):
    stream = tracker.mask_stream()
    stream.push(shot(0), 0.0)
    with pytest.raises(InputError, match=message):
        stream.segment_boxes([box], [index])
