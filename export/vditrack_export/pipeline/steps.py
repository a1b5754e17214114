"""Descriptors of a clip's latents, window or chunk by chunk, as the runtime computes them."""

import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.manifest import Input
from vditrack.features.chunk_reader import places_of_slots
from vditrack.inference.session import Array, Session


def describe_latents(session: Session, latents: Floats, size: Input) -> Floats:
    """Return the descriptors of latents, float32 [latents, rows, columns, D].

    Args:
        session: The graph of descriptors.
        latents: Those of one window, or with cached keys of a clip of whole chunks, float32
            [1, C, T, h, w].
        size: The size of the windows.

    """
    if size.attention == "window":
        return np.asarray(session.run({"latents": latents})["descriptors"])
    chunk, slots, found = size.described_latents, size.cached_latents, []
    state = session.new_state()
    for first in range(0, latents.shape[2], chunk):
        inputs: dict[str, Array] = {
            "latents": np.ascontiguousarray(latents[:, :, first : first + chunk])
        }
        if "places" in session.inputs:
            inputs["places"] = places_of_slots(first, slots)
        slot = first % slots if slots else 0
        found.append(session.run(inputs, state, slot)["descriptors"])
    return np.concatenate(found)
