"""`vditrack calibrate`: the fit is the likeliest, the threshold the best, and the card keeps."""

import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from doubles.commands import run_command
from doubles.passthrough import write_passthrough
from vditrack.bundle.configuration import FlowTracking, Matching, Visibility
from vditrack.bundle.folder import Bundle, load_bundle, seal_bundle
from vditrack.bundle.path_choice import PathChoice
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid
from vditrack.errors import BundleError, InputError, VditrackError
from vditrack.evaluation.baselines.point_baselines import Still
from vditrack.evaluation.metrics.points import Comparison
from vditrack.evaluation.protocols import TapVid, first_queries
from vditrack.features.extractor import FeatureExtractor
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.suite import render_suite
from vditrack.synthetic.layers.textures import draw_pattern
from vditrack.tracker import Tracker
from vditrack_export.calibrate.cli import calibrate
from vditrack_export.calibrate.clips import EncodedClip, encode_clip
from vditrack_export.calibrate.fit import PENALTY, area_under_curve, fit_weights, sigmoid
from vditrack_export.calibrate.margins import require_recovery
from vditrack_export.calibrate.rounds import Calibration, WeightsResult, list_warnings
from vditrack_export.calibrate.thresholds import FLAT, Means, shift_threshold, sweep_thresholds
from vditrack_export.calibrate.trials import Trial, collect_rows, score_still_points, track_clip
from vditrack_export.calibrate.writing import write_weights
from vditrack_export.card import load_card

PLANTED = Visibility(
    bias=-3.5, correlation=4.0, first_similarity=-2.0, template_similarity=3.0, distance=-0.7
)
NEUTRAL = Visibility(
    bias=-4.0, correlation=4.0, first_similarity=2.0, template_similarity=2.0, distance=-0.5
)
FLOW_TRACKING = FlowTracking(
    recovery=Recovery(min_similarity=0.9, min_correlation=0.75), visibility=NEUTRAL, gaps=None
)


def evidence_of(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform([-1, -1, -1, 0], [1, 1, 1, 10], (*shape, 4))


def likely(weights: Visibility, evidence: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-(weights.bias + evidence @ np.array(weights.of_evidence))))


def numbers(weights: Visibility) -> np.ndarray:
    return np.array([weights.bias, *weights.of_evidence])


