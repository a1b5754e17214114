"""Training of a student: its state, its steps, and a loop that can be interrupted and resumed.

The batch and the noise of a step depend only on the seed, the clips and the number of the step, so
a resumed run gives the same weights as one that never stopped.
"""

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vditrack.atomic_files import staged_file, staged_folder
from vditrack.errors import InputError
from vditrack_export.tiny.batches import Clips
from vditrack_export.tiny.curves import draw_curves
from vditrack_export.tiny.losses import Softness
from vditrack_export.tiny.model import Shape
from vditrack_export.tiny.rendering import Report
from vditrack_export.tiny.student import Losses, Student, to_images
from vditrack_export.tiny.teacher import choose_device
from vditrack_export.tiny.validation import Check, measure_shares, validate

WARM_UP_STEPS, LAST_RATE, EMA_DECAY = 100, 0.03, 0.998
SCALAR_RATE_FACTOR = 5.0
"""The factor of the learning rate of temperature and "nowhere", which follow the cosines."""
CALIBRATION_BATCHES = 8
LOG_STEPS, SAVE_SECONDS, VALIDATE_STEPS = 25, 60, 200
CHECKPOINT, LOG, CURVES, WEIGHTS = "checkpoint.pt", "log.jsonl", "curves.png", "weights"
_WEIGHT_FILES = {"encoder.safetensors", "encoder.json", "vdit"}


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    shape: Shape
    """Sizes of the student."""
    teacher_channels: int
    taught: Softness
    """The teacher's temperature and "nowhere"."""
    steps: int
    """Steps of the whole run."""
    batch: int = 8
    """Clips of a step."""
    rate: float = 2e-3
    """The highest learning rate."""
    seed: int = 0
    """Seed of weights, batches and noise."""


