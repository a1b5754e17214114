"""From a card and a checkpoint to a sealed bundle."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import diffusers
import onnx
import onnxruntime
import onnxscript
import torch
from torch import Tensor

from vditrack.bundle import (
    CONTENTS,
    ENCODER,
    FEATURES,
    SCHEMA_VERSION,
    Bundle,
    Manifest,
    Output,
    Source,
    seal_bundle,
)
from vditrack.errors import InputError
from vditrack.files import staged_folder
from vditrack_export.card import Card
from vditrack_export.checkpoint import Checkpoint, load_checkpoint
from vditrack_export.encoder import FramesToLatents
from vditrack_export.frequencies import low_frequency_channels, wan_rotary_axes
from vditrack_export.graph import export_graph
from vditrack_export.parity import attention_keys, chosen, relative_error, run_graph
from vditrack_export.paths.cut import Cut, Denoising
from vditrack_export.paths.wan import WanKeys

_TOOLS = (torch, diffusers, onnx, onnxscript, onnxruntime)
_PARITY_SEED = 0


def export_bundle(
    card: Card, weights: Path, destination: Path, report: Callable[[str], None]
) -> Bundle:
    """Export the encoder and the truncated transformer, prove them right, and seal the bundle.

    Args:
        card: what to export.
        weights: folder of the checkpoint.
        destination: folder that the bundle becomes; an older bundle there is replaced at the end.
        report: called with the name of each stage as it starts.

    Raises:
        VditrackError: the checkpoint is not the card's, the destination is taken, or the exported
            graphs do not reproduce the model. Nothing is left behind then.

    """
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        report("reading the checkpoint")
        checkpoint = load_checkpoint(weights)
        _check_fit(card, checkpoint, weights)
        plan = _plan(card, checkpoint)
        _check_latents(plan, weights)
        encoder_error = _export_encoder(plan, folder / ENCODER, report)
        features_error = _export_features(plan, folder / FEATURES, report)
        report("sealing the bundle")
        parity = {"encoder_vs_torch": encoder_error, "features_vs_full_model": features_error}
        sealed = seal_bundle(folder, _manifest(plan, parity))
    return Bundle(destination, sealed.manifest)


@dataclass(frozen=True)
class _Plan:
    """What is cut out of which checkpoint, and an input to try it on."""

    card: Card
    checkpoint: Checkpoint
    stride: int
    """Side of a cell of the descriptors' grid, in pixels."""
    channels: tuple[int, ...]
    """Channels kept of each head."""
    encoder: FramesToLatents
    frames: Tensor
    """Random uint8 [encoder_frames, H, W, 3]: one run of the encoder."""
    latents: Tensor
    """Of a whole window of random frames: float32 [1, C, T, h, w]."""


def _plan(card: Card, checkpoint: Checkpoint) -> _Plan:
    config = checkpoint.transformer.config
    encoder = FramesToLatents(checkpoint.encoder).eval()
    shape = (card.input.frames, card.input.height, card.input.width, 3)
    generator = torch.Generator().manual_seed(_PARITY_SEED)
    window = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    groups = torch.split(window, card.input.encoder_frames)
    with torch.no_grad():
        latents = torch.cat([encoder(group) for group in groups], dim=2)
    axes = wan_rotary_axes(config.attention_head_dim)
    return _Plan(
        card=card,
        checkpoint=checkpoint,
        stride=checkpoint.encoder_stride * config.patch_size[1],
        channels=tuple(low_frequency_channels(axes, card.feature.frequency_range)),
        encoder=encoder,
        frames=groups[0],
        latents=latents,
    )


def _export_encoder(plan: _Plan, path: Path, report: Callable[[str], None]) -> float:
    """Write the encoder's graph and return its relative error."""
    report("exporting the encoder")
    export_graph(plan.encoder, plan.frames, path, input_name="frames", output_name="latents")
    report("comparing the encoder with the original")
    reference = plan.latents[:, :, : plan.frames.shape[0]]
    return relative_error(path, run_graph(path, plan.frames), reference)


