"""Masks propagated through clips of known motion, objects added later, and refused masks."""

import numpy as np
import pytest
from skimage.data import astronaut, coffee

from doubles.propagating import write_propagating
from vditrack import InputError, Tracker

HEIGHT, WIDTH = 120, 160
SIDE = 56


@pytest.fixture(scope="module")
def tracker(tmp_path_factory) -> Tracker:
    return Tracker(write_propagating(tmp_path_factory.mktemp("masks") / "bundle"))


def square_at(x: int, y: int) -> np.ndarray:
    """Return the pixels of a square with its corner at (x, y), bool [H, W]."""
    inside = np.zeros((HEIGHT, WIDTH), np.bool_)
    inside[max(y, 0) : y + SIDE, max(x, 0) : max(x + SIDE, 0)] = True
    return inside


def film(*paths: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Move squares of one photograph over another; return frames and the pixels of each square."""
    backdrop, cloth = astronaut()[150 : 150 + HEIGHT, 60 : 60 + WIDTH], coffee()
    frames, inside = [], []
    for corners in zip(*paths, strict=True):
        frame, shown = backdrop.copy(), []
        for n, (x, y) in enumerate(corners):
            there = square_at(x, y)
            texture = cloth[20 + 80 * n :, 120 + 80 * n :][:SIDE, :SIDE]
            rows, columns = np.nonzero(there)
            frame[rows, columns] = texture[rows - y, columns - x]
            shown.append(there)
        frames.append(frame)
        inside.append(shown)
    return np.stack(frames), np.array(inside)


def overlap(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the intersection over union in each frame."""
    both, either = (found & truth).sum(axis=(1, 2)), (found | truth).sum(axis=(1, 2))
    return both / np.maximum(either, 1)


ACROSS = [(8 + 4 * t, 2) for t in range(16)]
BACK = [(100 - 5 * t, 62) for t in range(16)]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["offline", "causal"])
def test_the_mask_of_a_square_is_propagated(tracker, mode):
    frames, inside = film(ACROSS)
    steps: list[tuple[int, int]] = []
    found = tracker.propagate(
        frames,
        inside[0, 0].astype(np.uint8),
        mode=mode,
        progress=lambda *counts: steps.append(counts),
    )
    assert (found.dtype, found.shape) == (np.uint8, frames.shape[:3])
    np.testing.assert_array_equal(found[0], inside[0, 0])
    assert overlap(found == 1, inside[:, 0]).min() > 0.7
    assert steps == [(done, 16) for done in range(1, 17)]
    # The square moves so far that the first mask would be wrong at the end.
    assert overlap(inside[:1, 0], inside[-1:, 0]).max() < 0.1


@pytest.mark.slow
def test_indices_are_kept_and_objects_stay_apart(tracker):
    frames, inside = film(ACROSS[:10], BACK[:10])
    mask = np.where(inside[0, 1], 255, np.where(inside[0, 0], 7, 0)).astype(np.uint8)
    found = tracker.propagate(frames, mask)
    assert np.unique(found).tolist() == [0, 7, 255]
    assert overlap(found == 7, inside[:, 0]).min() > 0.7
    assert overlap(found == 255, inside[:, 1]).min() > 0.7


@pytest.mark.slow
def test_an_object_is_added_later(tracker):
    late = [(-SIDE, 62)] * 5 + [(14 * t - 126, 62) for t in range(5, 9)]
    frames, inside = film(ACROSS, late + [(6 * t - 62, 62) for t in range(9, 16)])
    first = np.where(inside[0, 0], 4, 0).astype(np.uint8)
    second = np.where(inside[9, 1], 2, 0).astype(np.uint8)
    found = tracker.propagate(frames, {9: second, 0: first})
    assert not (found[:9] == 2).any()
    np.testing.assert_array_equal(found[9] == 2, second == 2)
    assert overlap(found[9:] == 2, inside[9:, 1]).min() > 0.65
    assert overlap(found == 4, inside[:, 0]).min() > 0.7


@pytest.mark.slow
def test_an_object_added_late_may_have_been_visible_before(tracker):
    """Earlier annotated frames, in which it was background, do not outvote it."""
    frames, inside = film(ACROSS, BACK)
    first = [np.where(inside[t, 0], 1, 0).astype(np.uint8) for t in range(0, 8, 2)]
    second = np.where(inside[8, 1], 2, 0).astype(np.uint8)
    found = tracker.propagate(frames, {**dict(zip(range(0, 8, 2), first, strict=True)), 8: second})
    assert overlap(found[8:] == 2, inside[8:, 1]).min() > 0.7
    assert overlap(found == 1, inside[:, 0]).min() > 0.7


def test_before_the_first_mask_all_is_background(tracker):
    frames, inside = film(ACROSS[:8])
    found = tracker.propagate(frames, {3: inside[3, 0].astype(np.uint8)})
    assert not found[:3].any()
    assert overlap(found[3:] == 1, inside[3:, 0]).min() > 0.7


@pytest.mark.slow
def test_a_later_mask_corrects_only_its_own_object(tracker):
    frames, inside = film(ACROSS[:8], BACK[:8])
    # Object 1 is marked on the wrong square at first, and object 9 on the right one.
    wrong = np.where(inside[0, 1], 9, 0).astype(np.uint8)
    wrong[:SIDE, 80 : 80 + SIDE] = 1
    corrected = inside[3, 0].astype(np.uint8)
    alone = tracker.propagate(frames, wrong)
    found = tracker.propagate(frames, {0: wrong, 3: corrected})
    np.testing.assert_array_equal(found[:3], alone[:3])
    np.testing.assert_array_equal(found[3] == 1, corrected == 1)
    np.testing.assert_array_equal(found[3] == 9, (alone[3] == 9) & (corrected == 0))
    assert overlap(found[3:] == 1, inside[3:, 0]).min() > 0.7
    assert overlap(found == 9, inside[:, 1]).min() > 0.7


def test_one_frame_is_its_mask(tracker):
    frames, inside = film(ACROSS[:1])
    mask = 3 * inside[0, 0].astype(np.uint8)
    np.testing.assert_array_equal(tracker.propagate(frames, mask)[0], mask)


GOOD = np.ones((HEIGHT, WIDTH), np.uint8)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (GOOD[:-1], "mask of frame 0 is 160 x 119, the frame 160 x 120"),
        (0 * GOOD, "mask of frame 0 marks no object"),
        ({0: GOOD, 2: 0 * GOOD}, "mask of frame 2 marks no object"),
        (GOOD.astype(np.int32), r"int32 \[120, 160\]; give a uint8 array .* 255 objects"),
        (GOOD.astype(np.bool_), "bool"),
        (GOOD[None], r"uint8 \[1, 120, 160\]"),
        (GOOD.tolist(), "list"),
        ({}, "there is no mask"),
        ({4: GOOD}, "mask of frame 4; the clip's frames are 0 to 3"),
        ({-1: GOOD}, "frame -1"),
        ({0.5: GOOD}, "whole number, not 0.5"),
        ({"first": GOOD}, "whole number, not 'first'"),
    ],
)
def test_invalid_masks_are_refused(tracker, masks, message):
    frames, _ = film(ACROSS[:4])
    with pytest.raises(InputError, match=message):
        tracker.propagate(frames, masks)


def test_invalid_clips_are_refused(tracker):
    with pytest.raises(InputError, match="frames have shape"):
        tracker.propagate(np.zeros((HEIGHT, WIDTH, 3), np.uint8), GOOD)
