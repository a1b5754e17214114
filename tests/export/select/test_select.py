"""`vditrack select`: what it scores is what export cuts, and the best is what is truly best."""

import json
import sys
from importlib.metadata import EntryPoint
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import torch
from diffusers import CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from doubles.cards import TINY_MODEL, make_card, save_card
from doubles.commands import run_command
from doubles.manifest import MATCHING
from doubles.pipelines import FAMILY_SECTIONS
from vditrack import VditrackError
from vditrack.bundle.manifest import Input
from vditrack.cli import app as cli
from vditrack.coordinates import Grid
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import clip_features, describe_in_windows
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack.synthetic.layers.suite import render_suite
from vditrack_export.card import Card, load_card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.read_spec import Denoising, seeded_noise
from vditrack_export.families.tiny.autoencoder import TinyEncoder
from vditrack_export.families.transformer_denoiser import TransformerDenoiser
from vditrack_export.families.unet.shapes import UNet
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.empty_prompt import random_prompt
from vditrack_export.pipeline.export import export_bundle
from vditrack_export.select.cli import select
from vditrack_export.select.new_card import write_card
from vditrack_export.select.points.accuracy import (
    ClipAccuracy,
    count_chance,
    count_still,
    soft_argmax,
)
from vditrack_export.select.points.frequency_bands import Bands, iterate_band_cosines, make_bands
from vditrack_export.select.points.heatmap import draw_heat_map
from vditrack_export.select.points.pairs import (
    GAPS,
    Source,
    choose_sources,
    list_needed_windows,
    list_windows,
)
from vditrack_export.select.points.run import score_points
from vditrack_export.select.points.scores import Scores, Space
from vditrack_export.select.points.task import replace_feature

_CARDS = sorted(path.stem for path in (Path(__file__).parents[3] / "models").glob("*.toml"))


def denoise_at(card: Card, noise: float) -> Denoising:
    return card.family.denoiser.denoising_at(card.feature, noise)


# A UNet has neither heads nor rotary frequencies to choose.
SHIPPED = [name for name in _CARDS if not isinstance(load_card(name).transformer, UNet)]

TINY = make_card(
    TINY_MODEL.replace("heads = 2", "heads = 3"), width=64, frames=2, described_frames=1
)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return save_card(tmp_path, TINY)


def run(card: Path | str, *options: object) -> Any:
    return run_command(select, card, *options)


# What is scored is what export cuts


