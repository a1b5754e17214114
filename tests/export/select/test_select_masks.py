"""`vditrack select --task masks`: what it scores is what a bundle gives, and the best is found."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from doubles.cards import make_card, save_card
from doubles.commands import run_command
from doubles.pipelines import FAMILY_SECTIONS
from doubles.tiny_checkpoint import MASK_SECTIONS, TINY_CARD
from vditrack import Tracker, VditrackError
from vditrack.bundle.configuration import Propagation
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.protocols import Davis
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import clip_features
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack_export.card import Card, Masks, load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.read_spec import Denoising
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.empty_prompt import random_prompt
from vditrack_export.pipeline.export import export_bundle
from vditrack_export.select.cli import select
from vditrack_export.select.masks.curves import draw_curves
from vditrack_export.select.masks.feature_cache import FeatureCache, MapShape
from vditrack_export.select.masks.features import make_extractor
from vditrack_export.select.masks.run import MaskedClip, crop_clip, score_masks
from vditrack_export.select.masks.scores import MaskClips, MaskScores
from vditrack_export.select.masks.search_space import (
    MaskSpace,
    Setting,
    Trial,
    make_part_card,
    replace_masks,
)

CARD = TINY_CARD + MASK_SECTIONS.replace("[0.0, 1.0]", "[0.4, 1.0]").replace(
    '"hidden"', '"keys"', 1
)
"""Motion is keys of low frequencies, in windows of five with an overlap of two."""


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return save_card(tmp_path, CARD)


def run(card: Path | str, *options: object) -> Any:
    return run_command(select, card, "--task", "masks", *options)


# What is scored is what a bundle gives


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tensor"), [("wan", "keys"), ("cogvideox", "hidden")])
def test_features_are_those_of_the_bundle(family: str, tensor: str, tmp_path: Path) -> None:
    """An encoder that carries caches and one of whole windows, and a clip with a tail."""
    path = tmp_path / "small.toml"
    changes = {"temporal_stride": 4, "tensor": tensor, "frequency_range": [0.3, 1.0]}
    path.write_text(make_card(FAMILY_SECTIONS[family], **changes))
    compared_with_bundle(load_card(str(path)), tmp_path, blocks=[0, 1, 2])


@pytest.mark.slow
def test_features_are_those_of_either_part(card: Path, tmp_path: Path) -> None:
    whole = load_card(str(card))
    compared_with_bundle(make_part_card(whole, whole.masks, "motion"), tmp_path, blocks=[0, 2])


def compared_with_bundle(card: Card, folder: Path, blocks: list[int]) -> None:
    """Of frames of another size than the model's."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 50, 70, 3), np.uint8)
    bundle = export_bundle(card, Weights(None), folder / "bundle", lambda _: None)
    expected = list(clip_features(FeatureExtractor(bundle), frames))
    deepest = msgspec.structs.replace(card.feature, block=blocks[-1])
    checkpoint = random_checkpoint(msgspec.structs.replace(card, feature=deepest))
    step = card.family.denoiser.denoising_at(card.feature, card.feature.noise_level)
    model = Backbone(card, checkpoint, random_prompt(card), random=True)
    found = list(clip_features(make_extractor(model, blocks, step), frames))
    assert len(found) == len(expected) == 12
    place = blocks.index(card.feature.block)
    for own, exported in zip(found, expected, strict=True):
        assert own.grid == exported.grid
        read = np.split(own.descriptors, len(blocks), axis=2)[place]
        wanted = exported.descriptors
        assert np.abs(read - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.slow
def test_a_bundle_of_the_written_card_scores_as_was_said(card: Path, tmp_path: Path) -> None:
    """By the tracker and the official protocol, on clips of both sets."""
    written, output = tmp_path / "new.toml", tmp_path / "report"
    options = ("--clips", 1, "--frames", 9, "--noise", "0.05,0.7", "--motion-weight", "0.3")
    done = run(card, "--random-weights", *options, "-o", output, "--write", written)
    assert done.exception is None, done.output
    assert sorted(path.name for path in output.iterdir()) == ["curves.png", "scores.json"]
    told = json.loads((output / "scores.json").read_text())
    new, best = load_card(str(written)), told["best"]
    assert msgspec.convert(told["suggested"], Masks) == new.masks
    assert new.masks.propagation.motion_weight == best["motion_weight"]
    bundle = export_bundle(new, Weights(None), tmp_path / "bundle", lambda _: None, masks=True)
    clips = [
        begun_clip(next(open_dataset(source, "davis").clips), 9)
        for source in ("lookalikes:1", "different:1")
    ]
    for weight in (0.0, 0.3, 1.0):
        settings = msgspec.structs.replace(new.masks.propagation, motion_weight=weight)
        tracker = Tracker(bundle, propagation=settings)
        found = [Davis().run(clip, "ours", tracker).metrics["J&F"] for clip in clips]
        assert found == pytest.approx(of_settings(told, new.masks, weight), abs=0.1)
    # Three blocks at two levels of either part, and of each level of motion one weight.
    assert len(told["trials"]) == 2 * 3 * 2 + 2
    assert told["trials"][0] == best
    assert best["J&F"] == max(trial["J&F"] for trial in told["trials"])
    # The card has motion of 0.7 and appearance of 0.051, which was not tried.
    assert told["card_choice"] is None


def of_settings(told: Any, masks: Masks, weight: float) -> list[float]:
    """What was said of a card's settings at another weight."""
    motion, appearance = (
        (part.feature.block, part.feature.noise_level) for part in (masks.motion, masks.appearance)
    )
    wanted = (motion if weight > 0 else None, appearance if weight < 1 else None, weight)
    (found,) = [
        trial["by_set"]
        for trial in told["trials"]
        if (read(trial["motion"]), read(trial["appearance"]), trial["motion_weight"]) == wanted
    ]
    return found


def read(part: Any) -> tuple[int, float] | None:
    return None if part is None else (part["block"], part["noise_level"])


def begun_clip(clip: AnnotatedClip, frames: int) -> AnnotatedClip:
    return AnnotatedClip(
        clip.name,
        clip.frames[:frames],
        clip.points[:, :frames],
        clip.visible[:, :frames],
        clip.masks[:frames],
    )


# A planted truth

GRID = Grid(16, 16, 4)
SHAPES = {"motion": MapShape(GRID, 3), "appearance": MapShape(GRID, 2)}
SETTINGS = Propagation(motion_weight=0.5, temperature=0.05, top_k=5, radius=4, context=4)


def crossing_clip(name: str) -> MaskedClip:
    """Two squares of whole cells that pass over each other."""
    masks = np.zeros((9, 64, 64), np.uint8)
    for t in range(9):
        masks[t, 16:32, 8 + 4 * t : 24 + 4 * t] = 1
        masks[t, 24:40, 40 - 4 * t : 56 - 4 * t] = 2
    return MaskedClip(name, np.zeros((9, 64, 64, 3), np.uint8), masks)


def step(noise: float) -> Denoising:
    return Denoising(1000 * noise, 1 - noise, noise, 0)


SPACE = MaskSpace(
    {"motion": (step(0.1), step(0.9)), "appearance": (step(0.1), step(0.9))}, (0, 1), (0.5,)
)
WHO, WHAT = Setting("motion", step(0.9), 1), Setting("appearance", step(0.1), 0)


def plant(kept: FeatureCache, clips: list[MaskedClip]) -> None:
    """One setting of motion knows which object it is, one of appearance only that it is one."""
    rng = np.random.default_rng(0)
    for number, clip in enumerate(clips):
        cells = clip.masks[:, 2::4, 2::4]
        for setting in [*SPACE.settings("motion"), *SPACE.settings("appearance")]:
            shape = (9, 16, 16, SHAPES[setting.part].channels)
            features = rng.normal(size=shape).astype(np.float32)
            if setting == WHO:
                features = np.eye(3, dtype=np.float32)[cells]
            elif setting == WHAT:
                features = np.eye(2, dtype=np.float32)[(cells > 0).astype(int)]
            kept.write_maps(number, [setting], (FeatureMap(GRID, frame) for frame in features))


@pytest.fixture(scope="module")
def found_planted(tmp_path_factory: pytest.TempPathFactory) -> MaskScores:
    kept = FeatureCache(tmp_path_factory.mktemp("kept"), SHAPES)
    clips = [crossing_clip("first"), crossing_clip("second")]
    plant(kept, clips)
    about = MaskClips(("one", "other"), ("first", "second"), (0, 1))
    own = Trial(Setting("motion", step(0.1), 0), WHAT, 0.7)
    return score_masks(SETTINGS, SPACE, clips, about, kept, lambda *_: lambda: None, own)


def test_the_planted_settings_are_found(found_planted: MaskScores) -> None:
    scores = found_planted
    assert scores.best_alone("motion") == Trial(WHO, None, 1.0)
    assert scores.best_alone("appearance") == Trial(None, WHAT, 0.0)
    motion, appearance, weight = scores.chosen()
    assert (motion, appearance) == (WHO, WHAT)
    assert weight in (0.5, 1)
    best, second = (scores.mean(scores.by_trial[t]) for t in (scores.ranked[0], scores.ranked[2]))
    # Exact masks, but for the corner that one square has in front of the other.
    assert best > 95
    assert best > second + 20
    # Of appearance alone the squares are one, so that one takes part of the other as they cross.
    assert scores.mean(scores.by_trial[Trial(None, WHAT, 0.0)]) < 80


def test_fused_are_the_best_of_each_level_and_the_cards_own(found_planted: MaskScores) -> None:
    fused = [trial for trial in found_planted.by_trial if trial.alone is None]
    own = Trial(Setting("motion", step(0.1), 0), WHAT, 0.7)
    assert fused[-1] == own
    assert {(trial.appearance, trial.weight) for trial in fused[:-1]} == {(WHAT, 0.5)}
    assert [trial.motion.denoising.noise for trial in fused[:-1]] == [0.1, 0.9]
    by_noise = found_planted.fused_by_noise()
    assert list(by_noise) == [0.1, 0.9]
    assert by_noise[0.9].motion == WHO


def test_the_curves_are_a_panel_for_each_set(found_planted: MaskScores, tmp_path: Path) -> None:
    draw_curves(found_planted, "planted", tmp_path / "curves.png")
    picture = cv2.imread(str(tmp_path / "curves.png")).astype(int)
    assert picture.shape[1] > 2 * picture.shape[0] > 400
    half = picture.shape[1] // 2
    for panel in (picture[:, :half], picture[:, half:]):
        # Matplotlib's red, blue and purple, in OpenCV's order.
        for colour in ((40, 39, 214), (180, 119, 31), (189, 103, 148)):
            assert (np.abs(panel - colour).max(axis=2) < 12).sum() > 30


def test_every_set_has_the_same_weight() -> None:
    about = MaskClips(("many", "few"), ("a", "b", "c", "d"), (0, 0, 0, 1))
    values = np.array([10.0, 20.0, 30.0, 60.0])
    scores = MaskScores(about, {}, values)
    assert scores.by_set(values) == [20, 60]
    assert scores.mean(values) == 40
    trial = Trial(None, None, 0.4)
    assert MaskScores(about, {trial: values}, values - 1).warning is None
    warning = MaskScores(about, {trial: values}, values + 1).warning
    assert "the best trial (J&F 40.0) is worse than masks that do not move (41.0)" in warning


def test_kept_features_come_back(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(4, 16, 16, 6)).astype(np.float32)
    kept = FeatureCache(tmp_path, SHAPES)
    kept.write_maps(7, [WHO, Setting("motion", step(0.9), 2)], (FeatureMap(GRID, m) for m in maps))
    read = np.stack([features.descriptors for features in kept.read_maps(7, WHO)])
    assert np.array_equal(read, maps[..., :3])


def test_a_disk_that_is_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")(3_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    kept = FeatureCache(tmp_path, SHAPES)
    # A frame of motion is 3072 bytes, one of appearance 2048.
    kept.require_room(frames=100_000, settings={"motion": 2, "appearance": 4})
    with pytest.raises(
        InputError, match=r"take 3\.1 GB until the end of the run, and .* has 3\.0 GB free"
    ):
        kept.require_room(frames=100_000, settings={"motion": 6, "appearance": 6})


def test_clips_that_cannot_be_scored_are_refused() -> None:
    clip = crossing_clip("made")
    points, visible = np.zeros((0, 9, 2), np.float32), np.zeros((0, 9), np.bool_)

    def annotated(masks: np.ndarray | None) -> AnnotatedClip:
        return AnnotatedClip("made", clip.frames, points, visible, masks)

    assert len(crop_clip(annotated(clip.masks), 5).masks) == 5
    with pytest.raises(InputError, match="made has no masks"):
        crop_clip(annotated(None), 9)
    with pytest.raises(InputError, match="the first mask of clip made marks no object"):
        crop_clip(annotated(0 * clip.masks), 9)
    with pytest.raises(InputError, match="of clip made 2 frames are used"):
        crop_clip(annotated(clip.masks), 2)


# The new card


def test_a_written_card_differs_in_the_choice_alone(card: Path) -> None:
    masks = load_card(str(card)).masks
    chosen = replace_masks(masks, WHO, WHAT, 0.25)
    assert chosen.propagation == msgspec.structs.replace(masks.propagation, motion_weight=0.25)
    assert (chosen.motion.feature.block, chosen.appearance.feature.block) == (1, 0)
    assert chosen.motion.feature.noise_level == 0.9
    assert chosen.motion.feature.timestep == 900
    assert chosen.motion.input == masks.motion.input
    assert chosen.appearance.feature.noise_seed == masks.appearance.feature.noise_seed


# The command line

REFUSED = [
    ((), "either --weights DIR or --random-weights"),
    (("--random-weights", "--bands", "0-1"), "--bands does not apply to --task masks"),
    (("--random-weights", "--tensor", "keys"), "--tensor does not apply to --task masks"),
    (("--random-weights", "--blocks", "0-3"), "has blocks 0 to 2"),
    (("--random-weights", "--noise", "1"), "numbers between 0 and 1"),
    (("--random-weights", "--motion-weight", "0,0.5"), "numbers between 0 and 1"),
    (("--random-weights", "--motion-weight", "a"), "is not a list of numbers"),
    (("--random-weights", "--data", "nowhere"), "nowhere does not exist"),
    (("--random-weights", "--frames", "2"), "2 frames are used"),
    (("--weights", "no-folder", "--clips", "1"), "no checkpoint folder at no-folder"),
]


@pytest.mark.parametrize(("options", "complaint"), REFUSED)
def test_options_that_make_no_sense(
    card: Path, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    before = sorted(tmp_path.iterdir())
    done = run(card, "-o", tmp_path / "report", *options)
    assert isinstance(done.exception, VditrackError), done.output
    assert complaint in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_cards_that_cannot_be_tried_are_refused(tmp_path: Path) -> None:
    points = tmp_path / "points.toml"
    points.write_text(TINY_CARD)
    assert "has no [masks]" in str(run(points, "--random-weights").exception)
    assert "has a UNet" in str(run("i2vgen-xl", "--random-weights").exception)


def test_points_take_no_weight_of_motion_and_need_data(card: Path) -> None:
    points = ("--random-weights", "--task", "points")
    assert "does not apply to --task points" in str(
        run(card, *points, "--motion-weight", "0.5").exception
    )
    assert "give --data" in str(run(card, *points).exception)
