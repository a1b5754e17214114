"""A bundle on a device: time and memory of each engine, and frame rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vditrack.bundle.manifest import Input, Precision
from vditrack_export.card import Card
from vditrack_export.plan.costs import Cost
from vditrack_export.plan.devices import Device
from vditrack_export.plan.pipeline import Graphs, graph_costs, matching_costs
from vditrack_export.plan.roofline import Roofline
from vditrack_export.plan.settings import Setting, latent_size
from vditrack_export.plan.uses import STREAM, Use, clip_use

# The rest is for the system, the engine's own needs and whatever else runs there.
_USABLE_MEMORY = 0.8
_FLOAT = 4
"""Bytes of a number in FP32, in which latents cross from graph to graph."""


@dataclass(frozen=True)
class Question:
    """The device and the conditions that a plan is made for."""

    device: Device
    precision: Precision
    """Of both networks, as export makes them."""
    efficiency: float
    """Share of peak operations and of bandwidth that is reached, from 0 to 1."""
    points: int
    """Points tracked."""
    rate: float
    """Frames a second of the camera."""

    @property
    def roofline(self) -> Roofline:
        """The device at this efficiency."""
        return Roofline(self.device, self.efficiency)


@dataclass(frozen=True)
class Engine:
    """One graph of a bundle on a device."""

    operations: int
    """Twice the multiply-adds of a run."""
    moved_bytes: int
    """Activations and weights that a run reads and writes."""
    weight_bytes: int
    activation_bytes: int
    """Activations that the engine holds; where it is TensorRT, without inputs and outputs."""
    input_bytes: int
    output_bytes: int
    seconds: float
    """Time of a run on the device."""
    copy_seconds: float
    """Time in which inputs and outputs pass through the host's memory."""


@dataclass(frozen=True)
class Memory:
    """What a loaded bundle and its stream hold, in bytes."""

    weights: int
    """Of all engines: those of a first frame's encoder are there twice."""
    activations: int
    """Of all engines, which are loaded at once."""
    buffers: int
    """Inputs and outputs of all engines on the device."""
    pinned: int
    """The same in pinned memory of the host."""
    state: int
    """Host memory of a stream: the encoder's caches before and after a run, and a window of
    latents or frames."""
    loading: int
    """Host memory of the largest engine's file while it is loaded."""
    shared: bool
    """Whether host and device share one memory."""

    @property
    def device(self) -> int:
        """Memory on the device."""
        return self.weights + self.activations + self.buffers

    @property
    def host(self) -> int:
        """Memory of the host, without that of the program itself."""
        return self.pinned + self.state

    @property
    def needed(self) -> int:
        """What has to fit the device: with the host's where they share one memory."""
        if not self.shared:
            return self.device
        return max(self.device + self.host, self.weights + self.loading)


@dataclass(frozen=True)
class Plan:
    """A bundle on a device."""

    setting: Setting
    described: int
    """Newest latents of a window that get descriptors."""
    engines: dict[str, Engine]
    """By the name of the graph."""
    cache_bytes: int
    """Caches that the encoder passes from run to run."""
    matching_seconds: float
    """Time of tracking into one new frame, as if it ran on the device."""
    memory: Memory
    stream_seconds: float
    """Time of a frame in a stream."""
    clip_seconds: float
    """Time of a window in a clip."""
    clip_frames: int
    """New frames of a window in a clip."""
    fits: bool
    """Whether the memory needed is at most 80% of the device's."""

    @property
    def stream_rate(self) -> float:
        """Frames a second that a stream describes."""
        return 1 / self.stream_seconds

    @property
    def clip_rate(self) -> float:
        """Frames a second of a clip, whose windows may look ahead."""
        return self.clip_frames / self.clip_seconds

    @property
    def latent_seconds(self) -> float:
        """Time of a stream for each new latent: every frame runs both networks."""
        return self.setting.temporal_stride * self.stream_seconds


def plan_bundle(
    card: Card, size: Input, question: Question, *, counted: Sequence[int] = ()
) -> Plan:
    """Return what a bundle takes on a device.

    Args:
        card: The model.
        size: The window that the bundle is exported for.
        question: The device and the conditions.
        counted: See `vditrack_export.plan.pipeline.graph_costs`.

    Raises:
        InputError: The device does not compute in a precision that the graphs have.

    """
    setting = Setting(size.height, size.width, size.frames, size.temporal_stride)
    described, device = size.described_latents, question.device
    graphs = graph_costs(card, setting, described, question.precision, device.fusion, counted)
    engines = {name: plan_engine(cost, question) for name, cost in graphs.costs.items()}
    matching = question.roofline.seconds(matching_costs(card, setting, question.points))
    clip = clip_use(graphs.takes, size)
    memory = _count_memory(card, setting, graphs, engines, device)
    return Plan(
        setting=setting,
        described=described,
        engines=engines,
        cache_bytes=_cache_bytes(setting, graphs),
        matching_seconds=matching,
        memory=memory,
        stream_seconds=_seconds(STREAM, engines, matching),
        clip_seconds=_seconds(clip, engines, matching),
        clip_frames=clip.new_frames,
        fits=memory.needed <= _USABLE_MEMORY * device.memory * 1e9,
    )


def plan_engine(cost: Cost, question: Question) -> Engine:
    """Return one graph's cost on a device."""
    line, held = question.roofline, question.device.held
    return Engine(
        operations=cost.operations,
        moved_bytes=cost.moved_bytes + cost.weight_bytes,
        weight_bytes=cost.weight_bytes,
        activation_bytes=round(held * cost.peak_bytes),
        input_bytes=cost.input_bytes,
        output_bytes=cost.output_bytes,
        seconds=line.seconds(cost),
        copy_seconds=line.copy_seconds(cost.input_bytes + cost.output_bytes),
    )


def _seconds(use: Use, engines: dict[str, Engine], matching: float) -> float:
    runs = {"encoder_start": use.starts, "encoder": use.encodings, "transformer": use.windows}
    networks = sum(
        runs[name] * (engine.seconds + engine.copy_seconds) for name, engine in engines.items()
    )
    return networks + use.new_frames * matching


def _cache_bytes(setting: Setting, graphs: Graphs) -> int:
    """Return the size of the encoder's caches: of its inputs, all but the frames."""
    return graphs.encoder.input_bytes - graphs.takes.frames * _frame_bytes(setting)


def _frame_bytes(setting: Setting) -> int:
    return 3 * setting.height * setting.width


def _count_memory(
    card: Card, setting: Setting, graphs: Graphs, engines: dict[str, Engine], device: Device
) -> Memory:
    every = engines.values()
    buffers = sum(engine.input_bytes + engine.output_bytes for engine in every)
    takes, (length, rows, columns) = graphs.takes, latent_size(card, setting)
    if takes.frames > 1 and not takes.caches:
        window = (setting.frames - 1) * _frame_bytes(setting)
    else:
        window = (length - 1) * card.encoder.latent_channels * rows * columns * _FLOAT
    native = device.engine == "tensorrt"
    return Memory(
        weights=sum(engine.weight_bytes for engine in every),
        activations=sum(engine.activation_bytes for engine in every),
        # ONNX Runtime reads and writes arrays of the host: its activations include them.
        buffers=buffers if native else 0,
        pinned=buffers if native else 0,
        state=window + (2 * _cache_bytes(setting, graphs) if native else 0),
        loading=max(engine.weight_bytes for engine in every),
        shared=device.link is None,
    )
