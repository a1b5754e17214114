"""Descriptors of latents chunk by chunk, with cached keys and values of the latents before."""

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.typing import NDArray

from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.inference.session import Resident


class ChunkReader:
    """The chunks of latents of one clip or stream, and the keys and values of a rolling window.

    Each cached latent stays in its slot of the rings, and the newest chunk takes the slots of the
    oldest. The places of the latents in the window change instead, and the graph rotates the cached
    keys by them.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        """Start before the first chunk.

        Args:
            extractor: of a bundle whose transformer keeps keys and values.

        """
        self._extractor = extractor
        self._state = extractor.new_state()
        self._before = 0

    def copy(self) -> "ChunkReader":
        """Return a reader with the same content, which goes on independently."""
        other = copy(self)
        other._state = self._state.copy()
        return other

    @property
    def nbytes(self) -> int:
        """Memory of the keys and values, in bytes."""
        return self._state.nbytes

    def describe(self, chunk: Sequence[Resident]) -> list[FeatureMap]:
        """Return the maps of the next latents.

        Args:
            chunk: as many latents [1, C, 1, h, w] as the bundle describes at a time.

        """
        slots = self._extractor.cached_latents
        slot = self._before % slots if slots else 0
        places = places_of_slots(self._before, slots)
        maps = self._extractor.describe_chunk(chunk, places, self._state, slot)
        self._before += len(chunk)
        return maps


def places_of_slots(latents: int, slots: int) -> NDArray[np.int32]:
    """Return the place in the window of the latent in each slot, int32 [slots]; -1 if it is empty.

    Args:
        latents: latents of the stream before the newest chunk.
        slots: cached latents.

    """
    each = np.arange(slots, dtype=np.int32)
    return np.where(each < latents, (each - latents) % max(slots, 1), -1).astype(np.int32)