# The fit


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence, labels drawn with the planted weights, and weights of rows."""
    rng = np.random.default_rng(0)
    evidence = evidence_of(rng, 40000)
    return evidence, rng.random(40000) < likely(PLANTED, evidence), rng.uniform(0.1, 1, 40000)


def test_planted_weights_are_found(planted):
    evidence, seen, _ = planted
    found = fit_weights(evidence, seen, np.ones(len(seen)))
    # Within what so many rows can tell, by the inverse of Fisher's information.
    design, chance = np.column_stack([np.ones(len(seen)), evidence]), likely(PLANTED, evidence)
    information = (design.T * chance * (1 - chance)) @ design
    error = np.sqrt(np.diag(np.linalg.inv(information)))
    assert error.max() < 0.2
    assert (np.abs(numbers(found) - numbers(PLANTED)) < 4 * error).all()


def test_the_fit_is_that_of_scikit_learn(planted):
    evidence, seen, weights = (part[:3000] for part in planted)
    theirs = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=10000)
    theirs.fit(evidence, seen, weights / weights.sum())
    expected = [*theirs.intercept_, *theirs.coef_[0]]
    assert numbers(fit_weights(evidence, seen, weights)) == pytest.approx(expected, rel=1e-3)


def test_evidence_that_decides_all_or_nothing():
    """Neither runs away: one signal that parts the rows, one that never varies."""
    evidence = np.zeros((100, 4))
    evidence[:, 0] = np.linspace(-1, 1, 100)
    seen = evidence[:, 0] > 0
    found = fit_weights(evidence, seen, np.ones(100))
    assert np.isfinite(numbers(found)).all()
    assert ((likely(found, evidence) > 0.5) == seen).all()
    assert found.of_evidence[1:] == pytest.approx((0, 0, 0))
    rare = np.arange(100) < 20
    assert sigmoid(np.array(fit_weights(0 * evidence, rare, np.ones(100)).bias)) == pytest.approx(
        0.2
    )


def test_the_area_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    # Rounded, so that there are ties.
    signal, weights = rng.normal(size=500).round(1), rng.uniform(0.1, 1, 500)
    seen = rng.random(500) < likely(PLANTED, np.outer(signal, [1, 0, 0, 0]))
    expected = roc_auc_score(seen, signal, sample_weight=weights)
    assert area_under_curve(signal, seen, weights) == pytest.approx(expected)


# The threshold


def random_trial(rng: np.random.Generator, points: int) -> Trial:
    shape = (points, 12)
    compared = Comparison(
        squared_distance=rng.exponential(30, shape).astype(np.float32),
        true_visible=rng.random(shape) < 0.7,
        visible=np.zeros(shape, bool),
        counted=rng.random(shape) < 0.9,
    )
    evidence = evidence_of(rng, *shape).astype(np.float32)
    # Correlation says something of the truth, the rest nothing.
    evidence[..., 0] = np.where(compared.true_visible, 0.4, -0.2) + rng.normal(0, 0.4, shape)
    return Trial(compared, evidence, rng.random(shape) < 0.95)


def official(trial: Trial, visible: np.ndarray) -> float:
    """AJ + OA by the definition, in percent, counted one by one."""
    of, right, jaccards = trial.compared, 0, []
    places = list(zip(*np.nonzero(of.counted), strict=True))
    for at in places:
        right += visible[at] == of.true_visible[at]
    for limit in (1, 2, 4, 8, 16):
        tp = fp = gt = 0
        for at in places:
            near = of.squared_distance[at] < limit**2 and of.true_visible[at]
            tp += visible[at] and near
            fp += visible[at] and not near
            gt += of.true_visible[at]
        jaccards.append(tp / (gt + fp))
    return 100 * (np.mean(jaccards) + right / len(places))


def test_the_threshold_is_the_lowest_of_the_best():
    rng = np.random.default_rng(2)
    trials = [random_trial(rng, points) for points in (3, 9)]
    weights = msgspec.structs.replace(NEUTRAL, bias=-0.5, first_similarity=0.1, distance=0.05)
    weights = msgspec.structs.replace(weights, template_similarity=-0.1)
    found = sweep_thresholds(trials, weights)
    expected = []
    for threshold in found.thresholds:
        said = [(likely(weights, t.evidence) >= threshold) & t.decidable for t in trials]
        expected.append(np.mean([official(*pair) for pair in zip(trials, said, strict=True)]))
    assert [means.objective for means in found.means] == pytest.approx(expected)
    assert expected[found.best] >= max(expected) - FLAT
    assert all(value < max(expected) - FLAT for value in expected[: found.best])
    assert 0 < found.best < len(expected) - 1
    assert (found.thresholds[0], found.thresholds[-1]) == pytest.approx((0.02, 0.8))


@pytest.mark.parametrize("threshold", [0.02, 0.3, 0.8])
def test_weights_moved_to_a_threshold(threshold):
    trial = random_trial(np.random.default_rng(3), 20)
    before, after = trial.confidence(PLANTED), trial.confidence(shift_threshold(PLANTED, threshold))
    assert ((after >= 0.5) == (before >= threshold)).all()


def test_clips_count_equally():
    rng = np.random.default_rng(4)
    trials = [random_trial(rng, points) for points in (2, 30)]
    rows = collect_rows(trials)
    judged = [trial.decidable & trial.compared.counted for trial in trials]
    counts = [mask.sum() for mask in judged]
    assert len(rows.seen) == sum(counts)
    first, second = np.split(rows.weights, counts[:1])
    assert first.sum() == pytest.approx(1)
    assert second.sum() == pytest.approx(1)
    of = trials[0].compared
    near_enough = np.sqrt(of.squared_distance) < 8
    expected = (of.true_visible & near_enough)[judged[0]]
    assert (rows.seen[: counts[0]] == expected).all()
    assert (rows.evidence[: counts[0]] == trials[0].evidence[judged[0]]).all()


# The clips


@pytest.fixture(scope="module")
def films() -> list[AnnotatedClip]:
    """The beginnings of two rendered clips, with things that cover others and things that leave."""
    return [beginning(clip) for clip in islice(render_suite(1), 1, 3)]


def beginning(clip: AnnotatedClip, frames: int = 30, height: int = 192) -> AnnotatedClip:
    return AnnotatedClip(
        clip.name,
        clip.frames[:frames, :height],
        clip.points[:, :frames],
        clip.visible[:, :frames] & (clip.points[:, :frames, 1] < height),
    )


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Bundle:
    """The bundle of mean colours, with points that are held."""
    folder = tmp_path_factory.mktemp("held")
    manifest = write_passthrough(folder).manifest
    return seal_bundle(
        folder, msgspec.structs.replace(manifest, matching=with_flow_tracking(manifest))
    )


def with_flow_tracking(manifest: Any, weights: Visibility = NEUTRAL) -> Matching:
    flow_tracking = msgspec.structs.replace(FLOW_TRACKING, visibility=weights)
    settings = msgspec.structs.replace(manifest.matching, template_update=0.3)
    return msgspec.structs.replace(settings, flow_tracking=flow_tracking)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [NEUTRAL, PLANTED])
def test_points_are_followed_and_scored_as_eval_does(held, films, tmp_path, weights):
    clip = films[0]
    settings = with_flow_tracking(held.manifest, weights)
    made = encode_clip(clip, FeatureExtractor(held), tmp_path / "maps.npy", lambda _: None)
    shares: list[float] = []
    trial = track_clip(made, held.manifest.matching, FLOW_TRACKING, weights, shares.append)
    assert sum(shares) == pytest.approx(1)
    scores = trial.scores()
    result = TapVid().run(clip, "ours", Tracker(held, settings=settings))
    assert [result.metrics[name] for name in ("AJ", "δ", "OA")] == [
        scores.average_jaccard,
        scores.position_accuracy,
        scores.occlusion_accuracy,
    ]
    # What was recorded says again what was said.
    counted = trial.compared.counted
    said = trial.confidence(weights) >= 0.5
    assert (said == trial.compared.visible)[counted].all()
    assert 0.1 < said[counted].mean() < 0.9


@pytest.mark.parametrize(("size", "shape"), [("256", (256, 256)), ("full", (192, 256))])
def test_a_point_has_to_be_near_in_pixels_of_the_raster(held, films, tmp_path, size, shape):
    """The clip is 256 wide and 192 high, so 7 pixels down are 7 of the raster, or 9.3."""
    extractor, still = FeatureExtractor(held), films[0]
    still = AnnotatedClip(
        "still",
        np.repeat(still.frames[:1], 3, axis=0),
        np.repeat(still.points[:8, :1], 3, axis=1),
        np.ones((8, 3), bool),
    )
    inside = ((still.points[:, 0] > 30) & (still.points[:, 0] < (226, 162))).all(axis=1)
    still = replace(still, points=still.points[inside], visible=still.visible[inside])
    # The truth of the last two frames is 7 and 5 pixels below where the points stay.
    still.points[:, 1:, 1] += np.array([7, 5], np.float32)
    made = encode_clip(still, extractor, tmp_path / "maps.npy", lambda _: None, size)
    assert made.clip.frames.shape[1:3] == shape
    trial = track_clip(made, held.manifest.matching, FLOW_TRACKING, NEUTRAL, lambda _: None)
    np.testing.assert_allclose(
        np.sqrt(trial.compared.squared_distance[:, 1:]),
        np.tile([7 * 256 / 192, 5 * 256 / 192], (len(still.points), 1)),
        atol=0.1,
    )
    assert trial.seen[:, 1:].tolist() == [[False, True]] * len(still.points)


# The card


TINY = (Path(__file__).parents[3] / "models" / "tiny.toml").read_text(encoding="utf-8")
TABLE = """\
[matching.flow_tracking.visibility]  # a regression
# begun at
bias = -4   # neutral
correlation=4.0
first_similarity = 2.0    # bias = 7
template_similarity = 2.0

