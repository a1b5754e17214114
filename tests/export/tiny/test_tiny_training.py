"""The recipe of the bundled model: its losses by hand, its keys, and runs that resume exactly."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

import typer  # noqa: E402
from diffusers.models.transformers import transformer_wan  # noqa: E402

from vditrack.coordinates import cells_from_pixels  # noqa: E402
from vditrack.synthetic.layers.clips import SyntheticClip, render_clip  # noqa: E402
from vditrack_export.families.tiny.autoencoder import TinyEncoder  # noqa: E402
from vditrack_export.tiny import recipe, train, validation  # noqa: E402
from vditrack_export.tiny.cameras import draw_blur_kernel, draw_shade  # noqa: E402
from vditrack_export.tiny.losses import (  # noqa: E402
    bilinear_target,
    compare_frames,
    matching_loss,
    trivial_denoising,
)
from vditrack_export.tiny.model import (  # noqa: E402
    BUNDLED,
    build_transformer,
    make_empty_prompt,
    read_normed_keys,
    rotate_keys,
)
from vditrack_export.tiny.pictures import build_pyramid, draw_picture  # noqa: E402
from vditrack_export.tiny.quadruples import View, draw_views, track_points  # noqa: E402


@pytest.fixture
def small_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shrink the recipe's sizes, not its parts."""
    monkeypatch.setattr(train, "BATCH", 2)
    monkeypatch.setattr(train, "POINTS", 8)
    monkeypatch.setattr(train, "SMALL", (32, 32))
    monkeypatch.setattr(train, "FULL", (32, 48))
    monkeypatch.setattr(train, "CALIBRATION_BATCHES", 2)


def test_a_bilinear_target_splits_a_point_among_its_four_cells() -> None:
    target = bilinear_target(torch.tensor([[1.25, 0.5]]), rows=2, columns=4)
    expected = [[0, 0.375, 0.125, 0], [0, 0.375, 0.125, 0]]
    torch.testing.assert_close(target.view(2, 4), torch.tensor(expected))


def test_a_bilinear_target_beyond_the_outermost_centres_is_the_outermost_cell() -> None:
    target = bilinear_target(torch.tensor([[-0.4, 5.0]]), rows=3, columns=2)
    torch.testing.assert_close(target.view(3, 2), torch.tensor([[0.0, 0], [0, 0], [1, 0]]))


def softmax_loss(cosines: list[float], wanted: int) -> float:
    exponentials = [math.exp(cosine / 0.05) for cosine in cosines]
    return -math.log(exponentials[wanted] / sum(exponentials))


def test_the_matching_loss_is_that_of_a_softmax_over_cells_and_nowhere() -> None:
    cosines = [0.3, 0.9, -0.2]
    seen, hidden = torch.tensor([[0.0, 1, 0]]), torch.zeros(1, 3)
    nowhere = torch.tensor(0.6)
    found = matching_loss(torch.tensor([cosines]), seen, nowhere)
    lost = matching_loss(torch.tensor([cosines]), hidden, nowhere)
    torch.testing.assert_close(found, torch.tensor([softmax_loss([*cosines, 0.6], 1)]))
    torch.testing.assert_close(lost, torch.tensor([softmax_loss([*cosines, 0.6], 3)]))


def test_a_hidden_point_pushes_the_best_cosine_down_and_nowhere_up() -> None:
    cosines, nowhere = torch.tensor([[0.3, 0.9, -0.2]]), torch.tensor(0.6)
    cosines.requires_grad_(True)
    nowhere.requires_grad_(True)
    matching_loss(cosines, torch.zeros(1, 3), nowhere).sum().backward()
    assert cosines.grad is not None and nowhere.grad is not None
    assert cosines.grad.argmax() == 1 and cosines.grad[0, 1] > 19 and nowhere.grad < -19


