"""The stream of masks: equal to clips, causal, bounded, and plain about clocks and sizes."""

import gc
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from vditrack import InputError, Tracker
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.fusion import FusedWindow
from vditrack.masks import label_propagation
from vditrack.synthetic.layers.clips import render_clip

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    """On mean colours: fast; motion in groups of 4 frames behind an encoder with caches."""
    folder = tmp_path_factory.mktemp("parts")
    motion = write_passthrough(folder / "motion", frames=9, cached=True, temporal_stride=4)
    single = write_passthrough(folder / "appearance", frames=1, rows=12, columns=16)
    return Tracker(write_propagating(folder / "whole", motion=motion.root, appearance=single.root))


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_clip(seed=4, height=HEIGHT, width=WIDTH, frames=14).frames


def block(index: int, x: int, y: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + 32, x : x + 40] = index
    return mask


MARKS = {0: block(3, 20, 30), 5: block(8, 70, 40), 9: block(3, 30, 20)}


@pytest.mark.slow
@pytest.mark.parametrize("bundled", [False, True])
def test_stream_equals_a_causal_clip(tracker, frames, bundled, tmp_path):
    if bundled:
        tracker = Tracker(write_propagating(tmp_path / "bundle"))
    clip = tracker.propagate(frames, MARKS, mode="causal")
    stream = tracker.mask_stream()
    for t, frame in enumerate(frames):
        update = stream.push(frame, t / 30)
        if t in MARKS:
            stream.add_masks(MARKS[t])
            update = stream.push(frame, t / 30)
        np.testing.assert_array_equal(update.mask, clip[t])
        assert update.stamp == t / 30
    assert len(np.unique(clip)) == 3


def test_the_future_does_not_change_the_past(tracker, frames):
    whole = tracker.propagate(frames, MARKS[0], mode="causal")
    half = tracker.propagate(frames[:7], MARKS[0], mode="causal")
    np.testing.assert_array_equal(whole[:7], half)


def test_indices_and_ages(tracker, frames):
    stream = tracker.mask_stream()
    assert not stream.push(frames[0], 0.0).mask.any()
    assert len(stream.push(frames[0], 0.0).indices) == 0
    stream.add_masks(MARKS[5])
    stream.push(frames[1], 1.0)
    stream.add_masks(MARKS[0])
    update = stream.push(frames[2], 2.0)
    assert (update.indices.tolist(), update.frames_since_marked.tolist()) == ([8, 3], [2, 1])
    stream.add_masks(block(8, 10, 10))
    update = stream.push(frames[2], 2.0)
    assert (update.indices.tolist(), update.frames_since_marked.tolist()) == ([8, 3], [0, 1])


def test_two_masks_of_one_frame_are_as_one(tracker, frames):
    """Marked one by one, as a user clicks them, or together."""
    both = MARKS[0] + MARKS[5]
    assert np.unique(both).tolist() == [0, 3, 8]
    together, singly = tracker.mask_stream(), tracker.mask_stream()
    for stream, masks in ((together, [both]), (singly, [MARKS[0], MARKS[5]])):
        stream.push(frames[0], 0.0)
        for mask in masks:
            stream.add_masks(mask)
    for t, frame in enumerate(frames[:6]):
        at_once, one_by_one = together.push(frame, float(t)), singly.push(frame, float(t))
        np.testing.assert_array_equal(at_once.mask, one_by_one.mask)


def test_the_same_stamp_is_the_same_frame(tracker, frames):
    stream = tracker.mask_stream()
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])
    once = stream.push(frames[1], 1.0)
    again = stream.push(frames[2], 1.0)
    np.testing.assert_array_equal(once.mask, again.mask)
    assert once.frames_since_marked.tolist() == again.frames_since_marked.tolist() == [1]


def test_an_update_is_the_callers_own(tracker, frames):
    stream = tracker.mask_stream()
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])
    stream.push(frames[0], 0.0).mask[:] = 77
    assert 77 not in stream.push(frames[0], 0.0).mask
    given = MARKS[0].copy()
    stream.add_masks(given)
    given[:] = 99
    assert 99 not in stream.push(frames[0], 0.0).mask


