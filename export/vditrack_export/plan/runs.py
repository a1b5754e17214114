"""A window after the other on a device: how long each takes, and what rate and latency follow."""

from dataclasses import dataclass
from typing import Literal

from vditrack_export.card import Card
from vditrack_export.plan.devices import BYTES, Device, Precision
from vditrack_export.plan.pipeline import Setting, tracking_costs
from vditrack_export.plan.roofline import Roofline, roofline
from vditrack_export.plan.trace import Cost, Fusion

Mode = Literal["card", "windows", "stream"]
"""``windows``: every frame of a window is described, and windows overlap by one frame. ``stream``:
a window for every new latent, which alone is described. ``card``: as the card's input says."""

# The rest is for the system, the engine's own needs and whatever else runs there.
_USABLE_MEMORY = 0.8


@dataclass(frozen=True)
class Question:
    """What a plan is asked for."""

    device: Device
    precision: Precision
    efficiency: float
    """Share of peak operations and of bandwidth that is reached."""
    points: int
    rate: float
    """Frames a second that the camera gives."""

    @property
    def roofline(self) -> Roofline:
        """Of the networks."""
        return roofline(self.device, self.precision, self.efficiency)


@dataclass(frozen=True)
class Part:
    """One part of a run."""

    operations: int
    moved_bytes: int
    weight_bytes: int
    activation_bytes: int
    """Held at the worst step, the engine's own share not counted."""
    seconds: float


@dataclass(frozen=True)
class Run:
    """One window on a device."""

    setting: Setting
    mode: Mode
    new_frames: int
    parts: dict[str, Part]
    seconds: float
    latency: float
    """Seconds from a frame to its points, at worst: waiting for its window to fill, and the run."""
    rate: float
    """Frames a second, as fast as the device goes."""
    memory_bytes: int
    """Weights, and activations of both networks and of matching as the engine holds them."""
    fits: bool
    """Whether that is within 80% of the device's memory."""


def plan_run(
    card: Card, setting: Setting, mode: Mode, question: Question, *, fusion: Fusion | None = None
) -> Run:
    """Work out one window; ``fusion`` replaces that of the device's engine."""
    described = _described(card, setting, mode)
    new_frames = _new_frames(setting, described)
    costs = tracking_costs(
        card,
        setting,
        described=described,
        new_frames=new_frames,
        points=question.points,
        fusion=fusion or question.device.fusion,
    )
    parts = {name: part_of(name, cost, question) for name, cost in costs.items()}
    seconds = sum(part.seconds for part in parts.values())
    memory = sum(part.weight_bytes for part in parts.values()) + round(
        question.device.held * sum(part.activation_bytes for part in parts.values())
    )
    return Run(
        setting=setting,
        mode=mode,
        new_frames=new_frames,
        parts=parts,
        seconds=seconds,
        latency=(new_frames - 1) / question.rate + seconds,
        rate=new_frames / seconds,
        memory_bytes=memory,
        fits=memory <= _USABLE_MEMORY * question.device.memory * 1e9,
    )


def part_of(name: str, cost: Cost, question: Question) -> Part:
    """One part's cost on the device asked for; matching is FP32 whatever the networks are."""
    line = question.roofline
    element = BYTES["fp32"] if name == "matching" else line.element
    return Part(
        operations=cost.operations,
        moved_bytes=(cost.moved + cost.weights) * element,
        weight_bytes=cost.weights * element,
        activation_bytes=cost.peak * element,
        seconds=line.seconds(cost.operations, (cost.moved + cost.weights) * element),
    )


def _described(card: Card, setting: Setting, mode: Mode) -> int:
    """Latent frames that get descriptors."""
    if mode == "card":
        return card.input.described_latents
    return setting.latent_frames if mode == "windows" else 1


def _new_frames(setting: Setting, described: int) -> int:
    if described < setting.latent_frames:
        return described * setting.temporal_stride
    return max(1, setting.frames - 1)
