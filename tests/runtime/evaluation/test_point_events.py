"""Events of points: re-detection, identity, and visibility outside the frame; and confidence."""

from dataclasses import replace

import numpy as np
import pytest

from doubles.strips import contacts, strip_clip, strip_masks
from vditrack.evaluation.metrics.points import (
    Comparison,
    frames_since_reappearing,
    score_point_identities,
)
from vditrack.evaluation.metrics.results import Share
from vditrack.evaluation.protocols import Heft, TapVid
from vditrack.points.tracks import Tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip

QUERY = np.zeros(1, np.intp)
NEAR, FAR = 7.99, 8.0
"""Pixels of the raster: within 8, and not within."""


def seen(text):
    """Read visibility [T], a letter a frame: V is visible."""
    return np.array([letter == "V" for letter in text])


def compared(truth, said, distance):
    counted = np.ones((1, len(truth)), bool)
    squared = np.full((1, len(truth)), distance, np.float32) ** 2
    return Comparison(squared, seen(truth)[None], seen(said)[None], counted)


@pytest.mark.parametrize(
    ("truth", "said", "hits", "total"),
    [
        # Hidden in frames 1 to 5, back in 6, judged in 11.
        ("V.....VVVVVVVV", "...........V..", 1, 1),
        ("V.....VVVVVVVV", "VVVVVVVVVVV.VV", 0, 1),
        # Four frames are too few.
        ("V....VVVVVVVVV", "VVVVVVVVVVVVVV", 0, 0),
        # Hidden again in frame 9, or the clip ends: judged in the last frame before.
        ("V.....VVV.....", "........V.....", 1, 1),
        ("V.....VVV.....", "VVVVVVVV.VVVVV", 0, 1),
        ("V.....V", "......V", 1, 1),
        ("V......", "VVVVVVV", 0, 0),
        # Twice, judged in frames 7 and 13; a short gap between does not count.
        ("V.....VV.....V", ".......V.....V", 2, 2),
        ("V.....VV.VVVVV", ".......V......", 1, 1),
    ],
)
def test_found_again_by_hand(truth, said, hits, total):
    assert compared(truth, said, NEAR).found_again(QUERY) == Share(hits, total)
    assert compared(truth, said, FAR).found_again(QUERY) == Share(0, total)


def test_only_what_reappears_after_the_query_is_asked_for():
    truth = "V.....VVVVVV.....V"
    share = [compared(truth, truth, NEAR).found_again(np.array([q])).total for q in (0, 6, 11, 17)]
    assert share == [2, 1, 1, 0]


def test_the_curve_counts_from_the_same_reappearances():
    truth = seen("V.VV.....VV.VV")
    since = frames_since_reappearing(np.repeat(truth[None], 2, axis=0), np.array([3, 12]))
    nan = np.nan
    np.testing.assert_array_equal(since, [[nan] * 9 + [0, 1, 2, 3, 4], [nan] * 14])


def found_again(visible, said, distance, query):
    """The definition, applied frame by frame."""
    hits = total = 0
    for n, start in enumerate(query):
        hidden, t = 0, start
        while t < visible.shape[1]:
            if not visible[n, t]:
                hidden += 1
            elif hidden >= 5:
                last = t
                while last < t + 5 and last + 1 < visible.shape[1] and visible[n, last + 1]:
                    last += 1
                total += 1
                hits += said[n, last] and distance[n, last] < 8
                hidden = 0
            else:
                hidden = 0
            t += 1
    return Share(hits, total)


def stretches(rng, length):
    """Visibility [T] that changes every 1 to 9 frames."""
    lasts = rng.integers(1, 10, length)
    return np.repeat(np.arange(length) % 2 == rng.integers(0, 2), lasts)[:length]


