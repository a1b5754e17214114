"""Train the bundled model: one command, CPU only, seeded, resumable.

    python -m vditrack_export.tiny.train --photos DIR --out RUN

RUN/weights then holds the averaged weights for `vditrack export tiny --weights`. Clip k of a run,
and the noise of every step, depend only on the seed, on k and on the number of clips, so a resumed
run gives the same weights as one that never stopped.
"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vditrack.arrays import Image
from vditrack.atomic_files import staged_file, staged_folder
from vditrack.cli.console import echo
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.tiny.curves import draw_curves
from vditrack_export.tiny.photos import load_photos, packaged_folders
from vditrack_export.tiny.pictures import build_pyramid
from vditrack_export.tiny.quadruples import make_quadruple
from vditrack_export.tiny.recipe import Losses, Recipe, to_images
from vditrack_export.tiny.validation import (
    encode_patches,
    measure_shares,
    validate,
    validation_clips,
)

BATCH = 8
POINTS = 64
SMALL, FULL = (128, 128), (192, 256)
FULL_SHARE = 0.12
"""The share of clips, at the end, of the model's own size, so that all positions are trained."""
PEAK_RATE, LAST_RATE, WARM_UP_STEPS, EMA_DECAY = 1e-3, 0.05, 100, 0.998
NO_MATCH_RATE_FACTOR = 20.0
"""The factor of its learning rate. It follows cosines, which fall from 1 as the keys learn."""
CALIBRATION_BATCHES = 8
LOG_STEPS, SNAPSHOT_SECONDS = 25, 300
THREADS = 2


class Clips(Dataset[SyntheticClip]):
    """The training clips of a run, by their numbers."""

    def __init__(self, photos: Sequence[Image], seed: int, total: int) -> None:
        """Prepare the photographs; ``total`` is the number of clips of the run."""
        self._photos = [build_pyramid(photo) for photo in photos]
        self._seed, self._total = seed, total

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, number: int) -> SyntheticClip:
        return self.at_size(number, choose_size(number, self._total))

    def at_size(self, number: int, size: tuple[int, int]) -> SyntheticClip:
        """Render a clip at a size, (height, width) in pixels."""
        rng = np.random.default_rng((self._seed, number))
        return make_quadruple(rng, *size, self._photos, POINTS)


def choose_size(number: int, total: int) -> tuple[int, int]:
    """Return the height and width of a training clip; a batch has one size."""
    first_full = math.ceil(total * (1 - FULL_SHARE) / BATCH) * BATCH
    return FULL if number >= first_full else SMALL