Seen = dict[tuple[int, int, int], Tensor]
"""What is scored, [cells, heads, head_dim], by level, block and frame."""


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What the scorers of one clip are given, where all three blocks are tried."""
    found: Seen = {}
    scorers: list[ClipAccuracy] = []
    add, begin = ClipAccuracy.add, ClipAccuracy.__init__

    def begun(self: ClipAccuracy, *arguments: Any) -> None:
        scorers.append(self)
        begin(self, *arguments)

    def added(self: ClipAccuracy, frame: int, descriptors: Tensor) -> None:
        level, block = divmod(scorers.index(self), 3)
        found[level, block, frame] = descriptors
        add(self, frame, descriptors)

    monkeypatch.setattr(ClipAccuracy, "__init__", begun)
    monkeypatch.setattr(ClipAccuracy, "add", added)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILY_SECTIONS)
def test_descriptors_are_those_of_the_bundle(family: str, tmp_path: Path, seen: Seen) -> None:
    """From frames, through windows, encoder, noise and rotation to heads and channels."""
    # CogVideoX takes its levels from a schedule of steps.
    step = {"timestep": 19.0, "noise_level": 0.23114286} if family == "cogvideox" else {}
    (tmp_path / "small.toml").write_text(make_card(FAMILY_SECTIONS[family], **step))
    assert compared_with_bundle(tmp_path, 9, seen) == {0, 1, 4, 8}


def compared_with_bundle(folder: Path, frames: int, seen: Seen) -> set[int]:
    """Choose, write the card, export it, and compare; returns the frames that were compared."""
    written = folder / "chosen.toml"
    data = ("--data", "synthetic:0", "--clips", "1", "--frames", frames)
    options = ("--noise", "0.2,0.5", "--bands", "0.3-1", "--write", written, "--json")
    done = run(folder / "small.toml", "--random-weights", *data, *options)
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    chosen = load_card(str(written))
    feature, best = chosen.feature, told["best"]
    assert (feature.block, list(feature.heads)) == (best["block"], best["heads"])
    level = told["axes"]["noise_levels"].index(feature.noise_level)
    bundle = export_bundle(chosen, Weights(None), folder / "bundle", lambda _: None)
    source = bundle.manifest.source
    clip = next(render_suite(0))
    maps = list(clip_features(FeatureExtractor(bundle), clip.frames[:frames]))
    compared = {frame for of, block, frame in seen if (of, block) == (level, feature.block)} & set(
        needed_frames(frames)
    )
    for frame in compared:
        every = seen[level, feature.block, frame]
        found = every[:, list(source.heads)][:, :, list(source.channels)].flatten(1)
        exported = torch.from_numpy(maps[frame].descriptors).flatten(0, 1)
        assert (found - exported).abs().max() <= 1e-5 * exported.abs().max()
    return compared


def needed_frames(length: int) -> set[int]:
    return {s + gap for s in range(0, length, 8) for gap in (0, *GAPS) if s + gap < length}


@given(
    st.sampled_from([(1, 1, 1), (2, 1, 1), (2, 2, 1), (5, 5, 1), (9, 4, 4), (9, 9, 4), (5, 2, 1)]),
    st.integers(1, 30),
    st.integers(0, 3),
)
def test_windows_are_those_of_the_runtime(
    size: tuple[int, int, int], length: int, overlap: int
) -> None:
    """The same frames beside each frame, as far as whole windows go."""
    frames, described, stride = size
    overlap = min(overlap, max(1, (frames - 1) // stride))
    given_size = Input(
        height=8,
        width=8,
        frames=frames,
        described_frames=described,
        temporal_stride=stride,
        overlap=overlap,
    )
    latents = -(-(length - 1) // stride) + 1
    whole = given_size.described_latents == given_size.latents
    if whole and latents > given_size.latents:
        # Their tail is left out here, and the runtime's last window is moved back.
        latents -= (latents - given_size.latents) % max(1, given_size.latents - overlap)

    def describe(window: list[int]) -> list[tuple[int, tuple[int, ...]]]:
        newest = range(len(window))[-given_size.described_latents :]
        return [(window[place], tuple(window)) for place in newest]

    units = (stride * latent for latent in range(latents))
    sizes = given_size.latents, given_size.described_latents, overlap
    of_runtime: dict[int, tuple[int, ...]] = {}
    for frame, window in describe_in_windows(units, *sizes, describe):  # type: ignore[arg-type]
        of_runtime.setdefault(frame, window)  # type: ignore[call-overload]
    found: dict[int, tuple[int, ...]] = {}
    last = stride * (latents - 1)
    for window in list_windows(last + 1, given_size):
        for frame in window.described:
            if frame <= last:
                found.setdefault(frame, tuple(window.frames[::stride].tolist()))
    # A last window that has no frame for all of its latents is moved back by the runtime alone.
    missing = of_runtime.keys() - found.keys()
    assert len(missing) < max(given_size.described_latents, 1)
    assert found == {frame: of_runtime[frame] for frame in found}


def test_only_windows_that_are_compared_are_run() -> None:
    size = Input(height=8, width=8, frames=2, described_frames=1, temporal_stride=1)
    described = [window.described[0] for window in list_needed_windows(25, size)]
    assert described == [0, 1, 4, 8, 9, 12, 16, 17, 20, 24]


# The score, by its definition

GRID = Grid(5, 7, 8)
SETTINGS = msgspec.structs.replace(MATCHING, temperature=0.2, argmax_radius=9)
BANDS = Bands(((0, 1), (0.5, 1)), ((0, 1, 2, 3), (2, 3)), ((0, 1), (2, 3)), ((0, 1), (1,)))


def clip_of(points: np.ndarray, visible: np.ndarray) -> AnnotatedClip:
    frames = np.zeros((points.shape[1], GRID.height, GRID.width, 3), np.uint8)
    return AnnotatedClip("made", frames, points.astype(np.float32), visible)


def bilinear(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    """Of a map [rows, columns, C] at model pixels, constant beyond the outermost centres."""
    column = min(max(x / 8 - 0.5, 0), plane.shape[1] - 1)
    row = min(max(y / 8 - 0.5, 0), plane.shape[0] - 1)
    total = np.zeros(plane.shape[2])
    for i, j in product(range(plane.shape[0]), range(plane.shape[1])):
        total += max(0, 1 - abs(row - i)) * max(0, 1 - abs(column - j)) * plane[i, j]
    return total


def template(plane: np.ndarray, x: float, y: float) -> np.ndarray:
    places = [(dx, dy, np.exp(-3 * np.hypot(dx, dy))) for dx, dy in product((-1, 0, 1), repeat=2)]
    weights = sum(weight for _, _, weight in places)
    return sum(weight * bilinear(plane, x + dx, y + dy) for dx, dy, weight in places) / weights


def sought(wanted: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Best cell, and the mean of the cell centres within 9 pixels of its centre."""
    rows, columns, _ = plane.shape
    cosine = {
        (i, j): wanted @ plane[i, j] / np.linalg.norm(wanted) / np.linalg.norm(plane[i, j])
        for i, j in product(range(rows), range(columns))
    }
    i, j = max(cosine, key=cosine.__getitem__)
    near = [(k, m) for k, m in cosine if 8 * np.hypot(k - i, m - j) <= 9]
    weights = np.array([np.exp(cosine[cell] / 0.2) for cell in near])
    centres = np.array([(8 * (m + 0.5), 8 * (k + 0.5)) for k, m in near])
    return weights @ centres / weights.sum()


