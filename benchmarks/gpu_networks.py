"""The networks that `gpu.py` runs: a card with random weights, in torch and as exported graphs."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from vditrack.bundle.folder import ENCODER
from vditrack_export.card import Card, load_card
from vditrack_export.families.encoder_form import shapes_of
from vditrack_export.families.step_path import StepPath
from vditrack_export.pipeline.backbone import Backbone, step_graph
from vditrack_export.pipeline.checkpoint import random_checkpoint
from vditrack_export.pipeline.empty_prompt import random_prompt
from vditrack_export.pipeline.onnx_export import write_graph
from vditrack_export.pipeline.precision import lower_precision

CARD = "wan2.1-t2v-1.3b"
OPERATIONS = "operations.json"
"""File with the operations of a run of each graph."""
_WINDOW = {"frames": 25, "temporal_stride": 4, "described_frames": 4}
_SMALL_WINDOW = {"frames": 5, "temporal_stride": 4, "described_frames": 4}
_SMALL_SECTIONS: dict[str, dict[str, Any]] = {
    "input": {"height": 64, "width": 96},
    "transformer": {
        "layers": 4,
        "heads": 2,
        "head_dim": 32,
        "feed_forward": 256,
        "in_channels": 4,
        "out_channels": 4,
        "frequency_dim": 16,
    },
    "encoder": {
        "base_width": 8,
        "multiples": [1, 1, 2, 2],
        "residual_blocks": 1,
        "latent_channels": 4,
    },
    "feature": {"block": 2, "heads": [1]},
}


@dataclass(frozen=True)
class Network:
    """A function of no arguments that runs a network once on the device, and its operations."""

    name: str
    run: Callable[[], object]
    operations: int
    """Twice the multiply-adds of a run."""


def make_card(*, small: bool) -> Card:
    """Return the card that is measured: a window whose newest latent is described."""
    plain = msgspec.to_builtins(load_card(CARD))
    for section, sides in _SMALL_SECTIONS.items() if small else ():
        plain[section] |= sides
    plain["input"] |= _SMALL_WINDOW if small else _WINDOW
    plain["masks"] = None
    return msgspec.convert(plain, Card)


def build_cut(card: Card, device: torch.device, *, compiled: bool) -> Network:
    """Build the cut transformer in torch: from latents of a window to descriptors.

    On a GPU all of it is in FP16, so that attention is torch's fused kernel.

    Args:
        card: The model.
        device: Where it runs.
        compiled: Whether its blocks are compiled by `torch.compile`.

    """
    backbone, dtype = _random_backbone(card), _dtype_on(device)
    path: Any = backbone.feature_graph(card.input).module.to(device, dtype)
    if compiled:
        for block in path.blocks:
            block.compile()
    latents = torch.randn(1, *backbone.latent_shape(card.input)).to(device, dtype)
    return _count("cut transformer, window", partial(path, latents))


def build_step(card: Card, device: torch.device, *, compiled: bool) -> Network:
    """Build the step of a new latent with cached keys and values of the window's others.

    On a GPU its products are in FP16, as export writes them; attention is two products around a
    softmax in FP32, which torch does not fuse. Arguments are those of `build_cut`.
    """
    backbone = _random_backbone(card)
    size = msgspec.structs.replace(card.input, attention="cached")
    graph = backbone.feature_graph(size)
    step = graph.module
    assert isinstance(step, StepPath)
    if device.type == "cuda":
        lower_precision(step, "fp16")
        # Its caches have the precision of its weights.
        graph = step_graph(step)
    module: Any = step.to(device)
    if compiled:
        module.compile()
    inputs = {name: example.contiguous().to(device) for name, example in graph.examples.items()}
    inputs["places"] = torch.arange(step.slots, dtype=torch.int32, device=device)
    return _count("cached step, a new latent", partial(module, *inputs.values()))


def build_whole(card: Card, device: torch.device, *, compiled: bool) -> Network:
    """Build one pass of the whole transformer of diffusers; arguments are those of `build_cut`."""
    denoiser, dtype, size = card.family.denoiser, _dtype_on(device), card.input
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            whole: Any = denoiser.build_random(card.transformer.layers).eval()
    finally:
        torch.set_default_dtype(usual)
    if compiled:
        whole.compile_repeated_blocks()
    side, channels = card.encoder.stride, card.encoder.latent_channels
    shape = (1, channels, size.latents, size.height // side, size.width // side)
    latents = torch.randn(shape).to(device, dtype)
    step = torch.tensor([card.feature.timestep], device=device)
    prompt = random_prompt(card).to(device, dtype)
    run = partial(denoiser.run_noised, whole, latents, step, prompt)
    return _count("whole transformer, window", run)


def build_encoder(card: Card, device: torch.device) -> Network:
    """Build the encoder in torch, which encodes the frames of a new latent with its caches."""
    encoder = card.family.encoder
    model = encoder.build_random().eval()
    step = encoder.form(model, card.input).graphs[-1]
    if device.type == "cuda":
        lower_precision(step.module, "fp16")
        # Its caches have the precision of its weights.
        step = encoder.form(model, card.input).graphs[-1]
    inputs = [example.contiguous().to(device) for example in step.examples.values()]
    return _count("VAE encoder, a new latent", partial(step.module.to(device), *inputs))


def _dtype_on(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" else torch.float32


def write_graphs(card: Card, folder: Path, *, half: bool) -> Iterator[tuple[str, float]]:
    """Write the graphs of a stream as export does, with random weights; yield names and MB.

    What an export measures beside it (ranges, parity, tracks) is left out.
    """
    backbone = _random_backbone(card)
    graphs = [backbone.feature_graph(card.input), backbone.encoder_form(card.input).graphs[-1]]
    operations = {}
    for graph in graphs:
        with FlopCounterMode(display=False) as counter:
            shapes_of(graph.module, graph.examples.values())
        operations[graph.file] = counter.get_total_flops()
    (folder / OPERATIONS).write_text(json.dumps(operations))
    for graph in graphs:
        if half:
            lower_precision(graph.module, "fp16")
        # An encoder's caches have the precision of its weights.
        renewed = backbone.encoder_form(card.input).graphs[-1] if graph.file == ENCODER else graph
        write_graph(renewed, folder)
        files = folder.glob(f"{graph.file}*")
        yield graph.file, sum(file.stat().st_size for file in files) / 1e6


def _random_backbone(card: Card) -> Backbone:
    return Backbone(card, random_checkpoint(card), random_prompt(card), random=True)


def _count(name: str, run: Callable[[], object]) -> Network:
    """Return a network with the operations that torch counts in its first run."""
    # Torch has no rule for its fused attention on CPUs.
    plain = nullcontext() if torch.cuda.is_available() else sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, plain:
        run()
    return Network(name, run, counter.get_total_flops())
