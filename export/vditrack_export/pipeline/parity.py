"""Comparison of exported graphs with the unmodified model."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.arrays import Floats
from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Input
from vditrack.errors import VditrackError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import Card
from vditrack_export.families.encoder_form import EncoderForm, groups
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.onnx_export import write_graph

MAX_RELATIVE_ERROR = 1e-5
_LATENT_ERROR = 1e-4
"""The limit for latents. Caches are rounded between groups of frames, and where a group norm
averages millions of numbers, ONNX Runtime's sum is off by up to 4e-5 (torch's by 2e-6)."""
_SEED = 0
_TOKENS = 2048
"""The number of tokens of a window up to which the whole model runs at the card's own size."""


def choose_parity_size(card: Card) -> Input:
    """Return the window at which the whole model runs: the card's own, or a small one."""
    size, cell = card.input, card.cell
    rows, columns = size.height // cell, size.width // cell
    if size.latents * rows * columns <= _TOKENS:
        return size
    frames = min(size.frames, 1 + 2 * size.temporal_stride)
    whole = size.described_frames == size.frames
    return msgspec.structs.replace(
        size,
        height=min(rows, 12) * cell,
        width=min(columns, 16) * cell,
        frames=frames,
        described_frames=frames if whole else min(size.described_frames, size.temporal_stride),
    )


def measure_errors(backbone: Backbone, size: Input, folder: Path) -> dict[str, float]:
    """Compare the graphs in a folder with the unmodified models.

    Args:
        backbone: the unmodified models.
        size: the size of the windows that the graphs take.
        folder: the folder of the graphs.

    Returns:
        The relative errors, by the name of the comparison.

    Raises:
        VditrackError: an error is above its limit.

    """
    shape = (size.frames, size.height, size.width, 3)
    generator = torch.Generator().manual_seed(_SEED)
    window = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    expected = backbone.original_latents(window, size.temporal_stride)
    latents = _encode_window(backbone.encoder_form(size), folder, window)
    read = backbone.card.family.denoiser.read_whole(
        backbone.checkpoint.transformer,
        backbone.cut(size),
        backbone.denoising,
        expected,
        backbone.prompt,
    )
    session = OnnxRuntimeSession(folder / FEATURES)
    descriptors = session.run({"latents": expected.numpy()})["descriptors"]
    return {
        "encoder_vs_original": relative_error("the encoder", latents, expected, _LATENT_ERROR),
        "features_vs_full_model": relative_error(FEATURES, descriptors, read),
    }


def measure_errors_apart(backbone: Backbone, size: Input) -> dict[str, float]:
    """Compare graphs of another size, which are written to a temporary folder.

    Returns:
        As `measure_errors`; if the size is not the card's, it is part of the names.

    Raises:
        VditrackError: an error is above its limit.

    """
    with tempfile.TemporaryDirectory() as folder:
        for graph in (*backbone.encoder_form(size).graphs, backbone.feature_graph(size)):
            write_graph(graph, Path(folder))
        errors = measure_errors(backbone, size, Path(folder))
    if size == backbone.card.input:
        return errors
    at = f"at_{size.height}x{size.width}x{size.frames}"
    return {f"{name}_{at}": error for name, error in errors.items()}


def relative_error(
    name: str | Path,
    output: NDArray[Any],
    reference: Tensor,
    allowed: float = MAX_RELATIVE_ERROR,
) -> float:
    """Return the largest difference, relative to the reference's largest magnitude.

    Args:
        name: the name of the output, for the error.
        output: the numbers of a graph.
        reference: the numbers of the unmodified model, as many.
        allowed: the limit.

    Raises:
        VditrackError: the difference is above the limit, or not a number.

    """
    expected = reference.detach().numpy().reshape(output.shape)
    error = float(np.abs(output - expected).max() / np.abs(expected).max())
    # Written so that NaN fails.
    if not error <= allowed:
        raise VditrackError(
            f"{name} differs from the model it was exported from by {error:.1e}, more than "
            f"{allowed:.0e}. Nothing was written; try the versions of torch, onnx and "
            "onnxruntime that this vditrack was tested with."
        )
    return error


def _encode_window(form: EncoderForm, folder: Path, window: Tensor) -> Floats:
    """Return the latents of a window, group by group as the runtime computes them."""
    sessions = {graph.file: OnnxRuntimeSession(folder / graph.file) for graph in form.graphs}
    caches = {
        name: np.zeros(tuple(value.shape), np.float32)
        for name, value in form.graphs[-1].examples.items()
        if name != "frames"
    }
    latents = []
    for index, group in enumerate(torch.split(window, list(groups(len(window), form.takes)))):
        graph = form.graphs[0 if index == 0 else -1]
        inputs = caches if len(graph.examples) > 1 else {}
        outputs = sessions[graph.file].run({"frames": group.numpy(), **inputs})
        latents.append(outputs.pop("latents"))
        caches = {name.removeprefix("next_"): value for name, value in outputs.items()}
    return np.concatenate(latents, axis=2)