def test_the_score_is_the_mean_share_within_thresholds() -> None:
    rng = np.random.default_rng(0)
    points, visible = rng.uniform(0, 40, (20, 1, 2)), rng.random((20, 10)) < 0.8
    points = points + rng.normal(size=(20, 10, 2))
    surface = rng.normal(size=(5, 7, 2, 4))
    maps = {frame: surface + 0.7 * rng.normal(size=surface.shape) for frame in (0, 1, 4, 8, 9)}
    clip = clip_of(points, visible)
    taken = choose_sources(visible, maps.keys())
    counts = ClipAccuracy(clip, taken, GRID, BANDS, 3, SETTINGS)
    for frame, plane in maps.items():
        counts.add(frame, torch.from_numpy(plane.astype(np.float32)).flatten(0, 1))
    hits = np.zeros((2, 3, 4))
    asked = np.zeros(4)
    for start, gap in [(0, 1), (0, 4), (0, 8), (8, 1)]:
        for n in np.flatnonzero(visible[:, start] & visible[:, start + gap]):
            asked[GAPS.index(gap)] += 1
            for (b, kept), (r, heads) in product(
                enumerate([slice(0, 4), slice(2, 4)]), enumerate([[0], [1], [0, 1]])
            ):
                before, now = (
                    maps[t][:, :, heads, kept].reshape(5, 7, -1) for t in (start, start + gap)
                )
                found = sought(template(before, *clip.points[n, start]), now)
                error = (found - clip.points[n, start + gap]) * [256 / 56, 256 / 40]
                shares = [np.hypot(*error) < k for k in (1, 2, 4, 8, 16)]
                hits[b, r, GAPS.index(gap)] += np.mean(shares)
    assert asked.tolist()[3] == 0
    assert np.array_equal(counts.hits.searched, asked)
    found_percent = counts.hits.percent
    assert np.allclose(found_percent[..., :3], 100 * hits[..., :3] / asked[:3])
    assert np.isnan(found_percent[..., 3]).all()
    assert len(np.unique(found_percent[..., 0])) > 3


def test_every_band_is_what_its_channels_give() -> None:
    card = load_card("wan2.1-t2v-1.3b")
    bands = make_bands(card, [(0.15, 1.0), (0, 1.0), (0.0, 0.5), (0.6, 0.9), (0.151, 1.0)])
    assert bands.ranges == ((0.0, 0.5), (0, 1.0), (0.15, 1.0), (0.6, 0.9))
    assert bands.channels[2] == (*range(6, 44), *range(50, 86), *range(92, 128))
    generator = torch.Generator().manual_seed(0)
    templates, cells = (torch.randn(n, 2, 128, generator=generator) for n in (3, 5))
    for kept, cosines in zip(
        bands.channels, iterate_band_cosines(templates, cells, bands), strict=True
    ):
        for reading, heads in enumerate([[0], [1], [0, 1]]):
            a, b = (x[:, heads][..., list(kept)].flatten(1) for x in (templates, cells))
            expected = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
            assert torch.allclose(cosines[reading], expected, atol=1e-6)


