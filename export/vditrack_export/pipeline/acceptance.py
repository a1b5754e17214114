"""The gate for precisions below FP32: what they do to tracks of clips whose motion is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.acceptance import (
    CLIPS,
    MAX_MOVE,
    AcceptanceTracks,
    make_acceptance_clips,
    median_move,
    track_acceptance_clips,
)
from vditrack.bundle.folder import Bundle
from vditrack.bundle.manifest import Input, Manifest, PrecisionCheck
from vditrack.errors import VditrackError
from vditrack.evaluation.metrics.points import Comparison
from vditrack.evaluation.protocols import RASTER
from vditrack.inference.session import Array, TensorSpec
from vditrack_export.families.encoder_form import Graph, shapes_of

MAX_LOSS = 1.0
"""Of the Average Jaccard, in percent."""


@dataclass(frozen=True)
class GateTracks:
    """All points of the acceptance clips: what was found, and what is true.

    Positions are [N, T, 2] in pixels of the clips, visibility is [N, T].
    """

    size: Input
    found: NDArray[np.float32]
    visible: NDArray[np.bool_]
    truth: NDArray[np.float32]
    truly_visible: NDArray[np.bool_]

    @property
    def followed(self) -> AcceptanceTracks:
        return AcceptanceTracks(self.found, self.visible)

    def average_jaccard(self) -> float:
        """TAP-Vid's, in percent, of the frames after the first."""
        raster = RASTER / np.array([self.size.width, self.size.height])
        squared = (((self.found - self.truth) * raster) ** 2).sum(axis=2)
        counted = np.ones_like(self.visible)
        counted[:, 0] = False
        compared = Comparison(squared.astype(np.float32), self.truly_visible, self.visible, counted)
        return compared.scores().average_jaccard


def gate_tracks(manifest: Manifest, graphs: Sequence[Graph], count: int = CLIPS) -> GateTracks:
    """Track the acceptance clips with graphs that are not written yet, by their matches alone.

    Args:
        manifest: of a bundle of these graphs.
        graphs: run by torch, since ONNX Runtime has no BF16 on the CPU.
        count: of clips.

    Raises:
        VditrackError: a graph gives a number that is not finite.

    """
    sessions = {graph.file: TorchSession(graph) for graph in graphs}
    clips = make_acceptance_clips(manifest.input, count)
    followed = track_acceptance_clips(
        Bundle(Path(), manifest), lambda path: sessions[path.name], clips
    )
    return GateTracks(
        size=manifest.input,
        found=followed.points,
        visible=followed.visible,
        truth=np.concatenate([clip.points for clip in clips]),
        truly_visible=np.concatenate([clip.visible for clip in clips]),
    )


def judge(before: GateTracks, after: GateTracks, *, accept: bool) -> PrecisionCheck:
    """Compare tracks in FP32 with those of the same clips in another precision.

    Raises:
        VditrackError: points moved too far or the Jaccard fell too much, and this is not accepted.

    """
    move = median_move(before.followed, after.followed, before.size)
    first, second = before.average_jaccard(), after.average_jaccard()
    # Written so that NaN fails.
    fails = not (move <= MAX_MOVE and first - second <= MAX_LOSS)
    if fails and not accept:
        raise VditrackError(
            f"this precision moves the median point by {move:.2f} pixels (at most {MAX_MOVE}) and "
            f"the Average Jaccard from {first:.1f} to {second:.1f} (at most {MAX_LOSS} less). "
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


class TorchSession:
    """A graph run by torch: see `vditrack.inference.session.Session`."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs = {name: _described(value) for name, value in graph.examples.items()}
        shapes = shapes_of(graph.module, graph.examples.values())
        named = zip(graph.outputs, shapes, strict=True)
        self.outputs = {name: _described(value) for name, value in named}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        given = [torch.from_numpy(inputs[name]) for name in self.inputs]
        with torch.no_grad():
            outputs = self._graph.module(*given)
        values = [outputs] if isinstance(outputs, Tensor) else outputs
        named = dict(zip(self._graph.outputs, values, strict=True))
        for name, value in named.items():
            if not torch.isfinite(value).all():
                raise VditrackError(
                    f"{name} of {self._graph.file} are not finite: the precision's numbers do not "
                    "reach that far. Nothing was written; give another precision."
                )
        return {name: value.numpy() for name, value in named.items()}


def _described(value: Tensor) -> TensorSpec:
    return TensorSpec(tuple(value.shape), np.dtype(str(value.dtype).removeprefix("torch.")))
