"""Features of a card's part at any noise level, of all blocks in one pass.

The unmodified transformer stands in the place of the exported graph: windows, encoder, resizing and
interpolation in time are the runtime's own, so that what is scored is what a bundle would give.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from vditrack.bundle.folder import FEATURES, Bundle
from vditrack.features.extractor import FeatureExtractor
from vditrack.inference.session import Array, TensorSpec
from vditrack_export.card import Card
from vditrack_export.families.read_spec import Denoising
from vditrack_export.families.whole_model import Reading
from vditrack_export.pipeline.acceptance import TorchSession
from vditrack_export.pipeline.checkpoint import Checkpoint
from vditrack_export.pipeline.export import Cutting, bundle_manifest


@dataclass(frozen=True)
class PartModel:
    """A part's card and its model with what it is given."""

    card: Card
    checkpoint: Checkpoint
    """With all blocks that are read."""
    prompt: Tensor
    """Float32 [tokens, text_dim]."""

    def extractor(self, blocks: Sequence[int], denoising: Denoising) -> FeatureExtractor:
        """Return what describes frames at a noise level, with the blocks' descriptors side by side.

        Args:
            blocks: rising.
            denoising: the step, in the place of the card's.

        """
        card, size = self.card, self.card.input
        cutting = Cutting(
            card,
            self.checkpoint,
            self.prompt,
            card.family.denoiser.channels(card.feature),
            random=False,
        )
        form = cutting.encoder_form(size)
        manifest = bundle_manifest(cutting, size, form.takes, {})
        channels = len(blocks) * manifest.output.channels
        output = msgspec.structs.replace(manifest.output, channels=channels)
        sessions = {graph.file: TorchSession(graph) for graph in form.graphs}
        read = _BlocksSession(cutting, tuple(blocks), denoising, channels)
        bundle = Bundle(Path(), msgspec.structs.replace(manifest, output=output))
        return FeatureExtractor(
            bundle, lambda path: read if path.name == FEATURES else sessions[path.name]
        )


class _BlocksSession:
    """The unmodified transformer, listened to at some blocks, as a `Session`."""

    def __init__(
        self, cutting: Cutting, blocks: tuple[int, ...], denoising: Denoising, channels: int
    ) -> None:
        size, cell = cutting.card.input, cutting.card.cell
        grid = (size.height // cell, size.width // cell)
        shape = (size.described_latents, *grid, channels)
        real = np.dtype(np.float32)
        self.inputs = {"latents": TensorSpec((1, *cutting.latent_shape(size)), real)}
        self.outputs = {"descriptors": TensorSpec(shape, real)}
        self._cutting, self._blocks, self._denoising = cutting, blocks, denoising

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        card, model = self._cutting.card, self._cutting.checkpoint.transformer
        shape = self.outputs["descriptors"].shape
        newest = shape[0] * shape[1] * shape[2]
        heads, channels = list(card.feature.heads), list(self._cutting.channels)
        found: list[Tensor] = []
        card.family.denoiser.read_blocks(
            model,
            Reading(self._blocks, card.feature.tensor, card.feature.rotated),
            self._denoising,
            torch.from_numpy(inputs["latents"]),
            self._cutting.prompt,
            lambda _, every: found.append(
                every[-newest:][:, heads][:, :, channels].flatten(1).clone()
            ),
        )
        return {"descriptors": torch.cat(found, dim=1).reshape(shape).numpy()}
