"""Masks of a clip as a stream would have given them."""

from collections.abc import Iterator, Mapping

from vditrack.arrays import FrameClip, Mask
from vditrack.streams.mask_stream import MaskStream


def propagate_in_stream(
    stream: MaskStream, frames: FrameClip, given: Mapping[int, Mask]
) -> Iterator[Mask]:
    """Yield the masks of each frame of a clip.

    Args:
        stream: a new stream.
        frames: uint8 [T, H, W, 3] RGB.
        given: masks uint8 [H, W] by the number of their frame, checked.

    """
    for t, frame in enumerate(frames):
        mask = stream.push(frame, float(t)).mask
        if t in given:
            stream.add_masks(given[t])
            mask = stream.push(frame, float(t)).mask
        yield mask