@dataclass
class Training:
    """The state of a run, from which it can be resumed."""

    recipe: Recipe
    average: Recipe
    optimizer: torch.optim.AdamW
    done: int = 0
    """The number of clips that were seen."""

    def state(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "recipe": self.recipe.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.recipe.load_state_dict(state["recipe"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def start_training(seed: int) -> Training:
    """Return a new run with random weights."""
    torch.manual_seed(seed)
    recipe, average = Recipe(), Recipe()
    average.load_state_dict(recipe.state_dict())
    weights = [weight for name, weight in recipe.named_parameters() if name != "no_match"]
    groups = [
        {"params": weights, "rate_factor": 1.0},
        {"params": [recipe.no_match], "rate_factor": NO_MATCH_RATE_FACTOR, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, PEAK_RATE, (0.9, 0.95), weight_decay=0.01)
    return Training(recipe, average, optimizer)


def learning_rate(done: int, total: int) -> float:
    """Return the learning rate after ``done`` of ``total`` clips: warm-up, then a cosine."""
    warm = min(1.0, (done / BATCH + 1) / WARM_UP_STEPS)
    cosine = (1 + math.cos(math.pi * done / total)) / 2
    return PEAK_RATE * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)


def train_step(run: Training, clips: list[SyntheticClip], seed: int, total: int) -> Losses:
    """Take one step on one batch and return its losses, detached."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + run.done)
    for group in run.optimizer.param_groups:
        group["lr"] = group["rate_factor"] * learning_rate(run.done, total)
    run.recipe.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses: Losses = run.recipe(clips, generator)
    run.optimizer.zero_grad()
    losses.weighted().backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.recipe.parameters(), 1.0)
    run.optimizer.step()
    _update_average(run.average, run.recipe, run.done // BATCH)
    run.done += len(clips)
    return Losses(*(part.detach() for part in losses))


@torch.no_grad()
def _update_average(average: Recipe, recipe: Recipe, step: int) -> None:
    # An early average would still contain the random weights.
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), recipe.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


@torch.no_grad()
def calibrate_norm(average: Recipe, clips: Clips) -> None:
    """Measure the statistics with which the averaged encoder normalises its latents.

    The statistics of the trained encoder belong to other weights: with them, the latents' variance
    would be off by a factor of two, and the transformer would see other latents than in training.
    """
    norm = average.encoder.norm
    momentum, norm.momentum = norm.momentum, None  # None: the plain mean over all batches.
    norm.reset_running_stats()
    average.encoder.train()
    for first in range(0, CALIBRATION_BATCHES * BATCH, BATCH):
        batch = [clips.at_size(first + k, FULL) for k in range(BATCH)]
        average.encoder(to_images(np.concatenate([clip.frames for clip in batch])))
    norm.momentum = momentum
    average.eval()


def save_run(run: Training, out: Path) -> None:
    """Write the checkpoint for resuming and the averaged weights for export."""
    with staged_file(out / "checkpoint.pt") as path:
        torch.save(run.state(), path)
    weights = {"encoder.safetensors", "encoder.json", "vdit"}
    with staged_folder(out / "weights", replaceable=weights) as folder:
        run.average.encoder.save(folder)
        run.average.transformer.save_pretrained(folder / "vdit")


def load_batches(clips: Clips, done: int) -> Iterator[list[SyntheticClip]]:
    """Yield batches of training clips from number ``done`` on, rendered in another process."""
    loader = DataLoader(
        clips,
        batch_size=BATCH,
        sampler=range(done, len(clips)),
        num_workers=1,
        prefetch_factor=4,
        collate_fn=list,
        drop_last=True,
        # A forked process would wait forever for OpenCV's threads, which are not forked.
        multiprocessing_context="spawn",
        worker_init_fn=_limit_threads,
    )
    return iter(loader)


def _limit_threads(_worker: int) -> None:
    # The training step needs the cores.
    cv2.setNumThreads(1)


def train(
    photos: Annotated[
        list[Path],
        typer.Option(
            help="Folder of photographs; may be repeated. The photographs of scikit-image and "
            "scikit-learn are always used.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    clips: Annotated[
        int, typer.Option(help="Number of clips of the whole run.", min=BATCH)
    ] = 36_000,
    seed: Annotated[int, typer.Option(help="Seed of weights, clips and noise.", min=0)] = 0,
    resume: Annotated[bool, typer.Option(help="Resume from the run's checkpoint.")] = False,
) -> None:
    """Train the encoder and the transformer; write weights, log.jsonl and curves.png to OUT."""
    checkpoint = out / "checkpoint.pt"
    if resume != checkpoint.exists():
        raise typer.BadParameter(
            f"{checkpoint} does not exist: there is nothing to resume."
            if resume
            else f"{out} holds a run. Resume it with --resume, or give another --out."
        )
    run = start_training(seed)
    if resume:
        run.restore(torch.load(checkpoint, weights_only=True))
    pictures = load_photos([*photos, *packaged_folders()])
    echo(f"{len(pictures.training)} photographs, {len(pictures.held_out)} more held out")
    out.mkdir(parents=True, exist_ok=True)
    _train(run, Clips(pictures.training, seed, clips), pictures.held_out, out, seed)


def _train(run: Training, clips: Clips, held_out: Sequence[Image], out: Path, seed: int) -> None:
    checks = validation_clips(held_out)
    patches = measure_shares(checks, encode_patches)
    _append_log(out, run.done, {f"patches_{name}": share for name, share in patches.items()})
    recent: list[Losses] = []
    saved = logged = time.monotonic()
    with _make_progress_bar() as progress:
        task = progress.add_task("training", completed=run.done, total=len(clips))
        for batch in load_batches(clips, run.done):
            recent.append(train_step(run, batch, seed, len(clips)))
            progress.update(task, completed=run.done)
            if len(recent) == LOG_STEPS:
                speed = LOG_STEPS * BATCH / (time.monotonic() - logged)
                _append_log(out, run.done, {**_average_losses(recent), "clips_per_second": speed})
                recent, logged = [], time.monotonic()
            if time.monotonic() - saved > SNAPSHOT_SECONDS:
                before = time.monotonic()
                _save_snapshot(run, clips, checks, out)
                saved = time.monotonic()
                # The measured speed excludes snapshots.
                logged += saved - before
        _save_snapshot(run, clips, checks, out)


def _save_snapshot(run: Training, clips: Clips, checks: list[SyntheticClip], out: Path) -> None:
    calibrate_norm(run.average, clips)
    save_run(run, out)
    _append_log(out, run.done, validate(run.average, checks))
    draw_curves(out / "log.jsonl", out / "curves.png")


def _average_losses(recent: list[Losses]) -> dict[str, float]:
    return {
        name: float(torch.stack([getattr(losses, name) for losses in recent]).mean())
        for name in Losses._fields
    }


def _append_log(out: Path, done: int, values: dict[str, float]) -> None:
    entry = {"clips": done, **{name: round(value, 4) for name, value in values.items()}}
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")


def _make_progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("clips"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    typer.run(train)
