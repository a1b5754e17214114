"""How a bundle encodes frames: the graphs of an encoder, and what one run of them takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vditrack.bundle.folder import ENCODER, ENCODER_START
from vditrack.bundle.manifest import Encoder, Input


@dataclass(frozen=True)
class Graph:
    """A module to be exported, with an example of each input."""

    file: str
    module: nn.Module
    examples: Mapping[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EncoderForm:
    """The graphs of an encoder, and what one run of the main graph takes."""

    graphs: tuple[Graph, ...]
    takes: Encoder


def separate_form(module: nn.Module, frames: int, size: Input) -> EncoderForm:
    """Return the form of an encoder that takes ``frames`` frames per run and carries nothing on."""
    examples = {"frames": _frames(frames, size)}
    graph = Graph(ENCODER, module.eval(), examples, ("latents",))
    return EncoderForm((graph,), Encoder(frames=frames, caches=0))


def streaming_form(encoder: nn.Module, size: Input) -> EncoderForm:
    """Return the form of an encoder that carries caches from one group of frames to the next.

    Args:
        encoder: Maps frames and caches to latents and the next caches. Without caches it encodes
            the first frame alone.
        size: Size of the input window. With temporal compression the first frame has a graph of
            its own.

    """
    encoder, stride = encoder.eval(), size.temporal_stride
    _, *caches = shapes_of(encoder, [_frames(1, size)])
    names = tuple(f"next_cache.{n}" for n in range(len(caches)))
    carried = {f"cache.{n}": _zeros(cache.shape, cache.dtype) for n, cache in enumerate(caches)}
    step = Graph(
        ENCODER, encoder, {"frames": _frames(stride, size), **carried}, ("latents", *names)
    )
    takes = Encoder(frames=stride, caches=len(caches))
    if stride == 1:
        return EncoderForm((step,), takes)
    start = Graph(ENCODER_START, encoder, {"frames": _frames(1, size)}, ("latents", *names))
    return EncoderForm((start, step), takes)


def shapes_of(module: nn.Module, examples: Iterable[Tensor]) -> Sequence[Tensor]:
    """Return the outputs of a module on the meta device: shapes and dtypes without numbers."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    given = tuple(example.to("meta") for example in examples)
    outputs = torch.func.functional_call(module, shapes, given)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def groups(frames: int, takes: Encoder) -> Sequence[int]:
    """Return the number of frames of each run that encodes a window.

    With caches and temporal compression the first frame has a run of its own.
    """
    if takes.caches and takes.frames > 1:
        return [1, *[takes.frames] * ((frames - 1) // takes.frames)]
    return [takes.frames] * (frames // takes.frames)


def _frames(count: int, size: Input) -> Tensor:
    return _zeros((count, size.height, size.width, 3), torch.uint8)


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return zeros that occupy the memory of a single number."""
    return torch.zeros(1, dtype=dtype).expand(*shape)