def test_time_does_not_go_back(tracker, frames, assert_stamps_rise):
    stream = tracker.mask_stream()
    assert_stamps_rise(stream, frames[0])
    assert not stream.push(frames[1], 4.0).mask.any()


def test_a_reset_stream_begins_anew(tracker, frames):
    stream, fresh = tracker.mask_stream(), tracker.mask_stream()
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])
    stream.push(frames[1], 1.0)
    stream.reset()
    for t, frame in enumerate(frames[5:9]):
        after, anew = stream.push(frame, float(t)), fresh.push(frame, float(t))
        np.testing.assert_array_equal(after.mask, anew.mask)
        assert after.indices.tolist() == anew.indices.tolist()
        if t == 0:
            stream.add_masks(MARKS[5])
            fresh.add_masks(MARKS[5])


def test_objects_keep_their_place_when_the_size_changes(tracker):
    """A red block on grey is where it was, in frames of twice the size."""
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frame[32:64, 40:80] = (220, 20, 20)
    stream = tracker.mask_stream()
    stream.push(frame, 0.0)
    stream.add_masks((frame[..., 0] == 220).astype(np.uint8))
    larger = cv2.resize(frame, (2 * WIDTH, 2 * HEIGHT), interpolation=cv2.INTER_NEAREST)
    found, truth = stream.push(larger, 1.0).mask == 1, larger[..., 0] == 220
    assert (found & truth).sum() / (found | truth).sum() > 0.8
    with pytest.raises(InputError, match="the mask is 128 x 96, the frame 256 x 192"):
        stream.add_masks(MARKS[0])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "marks no object"),
        (np.ones((WIDTH, HEIGHT), np.uint8), "is 96 x 128, the frame 128 x 96"),
        (np.ones((HEIGHT, WIDTH)), "float64"),
    ],
)
def test_what_is_no_mask_changes_nothing(tracker, frames, mask, message):
    stream = tracker.mask_stream()
    with pytest.raises(InputError, match="before the first frame"):
        stream.add_masks(MARKS[0])
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])
    with pytest.raises(InputError, match=message):
        stream.add_masks(mask)
    np.testing.assert_array_equal(stream.push(frames[0], 0.0).mask, MARKS[0])
    with pytest.raises(InputError, match="a frame is"):
        stream.push(frames[0].astype(np.float32), 1.0)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(tracker, frames):
    stream = tracker.mask_stream()
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])

    def push_many(first: int) -> int:
        for t in range(first, first + 60):
            stream.push(frames[t % 14], float(t))
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    push_many(1)
    tracemalloc.start()
    try:
        before = push_many(61)
        # Other threads allocate a little meanwhile; one kept map a push would be 180 kB.
        assert push_many(121) - before < 60_000
    finally:
        tracemalloc.stop()


def test_frames_described_ahead_in_a_thread_give_the_same_masks(tracker, frames):
    """As the ROS 2 node does: one frame is described while labels go into the one before."""
    together, apart = tracker.mask_stream(), tracker.mask_stream()
    with ThreadPoolExecutor(1) as networks:
        ahead = networks.submit(apart.describe, frames[0], 0.0)
        for t, frame in enumerate(frames):
            described = ahead.result()
            if t + 1 < len(frames):
                ahead = networks.submit(apart.describe, frames[t + 1], t + 1.0)
            first, second = together.push(frame, float(t)), apart.push_described(described)
            if t in MARKS:
                for stream in (together, apart):
                    # The second one late, where a frame before is described only now.
                    stream.add_masks(MARKS[t], max(t - 1.0, 0.0))
                first, second = together.push(frame, float(t)), apart.push(frame, float(t))
            np.testing.assert_array_equal(first.mask, second.mask)
    assert second.mask.any() and second.indices.tolist() == [3, 8]


