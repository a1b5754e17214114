"""From a card and a checkpoint to a sealed bundle."""

import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import diffusers
import msgspec
import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vditrack.acceptance import CLIPS, save_acceptance_tracks
from vditrack.atomic_files import staged_folder
from vditrack.bundle.folder import (
    ACCEPTANCE,
    APPEARANCE,
    CONTENTS,
    FEATURES,
    MOTION,
    Bundle,
    seal_bundle,
)
from vditrack.bundle.manifest import (
    SCHEMA_VERSION,
    Encoder,
    Input,
    Manifest,
    Output,
    Precision,
    PrecisionCheck,
    Source,
)
from vditrack.errors import InputError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import Card
from vditrack_export.families.encoder_form import EncoderForm, Graph, groups
from vditrack_export.families.layers import Attend
from vditrack_export.families.read_spec import Cut, Denoising
from vditrack_export.pipeline.acceptance import GateTracks, gate_tracks, judge
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint, random_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt, random_prompt
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.parity import relative_error
from vditrack_export.pipeline.precision import lower

_TOOLS = (torch, diffusers, onnx, onnxscript, onnxruntime)
_PARITY_SEED = 0
_PARITY_TOKENS = 2048
"""Tokens of a window up to which the whole model is run at the card's own size."""
_LATENT_ERROR = 1e-4
"""What is carried from group to group is rounded on the way, and where a group norm takes its mean
over millions of numbers, ONNX Runtime's sum is off by up to 4e-5 (torch's by 2e-6)."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from."""

    folder: Path | None
    """Of the checkpoint; None for random numbers."""
    prompt: Path | None = None
    """File that the embedding of the empty prompt is kept in."""


@dataclass(frozen=True)
class Rounding:
    """The precision wanted, and whether it is taken whatever it does to tracks."""

    precision: Precision
    accept: bool = False


NONE = Rounding(Precision(encoder="fp32", features="fp32"))


def export_bundle(
    card: Card,
    weights: Weights,
    destination: Path,
    report: Report,
    rounding: Rounding = NONE,
    *,
    masks: bool = False,
) -> Bundle:
    """Export the encoder and the truncated transformer, prove them right, and seal the bundle.

    Args:
        card: what to export.
        weights: of the checkpoint that it names, or random ones.
        destination: folder that the bundle becomes; an older bundle there is replaced at the end.
        report: called with the name of each stage as it starts.
        rounding: below FP32, the graphs are proved in FP32, and then judged by what the precision
            does to tracks: see `vditrack_export.pipeline.acceptance`.
        masks: whether the bundle gets what propagates masks, each part a bundle of its own.

    Raises:
        VditrackError: the card does not say how masks are propagated, the checkpoint is not its,
            the destination is taken, the exported graphs do not reproduce the model, or the
            precision is refused. Nothing is left behind then.

    """
    _check_card(card)
    parts = _mask_parts(card) if masks else {}
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        report("reading the checkpoint")
        cutting = _cutting(card, weights)
        # Before its precision is lowered, so that what is computed once is computed in FP32.
        features = _features(cutting, card.input)
        exact = rounding.precision == NONE.precision
        small, gate = _proved_size(card), None
        if exact and small == card.input:
            takes = _write_all(cutting, features, folder, report)
            report("comparing with the original")
            parity = _errors(cutting, small, folder)
        else:
            report("comparing with the original")
            parity = _errors_apart(cutting, small)
            if not exact:
                gate = _lower(cutting, features.module, small, rounding, report)
            takes = _write_all(cutting, features, folder, report)
        if not cutting.random:
            report("tracking the acceptance clips, for engines to be compared with")
            # Torch takes long over large windows, and over rounded numbers.
            _write_tracks(cutting, features, folder, CLIPS if exact and small == card.input else 1)
        for name, part in parts.items():
            report(f"{name}:")
            export_bundle(part, weights, folder / name, report, rounding)
        report("sealing the bundle")
        manifest = bundle_manifest(cutting, card.input, takes, parity)
        manifest = msgspec.structs.replace(
            manifest,
            precision=rounding.precision,
            precision_check=gate,
            propagation=card.masks.propagation if masks and card.masks else None,
        )
        sealed = seal_bundle(folder, manifest)
    return Bundle(destination, sealed.manifest)


def _mask_parts(card: Card) -> dict[str, Card]:
    """Cards of the two bundles that propagate masks, by their folders."""
    if card.masks is None:
        raise InputError(
            f"card {card.name} does not say how masks are propagated: it has no [masks]. Leave "
            "--masks out, or write that section (docs/masks.md)."
        )
    parts = {MOTION: card.masks.motion, APPEARANCE: card.masks.appearance}
    return {
        name: msgspec.structs.replace(
            card,
            name=f"{card.name}, {name}",
            input=part.input,
            feature=part.feature,
            masks=None,
        )
        for name, part in parts.items()
        if part is not None
    }