def test_found_again_as_defined():
    rng = np.random.default_rng(0)
    totals = []
    for _ in range(200):
        tracks, length = int(rng.integers(0, 5)), int(rng.integers(1, 60))
        visible = np.array([stretches(rng, length) for _ in range(tracks)]).reshape(tracks, length)
        visible = visible[visible.any(axis=1)]
        query = np.array([rng.choice(np.flatnonzero(track)) for track in visible], np.intp)
        said = rng.random(visible.shape) < 0.7
        distance = rng.integers(5, 11, visible.shape).astype(np.float32)
        case = Comparison(distance**2, visible, said, np.ones_like(visible))
        expected = found_again(visible, said, distance, query)
        assert case.found_again(query) == expected
        totals.append(expected.total)
    assert sum(totals) > 100 and 0 in totals


CROSSING = strip_masks(
    "11...22..",
    ".11.22...",
    "..1122...",
    "...112...",
    "...211...",
    "..22.11..",
    ".22...11.",
)
"""Objects 1 and 2 cross: they touch in frames 2 to 4, and are apart in 0, 1, 5 and 6."""
TWICE = np.concatenate([CROSSING, CROSSING[4::-1]])
"""They turn round at once: they touch again in frames 7 to 9, and are apart in 10 and 11."""


def tracks_at(columns, visible=None):
    """Tracks [Q, T] in the middle of pixels of a strip."""
    columns = np.asarray(columns, np.float32)
    points = np.stack([columns + 0.5, np.full_like(columns, 0.5)], axis=2)
    said = np.ones(columns.shape, bool) if visible is None else visible
    rest = np.zeros(columns.shape, np.float32)
    return Tracks(np.zeros((len(columns), 3), np.float32), points, said, rest, rest)


def judged(columns, said=None, *, masks=CROSSING, truth="VVVVVVV", own=1, alike=(1, 2), query=0):
    visible = seen(truth)[None]
    clip = strip_clip(masks, visible, [own], alike)
    tracks = tracks_at([columns], None if said is None else seen(said)[None])
    return score_point_identities(clip, np.zeros(1, np.intp), np.array([query]), tracks)


ON_OWN = [0, 1, 2, 3, 4, 5, 6]
KEPT, LOST, NO_EVENT = Share(1, 1), Share(0, 1), Share(0, 0)


def test_a_point_that_stays_on_its_object_keeps_its_identity():
    assert judged(ON_OWN) == KEPT


@pytest.mark.parametrize("last", [1, 2, 4, -1, -0.6, 9, 9e9, np.nan, -np.inf])
def test_a_point_on_the_twin_or_elsewhere_loses_it(last):
    """On the twin, on the background, and out of the picture on either side."""
    assert judged([*ON_OWN[:6], last]) == LOST


def test_only_the_last_frame_is_judged():
    assert judged([8, 8, 8, 8, 8, 8, 6]) == KEPT


def test_a_point_that_is_said_to_be_hidden_is_lost():
    assert judged(ON_OWN, "......V") == KEPT
    assert judged(ON_OWN, "VVVVVV.") == LOST


def test_the_last_frame_is_one_in_which_the_point_is_visible():
    assert judged([8, 8, 8, 8, 8, 5, 0], truth="VVVVVV.") == KEPT
    assert judged([8, 8, 8, 8, 8, 8, 6], truth="VVVVVV.") == LOST


def test_objects_go_on_touching_while_one_covers_the_other():
    """In frame 2 the twin covers the object wholly, and is not apart from it."""
    masks = strip_masks("1.2......", ".12......", "..2......", "..21.....", "..2.1....")
    truth = {"own": 2, "masks": masks, "truth": "VVVVV"}
    assert judged([2, 2, 5, 2, 2], **truth) == KEPT
    assert judged([2, 2, 2, 2, 3], **truth) == LOST
    assert judged([2, 2, 2], **truth | {"masks": masks[:3], "truth": "VVV"}) == NO_EVENT


def test_the_first_crossing_is_judged():
    always = "V" * 12
    assert judged([8, 8, 8, 8, 8, 8, 6, 8, 8, 8, 8, 8], masks=TWICE, truth=always) == KEPT
    assert judged([*ON_OWN[:6], 2, 4, 3, 2, 1, 0], masks=TWICE, truth=always) == LOST


