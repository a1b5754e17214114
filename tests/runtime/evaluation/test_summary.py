"""Means, intervals and verdicts, on results with a known truth."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from vditrack.errors import InputError
from vditrack.evaluation.metrics.results import Curve, Result, Share
from vditrack.evaluation.report import summary
from vditrack.evaluation.report.summary import estimate, summarise

NAN = float("nan")


def result(clip, method, value, **kwargs):
    given = {"events": {}, "curves": {}, "frames": 10, "seconds": 2.0, "picture": None} | kwargs
    return Result(f"clip {clip}", method, {"AJ": value}, **given)


def results_of(**values_of_method):
    return [
        result(clip, method, value)
        for method, values in values_of_method.items()
        for clip, value in enumerate(values)
    ]


def only_difference(results, metric="AJ"):
    _, other = summarise(results, "ours").methods
    return other.differences[metric]


def test_mean_is_the_plain_mean_of_the_clips_that_define_it():
    summary = summarise(results_of(ours=[10.0, NAN, 20.0, 60.0]), "ours")
    mean = summary.reference.means["AJ"]
    assert mean.mean == pytest.approx(30)
    assert (mean.clips, summary.reference.clips) == (3, 4)
    assert 10 <= mean.low < 30 < mean.high <= 60


def test_no_clip_defines_the_metric():
    mean = summarise(results_of(ours=[NAN, NAN]), "ours").reference.means["AJ"]
    assert np.isnan([mean.mean, mean.low, mean.high]).all()
    assert mean.clips == 0


def test_one_clip_gives_no_interval():
    mean = summarise(results_of(ours=[40.0]), "ours").reference.means["AJ"]
    assert mean.mean == 40
    assert np.isnan([mean.low, mean.high]).all()


@pytest.mark.parametrize("same", [[55.0] * 8, [0.0] * 8])
def test_clips_all_alike_have_an_interval_without_width(same):
    mean = estimate(same)
    assert (mean.low, mean.mean, mean.high) == (same[0],) * 3


@pytest.fixture
def few_resamples(monkeypatch):
    """Take a tenth of the resamples, where hundreds of intervals are tested together."""
    monkeypatch.setattr(summary, "_RESAMPLES", 999)


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("count", [8, 12, 30])
def test_interval_covers_the_truth_at_its_level(count):
    """A plain bootstrap interval fails this for 8 clips: it covers about 87%."""
    draws = np.random.default_rng(5).normal(60, 12, (400, count))
    estimates = [estimate(draw) for draw in draws.tolist()]
    covered = np.mean([e.low <= 60 <= e.high for e in estimates])
    # Of 400 draws, three standard errors about 95%: below by what is left of the bootstrap's error.
    assert 0.915 <= covered <= 0.98


@pytest.mark.parametrize("count", [12, 40])
def test_interval_is_near_students_on_normal_data(count):
    for draw in np.random.default_rng(6).normal(60, 12, (20, count)):
        student = ttest_1samp(draw, 0).confidence_interval(0.95)
        mine = estimate(draw.tolist())
        assert mine.high - mine.low == pytest.approx(student.high - student.low, rel=0.25)


def test_small_but_constant_difference_is_seen_though_intervals_overlap():
    rng = np.random.default_rng(0)
    hardness = rng.uniform(20, 80, 12)
    results = results_of(
        ours=hardness.tolist(), other=(hardness + 1 + rng.normal(0, 0.2, 12)).tolist()
    )
    ours, other = summarise(results, "ours").methods
    assert other.means["AJ"].low < ours.means["AJ"].mean < other.means["AJ"].high
    difference = other.differences["AJ"]
    assert difference.verdict == "better"
    assert 0.8 < difference.estimate.low < difference.estimate.high < 1.2
    worse = summarise(results, "other").methods[1].differences["AJ"]
    assert worse.verdict == "worse"
    assert worse.estimate.mean == pytest.approx(-difference.estimate.mean)


def test_exactly_constant_difference():
    hardness = [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
    results = results_of(ours=hardness, other=[value + 2 for value in hardness])
    assert only_difference(results).verdict == "better"
    assert only_difference(results_of(ours=hardness, other=hardness)).verdict == (
        "no clear difference"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_noise_is_rarely_called_a_difference():
    rng = np.random.default_rng(1)
    verdicts = []
    for _ in range(300):
        ours, other = rng.normal(50, 10, (2, 10)).tolist()
        verdicts.append(only_difference(results_of(ours=ours, other=other)).verdict)
    wrong = np.mean([verdict != "no clear difference" for verdict in verdicts])
    # 5% are allowed, and three standard errors of 300 draws.
    assert 0 < wrong < 0.09


def test_few_clips_allow_no_verdict():
    five = results_of(ours=[10.0, 20.0, 30.0, 40.0, 50.0], other=[90.0, 91.0, 92.0, 93.0, 94.0])
    assert only_difference(five).verdict == "too few clips"
    sixth = [result(5, "ours", 60.0), result(5, "other", 95.0)]
    assert only_difference(five + sixth).verdict == "better"


def test_pairs_are_the_clips_that_both_define():
    ours = [10.0, NAN, 30.0, 40.0]
    results = [*results_of(ours=ours, other=[11.0, 90.0, NAN, 41.0]), result(9, "other", 99.0)]
    difference = only_difference(results).estimate
    assert (difference.mean, difference.clips) == (1, 2)


def test_pairs_go_by_name_and_not_by_order():
    ours = [float(n) for n in range(0, 80, 10)]
    results = results_of(ours=ours, other=[value + 3 for value in ours])
    assert only_difference(results[:8] + results[:7:-1]).estimate.high == pytest.approx(3)


def test_reference_comes_first_and_has_no_difference():
    summary = summarise(results_of(klt=[1.0, 2.0], ours=[3.0, 4.0], still=[5.0, 6.0]), "ours")
    assert [method.name for method in summary.methods] == ["ours", "klt", "still"]
    assert summary.reference.differences == {}


def test_curves_are_pooled_by_count():
    curves = [
        {"by k": Curve(("1", "2"), np.array([1.0, 0.0]), np.array([2.0, 0.0]), (25.0, 75.0))},
        {"by k": Curve(("1", "2"), np.array([0.0, 0.0]), np.array([6.0, 0.0]))},
        {},
    ]
    results = [result(n, "ours", 50.0, curves=curve) for n, curve in enumerate(curves)]
    pooled = summarise(results, "ours").reference.curves["by k"]
    np.testing.assert_array_equal(pooled.percent, [12.5, NAN])
    assert pooled.ideal == (25, 75)


def test_a_curve_has_the_intervals_of_its_pooled_shares():
    """Clips with more cases weigh more; one clip alone gives no interval."""
    rng = np.random.default_rng(2)
    totals = rng.integers(5, 400, (12, 3)).astype(float)
    # The more cases, the better, so that equal weights would give other intervals.
    hits = np.round(totals * (0.1 + 0.7 * totals / 400 + rng.uniform(0, 0.2, totals.shape)))
    totals[1:, 2] = hits[1:, 2] = 0
    hits[:, 1] = 0.5 * totals[:, 1]
    results = [
        result(n, "ours", 50.0, curves={"by k": Curve(("1", "2", "3"), *case)})
        for n, case in enumerate(zip(hits, totals, strict=True))
    ]
    method = summarise([*results, result(12, "ours", 50.0)], "ours").reference
    first, second, third = method.intervals["by k"]
    # Plainly: the pooled share of clips drawn with replacement. Few clips widen it a little.
    drawn = rng.integers(0, 12, (20000, 12))
    plain = 100 * hits[drawn, 0].sum(axis=1) / totals[drawn, 0].sum(axis=1)
    low, high = np.percentile(plain, [2.5, 97.5])
    spread = high - low
    assert low - 0.3 * spread < first[0] < low + 0.1 * spread
    assert high - 0.1 * spread < first[1] < high + 0.3 * spread
    np.testing.assert_allclose(second, 50)
    assert np.isnan(third).all()


def with_events(**shares_of_method):
    """Results of methods on clips with (hits, total) events; None where a clip has none."""
    return [
        result(clip, method, 50.0, events={"found": Share(*share)} if share else {})
        for method, shares in shares_of_method.items()
        for clip, share in enumerate(shares)
    ]


def test_events_are_pooled_over_clips():
    summary = summarise(with_events(ours=[(1, 1), (10, 99), None]), "ours")
    assert (summary.metrics, summary.events) == (("AJ",), ("found",))
    share = summary.reference.means["found"]
    assert share.mean == pytest.approx(11)
    assert (share.clips, share.count) == (2, 100)
    assert summary.reference.means["AJ"].count == 3


def test_events_that_no_clip_has_are_no_column():
    summary = summarise(with_events(ours=[None, None]), "ours")
    assert summary.events == ()
    assert list(summary.reference.means) == ["AJ"]


def test_difference_of_events_is_that_of_the_pooled_shares():
    """A clip with one event hardly counts, though there alone the other is worse."""
    ours = [(0, 40), (4, 40), (10, 80), (20, 100), (30, 60), (1, 1), None]
    other = [(4, 40), (8, 40), (18, 80), (30, 100), (36, 60), (0, 1), None]
    difference = only_difference(with_events(ours=ours, other=other), "found")
    assert difference.estimate.mean == pytest.approx(100 * (96 - 65) / 321)
    assert (difference.estimate.clips, difference.estimate.count) == (6, 321)
    assert difference.verdict == "better"


def test_fewer_faults_are_better():
    shares = {"ours": [(n, 40) for n in range(10, 20)], "other": [(n, 40) for n in range(10)]}
    results = [
        result(clip, method, 50.0, events={"visible outside": Share(*share)})
        for method, of_method in shares.items()
        for clip, share in enumerate(of_method)
    ]
    assert only_difference(results, "visible outside").verdict == "better"
    again = summarise(results, "other").methods[1].differences["visible outside"]
    assert again.verdict == "worse"


@pytest.mark.slow
@pytest.mark.usefixtures("few_resamples")
def test_interval_of_a_share_covers_the_truth_though_clips_differ_in_size():
    """Clips with many events do worse, so that the mean of the clips' shares is another number."""
    rng = np.random.default_rng(8)
    covered, above = [], []
    for _ in range(200):
        totals = rng.choice([5, 80], 20)
        chances = np.where(totals == 5, 0.9, 0.3) + rng.uniform(-0.1, 0.1, 20)
        shares = [(int(rng.binomial(n, p)), int(n)) for n, p in zip(totals, chances, strict=True)]
        share = summarise(with_events(ours=shares), "ours").reference.means["found"]
        truth = 100 * (5 * 0.9 + 80 * 0.3) / 85
        covered.append(share.low <= truth <= share.high)
        above.append(np.mean([100 * hits / total for hits, total in shares]) > share.high)
    assert 0.88 <= np.mean(covered) <= 0.99
    assert np.mean(above) > 0.9


