"""The effect of an export on tracks of rendered clips whose motion is known.

A precision below FP32 is judged by it, and a bundle carries the tracks of its own graphs, which its
engines are compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vditrack.acceptance import (
    CLIPS,
    MAX_MOVE,
    AcceptanceTracks,
    make_acceptance_clips,
    median_move,
    save_acceptance_tracks,
    track_acceptance_clips,
)
from vditrack.arrays import Bools, Floats
from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import Input, Manifest, Precision, PrecisionCheck
from vditrack.errors import VditrackError
from vditrack.evaluation.metrics.points import Comparison
from vditrack.evaluation.protocols import RASTER
from vditrack.inference.session import Array, TensorSpec
from vditrack_export.families.encoder_form import Graph, shapes_of
from vditrack_export.families.layers import Attend
from vditrack_export.pipeline.backbone import Backbone
from vditrack_export.pipeline.manifest import make_manifest
from vditrack_export.pipeline.precision import lower_precision

MAX_LOSS = 1.0
"""The largest accepted loss of average Jaccard, in percent."""


@dataclass(frozen=True)
class ScoredTracks:
    """Tracks of all points of the acceptance clips, and the truth."""

    size: Input
    """The size of the clips."""
    found: Floats
    """Tracked positions, [N, T, 2] (x, y) in pixels of the clips."""
    visible: Bools
    """Reported visibility, [N, T]."""
    truth: Floats
    """True positions, [N, T, 2] (x, y) in pixels of the clips."""
    truly_visible: Bools
    """True visibility, [N, T]."""

    @property
    def followed(self) -> AcceptanceTracks:
        """The tracks without the truth."""
        return AcceptanceTracks(self.found, self.visible)

    def average_jaccard(self) -> float:
        """Return TAP-Vid's average Jaccard over the frames after the first, in percent."""
        raster = RASTER / np.array([self.size.width, self.size.height])
        squared = (((self.found - self.truth) * raster) ** 2).sum(axis=2)
        counted = np.ones_like(self.visible)
        counted[:, 0] = False
        compared = Comparison(squared.astype(np.float32), self.truly_visible, self.visible, counted)
        return compared.scores().average_jaccard


def track_clips(manifest: Manifest, graphs: Sequence[Graph], count: int) -> ScoredTracks:
    """Track the acceptance clips with graphs in memory, by descriptor matching alone.

    Args:
        manifest: the manifest of a bundle of these graphs.
        graphs: the graphs. Torch runs them, because ONNX Runtime has no BF16 on the CPU.
        count: the number of clips.

    Raises:
        VditrackError: a graph gives a number that is not finite.

    """
    sessions = {graph.file: TorchSession(graph) for graph in graphs}
    bundle = Bundle(Path(), manifest)
    clips = make_acceptance_clips(manifest.input, count)
    followed = track_acceptance_clips(bundle, lambda path: sessions[path.name], clips)
    return ScoredTracks(
        size=manifest.input,
        found=followed.points,
        visible=followed.visible,
        truth=np.concatenate([clip.points for clip in clips]),
        truly_visible=np.concatenate([clip.visible for clip in clips]),
    )


def judge_precision(
    backbone: Backbone,
    path: nn.Module,
    size: Input,
    precision: Precision,
    report_stage: Callable[[str], None],
    accept: bool,
) -> PrecisionCheck | None:
    """Lower the precision of the encoder and of a path, and judge its effect on tracks.

    Args:
        backbone: the models, changed in place.
        path: the module from latents to descriptors that is exported, changed in place.
        size: the size of the clips, which are tracked twice with the whole path.
        precision: the precision of the encoder and of the path.
        report_stage: called with the name of each stage as it starts.
        accept: whether the precision is accepted whatever it does.

    Returns:
        The judgement, or None for random weights, which track nothing.

    Raises:
        VditrackError: the precision moves tracks too far, or a number is not finite.

    """
    features = backbone.feature_graph(size)

    def track(name: str) -> ScoredTracks:
        report_stage(f"tracking the acceptance clips in {name}")
        form = backbone.encoder_form(size)
        manifest = make_manifest(backbone, size, form.takes, {})
        return track_clips(manifest, (*form.graphs, features), CLIPS)

    # Random weights track nothing, but the numbers that they compute have to be finite as well.
    before = None if backbone.random else track("fp32")
    lower_precision(backbone.encoder_form(size).graphs[-1].module, precision.encoder)
    for module in (features.module, path):
        lower_precision(module, precision.features)
    after = track(f"{precision.encoder} and {precision.features}")
    return None if before is None else compare_tracks(before, after, accept=accept)