@dataclass
class Training:
    """The state of a run, from which it can be resumed."""

    student: Student
    average: Student
    optimizer: torch.optim.AdamW
    done: int = 0
    """The number of steps that were taken."""

    def state(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        return {
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]


def start_training(plan: Plan, device: torch.device | None = None) -> Training:
    """Return a new run with random weights, which depend on the seed alone."""
    torch.manual_seed(plan.seed)
    student = Student(plan.shape, plan.teacher_channels)
    average = Student(plan.shape, plan.teacher_channels)
    average.load_state_dict(student.state_dict())
    student, average = student.to(device), average.to(device)
    for each in (student, average):
        # It halves the time of a step on a CPU.
        each.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scalars = [weight for weight in student.parameters() if weight.ndim == 0]
    others = [weight for weight in student.parameters() if weight.ndim]
    groups = [
        {"params": others, "factor": 1.0},
        {"params": scalars, "factor": SCALAR_RATE_FACTOR, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, plan.rate, (0.9, 0.95), weight_decay=0.02)
    return Training(student, average, optimizer)


def learning_rate(plan: Plan, done: int) -> float:
    """Return the learning rate after ``done`` steps: warm-up, then a cosine."""
    warm = min(1.0, (done + 1) / WARM_UP_STEPS)
    cosine = (1 + math.cos(math.pi * min(1.0, done / plan.steps))) / 2
    return plan.rate * warm * (LAST_RATE + (1 - LAST_RATE) * cosine)


def train_step(run: Training, plan: Plan, clips: Clips) -> Losses:
    """Take one step and return its losses, detached."""
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + run.done)
    for group in run.optimizer.param_groups:
        group["lr"] = group["factor"] * learning_rate(plan, run.done)
    run.student.train()
    # Autocast leaves norms in FP32, which PyTorch remarks on.
    warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")
    device = run.student.no_match.device
    taught = Softness(*(each.to(device) for each in plan.taught))
    losses: Losses = run.student(clips.draw(plan.seed, run.done, plan.batch), taught, generator)
    run.optimizer.zero_grad()
    losses.weighted().backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(run.student.parameters(), 1.0)
    run.optimizer.step()
    _update_average(run.average, run.student, run.done)
    run.done += 1
    return Losses(*(part.detach() for part in losses))


@torch.no_grad()
def _update_average(average: Student, student: Student, step: int) -> None:
    # An early average would still contain the random weights.
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for kept, new in zip(average.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)


@torch.no_grad()
def calibrate_norms(average: Student, plan: Plan, clips: Clips) -> None:
    """Measure the statistics by which the averaged encoder normalises its layers.

    Those of the trained encoder belong to other weights.
    """
    norms = [module for module in average.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # None: the plain mean over all batches.
        norm.momentum = None
        norm.reset_running_stats()
    average.train()
    device = average.no_match.device
    for number in range(CALIBRATION_BATCHES):
        frames = clips.draw(plan.seed, number, plan.batch).frames
        average.encode(to_images(frames.reshape(-1, *frames.shape[2:]), device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    average.eval()


def save_checkpoint(run: Training, folder: Path) -> None:
    """Write the state for resuming."""
    with staged_file(folder / CHECKPOINT) as path:
        torch.save(run.state(), path)


def load_checkpoint(run: Training, folder: Path) -> None:
    """Restore the state of an earlier run, if there is one.

    Raises:
        InputError: The file is damaged, or of another student.

    """
    path = folder / CHECKPOINT
    if not path.exists():
        return
    try:
        run.restore(torch.load(path, weights_only=True, map_location="cpu"))
    # A damaged file and unfit names or shapes each raise a class of their own.
    except Exception as error:
        raise InputError(
            f"{path} is damaged or of another student. Remove it to train from the beginning."
        ) from error


def save_weights(average: Student, folder: Path) -> Path:
    """Write the averaged weights as a checkpoint for export, and return its folder."""
    weights = folder / WEIGHTS
    with staged_folder(weights, replaceable=_WEIGHT_FILES) as scratch:
        average.encoder.save(scratch)
        average.transformer.save_pretrained(scratch / "vdit")
    return weights


def train_student(
    plan: Plan, clips: Clips, checks: Sequence[Check], folder: Path, report: Report
) -> Path:
    """Train until all steps are done, from the last checkpoint in a folder on.

    The folder gets checkpoint, log, curves and weights. A signal may end the process at any time.

    Returns:
        The folder of the averaged weights.

    Raises:
        InputError: The checkpoint is damaged or of another student.

    """
    folder.mkdir(parents=True, exist_ok=True)
    run = start_training(plan, choose_device())
    load_checkpoint(run, folder)
    if run.done >= plan.steps and (folder / WEIGHTS).is_dir():
        return folder / WEIGHTS
    _cut_log(folder / LOG, run.done)
    if run.done == 0:
        teacher = {f"teacher_{name}": share for name, share in measure_teacher(checks).items()}
        _append_log(folder, 0, teacher)
    recent: list[Losses] = []
    saved = logged = time.monotonic()
    report(run.done, plan.steps)
    while run.done < plan.steps:
        recent.append(train_step(run, plan, clips))
        report(run.done, plan.steps)
        if run.done % LOG_STEPS == 0:
            now = time.monotonic()
            speed = plan.batch * len(recent) / (now - logged)
            _append_log(folder, run.done, {**_average(recent), "clips_per_second": speed})
            recent, logged = [], now
        if run.done % VALIDATE_STEPS == 0 and run.done < plan.steps:
            _validate(run, plan, clips, checks, folder)
            logged = time.monotonic()
        if time.monotonic() - saved > SAVE_SECONDS:
            save_checkpoint(run, folder)
            saved = time.monotonic()
    save_checkpoint(run, folder)
    _validate(run, plan, clips, checks, folder)
    return save_weights(run.average, folder)


def measure_teacher(checks: Sequence[Check]) -> dict[str, float]:
    """Return the teacher's shares of matches."""
    return measure_shares(checks, lambda check: check.teacher)


def _validate(
    run: Training, plan: Plan, clips: Clips, checks: Sequence[Check], folder: Path
) -> None:
    calibrate_norms(run.average, plan, clips)
    _append_log(folder, run.done, validate(run.average, checks))
    draw_curves(folder / LOG, folder / CURVES)


def _average(recent: Sequence[Losses]) -> dict[str, float]:
    return {
        name: float(torch.stack([getattr(losses, name) for losses in recent]).mean())
        for name in Losses._fields
    }


def _append_log(folder: Path, done: int, values: Mapping[str, float]) -> None:
    entry = {"step": done, **{name: round(value, 4) for name, value in values.items()}}
    with (folder / LOG).open("a") as log:
        log.write(json.dumps(entry) + "\n")


def _cut_log(path: Path, done: int) -> None:
    """Drop what an interrupted run logged after its last checkpoint."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if _step_of(line) <= done]
    with staged_file(path) as scratch:
        scratch.write_text("".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        # The last line of a killed run may be cut off.
        return math.inf
