"""Masks of a clip as a stream would have given them."""

from collections.abc import Iterable, Iterator, Mapping

from vditrack.arrays import Frame, Mask
from vditrack.streams.mask_stream import MaskStream


def propagate_in_stream(
    stream: MaskStream, frames: Iterable[Frame], given: Mapping[int, Mask]
) -> Iterator[Mask]:
    """Yield the masks of each frame of a clip.

    Args:
        stream: a new stream.
        frames: T frames, uint8 [H, W, 3] RGB.
        given: masks uint8 [H, W] by the number of their frame, checked.

    """
    for t, frame in enumerate(frames):
        mask = stream.push(frame, float(t)).mask
        if t in given:
            stream.add_masks(given[t])
            mask = stream.push(frame, float(t)).mask
        yield mask
