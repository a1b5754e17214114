"""Train the bundled model: one command, CPU only, seeded, resumable.

    python -m vditrack_export.tiny.train --photos DIR --out RUN

RUN/weights then holds the averaged weights that `vditrack export tiny --weights` takes. Clip k of a
run depends on the seed, on k and on the number of clips alone, and so does the noise of every step:
a resumed run goes on as if it had never stopped.
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

from vditrack.atomic_files import staged_file, staged_folder
from vditrack.synthetic.layers.clips import SyntheticClip
from vditrack_export.tiny.curves import draw_curves
from vditrack_export.tiny.photos import load_photos, packaged_folders
from vditrack_export.tiny.pictures import Image, halvings
from vditrack_export.tiny.quadruples import make_quadruple
from vditrack_export.tiny.recipe import Losses, Recipe, images
from vditrack_export.tiny.validation import found_shares, patch_maps, validate, validation_clips

BATCH = 8
POINTS = 64
SMALL, FULL = (128, 128), (192, 256)
FULL_SHARE = 0.12
"""The last part of the run is at the model's own size, so that its rotary positions are seen."""
PEAK_RATE, LAST_RATE, WARM_UP_STEPS, EMA_DECAY = 1e-3, 0.05, 100, 0.998
NO_MATCH_PACE = 20.0
"""It has to keep up with cosines that fall from near one as the keys learn to differ."""
CALIBRATION_BATCHES = 8
LOG_STEPS, SNAPSHOT_SECONDS = 25, 300
THREADS = 2


class Clips(Dataset[SyntheticClip]):
    """The training clips of a run, by number."""

    def __init__(self, photos: Sequence[Image], seed: int, total: int) -> None:
        self._photos = [halvings(photo) for photo in photos]
        self._seed, self._total = seed, total

    def __len__(self) -> int:
        return self._total

    def __getitem__(self, number: int) -> SyntheticClip:
        return self.at_size(number, size_of(number, self._total))

    def at_size(self, number: int, size: tuple[int, int]) -> SyntheticClip:
        """Make clip ``number`` at another (height, width) than the run's."""
        rng = np.random.default_rng((self._seed, number))
        return make_quadruple(rng, *size, self._photos, POINTS)


def size_of(number: int, total: int) -> tuple[int, int]:
    """Height and width of training clip ``number``, the same for a whole batch."""
    first_full = math.ceil(total * (1 - FULL_SHARE) / BATCH) * BATCH
    return FULL if number >= first_full else SMALL