def test_cosines_of_pairs_are_those_of_points_and_cells_one_by_one() -> None:
    torch.manual_seed(0)
    maps, cells = torch.randn(2, 3, 4, 5, 6), torch.rand(2, 7, 3, 2) * torch.tensor([4.0, 3.0])
    got = compare_frames(maps, cells)
    assert got.shape == (2, 3, 3, 7, 20)
    for clip, source, target, point, cell in ((0, 0, 1, 2, 3), (1, 2, 0, 6, 19), (1, 1, 1, 0, 8)):
        x, y = cells[clip, point, source].tolist()
        left, top = min(int(x), 3), min(int(y), 2)
        right, down = x - left, y - top
        square = maps[clip, source, top : top + 2, left : left + 2]
        above = square[0, 0] * (1 - right) + square[0, 1] * right
        template = above * (1 - down) + down * (square[1, 0] * (1 - right) + square[1, 1] * right)
        wanted = torch.cosine_similarity(template, maps[clip, target, cell // 5, cell % 5], dim=0)
        torch.testing.assert_close(got[clip, source, target, point, cell], wanted)


def clip_of(points: Any, visible: Any, size: int) -> SyntheticClip:
    frames = np.zeros((points.shape[1], size, size, 3), np.uint8)
    return SyntheticClip(frames, points, visible, np.zeros(len(points), np.int64))


def test_every_seen_point_is_sought_in_every_other_frame_of_its_clip() -> None:
    rng, torch_rng = np.random.default_rng(0), torch.Generator().manual_seed(0)
    clips = [
        clip_of(rng.uniform(0, 32, (5, 4, 2)).astype(np.float32), rng.random((5, 4)) < 0.6, 32)
        for _ in range(2)
    ]
    maps = torch.randn(2, 4, 4, 4, 8, generator=torch_rng)
    model = recipe.Recipe(replace(recipe.BUNDLED, layers=2))
    cosines = compare_frames(
        maps, torch.from_numpy(np.stack([cells_from_pixels(c.points, 8) for c in clips]))
    )
    seen, hidden = [], []
    for number, clip in enumerate(clips):
        for point, source, target in np.ndindex(5, 4, 4):
            if source == target or not clip.visible[point, source]:
                continue
            row = cosines[number, source, target, point][None]
            cell = torch.from_numpy(cells_from_pixels(clip.points[point, target], 8))[None]
            if clip.visible[point, target]:
                wanted = bilinear_target(cell, 4, 4)
                seen.append(matching_loss(row, wanted, model.no_match))
            else:
                hidden.append(matching_loss(row, torch.zeros(1, 16), model.no_match))
    matching, nowhere = model.match_all_frames(maps, clips)
    assert seen and hidden
    torch.testing.assert_close(matching, torch.stack(seen).mean())
    torch.testing.assert_close(nowhere, torch.stack(hidden).mean())


def test_clips_without_hidden_points_lose_nothing_by_them() -> None:
    clip = clip_of(np.full((3, 4, 2), 9.0, np.float32), np.ones((3, 4), np.bool_), 16)
    model = recipe.Recipe(replace(recipe.BUNDLED, layers=2))
    _, hidden = model.match_all_frames(torch.randn(1, 4, 2, 2, 8), [clip])
    assert hidden.item() == 0


def test_the_area_under_the_curve_counts_the_pairs_in_order() -> None:
    seen, hidden = np.array([0.9, 0.5, 0.2]), np.array([0.5, 0.1])
    # In order: 0.9 twice, 0.5 once and a half, 0.2 once.
    assert validation.auc(seen, hidden) == pytest.approx(4.5 / 6)


def painted(view: View) -> View:
    """Give layer ``n`` of a clip the one colour (20 n, 255 - 20 n, 0), under even light."""
    layers = []
    for number, layer in zip(view.order, view.scene.layers, strict=True):
        picture = layer.picture.copy()
        picture[..., :3] = 20 * number, 255 - 20 * number, 0
        layers.append(replace(layer, picture=picture))
    shade, smear = np.ones((96, 128), np.float32), np.ones((1, 1), np.float32)
    scene = replace(view.scene, layers=tuple(layers), shade=shade, smear=smear)
    return replace(view, scene=scene)


@pytest.mark.slow
def test_points_are_seen_or_hidden_as_the_pixels_say() -> None:
    right, seen, covered = 0, 0, 0
    for seed in range(8):
        rng = np.random.default_rng(seed)
        views = [painted(view) for view in draw_views(rng, 96, 128, ())]
        reds = [view.scene.render(time)[..., 0] for view in views for time in view.times]
        points, visible = track_points(rng, views, picked=40)
        for number, picked_in in enumerate(np.repeat(np.arange(4), 40)):
            assert visible[number, picked_in]
            own = around(reds[picked_in], points[number, picked_in])
            if np.ptp(own):
                continue  # On an edge, where colours mix.
            for red, point, told in zip(reds, points[number], visible[number], strict=True):
                if not ((point >= 0).all() and (point < (128, 96)).all()):
                    assert not told
                    continue
                same = around(red, point) == own[1, 1]
                # Two layers' colours mix where edges meet: hence shares for what is seen.
                right, seen = right + bool(told and same.any()), seen + bool(told)
                covered += not told
                assert told or not same.all()
    assert covered > 80 and seen > 2000 and right > 0.99 * seen


def around(red: Any, point: Any) -> Any:
    column, row = np.floor(point).astype(int)
    return np.pad(red.astype(int), 1, mode="edge")[row : row + 3, column : column + 3]


@pytest.mark.slow
def test_windows_far_apart_differ_in_scale_by_up_to_two_and_in_angle() -> None:
    zooms, turns = [], []
    for seed in range(60):
        first, second = draw_views(np.random.default_rng(seed), 32, 32, ())
        before, after = (view.scene.layers[0].motion.waves.base for view in (first, second))
        if (before != after).any():
            zooms.append(abs(after[2] - before[2]))
            turns.append(abs(after[3] - before[3]))
    assert 25 < len(zooms) < 55, "some clips go on, others leave a gap"
    assert 0.5 < max(zooms) <= np.log(2) and np.median(zooms) > 0.2
    assert max(turns) > np.pi / 4 and 0.2 < np.median(turns) < np.pi / 4


def test_shadows_only_darken_and_smears_move_nothing() -> None:
    rng = np.random.default_rng(0)
    shades = [draw_shade(rng, 24, 32) for _ in range(20)]
    assert all(shade.min() > 0 and shade.max() <= 1 for shade in shades)
    assert min(shade.min() for shade in shades) < 0.6
    for _ in range(30):
        smear = draw_blur_kernel(rng)
        np.testing.assert_allclose(smear, smear[::-1, ::-1])
        assert smear.sum() == pytest.approx(1, abs=1e-5)


def test_pictures_have_their_size_with_and_without_photographs() -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 255, (210, 300, 3), np.uint8)
    levels = build_pyramid(photo)
    assert [level.shape[:2] for level in levels] == [(210, 300), (105, 150), (52, 75)]
    for photos in ((), (levels,)):
        for height, width in ((16, 300), (90, 40), (500, 500)):
            for _ in range(5):
                picture = draw_picture(rng, height, width, photos)
                assert picture.shape == (height, width, 3) and picture.dtype == np.uint8


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.8])
def test_no_linear_guess_from_one_value_beats_the_trivial_loss(sigma: float) -> None:
    rng = np.random.default_rng(0)
    latent, noise = rng.standard_normal((2, 400_000))
    mixed, wanted = (1 - sigma) * latent + sigma * noise, noise - latent
    best = (mixed @ wanted) / (mixed @ mixed)
    residual = ((wanted - best * mixed) ** 2).mean()
    assert trivial_denoising(sigma) == pytest.approx(residual, rel=0.01)


