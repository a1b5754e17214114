"""The networks of a card, built as they are exported, and recorded on the meta device.

With its weights on the meta device, a network of any size takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import msgspec
import torch
import transformers
from torch import Tensor, nn

from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Encoder, Input
from vditrack.inference.session import NEXT, SLOT
from vditrack_export.card import Card
from vditrack_export.families.base_shapes import DenoiserShape, EncoderShape, TinyEncoderKind
from vditrack_export.families.encoder_form import Graph
from vditrack_export.families.read_spec import Cut
from vditrack_export.families.registry import resolve_family
from vditrack_export.families.step_path import StepPath
from vditrack_export.pipeline.backbone import read_denoising, step_graph
from vditrack_export.pipeline.precision import lower_precision
from vditrack_export.plan.costs import PrecisionName
from vditrack_export.plan.meta_tensors import MetaTensors, meta_tensor
from vditrack_export.plan.recorder import Recording, StateBytes, record
from vditrack_export.plan.settings import LatentSize

_PROMPT_SEED = 0

_Shapes = tuple[DenoiserShape, EncoderShape, TinyEncoderKind | None]
"""What an encoder is built of: see `resolve_family`."""


@dataclass(frozen=True)
class EncoderRecording:
    """One run of each graph of an encoder."""

    start: Recording | None
    """Run of the graph that encodes a clip's first frame; None if `step` does it."""
    step: Recording
    takes: Encoder
    """Frames and caches that the step's graph takes."""


def build_feature_path(
    card: Card, transformer: nn.Module, latents: LatentSize, described: int, prompt: Tensor
) -> nn.Module:
    """Build the module that maps latents [1, C, T, h, w] to descriptors.

    With cached keys, which the card's input states, it is the step of the described latents.

    Args:
        card: The model.
        transformer: Its transformer or UNet.
        latents: Frames, rows and columns of the latents of a window.
        described: Number of newest latent frames that get descriptors.
        prompt: Embedding of the prompt.

    """
    feature, denoiser = card.feature, card.family.denoiser
    cut = Cut(
        block=feature.block,
        heads=feature.heads,
        channels=denoiser.channels(feature),
        described=described,
        tensor=feature.tensor,
        rotated=feature.rotated,
    )
    shape = (card.encoder.latent_channels, *latents)
    build = denoiser.path if card.input.attention == "window" else denoiser.step_path
    with torch.no_grad():
        return build(transformer, shape, cut, read_denoising(card.feature), prompt).eval()


def feature_graph(path: nn.Module, example: Tensor) -> Graph:
    """Return the graph of a feature path, as export writes it.

    Args:
        path: Of `build_feature_path`, in its precision.
        example: Latents of a window.

    """
    if isinstance(path, StepPath):
        return step_graph(path)
    return Graph(FEATURES, path, {"latents": example}, ("descriptors",))


def build_transformer(card: Card) -> Callable[[Tensor, Tensor], object]:
    """Build the whole transformer or UNet, with all its blocks.

    Returns:
        A function that runs it on clean latents [1, C, T, h, w] and a prompt, at the card's step.

    """
    denoiser, denoising = card.family.denoiser, read_denoising(card.feature)
    model = denoiser.model_class(**denoiser.config()).eval()
    return lambda latents, prompt: denoiser.run(model, latents, denoising, prompt)


def build_text_encoder(card: Card) -> nn.Module | None:
    """Build the text encoder of a card; None if it has none, or does not state all its shapes."""
    shape = card.text_encoder
    config = None if shape is None else shape.config(card.transformer.text_tokens)
    if shape is None or config is None:
        return None
    model_class = getattr(transformers, shape.model_class)
    model: nn.Module = model_class(model_class.config_class(**config)).eval()
    return model


def make_prompt(card: Card) -> Tensor:
    """Return random numbers in place of the embedding of a prompt."""
    return card.family.denoiser.random_prompt(_PROMPT_SEED)


def record_feature_path(
    card: Card, latents: LatentSize, described: int, precision: PrecisionName = "fp32"
) -> Recording:
    """Record the path from latents to descriptors in the precision that it is exported in.

    Other arguments are those of `build_feature_path`.
    """
    # A tiny encoder gives the same latents.
    own = msgspec.structs.replace(card, tiny_encoder=None)
    return _record_feature_path(own, latents, described, precision)


