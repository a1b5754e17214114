"""TAP-Vid's protocol against its published definition, frame by frame."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vditrack.errors import InputError
from vditrack.evaluation.metrics.points import frames_since_reappearing
from vditrack.evaluation.metrics.redetection import average_redetection_jaccard
from vditrack.evaluation.metrics.results import Share
from vditrack.evaluation.protocols import Heft, TapVid
from vditrack.points.tracks import Tracks
from vditrack.synthetic.annotated_clip import AnnotatedClip

SIDE = 256
THRESHOLDS = (1, 2, 4, 8, 16)


class Scripted:
    """A tracker that returns given tracks, one row a query."""

    def __init__(self, points, visible):
        self.points, self.visible = points, visible

    def track(self, frames, queries):
        self.queries = queries
        count, length = len(queries), len(frames)
        return Tracks(
            queries=queries,
            points=self.points[:count, :length],
            visible=self.visible[:count, :length],
            confidence=self.visible[:count, :length].astype(np.float32),
            forward_backward_error=np.zeros((count, length), np.float32),
        )


def clip_of(points, visible, width=SIDE, height=SIDE):
    frames = np.zeros((points.shape[1], height, width, 3), np.uint8)
    return AnnotatedClip("made", frames, points.astype(np.float32), visible)


def published(truth, visible, points, seen, query):
    """Return AJ, position accuracy and occlusion accuracy in percent, as tapnet defines them.

    An independent implementation, by plain loops: tapnet, with its `compute_tapvid_metrics`, is not
    on PyPI.
    """
    queries = []
    for n in range(len(truth)):
        frames = [t for t in range(truth.shape[1]) if visible[n, t]]
        if query == "first":
            queries += [(n, frames[0])] if frames else []
        else:
            queries += [(n, t) for t in frames if t % 5 == 0]
    agreeing, evaluated, shown = 0, 0, 0
    within = dict.fromkeys(THRESHOLDS, 0)
    true_positive = dict.fromkeys(THRESHOLDS, 0)
    false_positive = dict.fromkeys(THRESHOLDS, 0)
    for row, (n, start) in enumerate(queries):
        for t in range(truth.shape[1]):
            if t == start or (query == "first" and t < start):
                continue
            evaluated += 1
            agreeing += bool(seen[row, t]) == bool(visible[n, t])
            shown += bool(visible[n, t])
            (x, y), (u, v) = truth[n, t].tolist(), points[row, t].tolist()
            squared = (x - u) ** 2 + (y - v) ** 2
            for k in THRESHOLDS:
                near = squared < k * k
                if visible[n, t] and near:
                    within[k] += 1
                    true_positive[k] += bool(seen[row, t])
                if seen[row, t] and not (visible[n, t] and near):
                    false_positive[k] += 1
    deltas = [within[k] / shown if shown else math.nan for k in THRESHOLDS]
    united = {k: shown + false_positive[k] for k in THRESHOLDS}
    jaccards = [true_positive[k] / united[k] if united[k] else math.nan for k in THRESHOLDS]
    right = agreeing / evaluated if evaluated else math.nan
    return 20 * sum(jaccards), 20 * sum(deltas), 100 * right


def redetection(truth, visible, points, seen):
    """Return AJ_RD in percent, as tapnet's compute_redetection_metrics defines it."""
    events = []
    for n in range(len(truth)):
        longest, hidden = -1, 0
        for t in range(truth.shape[1]):
            if visible[n, t]:
                if t and not visible[n, t - 1] and hidden > longest:
                    events.append((n, t, hidden))
                    longest = hidden
                hidden = 0
            else:
                hidden += 1
    by_least = []
    for least in (1, 4, 16, 64, 256):
        by_threshold = []
        for k in THRESHOLDS:
            jaccards = []
            for n, start, _ in [event for event in events if event[2] >= least]:
                true_positive = false_positive = shown = 0
                for t in range(start, truth.shape[1]):
                    near = math.dist(truth[n, t].tolist(), points[n, t].tolist()) <= k
                    shown += bool(visible[n, t])
                    true_positive += bool(visible[n, t] and near and seen[n, t])
                    false_positive += bool(seen[n, t] and not (visible[n, t] and near))
                jaccards.append(true_positive / (shown + false_positive))
            if jaccards:
                by_threshold.append(sum(jaccards) / len(jaccards))
        if by_threshold:
            by_least.append(sum(by_threshold) / len(by_threshold))
    return 100 * sum(by_least) / len(by_least) if by_least else math.nan


