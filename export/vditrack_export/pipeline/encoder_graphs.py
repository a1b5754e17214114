"""The graphs of a card's encoder, and the latents that the original model gives."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vditrack.bundle.folder import ENCODER, ENCODER_START
from vditrack.bundle.manifest import Encoder, Input
from vditrack_export.card import (
    Card,
    Convolutions,
    HunyuanVideoAutoencoder,
    KlAutoencoder,
    LtxAutoencoder,
    Pixels,
    WanAutoencoder,
)
from vditrack_export.families.clip_input import as_clip
from vditrack_export.families.cogvideox.autoencoder import CogVideoXClipEncoder
from vditrack_export.families.hunyuan.autoencoder import (
    HunyuanVideoClipEncoder,
    HunyuanVideoFrameEncoder,
)
from vditrack_export.families.image_input import FramesToLatents
from vditrack_export.families.ltx.autoencoder import LtxStreamEncoder
from vditrack_export.families.unet.autoencoder import KlImageEncoder
from vditrack_export.families.wan.autoencoder import WanStreamEncoder


@dataclass(frozen=True)
class Graph:
    """One graph to be exported: a module and an example of each of its inputs."""

    file: str
    module: nn.Module
    examples: Mapping[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class EncoderForm:
    """How a bundle encodes: its graphs, and what one run of the main one takes."""

    graphs: tuple[Graph, ...]
    takes: Encoder


def encoder_form(card: Card, model: nn.Module, size: Input) -> EncoderForm:
    """Return the form of a card's encoder for a window's size.

    Single frames where they do not depend on each other; groups of frames that share a latent, with
    caches, where convolutions look back in time; and whole windows where norms do so too.
    """
    if isinstance(card.encoder, (Convolutions, Pixels, KlAutoencoder)):
        images = KlImageEncoder(model) if isinstance(card.encoder, KlAutoencoder) else model
        return _apart(FramesToLatents(images), frames=1, size=size)
    if isinstance(card.encoder, WanAutoencoder):
        return _streaming(WanStreamEncoder(model, size.temporal_stride).eval(), size)
    if isinstance(card.encoder, LtxAutoencoder):
        return _streaming(LtxStreamEncoder(model).eval(), size)
    if isinstance(card.encoder, HunyuanVideoAutoencoder):
        if size.temporal_stride == 1:
            return _apart(HunyuanVideoFrameEncoder(model), frames=1, size=size)
        return _apart(HunyuanVideoClipEncoder(model), frames=size.frames, size=size)
    clip = CogVideoXClipEncoder(model, size.temporal_stride).eval()
    return _apart(clip, frames=size.frames, size=size)


def original_latents(card: Card, model: nn.Module, frames: Tensor) -> Tensor:
    """Latents float32 [1, C, t, h, w] of frames uint8 [F, H, W, 3] by the unmodified model."""
    with torch.no_grad():
        if isinstance(card.encoder, (Convolutions, Pixels, KlAutoencoder)):
            return _original_images(card, model, frames)
        clip = as_clip(frames)
        if isinstance(card.encoder, WanAutoencoder):
            return _original_wan(card, model, clip)
        if isinstance(card.encoder, LtxAutoencoder):
            mode = model.encode(clip).latent_dist.mode()  # type: ignore[operator]
            mean, std = (
                figures.reshape(1, -1, 1, 1, 1)  # type: ignore[operator]
                for figures in (model.latents_mean, model.latents_std)
            )
            return torch.as_tensor((mode - mean) / std)
        if isinstance(card.encoder, HunyuanVideoAutoencoder):
            return _original_hunyuan(card, model, clip)
        if card.input.temporal_stride == 1:
            # diffusers has no such form of its own; tests hold this one against a changed model.
            return torch.as_tensor(CogVideoXClipEncoder(model, 1)(frames))
        mode = model.encode(clip).latent_dist.mode()  # type: ignore[operator]
        return torch.as_tensor(mode * model.config["scaling_factor"])  # type: ignore[index]


def _original_images(card: Card, model: nn.Module, frames: Tensor) -> Tensor:
    images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
    if isinstance(card.encoder, KlAutoencoder):
        latents = model.encode(images).latent_dist.mode()  # type: ignore[operator]
        latents = latents * model.config["scaling_factor"]  # type: ignore[index]
    else:
        latents = model(images)
    return torch.as_tensor(latents).transpose(0, 1)[None]


def _original_wan(card: Card, vae: nn.Module, clip: Tensor) -> Tensor:
    if card.input.temporal_stride > 1:
        mode = vae.encode(clip).latent_dist.mode()  # type: ignore[operator]
    else:
        # Without a cache, diffusers' encoder leaves temporal downsampling out.
        mode, _ = vae.quant_conv(vae.encoder(clip)).chunk(2, dim=1)  # type: ignore[operator]
    mean, std = (
        torch.tensor(vae.config[f"latents_{name}"]).reshape(1, -1, 1, 1, 1)  # type: ignore[index]
        for name in ("mean", "std")
    )
    return torch.as_tensor((mode - mean) / std)


def _original_hunyuan(card: Card, vae: nn.Module, clip: Tensor) -> Tensor:
    clips = torch.split(clip, 1, dim=2) if card.input.temporal_stride == 1 else [clip]
    modes = [vae.encode(alone).latent_dist.mode() for alone in clips]  # type: ignore[operator]
    return torch.cat(modes, dim=2) * vae.config["scaling_factor"]  # type: ignore[index]


def _apart(module: nn.Module, frames: int, size: Input) -> EncoderForm:
    examples = {"frames": _frames(frames, size)}
    graph = Graph(ENCODER, module.eval(), examples, ("latents",))
    return EncoderForm((graph,), Encoder(frames=frames, caches=0))


def _streaming(encoder: WanStreamEncoder | LtxStreamEncoder, size: Input) -> EncoderForm:
    stride = size.temporal_stride
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
    """What a module gives, on the meta device: without numbers, and without the work."""
    state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    given = tuple(example.to("meta") for example in examples)
    outputs = torch.func.functional_call(module, shapes, given)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _frames(count: int, size: Input) -> Tensor:
    return _zeros((count, size.height, size.width, 3), torch.uint8)


def _zeros(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """An example for a graph: zeros that take no memory, however many."""
    return torch.zeros(1, dtype=dtype).expand(*shape)


def groups(frames: int, takes: Encoder) -> Sequence[int]:
    """Frames of each run that encodes a window: with caches and compression the first is alone."""
    if takes.caches and takes.frames > 1:
        return [1, *[takes.frames] * ((frames - 1) // takes.frames)]
    return [takes.frames] * (frames // takes.frames)
