"""Reads and writes masks as PNG files of object indices, in a palette or in grey levels."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.io.overlay import make_object_colours

_BLACK_AND_WHITE = "monob"


def read_mask(path: Path, white: int = 255) -> Mask:
    """Read a mask uint8 [H, W] from a PNG with a palette or of grey levels.

    Args:
        path: The file.
        white: Index of white in a black-and-white file.

    Raises:
        InputError: The file cannot be read, is damaged, is not a PNG, or has more than one channel
            or more than 8 bits.

    """
    image = _decode(path)
    layout = image.format.name
    if layout == "pal8":
        return cast(tuple[Mask, Mask], image.to_ndarray())[0]
    if layout not in ("gray", _BLACK_AND_WHITE):
        raise InputError(
            f"{path} has colours or more than 8 bits ({layout}). Give a PNG of object indices, "
            "with a palette or in 8-bit grey."
        )
    mask = np.asarray(image.to_ndarray(format="gray"), np.uint8)
    if layout == _BLACK_AND_WHITE:
        mask = np.where(mask > 0, np.uint8(white), np.uint8(0))
    return mask


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask [H, W] as a PNG with the palette of DAVIS."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = mask.shape
    encoder.pix_fmt, encoder.framerate = "pal8", Fraction(1)
    opaque = np.insert(make_object_colours(), 0, 255, axis=1)
    indexed: Any = (np.ascontiguousarray(mask), opaque)
    image = av.VideoFrame.from_ndarray(indexed, format="pal8")
    packets = [*encoder.encode(image), *encoder.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def _decode(path: Path) -> av.VideoFrame:
    try:
        content = BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        # FFmpeg keeps the indices of a palette; OpenCV converts them to colours.
        with av.open(content, "r", format="png_pipe") as container:
            return next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, StopIteration) as error:
        raise InputError(
            f"{path} is no PNG image, or a damaged one. Give a PNG, which keeps indices exactly."
        ) from error