def test_the_peak_at_an_edge_keeps_to_the_map() -> None:
    cosines = torch.zeros(1, 35)
    cosines[0, 6] = 1
    wide = msgspec.structs.replace(SETTINGS, temperature=1e6)
    # Of the corner and its two neighbours, all of one weight.
    assert torch.allclose(soft_argmax(cosines, GRID, wide), torch.tensor([[52 - 8 / 3, 4 + 8 / 3]]))
    sharp = msgspec.structs.replace(SETTINGS, temperature=1e-3)
    assert torch.allclose(soft_argmax(cosines, GRID, sharp), torch.tensor([[52.0, 4.0]]))


def test_chance_and_no_motion() -> None:
    rng = np.random.default_rng(1)
    points, visible = rng.uniform(0, 40, (500, 2, 2)), np.ones((500, 2), np.bool_)
    points[:, 1] = points[:, 0] + [0, 1.0]
    clip, taken = clip_of(points, visible), (Source(0, np.arange(500)),)
    # One pixel of 40 rows is 6.4 of 256: within 8 and 16, two of five thresholds.
    assert count_still(clip, taken, GRID, {0, 1}).percent[0] == pytest.approx(40)
    drawn = 8 * (rng.integers(0, (7, 5), (20_000, 2)) + 0.5)
    error = (drawn - clip.points[rng.integers(0, 500, 20_000), 1]) * [256 / 56, 256 / 40]
    simulated = np.mean([np.hypot(*error.T) < k for k in (1, 2, 4, 8, 16)])
    assert count_chance(clip, taken, GRID, {0, 1}).percent[0] == pytest.approx(
        100 * simulated, abs=0.2
    )


def test_many_points_are_thinned_evenly() -> None:
    visible = np.ones((300, 9), np.bool_)
    visible[:100, 0] = False
    first, second = choose_sources(visible, {0, 8})
    assert (first.frame, second.frame, len(first.tracks), len(second.tracks)) == (0, 8, 64, 64)
    assert (first.tracks[0], first.tracks[-1]) == (100, 299)
    assert set(np.diff(first.tracks)) <= {3, 4}
    assert choose_sources(np.zeros((3, 9), np.bool_), {0, 8}) == ()


# A planted truth

BLOCK, HEAD, LOW = 1, 2, 0.4


def planted(card: Card, space: Space) -> Backbone:
    """A random model, all of whose keys but those of one band of one head know positions alone.

    Channels of high frequency are the same in all cells before they are rotated, in all heads; of
    the others all are zero but the planted head's, which are a linear map of the cell's tokens.
    """
    checkpoint = random_checkpoint(msgspec.structs.replace(card, feature=deepest(card)))
    (kept,) = make_bands(card, [(LOW, 1.0)]).channels
    low = torch.zeros(3, 32, dtype=torch.bool)
    low[:, list(kept)] = True
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for index, block in enumerate(checkpoint.transformer.blocks):
            keys = block.attn1.to_k
            noise = 4 * torch.randn(3, 32, generator=generator)
            keys.bias.copy_(torch.where(low, 0, noise).flatten())
            carrying = low.clone()
            carrying[torch.arange(3) != HEAD] = False
            keys.weight *= (carrying & (index == BLOCK)).flatten()[:, None] * 20
    return Backbone(card, checkpoint, random_prompt(card), random=True)


def deepest(card: Card) -> Any:
    return msgspec.structs.replace(card.feature, block=card.transformer.layers - 1)