def test_redetection_by_hand():
    """Hidden for 1 frame, then 1 (not longer, so not counted), then 4.

    Both reappearances that count end with frame 10. From frame 2 the point is visible
    in 2, 4, 9 and 10, of which the last two are right within 4 px; from frame 9, both are.
    """
    visible = np.array([[1, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1]], bool)
    truth = np.zeros((1, 11, 2), np.float32)
    points = truth.copy()
    points[0, 9:, 0] = 4
    seen = np.zeros((1, 11), bool)
    seen[0, 9:] = True
    squared = (points**2).sum(axis=2)
    # From frame 2: 2 / 4 at 4, 8 and 16 px, otherwise 0 of 6; from frame 9: 1 at these, 0 of 4.
    early, late = 0.5 * 3 / 5, 1 * 3 / 5
    expected = 100 * ((early + late) / 2 + late) / 2
    np.testing.assert_allclose(average_redetection_jaccard(squared, visible, seen), expected)
    assert math.isnan(average_redetection_jaccard(squared, np.ones((1, 11), bool), seen))


def random_case(rng):
    """Return truth and predictions on whole pixels, so that distances often equal a threshold."""
    tracks, length = int(rng.integers(0, 6)), int(rng.integers(1, 14))
    truth = rng.integers(0, 20, (tracks, length, 2)).astype(np.float32)
    visible = rng.random((tracks, length)) < rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    if tracks and rng.random() < 0.3:
        visible[0] = False  # never visible
    if tracks > 1 and rng.random() < 0.3:
        visible[1, :-1], visible[1, -1] = False, True  # asked for in the last frame
    rows = max(1, tracks * length)
    steps = [(0, 0), (1, 0), (0, 2), (4, 0), (0, 8), (16, 0), (3, 4), (0, 5), (17, 0)]
    points = np.zeros((rows, length, 2), np.float32)
    if tracks:
        points += truth[rng.integers(0, tracks, rows)]
    points += np.array(steps, np.float32)[rng.integers(0, len(steps), (rows, length))]
    return truth, visible, points, rng.random((rows, length)) < rng.random()


@pytest.mark.slow
@pytest.mark.parametrize("query", ["first", "strided"])
def test_the_published_definition(query):
    rng = np.random.default_rng(0)
    undefined = reappearing = 0
    for _ in range(150):
        truth, visible, points, seen = random_case(rng)
        clip = clip_of(truth, visible)
        result = TapVid(query, "full").run(clip, "scripted", Scripted(points, seen))
        expected = published(truth, visible, points, seen, query)
        undefined += any(map(math.isnan, expected))
        assert list(result.metrics)[:3] == ["AJ", "δ", "OA"]
        np.testing.assert_allclose(list(result.metrics.values())[:3], expected, atol=1e-9)
        if query == "strided":
            assert "AJ_RD" not in result.metrics
            continue
        rows = [n for n in range(len(truth)) if visible[n].any()]
        again = redetection(truth[rows], visible[rows], points, seen)
        np.testing.assert_allclose(result.metrics["AJ_RD"], again, atol=1e-9)
        reappearing += not math.isnan(again)
    assert query == "strided" or reappearing > 30
    assert 0 < undefined < 125


def test_three_frames_by_hand():
    """Two tracks over three frames; every number worked out on paper.

    Track 0 is asked for in frame 0. Frame 1: off by exactly 1 px, said visible. Frame 2: truly
    hidden, said visible. Track 1 is asked for in frame 1. Frame 2: off by 3 px, said hidden.
    Evaluated: 3 frames; truly visible: 2. Said rightly: 1 of 3.
    Within 1, 2, 4, 8, 16: 0, 1, 2, 2, 2 of 2, so 0, 50, 100, 100, 100: mean 70.
    True positives: 0, 1, 1, 1, 1. False positives: 2, 1, 1, 1, 1 (frame 2 of track 0 always; frame
    1 at 1 px, since a distance equal to the threshold is not within it).
    Jaccard: 0/4, 1/3, 1/3, 1/3, 1/3: mean 26.67.
    """
    truth = np.array([[[10, 10], [20, 10], [0, 0]], [[0, 0], [50, 50], [60, 50]]], np.float32)
    visible = np.array([[True, True, False], [False, True, True]])
    points = np.array([[[10, 10], [21, 10], [30, 30]], [[9, 9], [50, 50], [60, 53]]], np.float32)
    seen = np.array([[True, True, True], [True, True, False]])
    result = TapVid("first", "full").run(clip_of(truth, visible), "hand", Scripted(points, seen))
    np.testing.assert_allclose(list(result.metrics.values())[:3], [400 / 15, 70, 100 / 3])
    np.testing.assert_allclose(result.curves["δ within k px"].percent, [0, 50, 100, 100, 100])
    third = 100 / 3
    jaccard = result.curves["Jaccard within k px"].percent
    np.testing.assert_allclose(jaccard, [0, third, third, third, third])


