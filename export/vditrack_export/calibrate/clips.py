"""Annotated clips with their feature maps, computed once and stored on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from vditrack.arrays import Floats
from vditrack.coordinates import Grid
from vditrack.evaluation.protocols import RASTER, PointQueries, first_queries
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import clip_features
from vditrack.synthetic.annotated_clip import AnnotatedClip

Size = Literal["256", "full"]
ReportShare = Callable[[float], None]
"""Called with the share of a clip that was processed since the last call."""


@dataclass(frozen=True)
class EncodedClip:
    """A clip, its queries by TAP-Vid's protocol (arXiv 2211.03726), and its feature maps."""

    clip: AnnotatedClip
    """The clip at the size at which it is tracked."""
    queries: PointQueries
    """One query per track, in the frame in which the track is first visible."""
    grid: Grid
    """The grid of the feature maps."""
    descriptors: Path
    """A NumPy file, float32 [T, rows, columns, C]."""

    @property
    def query_points(self) -> Floats:
        """The positions of the queries, float32 [Q, 2] (x, y) in pixels."""
        positions = self.clip.points[self.queries.tracks, self.queries.frames]
        # Annotations may lie on the border itself, which is outside the last pixel.
        highest = np.nextafter(self.clip.size, np.float32(0))
        return np.asarray(np.clip(positions, 0, highest))

    def read_maps(self) -> Iterator[FeatureMap]:
        """Yield the feature map of each frame in order."""
        stored = np.load(self.descriptors, mmap_mode="r")
        return (FeatureMap(self.grid, np.array(frame)) for frame in stored)


def encode_clip(
    clip: AnnotatedClip,
    extractor: FeatureExtractor,
    destination: Path,
    report_share: ReportShare,
    size: Size = "256",
) -> EncodedClip:
    """Compute a clip's features, as `Tracker.track` does.

    Args:
        clip: a clip of any size, with tracks.
        extractor: the model's feature extractor.
        destination: the NumPy file (.npy) to write. The features of all clips together may not fit
            into memory.
        report_share: called after each frame, see `ReportShare`.
        size: "256" resizes the clip to 256 x 256 pixels first; "full" keeps its size.

    """
    clip = replace(clip, masks=None)
    if size == "256":
        clip = clip.resize(RASTER, RASTER)
    grid, length = extractor.grid, len(clip.frames)
    stored: Floats | None = None
    for frame, features in enumerate(clip_features(extractor, clip.frames)):
        if stored is None:
            shape = (length, *features.descriptors.shape)
            stored = np.lib.format.open_memmap(destination, "w+", np.float32, shape)
        stored[frame] = features.descriptors
        report_share(1 / length)
    return EncodedClip(clip, first_queries(clip.visible), grid, destination)