def _export_features(plan: _Plan, path: Path, report: Callable[[str], None]) -> float:
    """Write the truncated transformer's graph and return its relative error."""
    report("exporting the transformer")
    feature, checkpoint = plan.card.feature, plan.checkpoint
    _, channels, frames, rows, columns = plan.latents.shape
    cut = Cut(
        block=feature.block,
        heads=feature.heads,
        channels=plan.channels,
        described=plan.card.input.described_frames,
    )
    denoising = Denoising(
        timestep=feature.timestep,
        signal=1 - feature.noise_level,
        noise=feature.noise_level,
        seed=feature.noise_seed,
    )
    shape = (channels, frames, rows, columns)
    model, prompt = checkpoint.transformer, checkpoint.prompt
    truncated = WanKeys(model, shape, cut, denoising, prompt).eval()
    export_graph(truncated, plan.latents, path, input_name="latents", output_name="descriptors")
    report("comparing the transformer with the original")
    noised = denoising.noised(plan.latents)
    keys = attention_keys(model, feature.block, noised, feature.timestep, prompt)
    newest = len(keys) * plan.card.input.described_frames // frames
    reference = chosen(keys[-newest:], feature.heads, plan.channels)
    return relative_error(path, run_graph(path, plan.latents), reference)


def _check_fit(card: Card, checkpoint: Checkpoint, weights: Path) -> None:
    config, feature, size = checkpoint.transformer.config, card.feature, card.input
    patch_frames, patch_rows, patch_columns = config.patch_size
    stride = checkpoint.encoder_stride * patch_rows
    positions = config.rope_max_seq_len
    blocks, heads = config.num_layers, config.num_attention_heads
    claims = [
        (feature.block < blocks, f"the card wants block {feature.block} of {blocks} from 0"),
        (
            max(feature.heads) < heads,
            f"the card wants head {max(feature.heads)} of {heads} from 0",
        ),
        (
            config.image_dim is None and config.added_kv_proj_dim is None,
            "the transformer wants an image beside the prompt",
        ),
        (
            patch_frames == 1 and patch_rows == patch_columns,
            f"its patches of {patch_frames} x {patch_rows} x {patch_columns} are not square cells",
        ),
        (
            size.height % stride == 0 and size.width % stride == 0,
            f"{size.height} x {size.width} pixels do not divide into cells of {stride}",
        ),
        (
            max(size.frames, size.height // stride, size.width // stride) <= positions,
            f"the window is longer than the transformer's {positions} positions",
        ),
    ]
    complaints = [complaint for holds, complaint in claims if not holds]
    if complaints:
        raise InputError(f"checkpoint {weights} does not fit the card: {'; '.join(complaints)}.")


def _check_latents(plan: _Plan, weights: Path) -> None:
    size, cell = plan.card.input, plan.checkpoint.encoder_stride
    channels = plan.checkpoint.transformer.config.in_channels
    wanted = [1, channels, size.frames, size.height // cell, size.width // cell]
    if list(plan.latents.shape) != wanted:
        raise InputError(
            f"checkpoint {weights} does not fit together: the encoder gives latents of "
            f"{list(plan.latents.shape)}, the transformer takes {wanted}."
        )


def _manifest(plan: _Plan, parity: dict[str, float]) -> Manifest:
    card, feature = plan.card, plan.card.feature
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=card.name,
        notes=card.notes,
        source=Source(
            card=card.name,
            checkpoint=card.checkpoint,
            checkpoint_sha256=plan.checkpoint.sha256,
            licence=card.licence,
            block=feature.block,
            heads=feature.heads,
            tensor=feature.tensor,
            channels=plan.channels,
            timestep=feature.timestep,
            noise_level=feature.noise_level,
            noise_seed=feature.noise_seed,
        ),
        input=card.input,
        output=Output(
            rows=card.input.height // plan.stride,
            columns=card.input.width // plan.stride,
            stride=plan.stride,
            channels=len(feature.heads) * len(plan.channels),
        ),
        matching=card.matching,
        files={},
        parity=parity,
        tools={"python": platform.python_version(), "vditrack": version("vditrack")}
        | {tool.__name__: str(tool.__version__) for tool in _TOOLS},
    )
