"""Decoding of sensor_msgs/Image and sensor_msgs/CompressedImage.

The names and meanings of encodings are those of sensor_msgs' image_encodings.hpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Frame
from vditrack.errors import InputError
from vditrack.ros_messages.image_codec import decode_rgb

Entry = TypeVar("Entry")


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that are read here."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    """Bytes from the start of a row to the start of the next."""
    data: Any
    """Rows of `step` bytes, in any object that supports the buffer protocol."""


class CompressedMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that are read here."""

    format: str
    data: Any
    """A complete image file, in any object that supports the buffer protocol."""


@dataclass(frozen=True)
class _Layout:
    """Byte layout of an encoding, and its conversion to RGB."""

    to_rgb: int | None
    """OpenCV's conversion code; None if the encoding is RGB."""
    channels: int = 1
    wide: bool = False
    """Whether channels have 16 bits."""
    block: tuple[int, int] = (1, 1)
    """Rows and columns that share their colour; sizes are multiples of it."""
    chroma_plane: bool = False
    """Whether a plane with the colour of each block follows the luminance plane."""
    min_size: int = 1
    """Minimum number of rows and of columns."""


# OpenCV reads YUV as BT.601 in the limited range, and so does cv_bridge.
_UYVY = _Layout(cv2.COLOR_YUV2RGB_UYVY, channels=2, block=(1, 2))
_YUYV = _Layout(cv2.COLOR_YUV2RGB_YUYV, channels=2, block=(1, 2))
_BAYER = {
    "rggb": cv2.COLOR_BayerRGGB2RGB,
    "bggr": cv2.COLOR_BayerBGGR2RGB,
    "gbrg": cv2.COLOR_BayerGBRG2RGB,
    "grbg": cv2.COLOR_BayerGRBG2RGB,
}
_LAYOUTS = {
    "rgb8": _Layout(None, channels=3),
    "bgr8": _Layout(cv2.COLOR_BGR2RGB, channels=3),
    "rgba8": _Layout(cv2.COLOR_RGBA2RGB, channels=4),
    "bgra8": _Layout(cv2.COLOR_BGRA2RGB, channels=4),
    "mono8": _Layout(cv2.COLOR_GRAY2RGB),
    "mono16": _Layout(cv2.COLOR_GRAY2RGB, wide=True),
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": _Layout(cv2.COLOR_YUV2RGB_NV12, block=(2, 2), chroma_plane=True),
    "nv21": _Layout(cv2.COLOR_YUV2RGB_NV21, block=(2, 2), chroma_plane=True),
    # OpenCV returns black for images of less than 3 x 3 pixels.
    **{f"bayer_{name}8": _Layout(code, min_size=3) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(code, wide=True, min_size=3) for name, code in _BAYER.items()},
}
_DEPTH_DTYPES: dict[str, np.dtype[Any]] = {"16UC1": np.dtype("u2"), "32FC1": np.dtype("f4")}

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_JPEG_SCAN, _JPEG_END, _PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND"


def decode_image(message: ImageMessage) -> Frame:
    """Return the pixels of a sensor_msgs/Image, uint8 [H, W, 3] RGB, contiguous.

    16-bit channels are reduced to their high byte. A fixed scale keeps the brightness of a surface
    constant from frame to frame; stretching each frame to its own range would not. Alpha is
    dropped, YUV is read as BT.601 in the limited range, and Bayer patterns are interpolated
    linearly.

    Args:
        message: has the fields of sensor_msgs/Image.

    Returns:
        A new array, or for rgb8 without padding a read-only view of the message's data.

    Raises:
        InputError: the encoding is not supported, or size, step and data are inconsistent.

    """
    refusal = f"has an unsupported encoding. Publish one of {', '.join(_LAYOUTS)}."
    layout = _look_up_encoding(message, _LAYOUTS, refusal)
    _check_size(message, layout)
    rows = message.height * 3 // 2 if layout.chroma_plane else message.height
    channels = layout.channels * (2 if layout.wide else 1)
    pixels = view_pixels(message, np.dtype("u1"), channels, rows)
    if layout.wide:
        pixels = np.ascontiguousarray(pixels[..., 0 if message.is_bigendian else 1])
    if layout.to_rgb is not None:
        return np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)
    frame = np.ascontiguousarray(pixels)
    frame.flags.writeable = False
    return frame


