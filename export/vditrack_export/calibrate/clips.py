"""Annotated clips with their features, worked out once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vditrack.annotated_clip import AnnotatedClip
from vditrack.coordinates import Grid
from vditrack.evaluation.protocols import RASTER, PointQueries, first_queries
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import clip_features

Advanced = Callable[[float], None]
"""Is told the share of a clip that was done since the last call."""


@dataclass(frozen=True)
class DescribedClip:
    """A clip as TAP-Vid asks about it (arXiv 2211.03726), and the features of its frames."""

    clip: AnnotatedClip
    """Of 256 x 256 pixels."""
    asked: PointQueries
    """Each track where it is first visible."""
    grid: Grid
    descriptors: Path
    """NumPy file, float32 [T, rows, columns, C]."""

    @property
    def starts(self) -> NDArray[np.float32]:
        """[Q, 2] (x, y) where the queries are, in pixels."""
        at = self.clip.points[self.asked.tracks, self.asked.frames]
        # Annotations may lie on the border itself, which is outside the last pixel.
        return np.clip(at, 0, np.nextafter(self.clip.size, np.float32(0)))

    def maps(self) -> Iterator[FeatureMap]:
        """Read the feature map of each frame."""
        stored = np.load(self.descriptors, mmap_mode="r")
        return (FeatureMap(self.grid, np.array(frame)) for frame in stored)


def described(
    clip: AnnotatedClip, extractor: FeatureExtractor, destination: Path, advanced: Advanced
) -> DescribedClip:
    """Resize a clip and work out its features, as `Tracker.track` does.

    Args:
        clip: of any size, with tracks.
        extractor: of the model.
        destination: NumPy file to be written (.npy); features of a clip may be more than fit into
            memory together with others'.
        advanced: see `Advanced`.

    """
    resized = replace(clip, masks=None).resize(RASTER, RASTER)
    grid, length = extractor.grid, len(clip.frames)
    stored: NDArray[np.float32] | None = None
    for frame, features in enumerate(clip_features(extractor, resized.frames)):
        if stored is None:
            shape = (length, *features.descriptors.shape)
            stored = np.lib.format.open_memmap(destination, "w+", np.float32, shape)
        stored[frame] = features.descriptors
        advanced(1 / length)
    return DescribedClip(resized, first_queries(clip.visible), grid, destination)
