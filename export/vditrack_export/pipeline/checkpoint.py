"""Loading a checkpoint folder; one that does not match its card is refused."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vditrack.bundle.manifest import Adapter, TinyEncoder
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.checkpoints.checkpoint import CheckpointFiles, open_checkpoint
from vditrack_export.checkpoints.experts import Expert, ExpertName, choose_expert
from vditrack_export.checkpoints.lora import fuse_loras
from vditrack_export.checkpoints.sources import Weights


@dataclass(frozen=True)
class Checkpoint:
    """The models of a checkpoint in FP32, ready for inference."""

    encoder: nn.Module
    """The encoder that is exported, as its family loads it; the identity for pixels."""
    transformer: nn.Module
    """Transformer of diffusers without the blocks after the card's, or a whole UNet."""
    sha256: str
    """Digest over the names and contents of the files read."""
    expert: ExpertName | None = None
    """The transformer that was read of a checkpoint with two."""
    quantisation: tuple[str, ...] = ()
    """Types with fewer than 16 bits that weights were stored in."""
    adapters: tuple[Adapter, ...] = ()
    """Adapters that were fused into the transformer."""
    notes: tuple[str, ...] = ()
    """What a user should know of the weights."""
    tiny_encoder: TinyEncoder | None = None
    """What `encoder` is, if it is not the checkpoint's own."""
    own_encoder: nn.Module | None = None
    """The checkpoint's own encoder, where a tiny one is exported and this is at hand."""


def load_checkpoint(card: Card, weights: Weights, timesteps: Sequence[float] = ()) -> Checkpoint:
    """Load the encoder and the transformer, of this only the blocks up to the card's.

    Args:
        card: Card of the checkpoint.
        weights: Its folder or files. A folder that a diffusers pipeline saved has ``transformer/``
            or ``unet/``, and ``vae/`` if there is an autoencoder. That of the bundled model has
            ``encoder.json``, ``encoder.safetensors`` and ``vdit/``.
        timesteps: Timesteps that are read, to choose one of two transformers; default: the card's.

    Raises:
        InputError: A file is missing or does not match the card; the message names it.

    """
    checkpoint, family = open_checkpoint(weights), card.family
    steps = timesteps or (card.feature.timestep,)
    expert = _choose_expert(checkpoint.root, family.denoiser_folder, steps, weights)
    # All files are looked at before the first weights are read, which takes minutes.
    denoiser = family.open_denoiser(checkpoint, expert.component)
    files = [*family.encoder.files(checkpoint), *denoiser.files]
    notes = _collect_notes(checkpoint, expert, weights.variant)
    size, cell = card.input, card.cell
    grid = (size.latents, size.height // cell, size.width // cell)
    encoder = family.encoder.load(checkpoint)
    own_encoder, of_encoder = _load_own_encoder(card, checkpoint)
    transformer = family.denoiser.load(denoiser, card.feature.block + 1, grid)
    adapters, of_loras = fuse_loras(
        transformer, denoiser.config, family.denoiser.lora_loader, weights.loras
    )
    if card.input.attention == "causal" and weights.transformer is None:
        notes += (
            f"nothing in {checkpoint.root} says that its transformer was trained block-causally: "
            "if it is Wan's own, give the causal one with --transformer FILE",
        )
    quantisation = sorted({kind for stored in checkpoint.opened for kind in stored.kinds})
    if quantisation:
        notes += (
            f"weights were stored as {', '.join(quantisation)} and have no more precision than "
            "that, whatever that of the bundle",
        )
    return Checkpoint(
        encoder=encoder,
        transformer=transformer,
        sha256=_digest(checkpoint.root, files),
        quantisation=tuple(quantisation),
        adapters=adapters,
        expert=expert.name,
        notes=(*notes, *of_encoder, *of_loras),
        tiny_encoder=_describe_tiny_encoder(card, checkpoint),
        own_encoder=own_encoder,
    )


def _load_own_encoder(
    card: Card, checkpoint: CheckpointFiles
) -> tuple[nn.Module | None, tuple[str, ...]]:
    """Load the checkpoint's own encoder, to compare a tiny one with it.

    Returns:
        The encoder; None if it is not needed or not at hand. Then what a user should know of that.

    """
    if card.tiny_encoder is None:
        return None, ()
    try:
        return card.own_encoder.load(checkpoint), ()
    except InputError as error:
        return None, (f"the tiny encoder is not compared with the checkpoint's own: {error}",)


def _describe_tiny_encoder(card: Card, checkpoint: CheckpointFiles) -> TinyEncoder | None:
    if card.tiny_encoder is None or checkpoint.tiny_encoder is None:
        return None
    files = card.family.encoder.files(checkpoint)
    path = checkpoint.tiny_encoder
    digest = _digest(path if path.is_dir() else path.parent, files)
    return TinyEncoder(kind=card.tiny_encoder, name=path.name, sha256=digest)


def _choose_expert(
    root: Path, component: str, timesteps: Sequence[float], weights: Weights
) -> Expert:
    """Choose one of two transformers, unless a file of its own or with all models is given."""
    if weights.transformer is None and weights.folder is not None and weights.folder.is_dir():
        return choose_expert(root, component, timesteps, weights.expert)
    if weights.expert is not None:
        raise InputError(
            f"--expert {weights.expert}: the transformer is given as a file, so there is nothing "
            "to choose. Leave --expert out."
        )
    return Expert(component)


def _collect_notes(
    checkpoint: CheckpointFiles, expert: Expert, variant: str | None
) -> tuple[str, ...]:
    """Return what a user should know of the files that were chosen.

    Raises:
        InputError: No model has the variant that was asked for.

    """
    if variant and all(model.variant != variant for model in checkpoint.opened):
        raise InputError(
            f"--variant {variant}: checkpoint {checkpoint.root} has no weights of this variant. "
            "Leave --variant out, or give the middle part of a file's name, such as fp16 of "
            "diffusion_pytorch_model.fp16.safetensors."
        )
    of_models = (note for model in checkpoint.opened for note in model.notes)
    return (*filter(None, (expert.note,)), *of_models)


def random_checkpoint(card: Card, seed: int = 0) -> Checkpoint:
    """Build untrained models of a card's shapes, for benchmarks and engine builds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = card.family.encoder.build_random()
        transformer = card.family.denoiser.build_random(card.feature.block + 1)
    digest = hashlib.sha256(f"random weights, seed {seed}".encode()).hexdigest()
    kind = card.tiny_encoder
    tiny = None if kind is None else TinyEncoder(kind=kind, name=None, sha256=None)
    return Checkpoint(encoder.eval(), transformer.eval(), digest, tiny_encoder=tiny)


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(files)):
        inside = path.is_relative_to(folder)
        name = path.relative_to(folder).as_posix() if inside else path.name
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