@lru_cache(maxsize=256)
def _record_feature_path(
    card: Card, latents: LatentSize, described: int, precision: PrecisionName
) -> Recording:
    transformer, prompt = _meta_transformer(card), make_prompt(card)
    with MetaTensors():  # type: ignore[no-untyped-call]
        path = build_feature_path(card, transformer, latents, described, prompt)
        if precision != "fp32":
            # The transformer stays in FP32 for other recordings, whose constants are made of it.
            path = _copy_module(path)
            lower_precision(path, precision)
    return record_graph(feature_graph(path, _latents(card, latents)))


def record_graph(graph: Graph) -> Recording:
    """Record a run of a graph, whose state is known by the names of its inputs and outputs."""
    examples = {name: meta_tensor(*x.shape, dtype=x.dtype) for name, x in graph.examples.items()}
    recording = record(
        partial(graph.module, *examples.values()), [*examples.values()], graph.module
    )
    sizes = {
        name: value.nbytes for name, value in zip(graph.outputs, recording.results, strict=True)
    }
    replaced = {
        name.removeprefix(NEXT): size for name, size in sizes.items() if name.startswith(NEXT)
    }
    slots = {name.removeprefix(SLOT): size for name, size in sizes.items() if name.startswith(SLOT)}
    state = StateBytes(
        taken=sum(x.nbytes for name, x in examples.items() if name in {*replaced, *slots}),
        replaced=sum(replaced.values()),
        slots=sum(slots.values()),
    )
    return replace(recording, state=state)


def record_encoder(card: Card, size: Input, precision: PrecisionName = "fp32") -> EncoderRecording:
    """Record the graphs that encode a window of this size, in the precision of their export."""
    # Cards that differ in anything else have the same encoder.
    return _record_encoder((card.transformer, card.encoder, card.tiny_encoder), size, precision)


@lru_cache(maxsize=256)
def _record_encoder(shapes: _Shapes, size: Input, precision: PrecisionName) -> EncoderRecording:
    family = resolve_family(*shapes).encoder
    with MetaTensors(), torch.no_grad():  # type: ignore[no-untyped-call]
        encoder = _meta_encoder(shapes, size.temporal_stride, precision)
        if precision != "fp32":
            lower_precision(family.form(encoder, size).graphs[-1].module, precision)
        # Made after that, since caches have the precision of the weights.
        form = family.form(encoder, size)
    recordings = [record_graph(graph) for graph in form.graphs]
    start = recordings[0] if len(recordings) > 1 else None
    return EncoderRecording(start, recordings[-1], form.takes)


@lru_cache(maxsize=16)
def record_transformer(card: Card, latents: LatentSize) -> Recording:
    """Record one pass of the whole transformer or UNet on latents of this size."""
    with torch.device("meta"):
        run = build_transformer(card)
    example, prompt = _latents(card, latents), make_prompt(card)
    return record(lambda: run(example, prompt), [example, prompt])


@lru_cache(maxsize=16)
def record_decoder(card: Card, latents: LatentSize, temporal_stride: int) -> Recording | None:
    """Record how the pipeline decodes the latents of a window; None if it has no decoder."""
    with torch.device("meta"):
        decode = card.own_encoder.build_decoder(temporal_stride)
    if decode is None:
        return None
    example = _latents(card, latents)
    return record(lambda: decode(example), [example])


@lru_cache(maxsize=16)
def record_text_encoder(card: Card) -> Recording | None:
    """Record the text encoder on one prompt with its padding; None as in `build_text_encoder`."""
    with torch.device("meta"):
        model = build_text_encoder(card)
    if model is None:
        return None
    tokens = meta_tensor(1, card.transformer.text_tokens, dtype=torch.long)
    return record(lambda: model(tokens), [tokens])


@lru_cache(maxsize=8)
def _meta_transformer(card: Card) -> nn.Module:
    """Build the transformer up to the block that is read."""
    with torch.device("meta"):
        transformer: nn.Module = card.family.denoiser.build_random(card.feature.block + 1)
    return transformer.eval()


@lru_cache(maxsize=8)
def _meta_encoder(shapes: _Shapes, temporal_stride: int, precision: PrecisionName) -> nn.Module:
    """Build the encoder of a stride and precision, in which the user lowers the layers it runs."""
    with torch.device("meta"):
        encoder: nn.Module = resolve_family(*shapes).encoder.build_random()
    return encoder.eval()


def _copy_module(module: nn.Module) -> nn.Module:
    """Return a deep copy with weights of its own, and with the same buffers."""
    # Weights have no numbers that would have to be copied.
    weights = {id(x): nn.Parameter(x.detach(), x.requires_grad) for x in module.parameters()}
    return deepcopy(module, {**weights, **{id(x): x for x in module.buffers()}})


def _latents(card: Card, size: LatentSize) -> Tensor:
    return meta_tensor(1, card.encoder.latent_channels, *size)