def test_speed_is_all_frames_by_all_seconds():
    results = [
        result(0, "ours", 50.0, frames=100, seconds=1.0),
        result(1, "ours", 50.0, frames=20, seconds=3.0),
    ]
    assert summarise(results, "ours").reference.frames_per_second == 30
    untimed = [result(0, "ours", 50.0, seconds=0.0)]
    assert np.isnan(summarise(untimed, "ours").reference.frames_per_second)


def test_worst_clips_have_pictures_and_the_least_headline():
    picture = np.zeros((2, 2, 3), np.uint8)
    scores = [(70.0, picture), (5.0, None), (NAN, picture), (20.0, picture)]
    results = [result(n, "ours", score, picture=shown) for n, (score, shown) in enumerate(scores)]
    worst = summarise(results, "ours").reference.worst
    assert [result.clip for result in worst] == ["clip 3", "clip 0"]


def test_same_results_give_the_same_intervals():
    results = results_of(ours=np.random.default_rng(2).normal(50, 9, 15).tolist())
    first, again = (summarise(results, "ours").reference.means["AJ"] for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no clip"),
        (results_of(klt=[1.0], still=[2.0]), "ours has no results. Name one of klt, still."),
        ([result(0, "ours", 1.0)] * 2, "clip 0 occurs twice for ours"),
    ],
)
def test_refused(results, message):
    with pytest.raises(InputError, match=message):
        summarise(results, "ours")
