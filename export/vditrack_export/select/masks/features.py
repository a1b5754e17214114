"""Features of one part at any noise level, of several blocks in one pass.

The unmodified transformer takes the place of the exported graph. Windows, encoder, resizing and
interpolation in time are the runtime's own, so the scored features are those of a bundle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from vditrack.bundle.folder import FEATURES, Bundle
from vditrack.features.extractor import FeatureExtractor
from vditrack.inference.session import Array, ArraySession, TensorSpec
from vditrack_export.families.read_spec import Denoising
from vditrack_export.families.whole_model import Reading
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.manifest import make_manifest
from vditrack_export.pipeline.sessions import TorchSession


def make_extractor(
    model: Backbone, blocks: Sequence[int], denoising: Denoising
) -> FeatureExtractor:
    """Return an extractor whose maps have the blocks' descriptors side by side.

    Args:
        model: the model of the part.
        blocks: the blocks, rising.
        denoising: the denoising step, in place of the card's.

    """
    size = model.card.input
    form = model.encoder_form(size)
    manifest = make_manifest(model, size, form.takes, {})
    channels = len(blocks) * manifest.output.channels
    output = msgspec.structs.replace(manifest.output, channels=channels)
    sessions = {graph.file: TorchSession(graph) for graph in form.graphs}
    blocks_session = _BlocksSession(model, tuple(blocks), denoising, channels)
    bundle = Bundle(Path(), msgspec.structs.replace(manifest, output=output))
    return FeatureExtractor(
        bundle, lambda path: blocks_session if path.name == FEATURES else sessions[path.name]
    )


class _BlocksSession(ArraySession):
    """A `Session` that runs the unmodified transformer and reads some of its blocks."""

    def __init__(
        self, model: Backbone, blocks: tuple[int, ...], denoising: Denoising, channels: int
    ) -> None:
        size, grid = model.card.input, model.grid
        shape = (size.described_latents, grid.rows, grid.columns, channels)
        real = np.dtype(np.float32)
        self.inputs = {"latents": TensorSpec((1, *model.latent_shape(size)), real)}
        self.outputs = {"descriptors": TensorSpec(shape, real)}
        self._model, self._blocks, self._denoising = model, blocks, denoising

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        card, model = self._model.card, self._model
        shape = self.outputs["descriptors"].shape
        newest = shape[0] * shape[1] * shape[2]
        heads, channels = list(card.feature.heads), list(model.channels)
        found: list[Tensor] = []

        def keep(_block: int, tensor: Tensor) -> None:
            found.append(tensor[-newest:][:, heads][:, :, channels].flatten(1).clone())

        card.family.denoiser.read_blocks(
            model.checkpoint.transformer,
            Reading(self._blocks, card.feature.tensor, card.feature.rotated),
            self._denoising,
            torch.from_numpy(inputs["latents"]),
            model.prompt,
            keep,
        )
        return {"descriptors": torch.cat(found, dim=1).reshape(shape).numpy()}
