"""The recipe of the bundled model: its losses by hand, its keys, and runs that resume exactly."""

import copy
import json
import math
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

from vditrack.synthetic.clips import make_clip  # noqa: E402
from vditrack_export.tiny import train, validation  # noqa: E402
from vditrack_export.tiny.losses import (  # noqa: E402
    bilinear_target,
    matching_loss,
    trivial_denoising,
)
from vditrack_export.tiny.model import (  # noqa: E402
    HEAD_DIM,
    HEADS,
    TinyEncoder,
    catch_keys,
    new_transformer,
    prompt,
    rotated,
)
from vditrack_export.tiny.recipe import noise_levels  # noqa: E402


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


def test_the_matching_loss_is_that_of_a_softmax_over_cosines() -> None:
    # Six cells, each with a descriptor of its own: cosine 1 with itself and 0 with the others.
    maps = 3 * torch.eye(6).view(2, 3, 6)
    there, elsewhere = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0]])
    normaliser = math.log(math.exp(1 / 0.05) + 5)
    right = matching_loss(maps, maps, there, there)
    wrong = matching_loss(maps, maps, there, elsewhere)
    torch.testing.assert_close(wrong, torch.tensor([normaliser]))
    torch.testing.assert_close(right, torch.tensor([normaliser - 20]), atol=1e-5, rtol=0)


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


def test_half_the_noise_levels_are_low_and_the_rest_are_everywhere() -> None:
    levels = noise_levels(20_000, torch.Generator().manual_seed(0))
    low = 0.5 + 0.5 * 0.2
    assert (levels < 0.2).float().mean().item() == pytest.approx(low, abs=0.02)
    assert (levels > 0.8).float().mean().item() == pytest.approx(0.5 * 0.2, abs=0.02)


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
    model = new_transformer().eval()
    latents = torch.randn(2, 24, 2, 3, 5)
    with torch.no_grad(), catch_keys(model, block=1) as caught:
        model(latents, torch.tensor([100.0, 300.0]), prompt(2))
    keys = rotated(model, caught.normed, latents)
    assert keys.shape == (2, 2 * 3 * 5, HEADS, HEAD_DIM)
    # Self- and cross-attention take turns: the third call is block 1's self-attention.
    torch.testing.assert_close(keys, attended[2], atol=1e-5, rtol=1e-5)


def test_an_encoder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    encoder = TinyEncoder().eval()
    frames = torch.rand(1, 3, 16, 24) * 2 - 1
    encoder.save(tmp_path)
    torch.testing.assert_close(TinyEncoder.load(tmp_path)(frames), encoder(frames))
    assert encoder(frames).shape == (1, 24, 2, 3)


def steps(run: train.Training, clips: train.Clips, count: int) -> None:
    for _ in range(count):
        batch = [clips[run.done + k] for k in range(train.BATCH)]
        train.train_step(run, batch, seed=3, total=len(clips))


@pytest.mark.usefixtures("small_run")
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path) -> None:
    clips = train.Clips((), seed=3, total=6)
    straight = train.start(seed=3)
    steps(straight, clips, 1)
    train.save(straight, tmp_path)
    before = copy.deepcopy(straight.state()["recipe"])
    steps(straight, clips, 2)

    resumed = train.start(seed=99)
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
    run = train.start(seed=0)
    clips = train.Clips((), seed=0, total=8)
    train.calibrate(run.average, clips)
    frames = np.concatenate([clips.at_size(k, (32, 48)).frames for k in range(4)])
    with torch.no_grad():
        latents = run.average.encoder(torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1)
    # Not exactly: the mean of two batches' variances leaves out what is between the batches.
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    torch.testing.assert_close(latents.var(dim=(0, 2, 3)), torch.ones(24), atol=0.4, rtol=0)


def test_raw_patches_find_a_frame_in_itself() -> None:
    clip = make_clip(2, 64, 96, frames=1, points=30)
    still = type(clip)(
        np.repeat(clip.frames, 4, axis=0),
        np.repeat(clip.points, 4, axis=1),
        np.repeat(clip.visible, 4, axis=1),
        clip.query_frame,
    )
    shares = validation.matched_shares([still], validation.patch_maps)
    assert shares["near_8px"] > 0.9 and shares["near_8px"] == shares["far_8px"]


@pytest.mark.slow
def test_the_command_trains_refuses_to_overwrite_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clips are made in a process of their own, which these do not reach: they stay as they are.
    monkeypatch.setattr(train, "CALIBRATION_BATCHES", 1)
    monkeypatch.setattr(train, "LOG_STEPS", 1)
    monkeypatch.setattr(validation, "CLIPS", 1)
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

    assert CliRunner().invoke(app, [*arguments, "16", "--resume"]).exit_code == 0
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [entry["clips"] for entry in log if "matching" in entry] == [8, 16]
    assert {"near_2px", "denoising_0.9"} <= log[-1].keys() and "patches_near_2px" in log[0]