def compare_tracks(before: ScoredTracks, after: ScoredTracks, *, accept: bool) -> PrecisionCheck:
    """Compare tracks in FP32 with those of the same clips in another precision.

    Args:
        before: the tracks in FP32.
        after: the tracks in the other precision.
        accept: whether a precision beyond the limits is accepted.

    Raises:
        VditrackError: points moved too far or the average Jaccard fell too much, and this is not
            accepted.

    """
    move = median_move(before.followed, after.followed, before.size)
    first, second = before.average_jaccard(), after.average_jaccard()
    # Written so that NaN fails.
    fails = not (move <= MAX_MOVE and first - second <= MAX_LOSS)
    if fails and not accept:
        raise VditrackError(
            f"this precision moves the median point by {move:.2f} pixels (at most {MAX_MOVE}) and "
            f"the average Jaccard from {first:.1f} to {second:.1f} (at most {MAX_LOSS} less). "
            "Nothing was written; give another precision, or --accept."
        )
    return PrecisionCheck(
        clips=CLIPS,
        frames=before.found.shape[1],
        height=before.size.height,
        width=before.size.width,
        median_move=move,
        average_jaccard_fp32=first,
        average_jaccard=second,
        accepted=fails,
    )


def save_tracks(backbone: Backbone, features: Graph, folder: Path, clips: int) -> None:
    """Write the tracks of the acceptance clips at the size that engines are built for.

    Nothing is written if no point is tracked: an engine could not differ then.

    Args:
        backbone: the models.
        features: the graph from latents to descriptors.
        folder: the folder of the bundle.
        clips: the number of clips.

    """
    size = backbone.card.input
    form = backbone.encoder_form(size)
    _attend_piecewise(features.module)
    manifest = make_manifest(backbone, size, form.takes, {})
    followed = track_clips(manifest, (*form.graphs, features), clips).followed
    if followed.compared.any():
        save_acceptance_tracks(folder / ACCEPTANCE, followed)


def _attend_piecewise(path: nn.Module) -> None:
    """Make torch compute attention piece by piece, which it does only in FP32.

    Rounded attention holds all weights of all heads at once: 16 GB for 10,000 tokens in 12 heads.
    The effect of this rounding on tracks was judged before.
    """
    for module in path.modules():
        if isinstance(module, Attend):
            module.precision = torch.float32


class TorchSession:
    """A graph run by torch: see `vditrack.inference.session.Session`."""

    def __init__(self, graph: Graph) -> None:
        """Derive inputs and outputs from the graph's examples."""
        self._graph = graph
        self.inputs = {name: _specify(value) for name, value in graph.examples.items()}
        shapes = shapes_of(graph.module, graph.examples.values())
        named = zip(graph.outputs, shapes, strict=True)
        self.outputs = {name: _specify(value) for name, value in named}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once.

        Raises:
            VditrackError: an output has a number that is not finite.

        """
        tensors = [torch.from_numpy(inputs[name]) for name in self.inputs]
        with torch.no_grad():
            outputs = self._graph.module(*tensors)
        values = [outputs] if isinstance(outputs, Tensor) else outputs
        named = dict(zip(self._graph.outputs, values, strict=True))
        for name, value in named.items():
            if not torch.isfinite(value).all():
                raise VditrackError(
                    f"{name} of {self._graph.file} are not finite: they exceed the range of the "
                    "precision. Nothing was written; give another precision."
                )
        return {name: value.numpy() for name, value in named.items()}


def _specify(value: Tensor) -> TensorSpec:
    return TensorSpec(tuple(value.shape), np.dtype(str(value.dtype).removeprefix("torch.")))