distance = -0.5"""
MATCHING = """\
[matching]   # by hand
temperature = 0.05
argmax_radius = 8
search_radius = 32  # chosen
visibility_threshold = 18
similarity_threshold = 0.7
recovery_threshold = 0.9
template_update = 0.1
update_after_loss = false
horizon = 6
"""
HELD = f"""{MATCHING}
[matching.flow_tracking]
{TABLE}
[matching.flow_tracking.recovery]
min_similarity = 0.6
min_correlation = 0.75  # chosen
"""


def card_text(matching: str = HELD, name: str = "passthrough") -> str:
    head = TINY.split("\n[matching]")[0].replace('name = "tiny"', f'name = "{name}"')
    return f"{head}\n{matching}"


@pytest.fixture
def card(tmp_path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(card_text(), encoding="utf-8")
    return path


def weights_in(card: Path) -> Visibility:
    flow_tracking = load_card(str(card)).matching.flow_tracking
    assert flow_tracking is not None
    return flow_tracking.visibility


def test_the_card_keeps_all_but_the_weights(card):
    write_weights(card, PLANTED, "fitted on a, b (2 clips)")
    expected = card_text(
        HELD.replace(
            TABLE,
            """\
[matching.flow_tracking.visibility]  # a regression
# "calibrate": fitted on a, b (2 clips)
# begun at
bias = -3.5   # neutral
correlation=4.0
first_similarity = -2.0    # bias = 7
template_similarity = 3.0

