"""Position accuracy of plain descriptor matching, counted frame by frame."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vditrack.arrays import Doubles, Floats
from vditrack.bundle.configuration import Matching
from vditrack.coordinates import Grid, pixels_from_cells
from vditrack.evaluation.metrics.points import THRESHOLDS
from vditrack.evaluation.protocols import RASTER
from vditrack.features.feature_map import FeatureMap
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack_export.select.points.frequency_bands import Bands, iterate_band_cosines
from vditrack_export.select.points.pairs import GAPS, Source


@dataclass(frozen=True)
class Hits:
    """Counts of points that were found within each threshold, by gap in time."""

    within: Doubles
    """The number of points found, [..., gaps, thresholds]."""
    searched: Doubles
    """The number of points searched, [gaps]."""

    @property
    def percent(self) -> Doubles:
        """The accuracy, averaged over thresholds, [..., gaps]; NaN where no point was searched."""
        searched = np.where(self.searched > 0, self.searched, np.nan)
        return np.asarray(100 * self.within.mean(-1) / searched)


class ClipAccuracy:
    """The position accuracy of every head and band on one clip, for one tensor of the model.

    Frames come in order. Of a frame in which points are taken only their templates are stored, so
    that memory does not grow with the feature maps.
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
        """Begin without any counts.

        Args:
            clip: the clip at the model's size.
            taken: the frames and tracks at which templates are taken.
            grid: the grid of the feature maps.
            bands: the frequency bands.
            readings: the number of heads, plus one for all of them together.
            matching: the card's radius and temperature of the soft-argmax.

        """
        self._clip, self._grid, self._bands, self._matching = clip, grid, bands, matching
        self._sources = {source.frame: source for source in taken}
        self._templates: dict[int, Tensor] = {}
        self._within = np.zeros((len(bands.ranges), readings, len(GAPS), len(THRESHOLDS)))
        self._searched = np.zeros(len(GAPS))

    @property
    def hits(self) -> Hits:
        """The counts so far; ``within`` is [bands, readings, gaps, thresholds]."""
        return Hits(self._within, self._searched)

    def add(self, frame: int, descriptors: Tensor) -> None:
        """Search in a frame the points of earlier frames, and take its own templates.

        Args:
            frame: the number of the frame, rising from call to call.
            descriptors: float32 [cells, heads, head_dim], row by row.

        """
        for index, gap in enumerate(GAPS):
            if frame - gap in self._templates:
                self._search(index, self._sources[frame - gap], frame, descriptors)
        self._templates.pop(frame - max(GAPS), None)
        if frame in self._sources:
            tracks = self._sources[frame].tracks
            self._templates[frame] = self._sample(descriptors, self._clip.points[tracks, frame])

    def _sample(self, descriptors: Tensor, points: Floats) -> Tensor:
        grid = self._grid
        flat = descriptors.reshape(grid.rows, grid.columns, -1).numpy()
        sampled = torch.from_numpy(
            FeatureMap(grid, flat).sample(points, self._matching.template_falloff)
        )
        return sampled.reshape(len(points), *descriptors.shape[1:])

    def _search(self, gap: int, source: Source, frame: int, descriptors: Tensor) -> None:
        seen = self._clip.visible[source.tracks, frame]
        if not seen.any():
            return
        templates = self._templates[source.frame][torch.from_numpy(seen)]
        true = torch.from_numpy(self._clip.points[source.tracks[seen], frame])
        self._searched[gap] += seen.sum()
        for band, cosines in enumerate(iterate_band_cosines(templates, descriptors, self._bands)):
            found = soft_argmax(cosines, self._grid, self._matching)
            hits = is_within_thresholds(found - true, self._grid)
            self._within[band, :, gap] += hits.sum(1).numpy()


