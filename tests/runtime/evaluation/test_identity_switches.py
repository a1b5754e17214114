"""Identities of masks of objects that look the same, after the objects have crossed."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from doubles.propagating import PROPAGATION, write_propagating
from doubles.strips import contacts, strip_clip, strip_masks
from vditrack.errors import InputError
from vditrack.evaluation.baselines.point_baselines import Still
from vditrack.evaluation.metrics.identity_switches import score_mask_identities
from vditrack.evaluation.metrics.results import Share
from vditrack.evaluation.protocols import Davis, TapVid
from vditrack.evaluation.run import open_method
from vditrack.synthetic.layers.lookalikes import render_lookalikes
from vditrack.tracker import Tracker

KEPT, LOST, NO_EVENT = Share(1, 1), Share(0, 1), Share(0, 0)


CROSSING = strip_masks(
    "111...222",
    ".111222..",
    "..1122...",
    ".222111..",
    "222..111.",
    "222...111",
)
"""Objects 1 and 2 touch in frames 1 to 3, and are apart in 0, 4 and 5."""


def score(*last, masks=CROSSING, alike=(1, 2)):
    """Score masks that are right except in the last frames."""
    found = masks.copy()
    found[len(masks) - len(last) :] = strip_masks(*last) if last else found[:0]
    return score_mask_identities(strip_clip(masks, alike=alike), found)


def test_the_truth_keeps_them():
    assert score() == KEPT


@pytest.mark.parametrize(
    "last",
    [
        ("111..222.", "111...222"),  # swapped
        ("222......", "222......"),  # one is lost
        ("222..222.", "222...222"),  # both are one
        ("222....1.", "222.....1"),  # a scrap of one is left
        ("222..111.", "222......"),  # one is lost after half the time
        (".........", "........."),
    ],
)
def test_masks_that_lose_them(last):
    assert score(*last) == LOST


@pytest.mark.parametrize(
    "last",
    [
        ("222..111.", "222.....1"),  # two thirds of each are left
        ("222111111", "222222111"),  # masks that are too large
        ("222..112.", "222...111"),  # a scrap of one is called the other
    ],
)
def test_masks_that_keep_them(last):
    assert score(*last) == KEPT


def test_a_mask_that_is_more_on_another_object_than_on_its_own():
    """A small object may lose its identity though each is found on most of its pixels."""
    masks = strip_masks("1.2222222", ".12222222", "2222222.1")
    assert score("2222111.1", masks=masks) == LOST
    assert score("2222222.1", masks=masks) == KEPT


def test_frames_up_to_the_last_crossing_do_not_count():
    found = CROSSING.copy()
    found[1:4] = 0
    assert score_mask_identities(strip_clip(CROSSING), found) == KEPT
    found[1:4] = 3 - CROSSING[1:4] * (CROSSING[1:4] > 0)
    assert score_mask_identities(strip_clip(CROSSING), found) == KEPT


def test_a_covered_object_still_touches():
    masks = strip_masks("1.2......", ".12......", "..2......", "..21.....", "..2.1....")
    assert score(".....1...", masks=masks) == LOST
    # Only the last frame is after the crossing.
    assert score("1.2......", "..2.1....", masks=masks) == KEPT


@pytest.mark.parametrize(
    "case",
    [
        {"alike": ()},
        {"alike": (1, 3)},  # the other one looks different
        {"masks": CROSSING[:4]},  # they are not apart again
        {"masks": CROSSING[4:]},  # they never touch
        {"masks": np.concatenate([CROSSING, CROSSING[::-1]])},  # they are back where they began
    ],
)
def test_where_there_is_nothing_to_judge(case):
    assert score(**case) == NO_EVENT


@pytest.mark.parametrize(
    "masks",
    [
        strip_masks("111...222...", "..111222..33", "222..111...."),  # comes later
        strip_masks("111...222.33", "..111222....", "222..111...."),  # is not seen again
    ],
)
def test_only_objects_given_and_seen_again_are_judged(masks):
    assert score("222..111....", masks=masks, alike=(1, 2, 3)) == KEPT
    assert score("111..222....", masks=masks, alike=(1, 2, 3)) == LOST


def as_defined(clip, found):
    """The definition, applied frame by frame and pixel by pixel."""
    last = max((t for t, pairs in enumerate(contacts(clip)) if pairs), default=-1)
    after = range(last + 1, len(found)) if last >= 0 else ()
    unmoved = all_on_themselves(clip, [clip.masks[0]] * len(found), after)
    return Share(int(all_on_themselves(clip, found, after)), 1) if not unmoved else NO_EVENT


def all_on_themselves(clip, found, after):
    """Return whether all judged objects keep their identities; True if there are none."""
    right = []
    for own in clip.alike:
        if not (clip.masks[0] == own).any() or not any((clip.masks[t] == own).any() for t in after):
            continue
        common = {
            other: sum(int(((found[t] == own) & (clip.masks[t] == other)).sum()) for t in after)
            for other in clip.alike
        }
        most = common[own] > 0.5 * sum(int((clip.masks[t] == own).sum()) for t in after)
        right.append(most and all(common[own] > common[o] for o in clip.alike if o != own))
    return all(right)


def test_as_defined():
    rng = np.random.default_rng(0)
    counted = {KEPT: 0, LOST: 0, NO_EVENT: 0}
    for _ in range(300):
        masks = np.zeros((8, 9, 9), np.uint8)
        for index in (3, 2, 1):
            x, y = np.clip(np.cumsum(rng.integers(-2, 3, (2, 8)), axis=1) + 4, -1, 9)
            for t in range(8):
                masks[t, max(y[t], 0) : y[t] + 2, max(x[t], 0) : x[t] + 2] = index
        right = rng.random(masks.shape) < rng.uniform(0.2, 1)
        found = np.where(right, masks, rng.integers(0, 4, masks.shape))
        if rng.random() < 0.5:
            found = np.array([0, 2, 1, 3])[found]
        clip = strip_clip(masks, alike=((), (1, 2), (1, 2, 3))[rng.integers(0, 3)])
        expected = as_defined(clip, found.astype(np.uint8))
        assert score_mask_identities(clip, found.astype(np.uint8)) == expected
        counted[expected] += 1
    assert min(counted.values()) > 10


class Scripted:
    """A propagator that returns given masks."""

    def __init__(self, masks):
        self.masks = masks

    def propagate(self, frames, first, /):
        return self.masks


def test_the_protocol_reports_identities():
    clip = strip_clip(CROSSING)
    assert Davis().run(clip, "right", Scripted(CROSSING)).events == {"identities kept": KEPT}
    assert Davis().run(clip, "still", Still()).events == {"identities kept": LOST}
    assert Davis().run(replace(clip, alike=()), "still", Still()).events == {}


def test_a_method_without_masks_is_refused():
    with pytest.raises(InputError, match="magic propagates no masks"):
        Davis().run(strip_clip(CROSSING), "magic", object())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_propagating(tmp_path_factory.mktemp("masks") / "bundle").root


@pytest.fixture(scope="module")
def points_only(tmp_path_factory):
    return write_propagating(tmp_path_factory.mktemp("points") / "bundle", settings=None).root


@pytest.fixture(scope="module")
def clip():
    """Frames of a clip with objects that look the same."""
    whole = next(render_lookalikes(0))
    return replace(whole, frames=whole.frames[::12], masks=whole.masks[::12])


@pytest.mark.slow
def test_the_bundled_model_with_one_kind_of_features(folder, clip, monkeypatch):
    monkeypatch.setattr("vditrack.tracker.bundled_model", lambda: folder)
    for name, weight in (("ours", 0.4), ("appearance", 0.0), ("motion", 1.0)):
        method = open_method(name)
        settings = msgspec.structs.replace(PROPAGATION, motion_weight=weight)
        expected = Tracker.load(folder, propagation=settings).propagate(clip.frames, clip.masks[0])
        found = method.propagate(clip.frames, clip.masks[0])
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="motion tracks no points"):
        TapVid().run(clip, "motion", method)


def test_a_bundle_by_its_folder(folder, points_only):
    whole = next(render_lookalikes(0))
    clip = replace(whole, frames=whole.frames[::8], masks=whole.masks[::8])
    found = Tracker.load(folder).propagate(clip.frames, clip.masks[0])
    result = Davis().run(clip, "own", open_method(str(folder)))
    assert result.metrics == Davis().run(clip, "own", Scripted(found)).metrics
    assert 0 <= result.metrics["J&F"] <= 100
    with pytest.raises(InputError, match="tracks points alone"):
        Davis().run(clip, "own", open_method(str(points_only)))


def test_ablations_need_a_bundled_model_that_propagates_masks(points_only, monkeypatch):
    monkeypatch.setattr("vditrack.tracker.bundled_model", lambda: points_only)
    for name in ("appearance", "motion"):
        with pytest.raises(InputError, match="tracks points alone"):
            open_method(name)
