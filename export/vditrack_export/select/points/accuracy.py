"""How well the readings of a model find points again: plain matching, counted as it goes."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vditrack.annotated_clip import AnnotatedClip
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid, pixels_from_cells
from vditrack.evaluation.metrics.points import THRESHOLDS
from vditrack.evaluation.protocols import RASTER
from vditrack.features.feature_map import FeatureMap
from vditrack_export.select.points.frequency_bands import Bands, cosines_by_band
from vditrack_export.select.points.pairs import GAPS, Source

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Hits:
    """How many points were found within each threshold, by gap in time."""

    within: Counts
    """[..., gaps, thresholds]"""
    asked: Counts
    """[gaps]"""

    @property
    def percent(self) -> Counts:
        """[..., gaps]: mean over thresholds of the share within; NaN where nothing was asked."""
        asked = np.where(self.asked > 0, self.asked, np.nan)
        return np.asarray(100 * self.within.mean(-1) / asked)


class ClipAccuracy:
    """Position accuracy of every head and band on one clip, for one tensor of the model.

    Frames come in order. Of a frame in which points are taken only their templates are kept, so
    that memory does not grow with the maps.

    Args:
        clip: at the model's size.
        taken: where points are taken.
        grid: of the feature maps.
        bands: of frequencies.
        readings: heads, and one more for all of them together.
        matching: the card's radius and temperature of the soft-argmax.

    """

    def __init__(
        self,
        clip: AnnotatedClip,
        taken: Sequence[Source],
        grid: Grid,
        bands: Bands,
        readings: int,
        matching: Matching,
    ) -> None:
        self._clip, self._grid, self._bands, self._matching = clip, grid, bands, matching
        self._sources = {source.frame: source for source in taken}
        self._templates: dict[int, Tensor] = {}
        self._within = np.zeros((len(bands.ranges), readings, len(GAPS), len(THRESHOLDS)))
        self._asked = np.zeros(len(GAPS))

    @property
    def hits(self) -> Hits:
        """Counts so far, ``within`` by band and reading: [bands, readings, gaps, thresholds]."""
        return Hits(self._within, self._asked)

    def add(self, frame: int, described: Tensor) -> None:
        """Take the points of a frame, and seek in it those taken before.

        Args:
            frame: its number, rising from call to call.
            described: float32 [cells, heads, head_dim], row by row.

        """
        for index, gap in enumerate(GAPS):
            if frame - gap in self._templates:
                self._seek(index, self._sources[frame - gap], frame, described)
        self._templates.pop(frame - max(GAPS), None)
        if frame in self._sources:
            tracks = self._sources[frame].tracks
            self._templates[frame] = self._sampled(described, self._clip.points[tracks, frame])

    def _sampled(self, described: Tensor, points: NDArray[np.float32]) -> Tensor:
        grid = self._grid
        flat = described.reshape(grid.rows, grid.columns, -1).numpy()
        sampled = torch.from_numpy(
            FeatureMap(grid, flat).sample(points, self._matching.template_falloff)
        )
        return sampled.reshape(len(points), *described.shape[1:])

    def _seek(self, gap: int, source: Source, frame: int, described: Tensor) -> None:
        seen = self._clip.visible[source.tracks, frame]
        if not seen.any():
            return
        templates = self._templates[source.frame][torch.from_numpy(seen)]
        true = torch.from_numpy(self._clip.points[source.tracks[seen], frame])
        self._asked[gap] += seen.sum()
        for band, cosines in enumerate(cosines_by_band(templates, described, self._bands)):
            found = soft_argmax(cosines, self._grid, self._matching)
            self._within[band, :, gap] += within(found - true, self._grid).sum(1).numpy()


def soft_argmax(cosines: Tensor, grid: Grid, matching: Matching) -> Tensor:
    """Where maps are highest: a mean of cell centres around the best cell of the whole map.

    Weights are the softmax of the cosines at the card's temperature, over the cells whose centres
    lie within its argmax radius of the best one's.

    Args:
        cosines: float32 [..., cells].
        grid: of the cells.
        matching: radius and temperature.

    Returns:
        float32 [..., 2] (x, y) in model pixels.

    """
    peak, best = cosines.max(-1, keepdim=True)
    reach = int(matching.argmax_radius / grid.stride)
    side = torch.arange(-reach, reach + 1)
    down, right = (offsets.flatten() for offsets in torch.meshgrid(side, side, indexing="ij"))
    disc = down**2 + right**2 <= (matching.argmax_radius / grid.stride) ** 2
    rows, columns = best // grid.columns + down[disc], best % grid.columns + right[disc]
    inside = (rows >= 0) & (rows < grid.rows) & (columns >= 0) & (columns < grid.columns)
    cells = torch.where(inside, rows * grid.columns + columns, best)
    weights = inside * torch.exp((cosines.gather(-1, cells) - peak) / matching.temperature)
    places = torch.stack(((weights * columns).sum(-1), (weights * rows).sum(-1)), dim=-1)
    mean = places / weights.sum(-1, keepdim=True)
    return torch.from_numpy(np.asarray(pixels_from_cells(mean.numpy(), grid.stride)))


def within(error: Tensor, grid: Grid) -> Tensor:
    """Whether errors [..., 2] in model pixels are within TAP-Vid's thresholds: [..., thresholds].

    As there, distances are those on a raster of 256 x 256, and one equal to a threshold is not
    within it.
    """
    scaled = error * torch.tensor([RASTER / grid.width, RASTER / grid.height])
    squared = (scaled**2).sum(-1, keepdim=True)
    return squared < torch.tensor(THRESHOLDS) ** 2


def chance(
    clip: AnnotatedClip, taken: Sequence[Source], grid: Grid, frames: Collection[int]
) -> Hits:
    """What is expected of a cell drawn at random."""
    row, column = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij")
    cells = torch.stack((column, row), dim=-1).flatten(0, 1).float()
    centres = torch.from_numpy(np.asarray(pixels_from_cells(cells.numpy(), grid.stride)))
    return _counted(
        clip, taken, frames, lambda _, true: within(centres - true[:, None], grid).double().mean(1)
    )


def still(
    clip: AnnotatedClip, taken: Sequence[Source], grid: Grid, frames: Collection[int]
) -> Hits:
    """What is found by taking every point to stay where it was."""
    return _counted(clip, taken, frames, lambda before, true: within(before - true, grid).double())


Judge = Callable[[Tensor, Tensor], Tensor]
"""Points [N, 2] where they were taken, and where they are now, to shares [N, thresholds]."""


def _counted(
    clip: AnnotatedClip, taken: Sequence[Source], frames: Collection[int], judge: Judge
) -> Hits:
    hits, asked = np.zeros((len(GAPS), len(THRESHOLDS))), np.zeros(len(GAPS))
    for source in taken:
        for index, gap in enumerate(GAPS):
            frame = source.frame + gap
            if frame not in frames:
                continue
            tracks = source.tracks[clip.visible[source.tracks, frame]]
            before, now = (torch.from_numpy(clip.points[tracks, t]) for t in (source.frame, frame))
            hits[index] += judge(before, now).sum(0).numpy()
            asked[index] += len(tracks)
    return Hits(hits, asked)
