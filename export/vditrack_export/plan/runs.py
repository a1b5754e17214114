"""A bundle on a device: time and memory of each engine, and frame rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vditrack.bundle.manifest import Input, Precision
from vditrack_export.card import Card
from vditrack_export.families.base_shapes import TinyEncoderKind
from vditrack_export.plan.costs import Cost
from vditrack_export.plan.devices import Device
from vditrack_export.plan.pipeline import Graphs, graph_costs, matching_costs
from vditrack_export.plan.roofline import Roofline
from vditrack_export.plan.settings import Setting, latent_size
from vditrack_export.plan.uses import Use, clip_use, stream_use

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
    """Inputs that are not state."""
    output_bytes: int
    """Outputs that do not update the state."""
    state_bytes: int
    """State that a run takes and updates, which stays on the device."""
    slot_bytes: int
    """Outputs that are copied into rings of the state."""
    host_bytes: int
    """What crosses between host and device in a run: frames, or descriptors."""
    seconds: float
    """Time of a run on the device."""
    copy_seconds: float
    """Time in which frames or descriptors pass through the host's memory, and outputs are copied
    into rings."""


@dataclass(frozen=True)
class Memory:
    """What a loaded bundle and its stream hold, in bytes."""

    weights: int
    """Of all engines: those of a first frame's encoder are there twice."""
    activations: int
    """Of the engine that needs most, whose workspace all share."""
    buffers: int
    """Inputs and outputs of all engines on the device, without their state."""
    pinned: int
    """Those of them that may cross, in pinned memory of the host."""
    state: int
    """State of a stream on the device: the encoder's caches before and after a run, cached keys
    and values, and a window of latents."""
    frames: int
    """Host memory of a stream: the frames that an encoder of whole windows takes again."""
    loading: int
    """Host memory of the largest graph's file while it is loaded, if that is in memory whole."""
    shared: bool
    """Whether host and device share one memory."""

    @property
    def device(self) -> int:
        """Memory on the device."""
        return self.weights + self.activations + self.buffers + self.state

    @property
    def host(self) -> int:
        """Memory of the host, without that of the program itself."""
        return self.pinned + self.frames

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
    attention: str
    """What the transformer runs on: see `vditrack.bundle.manifest.Input`."""
    encoder: TinyEncoderKind | None
    """The tiny encoder; None for the checkpoint's own."""
    engines: dict[str, Engine]
    """By the name of the graph."""
    cache_bytes: int
    """State that the networks pass from run to run: encoder's caches, cached keys and values."""
    matching_seconds: float
    """Time of tracking into one new frame, as if it ran on the device."""
    memory: Memory
    step_seconds: float
    """Time of the networks in a stream for each new latent, or chunk of latents."""
    step_frames: int
    """Frames of the camera for each of them."""
    encoder_runs: int
    """Runs of the encoder for each of them."""
    clip_seconds: float
    """Time of a window in a clip."""
    clip_frames: int
    """New frames of a window in a clip."""
    fits: bool
    """Whether the memory needed is at most 80% of the device's."""

    @property
    def stream_seconds(self) -> float:
        """Mean time of a stream for each frame of the camera."""
        return self.step_seconds / self.step_frames + self.matching_seconds

    @property
    def stream_rate(self) -> float:
        """Frames of the camera a second that a stream keeps up with."""
        return 1 / self.stream_seconds

    @property
    def clip_rate(self) -> float:
        """Frames a second of a clip, whose windows may look ahead."""
        return self.clip_frames / self.clip_seconds

    @property
    def latent_seconds(self) -> float:
        """Time of a stream for each new latent, with tracking."""
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
    engines = {
        name: plan_engine(cost, question, takes_frames=name != "transformer")
        for name, cost in graphs.costs.items()
    }
    matching = question.roofline.seconds(matching_costs(card, setting, question.points))
    clip, stream = clip_use(graphs.takes, size), stream_use(graphs.takes, size)
    memory = _count_memory(card, setting, graphs, engines, device)
    return Plan(
        setting=setting,
        described=described,
        attention=size.attention,
        encoder=card.tiny_encoder,
        engines=engines,
        cache_bytes=_cache_bytes(graphs),
        matching_seconds=matching,
        memory=memory,
        step_seconds=_seconds(stream, engines, 0.0),
        step_frames=stream.new_frames,
        encoder_runs=stream.encodings,
        clip_seconds=_seconds(clip, engines, matching),
        clip_frames=clip.new_frames,
        fits=memory.needed <= _USABLE_MEMORY * device.memory * 1e9,
    )


def plan_engine(cost: Cost, question: Question, *, takes_frames: bool) -> Engine:
    """Return one graph's cost on a device.

    Latents stay there between encoder and transformer.

    Args:
        cost: Of the graph.
        question: The device and the conditions.
        takes_frames: Whether it is an encoder, whose frames cross; otherwise descriptors do.

    """
    line, held = question.roofline, question.device.held
    host = cost.input_bytes if takes_frames else cost.output_bytes
    return Engine(
        operations=cost.operations,
        moved_bytes=cost.moved_bytes + cost.weight_bytes,
        weight_bytes=cost.weight_bytes,
        activation_bytes=round(held * cost.peak_bytes),
        input_bytes=cost.input_bytes,
        output_bytes=cost.output_bytes,
        state_bytes=cost.replaced_bytes + cost.ring_bytes,
        slot_bytes=cost.slot_bytes,
        host_bytes=host,
        seconds=line.seconds(cost),
        copy_seconds=line.copy_seconds(host) + line.move_seconds(cost.slot_bytes),
    )


def _seconds(use: Use, engines: dict[str, Engine], matching: float) -> float:
    runs = {"encoder_start": use.starts, "encoder": use.encodings, "transformer": use.windows}
    networks = sum(
        runs[name] * (engine.seconds + engine.copy_seconds) for name, engine in engines.items()
    )
    return networks + use.new_frames * matching


def _cache_bytes(graphs: Graphs) -> int:
    """Return the size of the state of a stream: one copy of it."""
    encoder, transformer = graphs.encoder, graphs.transformer
    return sum(cost.replaced_bytes + cost.ring_bytes for cost in (encoder, transformer))


def _frame_bytes(setting: Setting) -> int:
    return 3 * setting.height * setting.width


def _count_memory(
    card: Card, setting: Setting, graphs: Graphs, engines: dict[str, Engine], device: Device
) -> Memory:
    every = engines.values()
    crossing = sum(engine.input_bytes + engine.output_bytes for engine in every)
    takes, (length, rows, columns) = graphs.takes, latent_size(card, setting)
    windowed = takes.frames > 1 and not takes.caches
    older = 0 if windowed or card.input.attention != "window" else length - 1
    window = older * card.encoder.latent_channels * rows * columns * _FLOAT
    replaced = graphs.encoder.replaced_bytes + graphs.transformer.replaced_bytes
    native = device.engine == "tensorrt"
    return Memory(
        weights=sum(engine.weight_bytes for engine in every),
        # ONNX Runtime's sessions keep their arenas, with inputs and outputs.
        activations=(max if native else sum)(engine.activation_bytes for engine in every),
        buffers=crossing + sum(engine.slot_bytes for engine in every) if native else 0,
        pinned=crossing if native else 0,
        state=window + (2 * replaced + graphs.transformer.ring_bytes if native else 0),
        frames=(setting.frames - 1) * _frame_bytes(setting) if windowed else 0,
        # TensorRT reads an engine's file piece by piece.
        loading=0 if native else max(engine.weight_bytes for engine in every),
        shared=device.link is None,
    )
