"""The manifest of a bundle without a checkpoint, with the settings of its point tracker."""

from pathlib import Path

import msgspec
import onnx

from vditrack.bundle.configuration import Matching
from vditrack.bundle.folder import ENCODER, FEATURES
from vditrack.bundle.manifest import (
    SCHEMA_VERSION,
    Encoder,
    Input,
    Manifest,
    Output,
    Precision,
    Source,
)

MATCHING = Matching(
    temperature=0.05,
    argmax_radius=8,
    search_radius=32,
    visibility_threshold=8,
    similarity_threshold=0.5,
    recovery_threshold=0.8,
    template_update=0.0,
    update_after_loss=True,
    horizon=4,
)
SOURCE = Source(
    card="passthrough",
    checkpoint="none",
    checkpoint_sha256="0" * 64,
    licence="Apache-2.0",
    block=0,
    heads=(0,),
    tensor="keys",
    rotated=True,
    channels=(0, 1, 2),
    timestep=0.0,
    signal_level=1.0,
    noise_level=0.0,
    noise_seed=0,
    random_weights=False,
)


TWO_CELLS = (
    Input(height=8, width=16, frames=2, temporal_stride=1, described_frames=2),
    Encoder(frames=1, caches=0),
    Output(rows=1, columns=2, stride=8, channels=6),
    msgspec.structs.replace(SOURCE, block=1, heads=(0, 2), channels=(4, 5, 6)),
)


def two_cells() -> Manifest:
    """Return the manifest of a bundle of two cells, whose graphs are not run."""
    return make_manifest(*TWO_CELLS)


def write_graphs(folder: Path, *names: str) -> None:
    """Write valid graphs without nodes, of contents that differ."""
    for name in names or (ENCODER, FEATURES):
        graph = onnx.helper.make_graph([], name, [], [])
        (folder / name).write_bytes(onnx.helper.make_model(graph).SerializeToString())


def make_manifest(
    size: Input, encoder: Encoder, output: Output, source: Source = SOURCE
) -> Manifest:
    """Return a manifest of full precision that lists no files yet."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="passthrough",
        notes="",
        source=source,
        input=size,
        encoder=encoder,
        output=output,
        matching=MATCHING,
        precision=Precision(encoder="fp32", features="fp32"),
        precision_check=None,
        files={},
        parity={"features_vs_full_model": 1e-7},
        tools={"torch": "2"},
    )
