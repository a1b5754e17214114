"""Feature maps that are kept for a second pass: in memory, and beyond a limit in a file."""

import tempfile
from typing import IO

import numpy as np

from vditrack.features.feature_map import FeatureMap


class KeptMaps:
    """The maps of the first frames of a clip, in order."""

    def __init__(self, limit: float) -> None:
        """Start without maps; ``limit`` is the memory that they may take, in bytes."""
        self._free = limit
        self._maps: list[FeatureMap | int | None] = []
        """Maps in memory, or their places in the file."""
        self._file: IO[bytes] | None = None
        self._like: FeatureMap | None = None

    def append(self, features: FeatureMap | None) -> None:
        """Keep the map of the next frame; None if it has none."""
        if features is None or features.descriptors.nbytes <= self._free:
            self._maps.append(features)
            self._free -= 0 if features is None else features.descriptors.nbytes
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="vditrack-")  # noqa: SIM115
        self._like = features
        self._maps.append(self._file.seek(0, 2))
        self._file.write(features.descriptors.tobytes())

    def read(self, frame: int) -> FeatureMap | None:
        """Return the map of a frame."""
        kept = self._maps[frame]
        if not isinstance(kept, int) or self._file is None or self._like is None:
            return kept if isinstance(kept, FeatureMap) else None
        like = self._like.descriptors
        self._file.seek(kept)
        values = np.frombuffer(self._file.read(like.nbytes), like.dtype)
        return FeatureMap(self._like.grid, values.reshape(like.shape))
