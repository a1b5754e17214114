"""Comparison of exported graphs with the unmodified model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.arrays import Floats
from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import Input, LoweredParity, Precision, latents_of
from vditrack.errors import VditrackError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.inference.session import Array, Session
from vditrack_export.card import Card
from vditrack_export.families.encoder_form import EncoderForm, Graph, groups
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.precision import DTYPES, PrecisionName, count_products
from vditrack_export.pipeline.reference_session import ReferenceSession
from vditrack_export.pipeline.sessions import FiniteSession
from vditrack_export.pipeline.steps import describe_latents

MAX_RELATIVE_ERROR = 1e-5
_LATENT_ERROR = 1e-4
"""The limit for latents. Caches are rounded between groups of frames, and where a group norm
averages millions of numbers, ONNX Runtime's sum is off by up to 4e-5 (torch's by 2e-6)."""
_SEED = 0
_FEWEST_LATENTS = 3
_TOKENS = 2048
"""The number of tokens of a window up to which the whole model runs at the card's own size."""


@dataclass(frozen=True)
class ComparedGraphs:
    """All graphs of a bundle, for windows of one size."""

    size: Input
    form: EncoderForm
    features: Graph

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The encoder's graphs, and the one of descriptors."""
        return (*self.form.graphs, self.features)


@dataclass(frozen=True)
class Original:
    """What the unmodified models compute of a clip."""

    clip: Tensor
    """A window; with cached keys it is followed by more frames. uint8 [F, H, W, 3]"""
    latents: Tensor
    """float32 [1, C, t, h, w]"""
    descriptors: Tensor
    """float32 [tokens, D]"""
    error: float
    """Largest accepted relative error of descriptors in FP32."""