def decode_compressed(message: CompressedMessage) -> Frame:
    """Return the pixels of a sensor_msgs/CompressedImage, uint8 [H, W, 3] RGB.

    The data may be JPEG, PNG or another file that OpenCV reads; `format` is used in error messages
    only. Grey is converted to RGB, alpha is dropped, and 16 bits are reduced to the high byte. The
    orientation in the file's metadata is ignored, because camera_info describes the sensor.

    Args:
        message: has the fields of sensor_msgs/CompressedImage.

    Raises:
        InputError: the data are not such an image, or are truncated.

    """
    data = _view_bytes(message.data)
    description = f"a compressed image of {len(data)} bytes (format '{message.format}')"
    if not _is_complete(data.tobytes()):
        raise InputError(f"{description} is truncated.")
    picture = decode_rgb(data)
    if picture is None:
        raise InputError(f"{description} is not an image that OpenCV reads. Publish JPEG or PNG.")
    return picture


def decode_depth(message: ImageMessage) -> Floats:
    """Return the depth of a sensor_msgs/Image, float32 [H, W] in metres, NaN where unknown.

    By REP 118, 16UC1 is in millimetres with 0 for unknown, and 32FC1 is in metres. In 32FC1, values
    that are not finite or not positive are unknown.

    Args:
        message: has the fields of sensor_msgs/Image.

    Raises:
        InputError: the encoding is another one, or size, step and data are inconsistent.

    """
    refusal = "is not a depth image. Publish 16UC1 (millimetres) or 32FC1 (metres)."
    dtype = _look_up_encoding(message, _DEPTH_DTYPES, refusal)
    _check_size(message, _Layout(None))
    raw = view_pixels(message, dtype)[..., 0]
    if dtype.kind == "u":
        return np.where(raw == 0, np.float32(np.nan), raw / np.float32(1000))
    known = (raw > 0) & (raw < np.inf)
    return np.where(known, raw, np.float32(np.nan)).astype(np.float32, copy=False)


def _look_up_encoding(message: ImageMessage, known: Mapping[str, Entry], refusal: str) -> Entry:
    if message.encoding not in known:
        raise InputError(f"{_describe(message)} {refusal}")
    return known[message.encoding]


def view_pixels(
    message: ImageMessage, dtype: np.dtype[Any], channels: int = 1, rows: int | None = None
) -> NDArray[Any]:
    """View the data of a sensor_msgs/Image as [rows, W, channels], without a copy.

    Args:
        message: has the fields of sensor_msgs/Image.
        dtype: type of a channel; its byte order is taken from the message.
        channels: of a pixel.
        rows: rows of data; the image's height by default.

    Raises:
        InputError: size, step and data are inconsistent.

    """
    dtype = dtype.newbyteorder(">" if message.is_bigendian else "<")
    rows = message.height if rows is None else rows
    data, step = _view_bytes(message.data), message.step
    row_bytes = message.width * channels * dtype.itemsize
    if step < row_bytes:
        raise InputError(
            f"{_describe(message)} has a step of {step} bytes; a row takes {row_bytes}."
        )
    # The padding of the last row may be missing.
    needed = step * (rows - 1) + row_bytes
    if len(data) < needed:
        raise InputError(
            f"{_describe(message)} is truncated: it has {len(data)} bytes of data; with a step of "
            f"{step} it needs {needed}."
        )
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray((rows, message.width, channels), dtype, data, strides=strides)


def _check_size(message: ImageMessage, layout: _Layout) -> None:
    height, width = message.height, message.width
    if min(height, width) < layout.min_size:
        raise InputError(
            f"{_describe(message)} is too small; the minimum is {layout.min_size} x "
            f"{layout.min_size} pixels."
        )
    rows, columns = layout.block
    if height % rows or width % columns:
        raise InputError(
            f"{_describe(message)} has an invalid size: blocks of {columns} x {rows} pixels share "
            "their colour, so width and height must be multiples of these."
        )


def _view_bytes(data: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """View an object that supports the buffer protocol as uint8 [n], without a copy."""
    return np.asarray(memoryview(data)).reshape(-1).view(np.uint8)


def _describe(message: ImageMessage) -> str:
    return f"an image ({message.encoding}, {message.width} x {message.height})"


def _is_complete(data: bytes) -> bool:
    """Return whether a JPEG or PNG file has its end marker; decoders fill in what is missing."""
    if data.startswith(_JPEG):
        # A thumbnail in the header has an end marker of its own.
        return data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    return not data.startswith(_PNG) or _PNG_END in data
