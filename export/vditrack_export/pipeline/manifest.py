"""The manifest of a bundle that is being exported."""

import platform
from importlib.metadata import version

import diffusers
import onnx
import onnxruntime
import onnxscript
import torch

from vditrack.bundle.manifest import (
    SCHEMA_VERSION,
    Encoder,
    Input,
    Manifest,
    Output,
    Precision,
    Source,
)
from vditrack_export.pipeline.backbone import Backbone

FULL_PRECISION = Precision(encoder="fp32", features="fp32")
_TOOLS = (torch, diffusers, onnx, onnxscript, onnxruntime)


def make_manifest(
    backbone: Backbone, size: Input, encoder: Encoder, parity: dict[str, float]
) -> Manifest:
    """Return the manifest of a bundle in FP32, without the digests of its files.

    Args:
        backbone: the card and its models.
        size: the size of the windows.
        encoder: the frames and caches of one run of the encoder.
        parity: the largest relative errors, by the name of the comparison.

    """
    card, feature = backbone.card, backbone.card.feature
    cell = card.cell
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=card.name,
        notes=card.notes,
        source=Source(
            card=card.name,
            checkpoint=card.checkpoint,
            checkpoint_sha256=backbone.checkpoint.sha256,
            licence=card.licence,
            block=feature.block,
            heads=feature.heads,
            tensor=feature.tensor,
            rotated=feature.rotated,
            channels=backbone.channels,
            timestep=feature.timestep,
            signal_level=feature.signal_level,
            noise_level=feature.noise_level,
            noise_seed=feature.noise_seed,
            random_weights=backbone.random,
            expert=backbone.checkpoint.expert,
            quantisation=backbone.checkpoint.quantisation,
            adapters=backbone.checkpoint.adapters,
            tiny_encoder=backbone.checkpoint.tiny_encoder,
        ),
        input=size,
        encoder=encoder,
        output=Output(
            rows=size.height // cell,
            columns=size.width // cell,
            stride=cell,
            channels=len(feature.heads) * len(backbone.channels),
        ),
        matching=card.matching,
        precision=FULL_PRECISION,
        precision_check=None,
        files={},
        parity=parity,
        tools={"python": platform.python_version(), "vditrack": version("vditrack")}
        | {tool.__name__: str(tool.__version__) for tool in _TOOLS},
    )