def test_the_trivial_loss_is_half_pi_over_all_levels() -> None:
    levels = (np.arange(1000) + 0.5) / 1000
    assert np.mean([trivial_denoising(s) for s in levels]) == pytest.approx(np.pi / 2, rel=1e-5)


def test_the_keys_read_are_those_that_the_unmodified_attention_attends_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attended = []
    dispatch = transformer_wan.dispatch_attention_fn

    def record(query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
        attended.append(key)
        return dispatch(query, key, *args, **kwargs)

    monkeypatch.setattr(transformer_wan, "dispatch_attention_fn", record)
    torch.manual_seed(0)
    model = build_transformer().eval()
    latents, timestep = torch.randn(2, 48, 2, 3, 5), torch.tensor([100.0, 300.0])
    with torch.no_grad():
        model(latents, timestep, make_empty_prompt(2))
        keys = rotate_keys(model, read_normed_keys(model, 1, latents, timestep), latents)
    assert keys.shape == (2, 2 * 3 * 5, BUNDLED.heads, BUNDLED.head_dim)
    # Self- and cross-attention take turns: the third call is block 1's self-attention.
    torch.testing.assert_close(keys, attended[2], atol=1e-5, rtol=1e-5)
    # The run for the keys alone ended before it: two more calls, of block 0.
    assert len(attended) == 2 * BUNDLED.layers + 2


def test_an_encoder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    encoder = TinyEncoder().eval()
    frames = torch.rand(1, 3, 16, 24) * 2 - 1
    encoder.save(tmp_path)
    torch.testing.assert_close(TinyEncoder.load(tmp_path)(frames), encoder(frames))
    assert encoder(frames).shape == (1, 48, 2, 3)


def steps(run: train.Training, clips: train.Clips, count: int) -> None:
    for _ in range(count):
        batch = [clips[run.done + k] for k in range(train.BATCH)]
        train.train_step(run, batch, seed=3, total=len(clips))


@pytest.mark.slow
@pytest.mark.usefixtures("small_run")
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    clips = train.Clips((), seed=3, total=6)
    straight = train.start_training(seed=3)
    steps(straight, clips, 1)
    train.save_run(straight, tmp_path)
    before = copy.deepcopy(straight.state()["recipe"])
    steps(straight, clips, 2)

    resumed = train.start_training(seed=99)
    resumed.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    steps(resumed, clips, 2)

    assert resumed.done == straight.done == 6
    for part in ("recipe", "average"):
        wanted, got = straight.state()[part], resumed.state()[part]
        assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    after = straight.state()["recipe"]
    assert not torch.equal(before["encoder.head.weight"], after["encoder.head.weight"])


@pytest.mark.usefixtures("small_run")
def test_calibrated_latents_have_zero_mean_and_unit_variance() -> None:
    run = train.start_training(seed=0)
    clips = train.Clips((), seed=0, total=8)
    train.calibrate_norm(run.average, clips)
    frames = np.concatenate([clips.at_size(k, (32, 48)).frames for k in range(4)])
    with torch.no_grad():
        latents = run.average.encoder(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
    # Not exactly: the mean of two batches' variances leaves out what is between the batches.
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(
        latents.var(dim=(0, 2, 3)), torch.ones(recipe.BUNDLED.latents), atol=0.4, rtol=0
    )


def test_raw_patches_find_a_frame_in_itself() -> None:
    clip = render_clip(2, 64, 96, frames=1, points=30)
    still = type(clip)(
        np.repeat(clip.frames, 4, axis=0),
        np.repeat(clip.points, 4, axis=1),
        np.repeat(clip.visible, 4, axis=1),
        clip.query_frame,
    )
    # A point that is hidden in one frame alone: there is an area under the curve to speak of.
    still.visible[0, 1:] = False
    shares = validation.measure_shares([still], validation.encode_patches)
    assert shares["near_8px"] > 0.9 and shares["near_8px"] == shares["far_8px"]


@pytest.mark.slow
def test_the_command_trains_refuses_to_overwrite_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clips are made in a process of their own, which these do not reach: they stay as they are.
    monkeypatch.setattr(train, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(train, "LOG_STEPS", 1)
    monkeypatch.setattr(train, "FULL", train.SMALL)
    monkeypatch.setattr(validation, "CLIPS", 2)
    photos, out = tmp_path / "photos", tmp_path / "run"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(28):
        photo = cv2.resize(rng.integers(0, 255, (9, 9, 3), np.uint8), (220, 220))
        cv2.imwrite(str(photos / f"{number:02}.png"), photo)
    app = typer.Typer()
    app.command()(train.train)
    arguments = ["--photos", str(photos), "--out", str(out), "--clips"]

    first = CliRunner().invoke(app, [*arguments, "8"])
    assert first.exit_code == 0, first.output
    assert {path.name for path in (out / "weights").iterdir()} == {
        "encoder.json",
        "encoder.safetensors",
        "vdit",
    }
    assert cv2.imread(str(out / "curves.png")) is not None
    assert CliRunner().invoke(app, [*arguments, "16"]).exit_code == 2

    # A second process for clips would only import PyTorch once more.
    monkeypatch.setattr(
        train,
        "load_batches",
        lambda clips, done: [[clips[k] for k in range(done, done + train.BATCH)]],
    )
    assert CliRunner().invoke(app, [*arguments, "16", "--resume"]).exit_code == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["clips"] for entry in log if "matching" in entry] == [8, 16]
    assert {"near_2px", "far_auc", "denoising_0.9"} <= log[-1].keys() and "patches_near_2px" in log[
        0
    ]