@dataclass(frozen=True)
class Cutting:
    """What is cut out of which checkpoint."""

    card: Card
    checkpoint: Checkpoint
    prompt: Tensor
    channels: tuple[int, ...]
    """Kept of each head."""
    random: bool

    def cut(self, size: Input) -> Cut:
        feature = self.card.feature
        return Cut(
            block=feature.block,
            heads=feature.heads,
            channels=self.channels,
            described=size.described_latents,
            tensor=feature.tensor,
            rotated=feature.rotated,
        )

    @property
    def denoising(self) -> Denoising:
        feature = self.card.feature
        return Denoising(
            timestep=feature.timestep,
            signal=feature.signal_level,
            noise=feature.noise_level,
            seed=feature.noise_seed,
        )

    def encoder_form(self, size: Input) -> EncoderForm:
        """Return the encoder's graphs for a window's size."""
        return self.card.family.encoder.form(self.checkpoint.encoder, size)

    def latent_shape(self, size: Input) -> tuple[int, int, int, int]:
        stride = self.card.encoder.stride
        channels = self.card.encoder.latent_channels
        return channels, size.latents, size.height // stride, size.width // stride


def _cutting(card: Card, weights: Weights) -> Cutting:
    channels = card.family.denoiser.channels(card.feature)
    if weights.folder is None:
        return Cutting(card, random_checkpoint(card), random_prompt(card), channels, random=True)
    checkpoint = load_checkpoint(card, weights.folder)
    prompt = empty_prompt(card, weights.folder, weights.prompt)
    return Cutting(card, checkpoint, prompt, channels, random=False)


def _features(cutting: Cutting, size: Input) -> Graph:
    shape = cutting.latent_shape(size)
    model, cut = cutting.checkpoint.transformer, cutting.cut(size)
    path = cutting.card.family.denoiser.path(model, shape, cut, cutting.denoising, cutting.prompt)
    return Graph(FEATURES, path.eval(), {"latents": torch.zeros(1, *shape)}, ("descriptors",))


def _write_all(cutting: Cutting, features: Graph, folder: Path, report: Report) -> Encoder:
    """Write the encoder's graphs and the transformer's; returns what the encoder takes."""
    form = cutting.encoder_form(cutting.card.input)
    for graph in (*form.graphs, features):
        report(f"exporting {graph.file}")
        _write(graph, folder)
    return form.takes


def _write(graph: Graph, folder: Path) -> None:
    export_graph(graph.module, graph.examples, folder / graph.file, outputs=graph.outputs)


def _proved_size(card: Card) -> Input:
    """Window at which the whole model is run: the card's own, or a small one where that is long."""
    size, cell = card.input, card.cell
    rows, columns = size.height // cell, size.width // cell
    if size.latents * rows * columns <= _PARITY_TOKENS:
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


def _lower(
    cutting: Cutting, wanted: nn.Module, size: Input, rounding: Rounding, report: Report
) -> PrecisionCheck | None:
    """Lower the precision of the encoder and the path ``wanted``, if the gate lets it.

    The gate's clips have the given size, since they are tracked twice with the whole path.
    """
    features = _features(cutting, size)

    def tracks(precision: str) -> GateTracks:
        report(f"tracking the acceptance clips in {precision}")
        form = cutting.encoder_form(size)
        return gate_tracks(bundle_manifest(cutting, size, form.takes, {}), (*form.graphs, features))

    # Random weights track nothing; but what they compute has to be finite as well.
    before = None if cutting.random else tracks("fp32")
    encoder = cutting.encoder_form(size).graphs[-1].module
    lower(encoder, rounding.precision.encoder)
    for path in (features.module, wanted):
        lower(path, rounding.precision.features)
    after = tracks(f"{rounding.precision.encoder} and {rounding.precision.features}")
    return None if before is None else judge(before, after, accept=rounding.accept)


def _write_tracks(cutting: Cutting, features: Graph, folder: Path, clips: int) -> None:
    """Write the graphs' tracks of the acceptance clips, at the size that engines are built for."""
    size = cutting.card.input
    form = cutting.encoder_form(size)
    _attend_piecewise(features.module)
    manifest = bundle_manifest(cutting, size, form.takes, {})
    followed = gate_tracks(manifest, (*form.graphs, features), clips).followed
    # A model that follows nothing has nothing that an engine could do otherwise.
    if followed.compared.any():
        save_acceptance_tracks(folder / ACCEPTANCE, followed)


