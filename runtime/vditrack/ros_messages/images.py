"""Decoding of sensor_msgs/Image and sensor_msgs/CompressedImage.

The names and meanings of encodings are those of sensor_msgs' image_encodings.hpp.
"""

import re
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.errors import DamagedImageError, InputError
from vditrack.input_checks.text import clean_line
from vditrack.ros_messages.brightness import Reduction
from vditrack.ros_messages.image_codec import decode_stored
from vditrack.ros_messages.jpeg_files import complete_jpeg, is_jpeg


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
    """An image file, in any object that supports the buffer protocol."""


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
    "rgb16": _Layout(None, channels=3, wide=True),
    "bgr16": _Layout(cv2.COLOR_BGR2RGB, channels=3, wide=True),
    "rgba16": _Layout(cv2.COLOR_RGBA2RGB, channels=4, wide=True),
    "bgra16": _Layout(cv2.COLOR_BGRA2RGB, channels=4, wide=True),
    "mono16": _Layout(cv2.COLOR_GRAY2RGB, wide=True),
    # Names of OpenCV's types. Colours have OpenCV's order, as cv_bridge reads them.
    "8UC1": _Layout(cv2.COLOR_GRAY2RGB),
    "8UC3": _Layout(cv2.COLOR_BGR2RGB, channels=3),
    "8UC4": _Layout(cv2.COLOR_BGRA2RGB, channels=4),
    "16UC1": _Layout(cv2.COLOR_GRAY2RGB, wide=True),
    "16UC3": _Layout(cv2.COLOR_BGR2RGB, channels=3, wide=True),
    "16UC4": _Layout(cv2.COLOR_BGRA2RGB, channels=4, wide=True),
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

_BAYER_NAME = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(8|16)")
_COLOUR_NAME = re.compile(r"(rgb|bgr)a?(8|16)")