@dataclass
class Training:
    """The state of a run: everything that a resumed one needs."""

    recipe: Recipe
    average: Recipe
    optimizer: torch.optim.AdamW
    done: int = 0
    """Clips seen."""

    def state(self) -> dict[str, Any]:
        """Return what `restore` takes."""
        return {
            "recipe": self.recipe.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.recipe.load_state_dict(state["recipe"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def start(seed: int) -> Training:
    """Begin a run from random weights."""
    torch.manual_seed(seed)
    recipe, average = Recipe(), Recipe()
    average.load_state_dict(recipe.state_dict())
    weights = [weight for name, weight in recipe.named_parameters() if name != "no_match"]
    groups = [
        {"params": weights, "pace": 1.0},
        {"params": [recipe.no_match], "pace": NO_MATCH_PACE, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, PEAK_RATE, (0.9, 0.95), weight_decay=0.01)
    return Training(recipe, average, optimizer)


def learning_rate(done: int, total: int) -> float:
    """Warm up, then fall along a cosine."""
    warm = min(1.0, (done / BATCH + 1) / WARM_UP_STEPS)
    cosine = (1 + math.cos(math.pi * done / total)) / 2
    return PEAK_RATE * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)


def train_step(run: Training, clips: list[SyntheticClip], seed: int, total: int) -> Losses:
    """Take one step on one batch, and return its losses without their graph."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + run.done)
    for group in run.optimizer.param_groups:
        group["lr"] = group["pace"] * learning_rate(run.done, total)
    run.recipe.train()
    with torch.autocast("cpu", torch.bfloat16):
        losses: Losses = run.recipe(clips, generator)
    run.optimizer.zero_grad()
    losses.weighted().backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.recipe.parameters(), 1.0)
    run.optimizer.step()
    _follow(run.average, run.recipe, run.done // BATCH)
    run.done += len(clips)
    return Losses(*(part.detach() for part in losses))


@torch.no_grad()
def _follow(average: Recipe, recipe: Recipe, step: int) -> None:
    # A young average would still hold random weights.
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), recipe.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


@torch.no_grad()
def calibrate(average: Recipe, clips: Clips) -> None:
    """Measure the statistics by which the averaged encoder normalises its latents.

    The trained encoder's own are those of other weights, and lag behind them: latents would miss
    unit variance by a factor of two, and be other latents than those the transformer has learnt.
    """
    norm = average.encoder.norm
    momentum, norm.momentum = norm.momentum, None  # None: the plain mean over all batches.
    norm.reset_running_stats()
    average.encoder.train()
    for first in range(0, CALIBRATION_BATCHES * BATCH, BATCH):
        batch = [clips.at_size(first + k, FULL) for k in range(BATCH)]
        average.encoder(images(np.concatenate([clip.frames for clip in batch])))
    norm.momentum = momentum
    average.eval()


def save(run: Training, out: Path) -> None:
    """Write the checkpoint to go on from, and the averaged weights to export."""
    with staged_file(out / "checkpoint.pt") as path:
        torch.save(run.state(), path)
    weights = {"encoder.safetensors", "encoder.json", "vdit"}
    with staged_folder(out / "weights", replaceable=weights) as folder:
        run.average.encoder.save(folder)
        run.average.transformer.save_pretrained(folder / "vdit")


def batches(clips: Clips, done: int) -> Iterator[list[SyntheticClip]]:
    """Make batches of training clips from number ``done`` on, in a process beside."""
    loader = DataLoader(
        clips,
        batch_size=BATCH,
        sampler=range(done, len(clips)),
        num_workers=1,
        prefetch_factor=4,
        collate_fn=list,
        drop_last=True,
        # A forked process would wait for ever for OpenCV's threads, which stay behind.
        multiprocessing_context="spawn",
        worker_init_fn=_single_threaded,
    )
    return iter(loader)


def _single_threaded(_worker: int) -> None:
    # The cores belong to the training step.
    cv2.setNumThreads(1)


def train(
    photos: Annotated[
        list[Path],
        typer.Option(
            help="Folder of photographs; may be given again. Those that scikit-image and "
            "scikit-learn bring are always used.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    clips: Annotated[int, typer.Option(help="Clips to see in all.", min=BATCH)] = 36_000,
    seed: Annotated[int, typer.Option(help="Of weights, clips and noise.", min=0)] = 0,
    resume: Annotated[bool, typer.Option(help="Go on from the run's checkpoint.")] = False,
) -> None:
    """Train encoder and transformer; weights, log.jsonl and curves.png go to OUT."""
    checkpoint = out / "checkpoint.pt"
    if resume != checkpoint.exists():
        raise typer.BadParameter(
            f"{checkpoint} does not exist: there is nothing to resume."
            if resume
            else f"{out} holds a run. Go on with --resume, or choose another --out."
        )
    run = start(seed)
    if resume:
        run.restore(torch.load(checkpoint, weights_only=True))
    pictures = load_photos([*photos, *packaged_folders()])
    typer.echo(f"{len(pictures.training)} photographs, {len(pictures.held_out)} more held out")
    out.mkdir(parents=True, exist_ok=True)
    _train(run, Clips(pictures.training, seed, clips), pictures.held_out, out, seed)


def _train(run: Training, clips: Clips, held_out: Sequence[Image], out: Path, seed: int) -> None:
    checks = validation_clips(held_out)
    patches = found_shares(checks, patch_maps)
    _append(out, run.done, {f"patches_{name}": share for name, share in patches.items()})
    recent: list[Losses] = []
    saved = logged = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("training", completed=run.done, total=len(clips))
        for batch in batches(clips, run.done):
            recent.append(train_step(run, batch, seed, len(clips)))
            progress.update(task, completed=run.done)
            if len(recent) == LOG_STEPS:
                speed = LOG_STEPS * BATCH / (time.monotonic() - logged)
                _append(out, run.done, {**_means(recent), "clips_per_second": speed})
                recent, logged = [], time.monotonic()
            if time.monotonic() - saved > SNAPSHOT_SECONDS:
                before = time.monotonic()
                _snapshot(run, clips, checks, out)
                saved = time.monotonic()
                # The speed is that of training alone.
                logged += saved - before
        _snapshot(run, clips, checks, out)


def _snapshot(run: Training, clips: Clips, checks: list[SyntheticClip], out: Path) -> None:
    calibrate(run.average, clips)
    save(run, out)
    _append(out, run.done, validate(run.average, checks))
    draw_curves(out / "log.jsonl", out / "curves.png")


def _means(recent: list[Losses]) -> dict[str, float]:
    return {
        name: float(torch.stack([getattr(losses, name) for losses in recent]).mean())
        for name in Losses._fields
    }


def _append(out: Path, done: int, values: dict[str, float]) -> None:
    entry = {"clips": done, **{name: round(value, 4) for name, value in values.items()}}
    with (out / "log.jsonl").open("a") as log:
        log.write(json.dumps(entry) + "\n")


def _progress() -> Progress:
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