def test_the_next_crossing_is_judged_for_a_point_not_seen_after_the_first():
    columns = [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 0]
    assert judged(columns, masks=TWICE, truth="VVVVV..VVVVV") == KEPT
    assert judged(columns, masks=TWICE, truth="VVVVVVVVVVVV", query=5) == KEPT


@pytest.mark.parametrize(
    "case",
    [
        {"truth": "VVVVV.."},  # not seen again once the objects are apart
        {"masks": CROSSING[:5], "truth": "VVVVV"},  # the clip ends before they are
        {"query": 5},  # asked for when it is over
        {"query": 4},  # asked for in its last frame
        {"own": 0},  # on the background
        {"alike": ()},
        {"alike": (1, 3)},  # the other one looks different
    ],
)
def test_where_there_is_nothing_to_judge(case):
    assert judged(ON_OWN[: len(case.get("truth", "VVVVVVV"))], **case) == NO_EVENT


def test_a_clip_without_masks_has_nothing_to_judge():
    visible = np.ones((1, 7), bool)
    clip = AnnotatedClip("made", np.zeros((7, 1, 9, 3), np.uint8), np.zeros((1, 7, 2)), visible)
    assert score_point_identities(clip, QUERY, QUERY, tracks_at([ON_OWN])) == NO_EVENT


def identities(clip, asked, query, tracks):
    """The definition, applied query by query and frame by frame."""
    hits = total = 0
    touching = contacts(clip)
    length, height, width = clip.masks.shape
    for row, (n, start) in enumerate(zip(asked, query, strict=True)):
        own = clip.objects[n]
        if own not in clip.alike:
            continue
        stage, right = "asked for", None
        for t in range(start + 1, length):
            touches = any(own in pair for pair in touching[t])
            if stage == "asked for" and touches:
                stage = "crossing"
            elif stage == "crossing" and not touches:
                stage = "apart again"
            elif stage == "apart again" and touches:
                if right is not None:
                    break
                stage = "crossing"
            if stage == "apart again" and clip.visible[n, t]:
                x, y = (int(np.floor(c)) for c in tracks.points[row, t])
                on_own = 0 <= x < width and 0 <= y < height and clip.masks[t, y, x] == own
                right = on_own and tracks.visible[row, t]
        total += right is not None
        hits += bool(right)
    return Share(hits, total)


def wandering(rng, length, side):
    """Masks [T, side, side] of three squares on walks of their own, the first in front."""
    masks = np.zeros((length, side, side), np.uint8)
    for index in (3, 2, 1):
        x, y = np.clip(np.cumsum(rng.integers(-1, 2, (2, length)), axis=1) + 4, 0, side - 2)
        for t in range(length):
            masks[t, y[t] : y[t] + 2, x[t] : x[t] + 2] = index
    return masks