distance = -0.7""",
        )
    )
    assert card.read_text(encoding="utf-8") == expected
    assert weights_in(card) == PLANTED
    assert [path.name for path in card.parent.iterdir()] == [card.name]


def test_a_later_calibration_replaces_the_remark(card):
    write_weights(card, PLANTED, "fitted on " + "one clip and " * 30)
    long = card.read_text(encoding="utf-8")
    assert max(map(len, long.split("[matching]")[1].splitlines())) <= 100
    write_weights(card, NEUTRAL, "fitted anew")
    once = card_text().replace("# begun at", '# "calibrate": fitted anew\n# begun at')
    assert card.read_text(encoding="utf-8") == once.replace("bias = -4 ", "bias = -4.0 ")


def test_the_table_may_come_before_others(card):
    before, after = card_text().split("[input]")
    card.write_text(f"{before}{TABLE}\n\n[input]{after.replace(TABLE, '')}", encoding="utf-8")
    unchanged = load_card(str(card))
    write_weights(card, PLANTED, "fitted")
    assert weights_in(card) == PLANTED
    assert load_card(str(card)).input == unchanged.input


def test_a_card_that_cannot_be_edited_stays(card):
    inline = (
        "visibility = { bias = 1, correlation = 1, first_similarity = 1, "
        "template_similarity = 1, distance = 1 }"
    )
    text = card_text(HELD.replace(TABLE, inline))
    card.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="one value per line"):
        write_weights(card, PLANTED, "fitted")
    assert card.read_text(encoding="utf-8") == text
    assert [path.name for path in card.parent.iterdir()] == [card.name]


# The command


def run(bundle: Path, *options: object) -> Any:
    return run_command(calibrate, bundle, *options)


def refusal(bundle: Path, *options: object) -> VditrackError:
    error = run(bundle, *options).exception
    assert isinstance(error, VditrackError), error
    return error


@pytest.fixture(scope="module")
def data(films, tmp_path_factory) -> Path:
    """The clips as a folder of videos."""
    root = tmp_path_factory.mktemp("data") / "films"
    for clip in films:
        (root / clip.name / "frames").mkdir(parents=True)
        for t, frame in enumerate(clip.frames):
            cv2.imwrite(str(root / clip.name / "frames" / f"{t:03}.png"), frame[..., ::-1])
        arrays = {"points": clip.points / clip.size, "occluded": ~clip.visible}
        np.savez(root / clip.name / "tracks.npz", **arrays)
    return root


@pytest.fixture(scope="module")
def calibrated(held, data, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    """What the command tells, and the card that it wrote."""
    card = tmp_path_factory.mktemp("card") / "mine.toml"
    card.write_text(card_text(), encoding="utf-8")
    done = run(held.root, "--on", data, "--write", card, "--certain", "--paths", "--json")
    assert done.exception is None, done.exception
    return json.loads(done.stdout), card


@pytest.mark.slow
def test_the_command_makes_tracks_better(held, films, calibrated):
    told, card = calibrated
    before, after = (told["tried"][n] for n in (0, told["chosen"]))
    assert before["weights"] == msgspec.structs.asdict(NEUTRAL)
    assert after["weights"] == told["weights"]
    assert weights_in(card) == Visibility(**told["weights"])
    assert len(told["tried"]) == 3
    assert (told["bundle"], told["data"], told["clips"]) == ("passthrough", "films", "2")

    def scored(tried: dict[str, Any]) -> float:
        return tried["average_jaccard"] + tried["occlusion_accuracy"]

    assert scored(after) >= max(map(scored, told["tried"])) - FLAT
    assert scored(after) > scored(before)
    # The official protocol says so too.
    tracker = Tracker(held, settings=with_flow_tracking(held.manifest, weights_in(card)))
    metrics = [TapVid().run(clip, "", tracker).metrics for clip in films]
    for name, key in (("AJ", "average_jaccard"), ("δ", "position_accuracy")):
        assert np.mean([m[name] for m in metrics]) == pytest.approx(after[key])
    metrics = [TapVid().run(clip, "", Still()).metrics for clip in films]
    for name, key in (("AJ", "average_jaccard"), ("OA", "occlusion_accuracy")):
        assert np.mean([m[name] for m in metrics]) == pytest.approx(told["still"][key])


@pytest.mark.slow
def test_the_margins_with_the_best_tracks_are_chosen(calibrated):
    told = calibrated[0]
    metrics = ("average_jaccard", "position_accuracy", "occlusion_accuracy")
    without, *others = told["margins"]
    # The bundle has no certain matches, so it was tracked like this before.
    assert without["certain"] is None
    assert [without[name] for name in metrics] == [told["tried"][-1][name] for name in metrics]
    assert all(each["certain"]["min_margin"] > 0 for each in others)
    sums = [sum(each[name] for name in metrics) for each in told["margins"]]
    chosen = [each["chosen"] for each in told["margins"]]
    assert chosen == [n == int(np.argmax(sums)) for n in range(len(sums))]


@pytest.mark.slow
def test_the_weights_of_paths_are_written_into_the_card(calibrated):
    told, card = calibrated
    flow_tracking = load_card(str(card)).matching.flow_tracking
    assert flow_tracking is not None
    assert flow_tracking.paths == PathChoice(**told["paths"])
    assert any(told["paths"].values())


def test_margins_without_a_search_for_lost_points_are_refused():
    with pytest.raises(InputError, match=r"--certain has nothing to choose\. Leave it out"):
        require_recovery(msgspec.structs.replace(FLOW_TRACKING, recovery=None), "--certain")


def test_points_that_stay_are_scored_as_eval_does(films):
    clip = films[0].resize(128, 96)
    encoded = EncodedClip(clip, first_queries(clip.visible), Grid(12, 16, 8), Path())
    scores = score_still_points(encoded)
    official = TapVid("first", "full").run(clip, "", Still()).metrics
    assert scores.average_jaccard == pytest.approx(official["AJ"])
    assert scores.position_accuracy == pytest.approx(official["δ"])
    assert scores.occlusion_accuracy == pytest.approx(official["OA"])


@pytest.mark.parametrize(
    ("weights", "means", "messages"),
    [
        ({}, (50, 60, 90), []),
        ({}, (30, 39, 90), ["tracked worse (δ 39.0) than if they did not move (40.0)"]),
        ({}, (30, 50, 79), ["worse (OA 79.0) than if all counted as visible (80.0)"]),
        (
            {"first_similarity": -2.0, "distance": 0.1},
            (50, 60, 90),
            ["the sign of first similarity (-2), distance (0.1) is reversed"],
        ),
        ({}, (10, 60, 80.5), ["the bundle's own weights track better"]),
    ],
)
def test_weights_that_are_worse_than_nothing_are_warned_of(weights, means, messages):
    own = WeightsResult(NEUTRAL, Means(20, 60, 80.5))
    fitted = WeightsResult(msgspec.structs.replace(NEUTRAL, **weights), Means(*means))
    found = list_warnings(Calibration((own, fitted), (), Means(10, 40, 80)))
    assert len(found) == len(messages)
    for message, warning in zip(messages, found, strict=True):
        assert message in warning


def test_the_command_tells_what_speaks_for_it(calibrated):
    told, card = calibrated
    curve = {row["threshold"]: row for row in told["thresholds"]}
    sums = {t: row["average_jaccard"] + row["occlusion_accuracy"] for t, row in curve.items()}
    best = max(sums.values())
    assert told["threshold"] == min(t for t, value in sums.items() if value >= best - FLAT)
    areas = told["areas_under_curve"]
    assert list(areas) == [*Visibility.__struct_fields__[1:], "together"]
    # Each in the direction that speaks for a point.
    assert all(0.5 < area < 1 for area in areas.values())
    assert '"calibrate": fitted on films (2 clips)' in card.read_text(encoding="utf-8")
    # To four significant digits.
    assert all(float(f"{value:.4g}") == value for value in told["weights"].values())


@pytest.fixture
def still(tmp_path) -> Path:
    """A video in which nothing moves: every point is seen for ever."""
    folder = tmp_path / "videos" / "still"
    (folder / "frames").mkdir(parents=True)
    picture = draw_pattern(np.random.default_rng(0), 64, 96)
    for t in range(4):
        cv2.imwrite(str(folder / "frames" / f"{t}.png"), picture)
    points = np.full((3, 4, 2), 0.5, np.float32)
    np.savez(folder / "tracks.npz", points=points, occluded=np.zeros((3, 4), bool))
    return folder.parent


@pytest.mark.slow
def test_tables_and_refusals(held, tmp_path, still, card):
    text = card.read_text(encoding="utf-8")
    several = ("--on", "synthetic:1", "--on", "leaving:1")
    shown = run(held.root, *several, "--clips", 1, "--size", "full")
    assert shown.exception is None, shown.exception
    for part in (
        "threshold",
        "*",
        "first similarity",
        "before",
        "round 2",
        "AJ",
        "synthetic:1, leaving:1, 2 clips",
    ):
        assert part in shown.stdout
    assert isinstance(refusal(tmp_path), BundleError)
    never_held = write_passthrough(tmp_path / "matched").root
    assert "Add [matching.flow_tracking] to its card" in str(refusal(never_held))
    assert "nothing to tell apart" in str(refusal(held.root, "--on", still, "--write", card))
    tracks = np.load(still / "still" / "tracks.npz")
    np.savez(still / "still" / "tracks.npz", points=tracks["points"], occluded=~tracks["occluded"])
    assert "no point" in str(refusal(held.root, "--on", still))
    (still / "still" / "tracks.npz").unlink()
    assert "has no tracks.npz" in str(refusal(held.root, "--on", still))
    assert card.read_text(encoding="utf-8") == text


def test_cards_that_are_refused_before_work_begins(held, tmp_path, card):
    def told(path: Path) -> str:
        return str(refusal(held.root, "--on", "synthetic:1", "--write", path))

    assert "Give the path of a .toml" in told(tmp_path / "passthrough")
    assert "cannot be read" in told(tmp_path / "absent.toml")
    card.write_text(card_text(MATCHING), encoding="utf-8")
    assert "no [matching.flow_tracking]" in told(card)
    card.write_text(card_text(name="other"), encoding="utf-8")
    assert "exported from passthrough" in told(card)


def test_the_bundle_stays_as_it_is(held, calibrated):
    assert load_bundle(held.root).manifest == held.manifest


def test_without_the_editor_of_cards_nothing_is_begun(held, card, monkeypatch):
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    error = run(held.root, "--on", "synthetic:1", "--write", card).exception
    assert isinstance(error, VditrackError)
    assert "pip install tomlkit" in str(error)