def jumping_clip(seed: int) -> AnnotatedClip:
    """A random texture that jumps by whole cells, so that nearness tells nothing."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)
    texture = cv2.resize(texture, (192, 192), interpolation=cv2.INTER_CUBIC)
    jumps = 8 * np.stack([rng.permutation(9), rng.permutation(9)], axis=1)
    frames = np.stack([texture[y : y + 64, x : x + 64] for x, y in jumps])
    # Centres of cells.
    points = 8 * rng.integers(2, 14, (80, 1, 2)) + 4.0 - jumps
    visible = ((points > 0) & (points < 64)).all(-1)
    return AnnotatedClip(f"jumping-{seed}", frames, points.astype(np.float32), visible)


@pytest.fixture(scope="module")
def found_planted(tmp_path_factory: pytest.TempPathFactory) -> Scores:
    path = tmp_path_factory.mktemp("planted") / "small.toml"
    path.write_text(TINY)
    card = load_card(str(path))
    steps = (denoise_at(card, 0.01), denoise_at(card, 0.95))
    bands = make_bands(card, [(0.0, 1.0), (0.0, LOW), (LOW, 1.0)])
    space = Space(steps, (0, 1, 2), bands, 3)
    clips = [jumping_clip(seed) for seed in range(4)]
    return score_points(planted(card, space), space, clips, 9, lambda *_: None)


def test_the_planted_head_is_found(found_planted: Scores) -> None:
    scores = found_planted
    best, *others = scores.ranked()
    assert (best.block, best.heads, best.frequency_range) == (BLOCK, (HEAD,), (LOW, 1.0))
    assert best.denoising.noise == 0.01
    assert best.channels == 20
    by_chance = float(np.nanmean(scores.chance))
    assert scores.estimate(best).mean > 10 * by_chance
    # All heads read as well in this band, where the others are zero; nothing else comes near.
    assert (others[0].heads, others[0].place[:3]) == ((0, 1, 2), best.place[:3])
    assert scores.estimate(best).mean > 4 * scores.estimate(others[1]).mean
    silent = [c for c in others if c.block != BLOCK or HEAD not in c.heads]
    assert max(scores.estimate(c).mean for c in silent) < by_chance
    assert scores.difference(best, silent[0]).low > 0


def test_the_heat_map_is_a_picture_of_all_panels(found_planted: Scores, tmp_path: Path) -> None:
    draw_heat_map(found_planted, "planted", tmp_path / "map.png")
    picture = cv2.imread(str(tmp_path / "map.png"))
    assert picture.shape[1] > 1.5 * picture.shape[0] > 200
    # The red frames around the best, in the panel of its noise level and in that of its block.
    red = (picture[..., 2] > 220) & (picture[..., :2].max(-1) < 60)
    assert cv2.connectedComponents(cv2.dilate(red.astype(np.uint8), np.ones((3, 3))))[0] == 3


def planted_in_block(tiny: Path, block: int) -> tuple[Backbone, Space]:
    card = load_card(str(tiny))
    space = Space((denoise_at(card, 0.1),), (block,), make_bands(card, [(0.0, 1.0)]), 3)
    return planted(card, space), space


def hidden_clip() -> AnnotatedClip:
    clip = jumping_clip(0)
    return AnnotatedClip("hidden", clip.frames, clip.points, np.zeros_like(clip.visible))


def test_clips_without_pairs_are_refused(tiny: Path) -> None:
    model, space = planted_in_block(tiny, 0)
    clip, hidden = jumping_clip(0), hidden_clip()
    for clips, frames in ([[hidden], 9], [[clip], 1], [[], 9]):
        with pytest.raises(InputError, match="in no clip is a point visible"):
            score_points(model, space, clips, frames, lambda *_: None)


def test_a_clip_without_pairs_is_left_out_of_the_mean(tiny: Path) -> None:
    model, space = planted_in_block(tiny, 1)
    clip, hidden = jumping_clip(0), hidden_clip()
    alone = score_points(model, space, [clip], 9, lambda *_: None)
    both = score_points(model, space, [hidden, clip], 9, lambda *_: None)
    assert np.array_equal(alone.mean, both.mean)
    assert both.estimate(both.ranked()[0]).clips == 1


# Noise levels


@pytest.mark.parametrize("name", SHIPPED)
def test_a_cards_own_level_is_its_own_step(name: str) -> None:
    card = load_card(name)
    feature = card.feature
    step = denoise_at(card, feature.noise_level)
    assert step == Denoising(
        feature.timestep, feature.signal_level, feature.noise_level, feature.noise_seed
    )
    # And that one lies on the schedule of the others: UniPC rounds to whole timesteps.
    beside = denoise_at(card, feature.noise_level + 0.003)
    unit = 1 if name.startswith("cosmos") else 1000
    assert abs(beside.timestep - step.timestep) <= 0.004 * unit
    assert 0 < beside.noise - step.noise < 0.007
    assert step.signal > beside.signal > step.signal - 0.004


def test_flow_matching_is_as_the_scheduler_has_it() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(50)
    clean = torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    for name in ("wan2.1-t2v-1.3b", "ltx-video", "hunyuan-video", "tiny"):
        for step in (3, 30):
            sigma, timestep = float(scheduler.sigmas[step]), scheduler.timesteps[step : step + 1]
            denoising = denoise_at(load_card(name), sigma)
            noised = scheduler.scale_noise(clean, timestep, seeded_noise(clean.shape, 0))
            assert torch.allclose(denoising.noised(clean), noised, atol=1e-5)
            assert denoising.timestep == pytest.approx(float(timestep), rel=1e-5)
    # Its pipeline: timestep and noise are sigma / (1 + sigma), signal is 1 / (1 + sigma).
    denoising = denoise_at(load_card("cosmos-predict2-2b"), 0.2)
    assert denoising.timestep == denoising.noise == 0.2
    assert denoising.signal == pytest.approx(1 / (1 + 0.25))


@pytest.mark.parametrize(("name", "shift"), [("cogvideox-2b", 3.0), ("cogvideox-5b", 1.0)])
@pytest.mark.parametrize("noise", [0.1, 0.25, 0.6, 0.99])
def test_cogvideox_takes_the_nearest_step(name: str, shift: float, noise: float) -> None:
    scheduler = CogVideoXDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=shift,
    )
    denoising = denoise_at(load_card(name), noise)
    clean = torch.randn(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    step = torch.tensor([int(denoising.timestep)])
    noised = scheduler.add_noise(clean, seeded_noise(clean.shape, 0), step)
    assert torch.allclose(denoising.noised(clean), noised, atol=1e-5)
    assert abs(denoising.noise - noise) < 0.005


def test_an_unknown_schedule_is_refused() -> None:
    card = load_card("cogvideox-2b")
    other = msgspec.structs.replace(
        card, feature=msgspec.structs.replace(card.feature, noise_level=0.3)
    )
    assert denoise_at(other, 0.3).timestep == 19
    with pytest.raises(InputError, match="on no known schedule"):
        denoise_at(other, 0.2)


def test_a_choice_that_is_worse_than_nothing_is_warned_of() -> None:
    card = load_card("tiny")
    heads = card.transformer.heads
    space = Space((denoise_at(card, 0.4),), (2,), make_bands(card, [(0.0, 1.0)]), heads)
    accuracy, base = np.full((2, *space.shape, 4), 50.0), np.full((2, 4), 40.0)
    for still, chance, message in (
        (40, 40, None),
        (51, 40, "fewer points (δ 50.0) than points that do not move (51.0)"),
        (40, 52, "fewer points (δ 50.0) than chance (52.0)"),
    ):
        scores = Scores(space, ("a", "b"), accuracy, base * chance / 40, base * still / 40)
        assert (scores.warning is None) == (message is None)
        assert message is None or message in scores.warning


# The new card


@pytest.mark.parametrize("name", SHIPPED)
def test_a_written_card_differs_in_the_choice_alone(name: str, tmp_path: Path) -> None:
    card, path = load_card(name), tmp_path / "new.toml"
    bands = make_bands(card, [(0.0, 1.0), (0.5, 1.0)])
    space = Space((denoise_at(card, 0.4),), (1,), bands, card.transformer.heads)
    made = np.zeros((1, *space.shape, 4))
    made[0, 0, 0, 1, 2] = 50
    (best, *_) = Scores(space, ("clip",), made, made[0, 0, 0, 0, :1], made[0, 0, 0, 0, :1]).ranked()
    assert (best.block, best.heads, best.frequency_range) == (1, (2,), (0.5, 1.0))
    wanted = msgspec.structs.replace(card, feature=replace_feature(card.feature, best))
    write_card(name, wanted, ["feature"], "by a test on clips " + "of many names " * 9, path)
    new = load_card(str(path))
    assert new == wanted
    assert new.feature.selected
    assert (new.feature.noise_level, new.feature.block) == (best.denoising.noise, 1)
    old, written = (
        (Path(__file__).parents[3] / "models" / f"{name}.toml").read_text(),
        path.read_text(),
    )
    # Nothing outside of [feature] changes, and every comment is still there.
    assert written.split("[feature]")[0] == old.split("[feature]")[0]
    assert written.split("[matching]")[1] == old.split("[matching]")[1]
    words = " ".join(written.split())
    comments = [line.partition("#")[2].strip() for line in old.splitlines() if "#" in line]
    assert [comment for comment in comments if " ".join(comment.split()) not in words] == []
    assert '# "select": by a test on clips' in written
    assert max(map(len, written.splitlines())) <= 160
    assert "noise_level = 0.4" in written or name.startswith("cogvideox")


def test_cards_are_not_overwritten(tiny: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[3] / "models" / "tiny.toml"
    before, card = shipped.read_bytes(), load_card("tiny")
    for place, complaint in [
        (shipped, "comes with vditrack"),
        (tiny, "exists already"),
        (tmp_path / "card.txt", "ends in .toml"),
    ]:
        with pytest.raises(InputError, match=complaint):
            write_card("tiny", card, ["feature"], "a test", place)
    assert shipped.read_bytes() == before
    assert tiny.read_text() == TINY
    assert not (tmp_path / "card.txt").exists()


def test_a_card_that_cannot_be_edited_is_refused(tmp_path: Path) -> None:
    begin, end = TINY.split("[feature]")
    section, rest = end.split("[matching]")
    pairs = ", ".join(line for line in section.strip().splitlines())
    odd = tmp_path / "odd.toml"
    odd.write_text(f"feature = {{ {pairs} }}\n{begin}[matching]{rest}")
    card = load_card(str(odd))
    wanted = msgspec.structs.replace(card, feature=msgspec.structs.replace(card.feature, block=2))
    with pytest.raises(InputError, match="cannot be edited"):
        write_card(str(odd), wanted, ["feature"], "a test", tmp_path / "new.toml")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd.toml"]


# The command line

ONE_CLIP = ("--data", "synthetic:0", "--clips", "1", "--frames", "9")


@pytest.fixture
def checkpoint(tmp_path: Path, tiny: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    made = random_checkpoint(load_card(str(tiny)))
    assert isinstance(made.encoder, TinyEncoder)
    made.encoder.save(folder)
    shapes = random_checkpoint(
        msgspec.structs.replace(load_card(str(tiny)), feature=deepest_of(tiny))
    )
    shapes.transformer.save_pretrained(folder / "vdit")
    return folder


def deepest_of(card: Path) -> Any:
    return deepest(load_card(str(card)))


def test_from_a_checkpoint_to_a_card(tiny: Path, checkpoint: Path, tmp_path: Path) -> None:
    output, written = tmp_path / "report", tmp_path / "new.toml"
    options = ("-o", output, "--write", written, "--noise", "0.1,0.3", "--blocks", "0-1,2")
    done = run(tiny, "--weights", checkpoint, *ONE_CLIP, *options)
    assert done.exception is None, done.exception
    assert f"written: {output}" in done.stdout
    assert f"written: {written}" in done.stdout
    assert sorted(path.name for path in output.iterdir()) == ["heatmap.png", "scores.json"]
    told = json.loads((output / "scores.json").read_text())
    every = np.array(told["scores"])
    axes = told["axes"]
    assert axes["noise_levels"] == [0.1, 0.3]
    assert axes["blocks"] == [0, 1, 2]
    assert axes["heads"] == [[0], [1], [2], [0, 1, 2]]
    # Of 6, 5 and 5 pairs 0.15 drops none.
    assert axes["bands"] == [[0.0, 1.0], [0.4, 1.0], [0.6, 1.0]]
    assert every.shape == (2, 3, 3, 4)
    level, block, band, heads = np.unravel_index(every.argmax(), every.shape)
    best = told["best"]
    assert best["accuracy"] == every.max()
    feature = load_card(str(written)).feature
    assert feature.block == best["block"] == axes["blocks"][block]
    assert list(feature.heads) == best["heads"] == axes["heads"][heads]
    assert list(feature.frequency_range) == axes["bands"][band]
    assert feature.noise_level == axes["noise_levels"][level]
    assert feature.timestep == 1000 * feature.noise_level
    own = told["card_choice"]
    assert (own["noise_level"], own["block"], own["heads"]) == (0.1, 1, [1])
    assert own["accuracy"] == every[0, 1, 0, 1]
    assert 0 < told["chance"]["accuracy"] < told["still"]["accuracy"] < 100
    again = run(tiny, "--weights", checkpoint, *ONE_CLIP, *options[:2], *options[4:], "--json")
    assert json.loads(again.stdout) == told


@pytest.mark.parametrize("tensor", ["queries", "hidden"])
def test_other_tensors(tiny: Path, tmp_path: Path, tensor: str) -> None:
    options = ("--tensor", tensor, "--noise", "0.1", "--bands", "0-1", "--json")
    written = tmp_path / "new.toml"
    done = run(tiny, "--random-weights", *ONE_CLIP, *options, "--write", written)
    assert done.exception is None, done.exception
    told = json.loads(done.stdout)
    assert (told["tensor"], told["card_choice"]) == (tensor, None)
    assert load_card(str(written)).feature.tensor == tensor


def test_blocks_above_those_asked_for_are_not_run(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    real = TransformerDenoiser.read_blocks
    monkeypatch.setattr(
        TransformerDenoiser,
        "read_blocks",
        lambda *a: (counts.append(len(a[2].blocks)), real(*a)),
    )
    done = run(tiny, "--random-weights", *ONE_CLIP, "--blocks", "0", "--noise", "0.1,0.2", "--json")
    assert done.exception is None, done.exception
    # Frames 0, 1, 4 and 8, at two levels each.
    assert counts == [1] * 8


REFUSED = [
    ((), "either --weights DIR or --random-weights"),
    (("--random-weights", "--weights", "x"), "either --weights DIR or --random-weights"),
    (("--weights", "no-folder"), "no checkpoint folder at no-folder"),
    (("--random-weights", "--blocks", "0-3"), "has blocks 0 to 2"),
    (("--random-weights", "--blocks", "2-1"), "has blocks 0 to 2"),
    (("--random-weights", "--blocks", "-1"), "is not a list of blocks"),
    (("--random-weights", "--blocks", "a"), "is not a list of blocks"),
    (("--random-weights", "--noise", "0.1,x"), "is not a list of numbers"),
    (("--random-weights", "--noise", "0"), "numbers between 0 and 1"),
    (("--random-weights", "--noise", "nan"), "numbers between 0 and 1"),
    (("--random-weights", "--bands", "0.5"), "is not a list of bands"),
    (("--random-weights", "--bands", "0-1,0.9-0.2"), "0.9-0.2 is not a range within 0-1"),
    (("--random-weights", "--bands", "0-0.05"), "keeps no channel"),
    (("--random-weights", "--write", "card.json"), "ends in .toml"),
    (("--random-weights", "--data", "nowhere"), "nowhere does not exist"),
    (("--random-weights", "--data", "synthetic:x"), "is not a seed"),
]


@pytest.mark.parametrize(("options", "complaint"), REFUSED)
def test_options_that_make_no_sense(
    tiny: Path, tmp_path: Path, options: tuple[str, ...], complaint: str
) -> None:
    before = sorted(tmp_path.iterdir())
    done = run(tiny, "--data", "synthetic:0", "-o", tmp_path / "report", *options)
    assert isinstance(done.exception, VditrackError), done.output
    assert complaint in str(done.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistake_is_one_line_and_exit_code_2(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb = EntryPoint("select", "vditrack_export.select.cli:select", "vditrack.commands")
    monkeypatch.setattr(cli.metadata, "entry_points", lambda group: [verb])
    monkeypatch.setattr(sys, "argv", ["vditrack", "select", str(tiny), "--data", "synthetic:0"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr()
    assert (ended.value.code, told.out) == (2, "")
    assert told.err == "vditrack: give either --weights DIR or --random-weights.\n"
