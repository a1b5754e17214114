"""One window on a device: time, latency, frame rate and memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vditrack_export.card import Card
from vditrack_export.plan.costs import Cost, Fusion
from vditrack_export.plan.devices import BYTES, Device, Precision
from vditrack_export.plan.pipeline import Work, tracking_costs
from vditrack_export.plan.roofline import Roofline, roofline
from vditrack_export.plan.settings import Setting

Mode = Literal["card", "windows", "stream"]
"""``windows``: every frame of a window is described, and windows overlap by one frame. ``stream``:
a window for every new latent, which alone is described. ``card``: as the card's input says."""

# The rest is for the system, the engine's own needs and whatever else runs there.
_USABLE_MEMORY = 0.8


@dataclass(frozen=True)
class Question:
    """The device and the conditions that a plan is made for."""

    device: Device
    precision: Precision
    """Of the networks."""
    efficiency: float
    """Share of peak operations and of bandwidth that is reached, from 0 to 1."""
    points: int
    """Points tracked."""
    rate: float
    """Frames a second of the camera."""

    @property
    def roofline(self) -> Roofline:
        """Roofline of the networks."""
        return roofline(self.device, self.precision, self.efficiency)


@dataclass(frozen=True)
class Part:
    """One part of a run on a device."""

    operations: int
    """Twice the multiply-adds."""
    moved_bytes: int
    """Activations and weights that are read and written."""
    weight_bytes: int
    activation_bytes: int
    """Activations that are live at the worst step, before the engine's overhead."""
    seconds: float


@dataclass(frozen=True)
class Run:
    """One window on a device."""

    setting: Setting
    mode: Mode
    new_frames: int
    """Frames that the window before did not have."""
    parts: dict[str, Part]
    """Costs by part: encoder, transformer, matching."""
    seconds: float
    """Time of the window."""
    latency: float
    """Seconds from a frame to its points in the worst case: until its window is full, and the
    run."""
    rate: float
    """Frames a second that the device reaches."""
    memory_bytes: int
    """Weights, and activations of all parts with the engine's overhead."""
    fits: bool
    """Whether that is at most 80% of the device's memory."""

    @property
    def total(self) -> Part:
        """All parts together."""
        return add_parts(self.parts.values())


def plan_run(
    card: Card,
    setting: Setting,
    mode: Mode,
    question: Question,
    *,
    fusion: Fusion | None = None,
    counted: Sequence[int] = (),
) -> Run:
    """Return what one window takes on a device.

    Args:
        card: The model.
        setting: The window.
        mode: Which of its frames are new and described.
        question: The device and the conditions.
        fusion: What the engine computes in one kernel; that of the device's engine if None.
        counted: See `vditrack_export.plan.pipeline.tracking_costs`.

    Raises:
        InputError: The device does not compute in the precision, or the efficiency is not a share.

    """
    described = _described_latents(card, setting, mode)
    new_frames = _new_frames(setting, described)
    work = Work(described, new_frames, question.points)
    costs = tracking_costs(card, setting, work, fusion or question.device.fusion, counted)
    parts = {name: part_of(name, cost, question) for name, cost in costs.items()}
    total = add_parts(parts.values())
    memory = total.weight_bytes + round(question.device.held * total.activation_bytes)
    return Run(
        setting=setting,
        mode=mode,
        new_frames=new_frames,
        parts=parts,
        seconds=total.seconds,
        latency=(new_frames - 1) / question.rate + total.seconds,
        rate=new_frames / total.seconds,
        memory_bytes=memory,
        fits=memory <= _USABLE_MEMORY * question.device.memory * 1e9,
    )


def add_parts(parts: Iterable[Part]) -> Part:
    """Add parts that run one after the other on the same device, all held in memory."""
    every = list(parts)
    return Part(
        operations=sum(part.operations for part in every),
        moved_bytes=sum(part.moved_bytes for part in every),
        weight_bytes=sum(part.weight_bytes for part in every),
        activation_bytes=sum(part.activation_bytes for part in every),
        seconds=sum(part.seconds for part in every),
    )


def part_of(name: str, cost: Cost, question: Question) -> Part:
    """Return a part's cost on a device; matching is in FP32 whatever the networks are in."""
    line = question.roofline
    element = BYTES["fp32"] if name == "matching" else line.element
    return Part(
        operations=cost.operations,
        moved_bytes=(cost.moved + cost.weights) * element,
        weight_bytes=cost.weights * element,
        activation_bytes=cost.peak * element,
        seconds=line.seconds(cost.operations, (cost.moved + cost.weights) * element),
    )


def _described_latents(card: Card, setting: Setting, mode: Mode) -> int:
    """Return the number of newest latent frames that get descriptors."""
    if mode == "card":
        return card.input.described_latents
    return setting.latent_frames if mode == "windows" else 1


def _new_frames(setting: Setting, described: int) -> int:
    if described < setting.latent_frames:
        return described * setting.temporal_stride
    return max(1, setting.frames - 1)