def _attend_piecewise(path: nn.Module) -> None:
    """Have torch compute attention piece by piece, as it does in FP32 alone.

    Rounded, all weights of all heads are there at once: 10,000 tokens in 12 heads are 16 GB. What
    this rounding does to tracks was judged before.
    """
    for module in path.modules():
        if isinstance(module, Attend):
            module.precision = torch.float32


def _errors_apart(cutting: Cutting, size: Input) -> dict[str, float]:
    """Relative errors of graphs of the same modules at another size, which are not kept."""
    form = cutting.encoder_form(size)
    with tempfile.TemporaryDirectory() as scratch:
        for graph in (*form.graphs, _features(cutting, size)):
            _write(graph, Path(scratch))
        errors = _errors(cutting, size, Path(scratch))
    if size == cutting.card.input:
        return errors
    at = f"at_{size.height}x{size.width}x{size.frames}"
    return {f"{name}_{at}": error for name, error in errors.items()}


def _errors(cutting: Cutting, size: Input, folder: Path) -> dict[str, float]:
    """Relative errors of the graphs in a folder, which are those of windows of this size."""
    card, model = cutting.card, cutting.checkpoint.transformer
    form = cutting.encoder_form(size)
    shape = (size.frames, size.height, size.width, 3)
    generator = torch.Generator().manual_seed(_PARITY_SEED)
    window = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    expected = card.family.encoder.original_latents(
        cutting.checkpoint.encoder, window, size.temporal_stride
    )
    latents = _encoded(form, folder, window)
    cut, denoising = cutting.cut(size), cutting.denoising
    read = card.family.denoiser.read_whole(model, cut, denoising, expected, cutting.prompt)
    session = OnnxRuntimeSession(folder / FEATURES)
    descriptors = session.run({"latents": expected.numpy()})["descriptors"]
    return {
        "encoder_vs_original": relative_error("the encoder", latents, expected, _LATENT_ERROR),
        "features_vs_full_model": relative_error(FEATURES, descriptors, read),
    }


def _encoded(form: EncoderForm, folder: Path, window: Tensor) -> NDArray[np.float32]:
    """Latents of a window, run by run as the runtime makes them."""
    sessions = {graph.file: OnnxRuntimeSession(folder / graph.file) for graph in form.graphs}
    carried = {
        name: np.zeros(tuple(value.shape), np.float32)
        for name, value in form.graphs[-1].examples.items()
        if name != "frames"
    }
    latents = []
    for index, group in enumerate(torch.split(window, list(groups(len(window), form.takes)))):
        graph = form.graphs[0 if index == 0 else -1]
        given = carried if len(graph.examples) > 1 else {}
        found = sessions[graph.file].run({"frames": group.numpy(), **given})
        latents.append(found.pop("latents"))
        carried = {name.removeprefix("next_"): value for name, value in found.items()}
    return np.concatenate(latents, axis=2)


def _check_card(card: Card) -> None:
    size, shape = card.input, card.transformer
    patch_frames, patch_rows, patch_columns = shape.patch
    cell = card.cell
    claims = [
        (
            patch_frames == 1 and patch_rows == patch_columns,
            f"patches of {patch_frames} x {patch_rows} x {patch_columns} are not square cells",
        ),
        (
            size.height % cell == 0 and size.width % cell == 0,
            f"{size.height} x {size.width} pixels do not divide into cells of {cell}",
        ),
    ]
    complaints = [complaint for holds, complaint in claims if not holds]
    if complaints:
        raise InputError(f"card {card.name}: {'; '.join(complaints)}. Correct it there.")


def bundle_manifest(
    cutting: Cutting, size: Input, encoder: Encoder, parity: dict[str, float]
) -> Manifest:
    """Describe a bundle in FP32."""
    card, feature = cutting.card, cutting.card.feature
    cell = card.cell
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name=card.name,
        notes=card.notes,
        source=Source(
            card=card.name,
            checkpoint=card.checkpoint,
            checkpoint_sha256=cutting.checkpoint.sha256,
            licence=card.licence,
            block=feature.block,
            heads=feature.heads,
            tensor=feature.tensor,
            rotated=feature.rotated,
            channels=cutting.channels,
            timestep=feature.timestep,
            signal_level=feature.signal_level,
            noise_level=feature.noise_level,
            noise_seed=feature.noise_seed,
            random_weights=cutting.random,
        ),
        input=size,
        encoder=encoder,
        output=Output(
            rows=size.height // cell,
            columns=size.width // cell,
            stride=cell,
            channels=len(feature.heads) * len(cutting.channels),
        ),
        matching=card.matching,
        precision=NONE.precision,
        precision_check=None,
        files={},
        parity=parity,
        tools={"python": platform.python_version(), "vditrack": version("vditrack")}
        | {tool.__name__: str(tool.__version__) for tool in _TOOLS},
    )
