"""Writing of a bundle's graphs, and their comparison with the original before they are shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
from torch import Tensor

from vditrack.acceptance import CLIPS, make_acceptance_clips
from vditrack.arrays import Floats
from vditrack.bundle.folder import FEATURES
from vditrack.bundle.manifest import (
    AttentionCheck,
    Encoder,
    Input,
    LoweredParity,
    Precision,
    PrecisionCheck,
)
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.inference.session import Session
from vditrack_export.families.encoder_form import streaming_form
from vditrack_export.families.step_path import StepPath
from vditrack_export.pipeline.acceptance import (
    ScoredTracks,
    attend_piecewise,
    compare_attention,
    compare_tracks,
    save_tracks,
    track_clips,
)
from vditrack_export.pipeline.backbone import Backbone, step_graph
from vditrack_export.pipeline.manifest import FULL_PRECISION, make_manifest
from vditrack_export.pipeline.onnx_export import write_graph
from vditrack_export.pipeline.parity import (
    ComparedGraphs,
    choose_parity_size,
    encode_window,
    measure_errors,
    measure_lowered_errors,
    run_original,
)
from vditrack_export.pipeline.precision import lower_precision
from vditrack_export.pipeline.ranges import measure_ranges
from vditrack_export.pipeline.reference_session import ReferenceSession
from vditrack_export.pipeline.sessions import FiniteSession, TorchSession
from vditrack_export.pipeline.steps import describe_latents

ReportStage = Callable[[str], None]
"""Called with the name of each stage as it starts."""


@dataclass(frozen=True)
class Rounding:
    """The precision of a bundle, and whether it is accepted whatever it does to tracks."""

    precision: Precision
    accept: bool = False


@dataclass(frozen=True)
class Verified:
    """What is known of the graphs of a bundle."""

    encoder: Encoder
    """The frames and caches of one run of the encoder."""
    parity: dict[str, float]
    """The relative errors of the graphs in FP32."""
    lowered_parity: tuple[LoweredParity, ...]
    """Those of the graphs in a precision below FP32."""
    check: PrecisionCheck | None
    """The effect of a precision below FP32 on tracks; None for random weights, which track
    nothing."""
    attention_check: AttentionCheck | None
    """That of cached keys and values of a bidirectional model, likewise."""


def write_verified_graphs(
    backbone: Backbone, folder: Path, rounding: Rounding, report_stage: ReportStage
) -> Verified:
    """Write the graphs and their tracks of acceptance clips, and compare them with the original.

    Graphs are compared at the card's own size, or at a small one if the whole model would take
    long. They are compared in FP32 first. In a lower precision they are written and compared again,
    and the effect on tracks is judged.

    Args:
        backbone: the models, changed in place if the precision is lowered.
        folder: the folder of the bundle.
        rounding: the precision.
        report_stage: called with the name of each stage as it starts.

    Raises:
        VditrackError: a graph does not reproduce the original, a number is not finite, or the
            precision moves tracks too far.

    """
    own, size = backbone.card.input, choose_parity_size(backbone.card)
    # Built before the precision is lowered, so that their constants are computed in FP32.
    shipped = _make_graphs(backbone, own)
    compared = shipped if size == own else _make_graphs(backbone, size)
    exact = rounding.precision == FULL_PRECISION
    report_stage("running the original")
    original = run_original(backbone, size)
    lowered: tuple[LoweredParity, ...] = ()
    before = check = attention = None
    with TemporaryDirectory(dir=folder) as scratch:
        written = folder if exact and compared is shipped else Path(scratch)
        _write(compared, written, report_stage)
        report_stage("comparing with the original")
        parity = measure_errors(original, compared, written, own)
        cached = size.attention == "cached"
        if not backbone.random and (cached or not exact or compared is shipped):
            before = _track(backbone, compared, written, FULL_PRECISION, report_stage)
    if cached and before is not None:
        attention = _check_attention(backbone, size, before, rounding, report_stage)
    if not exact:
        _lower(backbone, (compared, shipped), rounding.precision, report_stage)
        compared = renew_caches(compared)
        shipped = compared if size == own else renew_caches(shipped)
        with TemporaryDirectory(dir=folder) as scratch:
            written = folder if compared is shipped else Path(scratch)
            _write(compared, written, report_stage)
            report_stage("comparing with the original")
            lowered = measure_lowered_errors(original, compared, written, rounding.precision)
            if before is not None:
                after = _track(backbone, compared, written, rounding.precision, report_stage)
                check = compare_tracks(before, after, accept=rounding.accept)
                before = after
    if compared is not shipped:
        _write(shipped, folder, report_stage)
    if not backbone.random:
        tracks = before if compared is shipped else None
        _save_tracks(backbone, shipped, folder, tracks, report_stage)
    return Verified(shipped.form.takes, parity, lowered, check, attention)


def _check_attention(
    backbone: Backbone,
    size: Input,
    cached: ScoredTracks,
    rounding: Rounding,
    report_stage: ReportStage,
) -> AttentionCheck:
    """Compare tracks with cached keys and values with those of whole windows, in FP32."""
    windows = _make_graphs(backbone, msgspec.structs.replace(size, attention="window"))
    with TemporaryDirectory() as scratch:
        _write(windows, Path(scratch), report_stage)
        tracks = _track(backbone, windows, Path(scratch), FULL_PRECISION, report_stage)
    return compare_attention(tracks, cached, accept=rounding.accept)


def _make_graphs(backbone: Backbone, size: Input) -> ComparedGraphs:
    return ComparedGraphs(size, backbone.encoder_form(size), backbone.feature_graph(size))


def renew_caches(graphs: ComparedGraphs) -> ComparedGraphs:
    """Return the graphs with the caches that they have in their lowered precision."""
    form, step = graphs.form, graphs.features.module
    if form.takes.caches:
        form = streaming_form(form.graphs[-1].module, graphs.size)
    features = step_graph(step) if isinstance(step, StepPath) else graphs.features
    return replace(graphs, form=form, features=features)


def _write(graphs: ComparedGraphs, folder: Path, report_stage: ReportStage) -> None:
    for graph in graphs.graphs:
        report_stage(f"exporting {graph.file}")
        write_graph(graph, folder)


def _lower(
    backbone: Backbone,
    graphs: tuple[ComparedGraphs, ComparedGraphs],
    precision: Precision,
    report_stage: ReportStage,
) -> None:
    """Lower the precision of graphs of one model, in place.

    FP16 is scaled by the ranges at the first graphs' size.
    """
    compared = graphs[0]
    report_stage("measuring the ranges of numbers")
    windows = _make_windows(compared.size)
    latents: list[Floats] = []

    def encode() -> None:
        latents.extend(encode_window(compared.form, TorchSession, window) for window in windows)

    def describe() -> None:
        for each in latents:
            describe_latents(TorchSession(compared.features), each, compared.size)

    encoder = measure_ranges(compared.form.graphs[-1].module, encode)
    # Only FP16 has a smaller range than FP32.
    fp16 = precision.features == "fp16"
    features = measure_ranges(compared.features.module, describe) if fp16 else {}
    for each in graphs:
        lower_precision(each.form.graphs[-1].module, precision.encoder, encoder)
        lower_precision(each.features.module, precision.features, features)


def _make_windows(size: Input) -> list[Tensor]:
    """Return windows that the ranges of layers are measured on: a clip, noise, black and white."""
    clip = make_acceptance_clips(size, 1)[0].frames[: size.frames]
    noise = np.random.default_rng(0).integers(0, 256, clip.shape, np.uint8)
    flat = np.zeros_like(clip)
    flat[len(flat) // 2 :] = 255
    return [torch.from_numpy(np.ascontiguousarray(window)) for window in (clip, noise, flat)]


def _track(
    backbone: Backbone,
    graphs: ComparedGraphs,
    folder: Path,
    precision: Precision,
    report_stage: ReportStage,
) -> ScoredTracks:
    """Track the acceptance clips with graphs as written to a folder."""
    names = " and ".join(dict.fromkeys((precision.encoder, precision.features)))
    report_stage(f"tracking the acceptance clips in {names}")

    def open_graph(path: Path) -> Session:
        own = precision.features if path.name == FEATURES else precision.encoder
        session = OnnxRuntimeSession(path) if own == "fp32" else ReferenceSession(path)
        return FiniteSession(path.name, session)

    manifest = make_manifest(backbone, graphs.size, graphs.form.takes, {})
    return track_clips(manifest, folder, open_graph, CLIPS)


def _save_tracks(
    backbone: Backbone,
    graphs: ComparedGraphs,
    folder: Path,
    tracks: ScoredTracks | None,
    report_stage: ReportStage,
) -> None:
    """Write the tracks of the acceptance clips at the size that engines are built for.

    Args:
        backbone: the models.
        graphs: the graphs that were written, of the card's size; large windows change them.
        folder: the folder of the bundle.
        tracks: their tracks; None for large windows, which are tracked on one clip.
        report_stage: called with the name of each stage as it starts.

    """
    if tracks is None:
        report_stage("tracking an acceptance clip at full size")
        attend_piecewise(graphs.features.module)

        def open_graph(path: Path) -> Session:
            # The attention of large windows takes too much memory in ONNX Runtime.
            large = path.name == FEATURES
            return TorchSession(graphs.features) if large else OnnxRuntimeSession(path)

        manifest = make_manifest(backbone, graphs.size, graphs.form.takes, {})
        tracks = track_clips(manifest, folder, open_graph, 1)
    save_tracks(tracks, folder)