def test_identity_as_defined():
    rng = np.random.default_rng(1)
    kept, events = 0, 0
    for _ in range(60):
        length, count, asked_for = 24, 6, 10
        visible = rng.random((count, length)) < 0.7
        objects = rng.integers(0, 4, count)
        alike = ((), (1, 2), (1, 2, 3))[rng.integers(0, 3)]
        clip = strip_clip(wandering(rng, length, 10), visible, objects, alike)
        asked = rng.integers(0, count, asked_for)
        query = rng.integers(0, length // 2, asked_for)
        tracks = tracks_at(
            rng.uniform(-1, 11, (asked_for, length)), rng.random((asked_for, length)) < 0.8
        )
        # Half of the tracks lie on their own object where it shows.
        for row in range(0, asked_for, 2):
            for t in range(length):
                rows, columns = np.nonzero(clip.masks[t] == objects[asked[row]])
                if len(rows):
                    tracks.points[row, t] = columns[0] + 0.5, rows[0] + 0.5
        expected = identities(clip, asked, query, tracks)
        assert score_point_identities(clip, asked, query, tracks) == expected
        kept, events = kept + expected.hits, events + expected.total
    assert 20 < kept < events - 20


def outside_clip(frames=30, *, known=True):
    """A still point inside a picture of 512 x 128, and three that move out: 5 px a frame."""
    x = np.full((4, frames), 100.0)
    y = np.full((4, frames), 60.0)
    x[1] = 500 + 5.0 * np.arange(frames)
    x[2] = 15 - 5.0 * np.arange(frames)
    y[3] = 120 + 5.0 * np.arange(frames)
    points = np.stack([x, y], axis=2).astype(np.float32)
    inside = ((points >= 0) & (points < (512, 128))).all(axis=2)
    pictures = np.zeros((frames, 128, 512, 3), np.uint8)
    return AnnotatedClip("made", pictures, points, inside, known_outside=known)


class Claiming:
    """A tracker that says of every point that it is visible in given frames."""

    def __init__(self, visible, confidence=1.0):
        self.visible, self.confidence = visible, confidence

    def track(self, frames, queries):
        shape = (len(queries), len(frames))
        points = np.repeat(queries[:, None, 1:], len(frames), axis=1)
        visible = np.broadcast_to(self.visible, shape)
        confidence = np.broadcast_to(np.float32(self.confidence), shape)
        return Tracks(queries, points, visible, confidence, np.zeros(shape, np.float32))


@pytest.mark.parametrize("protocol", [TapVid(), TapVid(size="full"), Heft()])
def test_visible_outside_is_counted_in_pixels_of_the_clip(protocol):
    """They are more than 10 px outside from frames 5 (x = 525), 6 (x = -15) and 4 (y = 140) on.

    In frame 5 the second is exactly 10 px outside, which does not count.
    """
    last = 25 if protocol.name == "heft" else 30
    said = np.arange(last) < 7
    share = protocol.run(outside_clip(), "", Claiming(said)).events["visible outside"]
    assert share == Share(2 + 1 + 3, (last - 5) + (last - 6) + (last - 4))


def test_visible_outside_needs_true_positions_outside():
    assert TapVid().run(outside_clip(known=False), "", Claiming(True)).events == {}
    within = replace(outside_clip(4), points=outside_clip(4).points.clip(0, 100))
    assert TapVid().run(within, "", Claiming(True)).events == {}


def test_reliability_is_the_share_of_right_points_by_confidence():
    """Of 10 frames after the query, the point is hidden in two, and off by 8 px in one of them."""
    distance = np.full((2, 11), NEAR, np.float32)
    distance[:, 9:] = FAR
    truth = np.ones((2, 11), bool)
    truth[:, 8:10] = False
    counted = np.repeat(np.arange(11)[None] > 0, 2, axis=0)
    case = Comparison(distance**2, truth, np.zeros_like(truth), counted)
    confidence = np.full((2, 11), 0.25, np.float32)
    confidence[1] = [1, 0, 0.5, 0.5, 0.5, 0.75, 0.75, 1, 1, 1, 1]
    curve = case.reliability(confidence, (0.0, 0.25, 0.5, 0.75))
    assert curve.bins == ("0", "0.25", "0.5", "0.75")
    assert curve.ideal == (12.5, 37.5, 62.5, 87.5)
    assert curve.totals.tolist() == [1, 10, 3, 6]
    assert curve.hits.tolist() == [1, 7, 3, 3]


def test_a_calibrated_tracker_is_on_the_ideal_line():
    """Each point is right with the probability that its confidence states."""
    rng = np.random.default_rng(4)
    confidence = rng.random((50, 400)).astype(np.float32)
    right = rng.random(confidence.shape) < confidence
    everywhere = np.ones_like(right)
    distance = np.where(right, NEAR, FAR).astype(np.float32)
    case = Comparison(distance**2, everywhere, everywhere, everywhere)
    curve = case.reliability(confidence, (0.0, 0.2, 0.4, 0.6, 0.8))
    np.testing.assert_allclose(curve.percent, curve.ideal, atol=3)