def soft_argmax(cosines: Tensor, grid: Grid, matching: Matching) -> Tensor:
    """Return the positions at which similarity maps are highest.

    The position is the mean of the cell centres within the card's argmax radius of the best cell of
    the whole map, weighted by the softmax of their cosines at the card's temperature.

    Args:
        cosines: float32 [..., cells].
        grid: the grid of the cells.
        matching: the radius and the temperature.

    Returns:
        float32 [..., 2] (x, y) in model pixels.

    """
    peak, best = cosines.max(-1, keepdim=True)
    radius = matching.argmax_radius / grid.stride
    side = torch.arange(-int(radius), int(radius) + 1)
    down, right = (offsets.flatten() for offsets in torch.meshgrid(side, side, indexing="ij"))
    disc = down**2 + right**2 <= radius**2
    rows, columns = best // grid.columns + down[disc], best % grid.columns + right[disc]
    inside = (rows >= 0) & (rows < grid.rows) & (columns >= 0) & (columns < grid.columns)
    cells = torch.where(inside, rows * grid.columns + columns, best)
    weights = inside * torch.exp((cosines.gather(-1, cells) - peak) / matching.temperature)
    positions = torch.stack(((weights * columns).sum(-1), (weights * rows).sum(-1)), dim=-1)
    mean = positions / weights.sum(-1, keepdim=True)
    return torch.from_numpy(np.asarray(pixels_from_cells(mean.numpy(), grid.stride)))


def is_within_thresholds(error: Tensor, grid: Grid) -> Tensor:
    """Return whether errors are below TAP-Vid's thresholds, bool [..., thresholds].

    As in TAP-Vid, distances are measured on a raster of 256 x 256, and a distance equal to a
    threshold is not below it.

    Args:
        error: differences of positions, [..., 2] (x, y) in model pixels.
        grid: the grid, for the size of the model's frame.

    """
    scaled = error * torch.tensor([RASTER / grid.width, RASTER / grid.height])
    squared = (scaled**2).sum(-1, keepdim=True)
    return squared < torch.tensor(THRESHOLDS) ** 2


def count_chance(
    clip: AnnotatedClip, taken: Sequence[Source], grid: Grid, frames: Collection[int]
) -> Hits:
    """Return the counts expected of a cell drawn at random."""
    row, column = torch.meshgrid(torch.arange(grid.rows), torch.arange(grid.columns), indexing="ij")
    cells = torch.stack((column, row), dim=-1).flatten(0, 1).float()
    centres = torch.from_numpy(np.asarray(pixels_from_cells(cells.numpy(), grid.stride)))

    def share(_before: Tensor, true: Tensor) -> Tensor:
        return is_within_thresholds(centres - true[:, None], grid).double().mean(1)

    return _count(clip, taken, frames, share)


def count_still(
    clip: AnnotatedClip, taken: Sequence[Source], grid: Grid, frames: Collection[int]
) -> Hits:
    """Return the counts of the prediction that no point moves."""

    def share(before: Tensor, true: Tensor) -> Tensor:
        return is_within_thresholds(before - true, grid).double()

    return _count(clip, taken, frames, share)


Judge = Callable[[Tensor, Tensor], Tensor]
"""Takes the positions of points where they were taken and where they are now, float32 [N, 2];
returns the share found within each threshold, [N, thresholds]."""


def _count(
    clip: AnnotatedClip, taken: Sequence[Source], frames: Collection[int], judge: Judge
) -> Hits:
    hits, searched = np.zeros((len(GAPS), len(THRESHOLDS))), np.zeros(len(GAPS))
    for source in taken:
        for index, gap in enumerate(GAPS):
            frame = source.frame + gap
            if frame not in frames:
                continue
            tracks = source.tracks[clip.visible[source.tracks, frame]]
            before, now = (torch.from_numpy(clip.points[tracks, t]) for t in (source.frame, frame))
            hits[index] += judge(before, now).sum(0).numpy()
            searched[index] += len(tracks)
    return Hits(hits, searched)
