"""Tracks on disk that grow block by block."""

from pathlib import Path

import numpy as np

from vditrack.arrays import Floats
from vditrack.io.run_store import RunStore, explain_unwritable
from vditrack.points.track_blocks import TrackBlock
from vditrack.points.tracks import Tracks

_ARRAYS: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "points": (np.float32, (2,)),
    "visible": (np.bool_, ()),
    "confidence": (np.float32, ()),
    "forward_backward_error": (np.float32, ()),
}
"""Element types and shapes of the arrays [N, T, ...] of `Tracks`."""


class TrackStore(RunStore):
    """The folder of tracks that are not complete."""

    def __init__(self, folder: Path, queries: Floats, frames: int) -> None:
        """Take a folder.

        Args:
            folder: the folder; `create` makes it.
            queries: float32 [N, 3] (t, x, y).
            frames: T.

        """
        shape = len(queries), frames
        layout = {n: (np.dtype(kind), (*shape, *inner)) for n, (kind, inner) in _ARRAYS.items()}
        super().__init__(folder, layout)
        self._queries = queries

    def write(self, block: TrackBlock) -> None:
        """Write what a block knows.

        Raises:
            InputError: The folder cannot be written.

        """
        try:
            block.write(Tracks(queries=self._queries, **self.open("r+")))
        except OSError as error:
            raise explain_unwritable(self.folder, error) from error

    def read(self) -> Tracks:
        """Return the tracks; the arrays are read from the disk where they are used."""
        return Tracks(queries=self._queries, **self.open())