@pytest.mark.parametrize(("step", "accuracy"), [((10, 0), 40), ((0, 1.5), 60), ((4, 0), 60)])
def test_distances_are_measured_on_the_raster(step, accuracy):
    """On a clip of 512 x 128, 10 pixels across are 5 of the raster, 1.5 pixels down are 3."""
    truth = np.tile(np.array([100, 60], np.float32), (1, 3, 1))
    visible = np.ones((1, 3), bool)
    points = (truth + step).astype(np.float32)
    clip = clip_of(truth, visible, width=512, height=128)
    result = TapVid("first", "full").run(clip, "scripted", Scripted(points, visible))
    np.testing.assert_allclose(result.metrics["δ"], accuracy)


def test_the_main_category_sees_256_by_256():
    truth = np.tile(np.array([100, 60], np.float32), (1, 3, 1))
    method = Scripted(np.tile(np.array([50, 120], np.float32), (1, 3, 1)), np.ones((1, 3), bool))
    clip = clip_of(truth, np.ones((1, 3), bool), width=512, height=128)
    result = TapVid("first", "256").run(clip, "scripted", method)
    np.testing.assert_allclose(method.queries, [[0, 50, 120]])
    np.testing.assert_allclose(list(result.metrics.values()), [100, 100, 100, np.nan])


def test_a_query_on_the_border_is_moved_inside():
    truth = np.array([[[256, 0], [255, 0]]], np.float32)
    method = Scripted(truth.copy(), np.ones((1, 2), bool))
    TapVid("first", "full").run(clip_of(truth, np.ones((1, 2), bool)), "scripted", method)
    assert method.queries[0, 1] < SIDE
    assert method.queries[0, 1] > SIDE - 1e-3


def test_heft_counts_the_query_frame_and_drops_the_tail():
    length = 30
    truth = np.tile(np.array([200, 200], np.float32), (2, length, 1))
    visible = np.ones((2, length), bool)
    visible[1, 0] = False  # not visible in frame 0, so not asked for
    seen = np.zeros((1, length), bool)
    seen[0, 0] = True
    method = Scripted(truth[:1].copy(), seen)
    result = Heft().run(clip_of(truth, visible), "scripted", method)
    assert result.frames == 25
    assert len(method.queries) == 1
    np.testing.assert_allclose(result.metrics["OA"], 100 / 25)
    # 200 / 255 x 255 against 200 / 256 x 255 is 0.78 px along both axes, 1.1 px in all.
    np.testing.assert_allclose(result.metrics["δ"], 80)
    with pytest.raises(InputError, match="24 frames"):
        Heft().run(clip_of(truth[:, :24], visible[:, :24]), "scripted", method)


def test_frames_since_reappearing_count_from_the_query():
    visible = np.array([[1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 1]], bool)
    since = frames_since_reappearing(np.repeat(visible, 3, axis=0), np.array([0, 7, 13]))
    nan = np.nan
    twice = [*[nan] * 6, 0, 1, 2, 3, 4, 5, 6, 0, 1]
    np.testing.assert_array_equal(since, [twice, [*[nan] * 13, 0, 1], [nan] * 15])


def test_curves_by_motion_time_and_reappearance():
    """One track of 14 frames: 3 px a frame, hidden in frames 4 to 8; found within 4 px until then.

    After it reappears in frame 9 it is found from frame 11 on.
    """
    x = 10 + 3.0 * np.arange(14)
    truth = np.stack([x, np.full(14, 20.0)], axis=1)[None].astype(np.float32)
    visible = np.ones((1, 14), bool)
    visible[0, 4:9] = False
    points, seen = truth.copy(), np.ones((1, 14), bool)
    points[0, :11, 1] += 3
    points[0, 9:11] += 100
    seen[0, 4:11] = False
    clip = clip_of(truth, visible)
    result = TapVid("first", "full").run(clip, "scripted", Scripted(points, seen))
    curves = result.curves
    motion = curves["δ by motion, px a frame"]
    # Frames 1 to 3 (3 of 5 thresholds), 10 (none) and 11 to 13 (all), each with the frame before.
    at = motion.bins.index("2-4")
    assert motion.totals.tolist() == [0, 0, 0, 7, 0, 0, 0]
    assert motion.hits[at] == pytest.approx(3 * 0.6 + 3)
    since = curves["δ by frames from the query"]
    assert since.bins[:3] == ("1-2", "2-4", "4-8")
    np.testing.assert_allclose(since.totals[:4], [1, 2, 0, 5])
    np.testing.assert_allclose(since.percent[:4], [60, 60, np.nan, 60])
    found = curves["Found again, by frames since it reappeared"]
    # Frames 9, 10 | 11, 12 | 13 are 0, 1, 2, 3 and 4 frames after it.
    assert found.bins[:4] == ("0-1", "1-2", "2-4", "4-8")
    np.testing.assert_allclose(found.percent[:4], [0, 0, 100, 100])
    np.testing.assert_allclose(found.totals[:4], [1, 1, 2, 1])
    # The clip ends before the fifth frame after it, so the last frame decides.
    assert result.events == {"found again": Share(1, 1)}