def choose_parity_size(card: Card) -> Input:
    """Return the window at which the whole model runs: the card's own, or a small one."""
    size, cell = card.input, card.cell
    rows, columns = size.height // cell, size.width // cell
    stride, chunk = size.temporal_stride, size.described_latents
    if latents_of(_clip_frames(size), stride) * rows * columns <= _TOKENS:
        return size
    whole = size.described_frames == size.frames
    rows, columns = min(rows, 12), min(columns, 16)
    if size.attention == "window":
        frames, described = min(size.frames, 1 + 2 * stride), min(size.described_frames, stride)
    else:
        # Where caching may change tracks, as many latents are cached as in the card, if they fit.
        approximate = size.attention == "cached"
        chunks = max(_TOKENS // (rows * columns * chunk), 2) if approximate else 2
        latents = min(size.latents, max(chunks * chunk, _FEWEST_LATENTS))
        frames, described = 1 + (latents - 1) * stride, size.described_frames
    return msgspec.structs.replace(
        size,
        height=rows * cell,
        width=columns * cell,
        frames=frames,
        described_frames=frames if whole else described,
    )


def _clip_frames(size: Input) -> int:
    """Return the frames that graphs are compared on: those of a window.

    With cached keys there are more, so that the window rolls and slots are used again.
    """
    if size.attention == "window":
        return size.frames
    more = max(2 * size.described_latents, _FEWEST_LATENTS)
    return size.frames + more * size.temporal_stride


def run_original(backbone: Backbone, size: Input) -> Original:
    """Run the unmodified models on seeded random frames, before their precision is lowered."""
    shape = (_clip_frames(size), size.height, size.width, 3)
    generator = torch.Generator().manual_seed(_SEED)
    clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    latents = backbone.original_latents(clip, size.temporal_stride)
    denoiser, model = backbone.card.family.denoiser, backbone.checkpoint.transformer
    cut, step = backbone.cut(size), (backbone.denoising, latents, backbone.prompt)
    if size.attention == "window":
        return Original(clip, latents, denoiser.read_whole(model, cut, *step), MAX_RELATIVE_ERROR)
    descriptors = denoiser.read_clip(model, backbone.latent_shape(size), cut, *step)
    return Original(clip, latents, descriptors, denoiser.step_error)


def measure_errors(
    original: Original, compared: ComparedGraphs, folder: Path, own: Input
) -> dict[str, float]:
    """Compare graphs in FP32, as written to a folder, with the unmodified models.

    Args:
        original: what the unmodified models compute.
        compared: the graphs.
        folder: the folder of the graphs.
        own: the size of the card's windows.

    Returns:
        The relative errors, by the name of the comparison; a size that is not the card's is part
        of it.

    Raises:
        VditrackError: an error is above its limit.

    """
    latents = encode_window(compared.form, _open_in(folder), original.clip)
    session = OnnxRuntimeSession(folder / FEATURES)
    descriptors = describe_latents(session, original.latents.numpy(), compared.size)
    errors = {
        "encoder_vs_original": relative_error(
            "the encoder", latents, original.latents, _LATENT_ERROR
        ),
        "features_vs_full_model": relative_error(
            FEATURES, descriptors, original.descriptors, original.error
        ),
    }
    size = compared.size
    at = "" if size == own else f"_at_{size.height}x{size.width}x{size.frames}"
    return {f"{name}{at}": error for name, error in errors.items()}


def measure_lowered_errors(
    original: Original, compared: ComparedGraphs, folder: Path, precision: Precision
) -> tuple[LoweredParity, ...]:
    """Compare graphs with lowered precision, as written to a folder, with the unmodified models.

    The networks are compared apart: descriptors are those of the original's latents. A network in
    FP32 is not compared again.

    Raises:
        VditrackError: an error is above its limit, or not a number.

    """
    size = compared.size
    errors: list[LoweredParity] = []

    def compare(
        network: Literal["encoder", "transformer"],
        name: Literal["fp16", "bf16"],
        outputs: Floats,
        expected: Tensor,
    ) -> None:
        graphs = compared.form.graphs if network == "encoder" else (compared.features,)
        limit = limit_lowered_error(name, count_products(graphs[-1].module))
        errors.append(
            LoweredParity(
                network=network,
                precision=name,
                error=relative_error(f"the {network} in {name}", outputs, expected, limit),
                limit=limit,
                height=size.height,
                width=size.width,
                frames=size.frames,
            )
        )

    if precision.encoder != "fp32":
        latents = encode_window(compared.form, open_lowered_in(folder), original.clip)
        compare("encoder", precision.encoder, latents, original.latents)
    if precision.features != "fp32":
        session = open_lowered_in(folder)(compared.features)
        descriptors = describe_latents(session, original.latents.numpy(), size)
        compare("transformer", precision.features, descriptors, original.descriptors)
    return tuple(errors)


def limit_lowered_error(precision: PrecisionName, products: int) -> float:
    """Return the largest accepted relative error of a network in a precision below FP32.

    A product rounds its two factors and its result, each by at most the unit round-off u. The
    errors of n products in a row are independent, so they grow with the square root of their
    number: u sqrt(3 n). The limit is twice that. Small random models of all families have 0.1 to
    0.8 of the root, because most errors are added to a larger residual stream.

    Args:
        precision: "fp16" or "bf16".
        products: the number of products with weights, and of attentions twice.

    """
    unit = torch.finfo(DTYPES[precision]).eps / 2
    return float(2 * unit * (3 * products) ** 0.5)


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


def encode_window(
    form: EncoderForm, open_graph: Callable[[Graph], Session], window: Tensor
) -> Floats:
    """Return the latents of a window, group by group as the runtime computes them."""
    sessions = {graph.file: open_graph(graph) for graph in form.graphs}
    caches: dict[str, Array] = {
        name: np.zeros(tuple(value.shape), str(value.dtype).removeprefix("torch."))
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


def _open_in(folder: Path) -> Callable[[Graph], Session]:
    return lambda graph: OnnxRuntimeSession(folder / graph.file)


def open_lowered_in(folder: Path) -> Callable[[Graph], Session]:
    """Return a function that loads graphs below FP32, to be run with every rounding."""
    return lambda graph: FiniteSession(graph.file, ReferenceSession(folder / graph.file))
