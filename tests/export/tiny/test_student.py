"""A student's keys and encoder, and its training, which an interruption does not change."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("matplotlib")

from diffusers.models.transformers import transformer_wan  # noqa: E402

from vditrack.errors import InputError  # noqa: E402
from vditrack_export.families.tiny.autoencoder import TinyEncoder  # noqa: E402
from vditrack_export.tiny import training, validation  # noqa: E402
from vditrack_export.tiny.batches import Clips, crop_clip, degrade_frames, mirror_clip  # noqa: E402
from vditrack_export.tiny.clip_store import ClipStore, StoredClip  # noqa: E402
from vditrack_export.tiny.losses import Softness  # noqa: E402
from vditrack_export.tiny.model import (  # noqa: E402
    BUNDLED,
    Shape,
    build_transformer,
    make_empty_prompt,
    read_normed_keys,
    rotate_keys,
)
from vditrack_export.tiny.rendering import Scenes, render_into  # noqa: E402
from vditrack_export.tiny.softness import fit_softness  # noqa: E402
from vditrack_export.tiny.student import to_images  # noqa: E402
from vditrack_export.tiny.teacher import Teacher, fit_grid  # noqa: E402

SMALL = Shape(
    latents=4,
    widths=(4, 4),
    residuals=(1, 1),
    context=(4,),
    layers=1,
    heads=1,
    head_dim=24,
    feed_forward=8,
)
SIZE = (32, 48)


class Colours(Teacher):
    """Describes a cell by its mean colour and its inverse."""

    name, sha256, channels = "colours", "0" * 64, 4

    def describe(self, frames: Any) -> Any:
        images = torch.from_numpy(np.ascontiguousarray(frames)).float().permute(0, 3, 1, 2) / 255
        cells = torch.nn.functional.avg_pool2d(images, 8).permute(0, 2, 3, 1)
        return torch.cat([cells - 0.5, torch.full_like(cells[..., :1], 0.1)], dim=-1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    folder = tmp_path_factory.mktemp("clips")
    rendered, footage = ClipStore(folder / "rendered", 3), ClipStore(folder / "footage", 2)
    render_into(rendered, Scenes((), SIZE, 0), None, lambda _done, _all: None)
    render_into(footage, Scenes((), (48, 64), 1), Colours(), lambda _done, _all: None)
    return Clips(rendered, footage, SIZE)


def make_plan(steps: int) -> training.Plan:
    taught = Softness(torch.tensor(0.05), torch.tensor(0.8))
    return training.Plan(SMALL, Colours.channels, taught, steps, batch=3, seed=3)


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
    latents, timestep = torch.randn(2, BUNDLED.latents, 2, 3, 5), torch.tensor([100.0, 300.0])
    with torch.no_grad():
        model(latents, timestep, make_empty_prompt(2))
        keys = rotate_keys(model, read_normed_keys(model, 1, latents, timestep), latents)
    assert keys.shape == (2, 2 * 3 * 5, BUNDLED.heads, BUNDLED.head_dim)
    # Self- and cross-attention take turns: the third call is block 1's self-attention.
    torch.testing.assert_close(keys, attended[2], atol=1e-5, rtol=1e-5)
    # The run for the keys alone ended before it: two more calls, of block 0.
    assert len(attended) == 2 * BUNDLED.layers + 2


def test_an_encoder_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    encoder = TinyEncoder(4, (4, 8), (1, 1), (8,)).eval()
    frames = torch.rand(1, 3, 32, 48) * 2 - 1
    encoder.save(tmp_path)
    torch.testing.assert_close(TinyEncoder.load(tmp_path)(frames), encoder(frames))
    assert encoder(frames).shape == (1, 4, 4, 6)


def test_a_resumed_run_equals_one_that_never_stopped(clips: Clips, tmp_path: Path) -> None:
    plan = make_plan(3)
    straight = training.start_training(plan)
    training.train_step(straight, plan, clips)
    training.save_checkpoint(straight, tmp_path)
    before = copy.deepcopy(straight.state()["student"])
    for _ in range(2):
        training.train_step(straight, plan, clips)

    torch.manual_seed(99)
    resumed = training.start_training(plan)
    training.load_checkpoint(resumed, tmp_path)
    assert resumed.done == 1
    for _ in range(2):
        training.train_step(resumed, plan, clips)

    for part in ("student", "average"):
        wanted, got = straight.state()[part], resumed.state()[part]
        assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    after = straight.state()["student"]
    assert not torch.equal(before["encoder.head.weight"], after["encoder.head.weight"])
    assert not torch.equal(before["log_temperature"], after["log_temperature"])


class Killed(Exception):
    """Ends a run as a signal does, at any place."""


def test_a_killed_run_goes_on_to_the_same_weights_and_one_log(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    monkeypatch.setattr(training, "LOG_STEPS", 1)
    checks = validation.read_checks(clips.footage)  # type: ignore[arg-type]
    plan = make_plan(4)

    def train(folder: Path, stop_at: int) -> Path:
        def report(done: int, _all: int) -> None:
            if done == stop_at:
                raise Killed

        return training.train_student(plan, clips, checks, folder, report)

    whole = train(tmp_path / "whole", 99)
    with pytest.raises(Killed):
        train(tmp_path / "killed", 3)
    # As a kill while the last line is written.
    with (tmp_path / "killed" / training.LOG).open("a") as log:
        log.write('{"step": 3, "mat')
    resumed = train(tmp_path / "killed", 99)
    for file in ("encoder.safetensors", "vdit/diffusion_pytorch_model.safetensors"):
        assert (resumed / file).read_bytes() == (whole / file).read_bytes()
    entries = [
        json.loads(line) for line in (tmp_path / "killed" / training.LOG).read_text().splitlines()
    ]
    assert [entry["step"] for entry in entries if "matching" in entry] == [1, 2, 3, 4]
    assert {"teacher_near_8px", "teacher_far_auc"} <= entries[0].keys()
    assert {"near_8px", "far_auc", "temperature"} <= entries[-1].keys()
    assert (tmp_path / "killed" / training.CURVES).stat().st_size > 1000
    # Nothing is left to do.
    assert train(tmp_path / "killed", 4) == resumed


def test_a_checkpoint_of_another_student_is_refused(clips: Clips, tmp_path: Path) -> None:
    run = training.start_training(make_plan(1))
    (tmp_path / training.CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="Remove it"):
        training.load_checkpoint(run, tmp_path)


def test_calibrated_latents_have_zero_mean_and_unit_variance(clips: Clips) -> None:
    plan = make_plan(1)
    run = training.start_training(plan)
    training.calibrate_norms(run.average, plan, clips)
    frames = np.concatenate(
        [clips.draw(plan.seed, step, plan.batch).frames.reshape(-1, *SIZE, 3) for step in range(8)]
    )
    with torch.no_grad():
        _, latents = run.average.encode(to_images(frames))
    # Not exactly: the mean of the batches' variances leaves out what is between the batches.
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.1
    torch.testing.assert_close(latents.var(dim=(0, 2, 3)), torch.ones(4), atol=0.4, rtol=0)


def make_clip() -> StoredClip:
    """Return a clip whose pixels and descriptors say where they are."""
    rows, columns = np.mgrid[:40, :64].astype(np.uint8)
    frames = np.stack([np.dstack([rows, columns, np.full_like(rows, t)]) for t in range(4)])
    cells = np.stack([frames[t, ::8, ::8, :2] / 8 for t in range(4)]).astype(np.float16)
    points = np.array([[[20.5, 12.5]] * 4, [[60.5, 35.5]] * 4], np.float32)
    return StoredClip(frames, cells, points, np.ones((2, 4), np.bool_))


def test_crops_move_points_and_descriptors_with_the_pixels() -> None:
    cropped = crop_clip(make_clip(), [(0, 0), (1, 0), (0, 2), (1, 1)], (32, 48))
    assert cropped.frames.shape == (4, 32, 48, 3) and cropped.teacher.shape == (4, 4, 6, 2)
    for t, (row, column) in enumerate([(0, 0), (1, 0), (0, 2), (1, 1)]):
        np.testing.assert_array_equal(cropped.teacher[t, 0, 0], [row, column])
        assert cropped.visible[0, t]
        x, y = np.floor(cropped.points[0, t]).astype(int)
        np.testing.assert_array_equal(cropped.frames[t, y, x], [12, 20, t])
    # The second point is in one crop alone: (60, 35) is row 27, column 44 of the third's
    assert cropped.visible[1].tolist() == [False, False, False, False]
    assert crop_clip(make_clip(), [(1, 2)] * 4, (32, 48)).visible[1].all()


def test_a_mirrored_clip_has_its_points_on_the_same_pixels() -> None:
    clip, mirrored = make_clip(), mirror_clip(make_clip())
    x, y = np.floor(mirrored.points[0, 0]).astype(int)
    np.testing.assert_array_equal(mirrored.frames[0, y, x], [12, 20, 0])
    np.testing.assert_array_equal(mirrored.teacher[0, 0, 0], clip.teacher[0, 0, -1])


@pytest.mark.parametrize("seed", range(8))
def test_degraded_frames_lose_details_but_move_nothing(seed: int) -> None:
    y, x = np.mgrid[:96, :128]
    blob = 200 * np.exp(-((x - 81.0) ** 2 + (y - 38.0) ** 2) / (2 * 9.0**2))
    checks = 40 * ((x + y) % 2)
    frames = np.repeat(np.stack([blob + checks, blob], axis=-1).round()[None, ..., [0, 1, 1]], 4, 0)
    found = degrade_frames(np.random.default_rng(seed), frames.astype(np.uint8)).astype(float)
    assert found.shape == frames.shape
    assert (found == found[:1]).all()
    smooth = found[0, ..., 1]
    weights = np.clip(smooth - 20, 0, None)
    centre = [(weights * axis).sum() / weights.sum() for axis in (x, y)]
    np.testing.assert_allclose(centre, (81, 38), atol=0.4)
    detail = np.abs(np.diff(found[0, 80:, :40, 0], axis=1)).mean()
    if np.array_equal(found, frames):
        assert detail == 40
    else:
        assert detail < 39


def test_batches_put_known_motion_first_and_the_teacher_last(clips: Clips) -> None:
    batch = clips.draw(0, 7, 3)
    assert batch.frames.shape == (3, 4, *SIZE, 3)
    assert len(batch.points) == len(batch.visible) == 2
    assert batch.teacher.shape == (1, 4, 4, 6, 4)
    again, other = clips.draw(0, 7, 3), clips.draw(0, 8, 3)
    np.testing.assert_array_equal(batch.frames, again.frames)
    assert (batch.frames != other.frames).any()


def test_a_killed_cache_keeps_whole_shards_and_makes_the_rest_the_same(tmp_path: Path) -> None:
    scenes, whole, killed = (
        Scenes((), (16, 16), 5),
        *(ClipStore(tmp_path / name, 18) for name in ("whole", "killed")),
    )
    render_into(whole, scenes, Colours(), lambda _done, _all: None)

    def stop(done: int, _all: int) -> None:
        if done == 17:
            raise Killed

    with pytest.raises(Killed):
        render_into(killed, scenes, Colours(), stop)
    assert killed.missing() == [1]
    first = (killed.folder / "00000" / "frames.npy").stat().st_mtime_ns
    render_into(killed, scenes, Colours(), lambda _done, _all: None)
    assert killed.missing() == [] and killed.verify() == whole.verify()
    assert (killed.folder / "00000" / "frames.npy").stat().st_mtime_ns == first
    damaged = killed.folder / "00001" / "teacher.npy"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="00001 is damaged"):
        killed.verify()


def test_the_teacher_is_resampled_between_the_centres_of_cells() -> None:
    ramp = torch.arange(8.0)[None, None, :, None].expand(1, 4, 8, 1)
    maps = torch.cat([ramp, torch.ones_like(ramp)], dim=-1)
    halved = fit_grid(maps, 2, 4).astype(np.float32)
    # The ratio of both channels keeps what normalisation leaves: the mean place of each cell.
    ratio = halved[0, 0, :, 0] / halved[0, 0, :, 1]
    np.testing.assert_allclose(ratio[1:-1], [2.5, 4.5], rtol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(halved, axis=-1), 1, atol=1e-3)


def test_the_softness_of_a_perfect_teacher_is_sharp(tmp_path: Path) -> None:
    store = ClipStore(tmp_path / "fitted", 1)
    rng = np.random.default_rng(0)
    cells = rng.standard_normal((4, 6, 16)).astype(np.float32)
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
    frames = np.zeros((4, 32, 48, 3), np.uint8)
    rows, columns = np.mgrid[:4, :6].reshape(2, -1)
    places = np.stack([8 * columns + 4, 8 * rows + 4], axis=-1).astype(np.float32)
    points = np.repeat(places[:, None], 4, axis=1)
    clip = StoredClip(
        frames, np.stack([cells] * 4).astype(np.float16), points, np.ones((24, 4), np.bool_)
    )
    store.write(0, [clip])
    found = fit_softness(store)
    assert found.temperature.item() <= 0.06 and found.no_match.item() < 0.8


def test_the_area_under_the_curve_counts_the_pairs_in_order() -> None:
    seen, hidden = np.array([0.9, 0.5, 0.2]), np.array([0.5, 0.1])
    # In order: 0.9 twice, 0.5 once and a half, 0.2 once.
    assert validation.auc(seen, hidden) == pytest.approx(4.5 / 6)