def test_accuracy_by_time_of_points_tracked_for_250_frames():
    """Two points drift: by 3 px from frame 20 on and by 10 px from frame 130 on.

    From frame 200 on the second is hidden, and both are still called visible.
    """
    truth = np.full((2, 250, 2), 60.0, np.float32)
    visible = np.ones((2, 250), bool)
    visible[1, 200:] = False
    points = truth.copy()
    points[:, 20:130, 0] += 3
    points[:, 130:, 0] += 10
    clip = clip_of(truth, visible)
    tracker = Scripted(points, np.ones((2, 250), bool))
    curves = TapVid("first", "full").run(clip, "scripted", tracker).curves
    within = {k: curves[f"Within {k} px, by frames from the query"] for k in (1, 2, 4, 8, 16)}
    # Frames 1, 2 and 3, 4 to 7, 8 to 15, 16 to 31, 32 to 63, 64 to 127, 128 to 191, 192 to 249.
    lengths = [1, 2, 4, 8, 16, 32, 64, 64, 58]
    for curve in within.values():
        assert curve.bins[-3:] == ("64-128", "128-192", "192+")
        assert curve.totals.tolist() == [*(2 * n for n in lengths[:-1]), 2 * 8 + 50]
    exact = [100, 100, 100, 100, 25, 0, 0, 0, 0]
    near = [100, 100, 100, 100, 100, 100, 100, 100 * 2 / 64, 0]
    for k, expected in {1: exact, 2: exact, 4: near, 8: near, 16: [100] * 9}.items():
        np.testing.assert_allclose(within[k].percent, expected)
    mean = np.mean([curve.percent for curve in within.values()], axis=0)
    np.testing.assert_allclose(curves["δ by frames from the query"].percent, mean)
    # The second point is hidden in 50 of the 58 last frames.
    right = curves["OA by frames from the query"]
    assert right.totals.tolist() == [2 * n for n in lengths]
    np.testing.assert_allclose(right.percent, [100] * 8 + [100 * (1 - 50 / 116)])


def crossing_clip(length):
    """Two objects of one look, 40 pixels wide, pass one another at 8 pixels a frame.

    They touch in frames 10 to 20, in a picture of 512 x 128. One point lies on each.
    """
    masks = np.zeros((length, 128, 512), np.uint8)
    for t in range(length):
        masks[t, 40:80, 80 + 8 * t : 120 + 8 * t] = 1
        masks[t, 40:80, 320 - 8 * t : 360 - 8 * t] = 2
    truth = np.empty((2, length, 2), np.float32)
    truth[..., 1] = 60
    truth[0, :, 0] = 100 + 8 * np.arange(length)
    truth[1, :, 0] = 340 - 8 * np.arange(length)
    shown = masks[np.arange(length), 60, truth[..., 0].astype(int)]
    visible = shown == np.array([[1], [2]])
    clip = clip_of(truth, visible, width=512, height=128)
    return replace(clip, masks=masks, objects=np.array([1, 2], np.uint8), alike=(1, 2))


@pytest.mark.parametrize(("protocol", "scale"), [(TapVid(), (0.5, 2)), (TapVid(size="full"), 1)])
def test_identity_is_judged_on_the_masks_of_the_frames_that_the_method_sees(protocol, scale):
    """The second point is taken for the first from the middle of the crossing on."""
    clip = crossing_clip(25)
    points = clip.points.copy()
    points[1, 15:] = points[0, 15:]
    method = Scripted((points * np.float32(scale)).astype(np.float32), np.ones((2, 25), bool))
    assert protocol.run(clip, "scripted", method).events["identity kept"] == Share(1, 2)


def test_heft_judges_identity_in_the_frames_that_it_keeps():
    """Frames 25 to 29 are dropped, and in them the tracks jump to the other object."""
    clip = crossing_clip(30)
    points = clip.points.copy()
    points[:, 25:] = points[::-1, 25:]
    method = Scripted(points, np.ones((2, 30), bool))
    assert Heft().run(clip, "scripted", method).events == {"identity kept": Share(2, 2)}