def test_a_frame_is_described_once_and_pushed_in_order(tracker, frames):
    stream = tracker.mask_stream()
    first, second = stream.describe(frames[0], 0.0), stream.describe(frames[1], 1.0)
    with pytest.raises(InputError, match="was described before"):
        stream.describe(frames[1], 1.0)
    stream.push_described(second)
    for described in (first, second, tracker.mask_stream().describe(frames[2], 2.0)):
        with pytest.raises(InputError, match="not later than the last one pushed"):
            stream.push_described(described)
    third = stream.describe(frames[2], 2.0)
    stream.reset()
    with pytest.raises(InputError, match="before its reset"):
        stream.push_described(third)


def test_labels_are_propagated_in_as_many_threads_as_asked(tracker, frames, monkeypatch):
    used, propagate = [], label_propagation.propagate_labels

    def watched(*given):
        used.append(given[-1])
        return propagate(*given)

    monkeypatch.setattr(label_propagation, "propagate_labels", watched)
    stream = tracker.mask_stream(threads=3)
    stream.push(frames[0], 0.0)
    stream.add_masks(MARKS[0])
    stream.push(frames[1], 1.0)
    assert used[-1] == 3


@pytest.mark.parametrize("sizes", [1, 2])
def test_a_frame_is_resized_once_for_parts_of_one_size(sizes, tmp_path, monkeypatch):
    """Parts of other sizes get the frame itself: resized twice, it would look different."""
    seen, push = [], FusedWindow.push

    def watched(window, frame):
        seen.append(frame.shape[:2])
        return push(window, frame)

    monkeypatch.setattr(FusedWindow, "push", watched)
    parts = [
        write_passthrough(tmp_path / name, frames=1, rows=rows, columns=columns).root
        for name, rows, columns in (("motion", 12, 16), ("appearance", 12 * sizes, 16 * sizes))
    ]
    whole = write_propagating(tmp_path / "whole", motion=parts[0], appearance=parts[1])
    tracker, frame = Tracker(whole), np.zeros((3 * HEIGHT, 3 * WIDTH, 3), np.uint8)
    tracker.mask_stream().describe(frame, 0.0)
    assert seen == ([(HEIGHT, WIDTH)] if sizes == 1 else [frame.shape[:2]])


def test_the_networks_run_in_one_thread_at_a_time(tracker, frames, monkeypatch):
    """A late mask has its frame encoded while another thread describes the next."""
    running, most = [], []
    describe = FeatureExtractor.describe

    def watched(extractor, window):
        running.append(extractor)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return describe(extractor, window)

    monkeypatch.setattr(FeatureExtractor, "describe", watched)
    streams = tracker.mask_stream(), tracker.mask_stream()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda stream: stream.describe(frames[0], 0.0), streams))
    assert most == [1] * 4


def test_masks_are_carried_into_a_frame_that_is_not_pushed(tracker, frames):
    """By how far the frame moved; the stream stays as it was, and a frame may have another size."""
    stream, scene = tracker.mask_stream(), frames[0]
    moved = cv2.copyMakeBorder(scene, 0, 6, 0, 8, cv2.BORDER_REFLECT)[6:, 8:]
    stream.push(scene, 0.0)
    nothing = stream.carry(stream.push(scene, 0.0), scene, moved, 1.0)
    assert not nothing.mask.any() and nothing.stamp == 1.0
    stream.add_masks(MARKS[5])
    known = stream.push(scene, 0.0)
    carried = stream.carry(known, scene, moved, 1.0)
    there = np.roll(MARKS[5], (-6, -8), axis=(0, 1)) > 0
    share = np.count_nonzero(there & (carried.mask == 8)) / np.count_nonzero(
        there | (carried.mask > 0)
    )
    assert share > 0.9 and carried.indices.tolist() == [8] and known.stamp == 0.0
    large = cv2.resize(moved, (2 * WIDTH, 2 * HEIGHT))
    assert stream.carry(known, scene, large, 1.0).mask.shape == (2 * HEIGHT, 2 * WIDTH)
    np.testing.assert_array_equal(stream.push(scene, 0.0).mask, known.mask)
