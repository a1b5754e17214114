"""Reads and writes masks as PNG files of object indices, in a palette or in grey levels."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.io.overlay import make_object_colours

_BLACK_AND_WHITE = "monob"
_GREY_STEPS = {2: 85, 4: 17}
"""Steps of the grey levels that FFmpeg decodes few bits to, by the number of bits."""


class MaskImage(NamedTuple):
    """The pixels of a PNG, before they are read as objects."""

    pixels: NDArray[np.integer[Any]]
    """Palette indices or grey levels [H, W], or colours [H, W, 3], RGB; uint8 or, of grey levels,
    uint16."""
    alpha: NDArray[np.uint8] | None
    """Opacity [H, W]; None if the image has none."""
    palette: NDArray[np.uint8] | None
    """Colours [256, 3], RGB; None if the image has no palette."""


def read_mask(path: Path, white: int = 255) -> Mask:
    """Read a mask uint8 [H, W] from a PNG with a palette or of grey levels.

    Args:
        path: The file.
        white: Index of white in a black-and-white file.

    Raises:
        InputError: The file cannot be read, is damaged, is not a PNG, or has more than one channel
            or more than 8 bits.

    """
    content = _read(path)
    image = _decode(path, content)
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
        return np.where(mask > 0, np.uint8(white), np.uint8(0))
    # The byte after the sizes in the header, which comes first.
    return mask // np.uint8(_GREY_STEPS.get(content[24], 1))


def read_mask_image(path: Path) -> MaskImage:
    """Read the pixels of any PNG, with its palette or its opacity.

    Raises:
        InputError: The file cannot be read, is damaged or is not a PNG.

    """
    content = _read(path)
    image = _decode(path, content)
    if image.format.name == "pal8":
        mask, colours = cast(tuple[Mask, Mask], image.to_ndarray())
        return MaskImage(mask, None, colours[:, 1:])
    if image.format.name in ("gray", _BLACK_AND_WHITE):
        return MaskImage(read_mask(path), None, None)
    encoded = np.frombuffer(content, np.uint8)
    decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if decoded.ndim == 2:
        return MaskImage(decoded, None, None)
    # Of colours, 8 bits are enough to tell objects apart.
    colours = np.asarray(decoded if decoded.dtype == np.uint8 else decoded // 257, np.uint8)
    alpha = colours[..., 3] if colours.shape[2] == 4 else None
    return MaskImage(np.ascontiguousarray(colours[..., 2::-1]), alpha, None)


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


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _decode(path: Path, content: bytes) -> av.VideoFrame:
    try:
        # FFmpeg keeps the indices of a palette; OpenCV converts them to colours.
        with av.open(BytesIO(content), "r", format="png_pipe") as container:
            return next(container.decode(video=0))
    except (av.error.FFmpegError, OSError, StopIteration) as error:
        raise InputError(
            f"{path} is no PNG image, or a damaged one. Give a PNG, which keeps indices exactly."
        ) from error