def decode_image(message: ImageMessage, reduce: Reduction) -> Frame:
    """Return the pixels of a sensor_msgs/Image, uint8 [H, W, 3] RGB, contiguous.

    Alpha is dropped, YUV is read as BT.601 in the limited range, and Bayer patterns are
    interpolated linearly.

    Args:
        message: has the fields of sensor_msgs/Image.
        reduce: reduces channels of 16 bits to 8.

    Returns:
        A new array, or for rgb8 without padding a read-only view of the message's data.

    Raises:
        InputError: the encoding is not supported.
        DamagedImageError: size, step and data are inconsistent.

    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise InputError(
            f"{describe_image(message)} has an unsupported encoding. Publish one of "
            f"{', '.join(_LAYOUTS)}."
        )
    check_size(message, layout.min_size, layout.block)
    rows = message.height * 3 // 2 if layout.chroma_plane else message.height
    pixels = view_pixels(message, np.dtype("u2" if layout.wide else "u1"), layout.channels, rows)
    if layout.wide:
        pixels = reduce(pixels.astype(np.uint16, copy=False))
    if layout.to_rgb is not None:
        return np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)
    frame = np.ascontiguousarray(pixels)
    frame.flags.writeable = False
    return frame


def decode_compressed(
    message: CompressedMessage, reduce: Reduction, *, check_scans: bool = False
) -> Frame:
    """Return the pixels of a sensor_msgs/CompressedImage, uint8 [H, W, 3] RGB.

    The data may be JPEG, PNG or another file that OpenCV reads, and `format` is read as
    image_transport's plug-in `compressed` does. It names the encoding of the image before it was
    compressed. A Bayer pattern is compressed as a grey image, and interpolated here. Colours are
    swapped in the file if `format` names a colour encoding and does not say "compressed bgr".
    Without a `;`, only the file counts.

    Grey is converted to RGB and alpha is dropped. The orientation in the file's metadata is
    ignored, because camera_info describes the sensor.

    Args:
        message: has the fields of sensor_msgs/CompressedImage.
        reduce: reduces channels of 16 bits to 8.
        check_scans: whether a JPEG is searched for damage inside, which takes half as long again.

    Raises:
        DamagedImageError: the data are not such an image, or are truncated.

    """
    data = view_bytes(message.data)
    description = f"a compressed image of {len(data)} bytes (format '{clean_line(message.format)}')"
    if is_jpeg(data[:4].tobytes()):
        whole = complete_jpeg(data.tobytes(), check_scans=check_scans)
        if whole is None:
            raise DamagedImageError(f"{description} is truncated or damaged.")
        data = np.frombuffer(whole, np.uint8)
    pixels = decode_stored(data, reduce)
    if pixels is None:
        # OpenCV reads a truncated PNG as none.
        raise DamagedImageError(
            f"{description} is truncated, damaged, or not an image that OpenCV reads. Publish JPEG "
            "or PNG with 8 or 16 bits."
        )
    conversion = _choose_conversion(message.format, pixels.ndim == 2)
    if conversion is None:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(pixels, conversion), np.uint8)


def _choose_conversion(text: str, is_grey: bool) -> int | None:
    """Return OpenCV's conversion from a decoded file to RGB; None if the file holds RGB.

    Args:
        text: the message's format, such as "bayer_rggb8; png compressed ".
        is_grey: whether the file has one channel.

    """
    encoding, separator, compression = text.partition(";")
    if is_grey:
        bayer = _BAYER_NAME.match(encoding.strip())
        if bayer is None or "compressed mono" in compression:
            return cv2.COLOR_GRAY2RGB
        return _BAYER[bayer[1]]
    swapped = separator and _COLOUR_NAME.match(encoding.strip())
    return None if swapped and "compressed bgr" not in compression else cv2.COLOR_BGR2RGB


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
        DamagedImageError: size, step and data are inconsistent.

    """
    dtype = dtype.newbyteorder(">" if message.is_bigendian else "<")
    rows = message.height if rows is None else rows
    data, step = view_bytes(message.data), message.step
    row_bytes = message.width * channels * dtype.itemsize
    if step < row_bytes:
        raise DamagedImageError(
            f"{describe_image(message)} has a step of {step} bytes; a row takes {row_bytes}."
        )
    # The padding of the last row may be missing.
    needed = step * (rows - 1) + row_bytes
    if len(data) < needed:
        raise DamagedImageError(
            f"{describe_image(message)} is truncated: it has {len(data)} bytes of data; with a "
            f"step of {step} it needs {needed}."
        )
    strides = (step, channels * dtype.itemsize, dtype.itemsize)
    return np.ndarray((rows, message.width, channels), dtype, data, strides=strides)


def check_size(message: ImageMessage, min_size: int = 1, block: tuple[int, int] = (1, 1)) -> None:
    """Check the size of a sensor_msgs/Image.

    Args:
        message: has the fields of sensor_msgs/Image.
        min_size: minimum number of rows and of columns.
        block: rows and columns that share their colour; sizes are multiples of it.

    Raises:
        DamagedImageError: the size is another one.

    """
    height, width = message.height, message.width
    if min(height, width) < min_size:
        raise DamagedImageError(
            f"{describe_image(message)} is too small; the minimum is {min_size} x {min_size} "
            "pixels."
        )
    rows, columns = block
    if height % rows or width % columns:
        raise DamagedImageError(
            f"{describe_image(message)} has an invalid size: blocks of {columns} x {rows} pixels "
            "share their colour, so width and height must be multiples of these."
        )


def view_bytes(data: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """View an object that supports the buffer protocol as uint8 [n], without a copy."""
    return np.asarray(memoryview(data)).reshape(-1).view(np.uint8)


def describe_image(message: ImageMessage) -> str:
    """Return encoding and size of a sensor_msgs/Image, for error messages."""
    return f"an image ({clean_line(message.encoding)}, {message.width} x {message.height})"
