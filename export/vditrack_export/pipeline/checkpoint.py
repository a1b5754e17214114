"""Loading a checkpoint folder; one that does not match its card is refused."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vditrack.bundle.manifest import Adapter
from vditrack_export.card import Card
from vditrack_export.checkpoints.checkpoint import open_checkpoint
from vditrack_export.checkpoints.lora import fuse_loras
from vditrack_export.checkpoints.sources import Weights


@dataclass(frozen=True)
class Checkpoint:
    """The models of a checkpoint in FP32, ready for inference."""

    encoder: nn.Module
    """A `TinyEncoder`, a whole autoencoder of diffusers, or the identity for pixels."""
    transformer: nn.Module
    """Transformer of diffusers without the blocks after the card's, or a whole UNet."""
    sha256: str
    """Digest over the names and contents of the files read."""
    quantisation: tuple[str, ...] = ()
    """Types with fewer than 16 bits that weights were stored in."""
    adapters: tuple[Adapter, ...] = ()
    """Adapters that were fused into the transformer."""
    notes: tuple[str, ...] = ()
    """What a user should know of the weights."""


def load_checkpoint(card: Card, weights: Weights) -> Checkpoint:
    """Load the encoder and the transformer, of this only the blocks up to the card's.

    Args:
        card: Card of the checkpoint.
        weights: Its folder or files. A folder that a diffusers pipeline saved has ``transformer/``
            or ``unet/``, and ``vae/`` if there is an autoencoder. That of the bundled model has
            ``encoder.json``, ``encoder.safetensors`` and ``vdit/``.

    Raises:
        InputError: A file is missing or does not match the card; the message names it.

    """
    checkpoint, family = open_checkpoint(weights), card.family
    # All files are looked at before the first weights are read, which takes minutes.
    denoiser = family.open_denoiser(checkpoint)
    files = [*family.encoder.files(checkpoint), *denoiser.files]
    size, cell = card.input, card.cell
    grid = (size.latents, size.height // cell, size.width // cell)
    encoder = family.encoder.load(checkpoint)
    transformer = family.denoiser.load(denoiser, card.feature.block + 1, grid)
    adapters, notes = fuse_loras(
        transformer, denoiser.config, family.denoiser.lora_loader, weights.loras
    )
    quantisation = sorted({kind for stored in checkpoint.opened for kind in stored.kinds})
    if quantisation:
        notes = (
            f"weights were stored as {', '.join(quantisation)} and have no more precision than "
            "that, whatever that of the bundle",
            *notes,
        )
    return Checkpoint(
        encoder=encoder,
        transformer=transformer,
        sha256=_digest(checkpoint.root, files),
        quantisation=tuple(quantisation),
        adapters=adapters,
        notes=notes,
    )


def random_checkpoint(card: Card, seed: int = 0) -> Checkpoint:
    """Build untrained models of a card's shapes, for benchmarks and engine builds."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = card.family.encoder.build_random()
        transformer = card.family.denoiser.build_random(card.feature.block + 1)
    digest = hashlib.sha256(f"random weights, seed {seed}".encode()).hexdigest()
    return Checkpoint(encoder.eval(), transformer.eval(), digest)


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
