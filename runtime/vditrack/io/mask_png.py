"""Masks as PNG files of object indices: grey levels, or the colours of a palette."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import av
import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.io.overlay import object_colours

_BLACK_AND_WHITE = "monob"


def read_mask(path: Path, white: int = 255) -> Mask:
    """Read the index at each pixel [H, W] of a PNG with a palette or of grey levels.

    Args:
        path: The file.
        white: Index of white in a file that is black and white, without grey levels.

    Raises:
        InputError: the file cannot be read, is damaged, is no PNG, or has colours of its own.

    """
    picture = _decoded(path)
    layout = picture.format.name
    if layout == "pal8":
        return cast(tuple[Mask, Mask], picture.to_ndarray())[0]
    if layout not in ("gray", _BLACK_AND_WHITE):
        raise InputError(
            f"{path} has colours or more than 8 bits ({layout}). A mask is a palette or grey PNG "
            "of object indices."
        )
    mask = np.asarray(picture.to_ndarray(format="gray"), np.uint8)
    if layout == _BLACK_AND_WHITE:
        mask = np.where(mask > 0, np.uint8(white), np.uint8(0))
    return mask


def write_mask(path: Path, mask: Mask) -> None:
    """Write indices [H, W] as a PNG with the palette of DAVIS."""
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width = mask.shape
    encoder.pix_fmt, encoder.framerate = "pal8", Fraction(1)
    opaque = np.insert(object_colours(), 0, 255, axis=1)
    indexed: Any = (np.ascontiguousarray(mask), opaque)
    picture = av.VideoFrame.from_ndarray(indexed, format="pal8")
    packets = [*encoder.encode(picture), *encoder.encode(None)]
    path.write_bytes(b"".join(map(bytes, packets)))


def _decoded(path: Path) -> av.VideoFrame:
    try:
        content = BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        # FFmpeg keeps a palette's indices; OpenCV turns them into colours.
        with av.open(content, "r", format="png_pipe") as container:
            return next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, StopIteration) as error:
        raise InputError(
            f"{path} is no PNG image, or a damaged one. A mask is a PNG, which keeps indices."
        ) from error
