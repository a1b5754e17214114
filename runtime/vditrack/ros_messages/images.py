"""Images of cameras and depth sensors as arrays: sensor_msgs/Image and sensor_msgs/CompressedImage.

The names of encodings, and what they say about a pixel, are those of sensor_msgs'
image_encodings.hpp.
"""

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.ros_messages.image_codec import decode_rgb

Data: TypeAlias = Any
"""What lends its bytes: bytes, array.array, memoryview, an array of NumPy."""


class ImageMessage(Protocol):
    """Has the fields of sensor_msgs/Image."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def encoding(self) -> str: ...
    @property
    def is_bigendian(self) -> int: ...
    @property
    def step(self) -> int:
        """Bytes from the start of a row to the start of the next."""

    @property
    def data(self) -> Data:
        """Rows one below the other, each ``step`` bytes."""


class CompressedMessage(Protocol):
    """Has the fields of sensor_msgs/CompressedImage."""

    @property
    def format(self) -> str: ...
    @property
    def data(self) -> Data:
        """A whole image file."""


@dataclass(frozen=True)
class _Layout:
    """How an encoding lays out the bytes of an image, and what makes RGB of them."""

    to_rgb: int | None
    """OpenCV's conversion; None where it is RGB."""
    channels: int = 1
    wide: bool = False
    """Channels have 16 bits."""
    block: tuple[int, int] = (1, 1)
    """Rows and columns that share colour: sizes are multiples of it."""
    colour_below: bool = False
    """A plane with colour for each block follows the plane of brightness."""
    least: int = 1
    """Rows and columns that there must be."""


# OpenCV takes YUV as BT.601 in its limited range, which is what cv_bridge makes of it as well.
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
    "nv12": _Layout(cv2.COLOR_YUV2RGB_NV12, block=(2, 2), colour_below=True),
    "nv21": _Layout(cv2.COLOR_YUV2RGB_NV21, block=(2, 2), colour_below=True),
    # Of less than 3 x 3 pixels OpenCV makes black.
    **{f"bayer_{name}8": _Layout(code, least=3) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": _Layout(code, wide=True, least=3) for name, code in _BAYER.items()},
}
_DEPTH: dict[str, np.dtype[Any]] = {"16UC1": np.dtype("u2"), "32FC1": np.dtype("f4")}

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_JPEG_SCAN, _JPEG_END, _PNG_END = b"\xff\xda", b"\xff\xd9", b"IEND"


def decode_image(message: ImageMessage) -> Frame:
    """Give the pixels of a sensor_msgs/Image, uint8 [H, W, 3] RGB, contiguous.

    Channels of 16 bits give their high byte: a fixed scale, so that the same surface stays as
    bright from frame to frame, which stretching each frame to its own range would not keep. Alpha
    is dropped. YUV is read as BT.601 in the limited range, Bayer patterns are interpolated
    linearly.

    Args:
        message: has the fields of sensor_msgs/Image.

    Returns:
        A new array; of rgb8 without padding a read-only view of the message's own data.

    Raises:
        InputError: the encoding is none of these, or size, step and data do not fit together.

    """
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise InputError(
            f"{_told(message)} has an unknown encoding. Publish one of {', '.join(_LAYOUTS)}."
        )
    _check_size(message, layout)
    rows = message.height * 3 // 2 if layout.colour_below else message.height
    pixels = _pixels(message, rows, np.dtype("u1"), layout.channels * (2 if layout.wide else 1))
    if layout.wide:
        pixels = np.ascontiguousarray(pixels[..., 0 if message.is_bigendian else 1])
    if layout.to_rgb is not None:
        return np.asarray(cv2.cvtColor(pixels, layout.to_rgb), np.uint8)
    frame = np.ascontiguousarray(pixels)
    frame.flags.writeable = False
    return frame


def decode_compressed(message: CompressedMessage) -> Frame:
    """Give the pixels of a sensor_msgs/CompressedImage, uint8 [H, W, 3] RGB.

    JPEG, PNG and what else OpenCV reads, by the data itself: ``format`` is told in errors only.
    Grey becomes RGB, alpha is dropped, 16 bits give their high byte. The picture stays as the
    sensor has it, as camera_info describes it: an orientation in its metadata is not followed.

    Args:
        message: has the fields of sensor_msgs/CompressedImage.

    Raises:
        InputError: the data is no such image, or is cut short.

    """
    data = _bytes(message.data)
    told = f"a compressed image of {len(data)} bytes (format '{message.format}')"
    if not _is_complete(data.tobytes()):
        raise InputError(f"{told} is cut short.")
    picture = decode_rgb(data)
    if picture is None:
        raise InputError(f"{told} is no image that OpenCV reads. Publish JPEG or PNG.")
    return picture


def decode_depth(message: ImageMessage) -> NDArray[np.float32]:
    """Give the depth of a sensor_msgs/Image, float32 [H, W] in metres, NaN where it is unknown.

    By REP 118: 16UC1 counts millimetres, and 0 is unknown; 32FC1 holds metres, and what is not
    finite is unknown, as is what is not in front of the camera.

    Args:
        message: has the fields of sensor_msgs/Image.

    Raises:
        InputError: the encoding is none of the two, or size, step and data do not fit together.

    """
    kind = _DEPTH.get(message.encoding)
    if kind is None:
        raise InputError(
            f"{_told(message)} is no depth. Publish 16UC1 (millimetres) or 32FC1 (metres)."
        )
    _check_size(message, _Layout(None))
    ordered = kind.newbyteorder(">" if message.is_bigendian else "<")
    raw = _pixels(message, message.height, ordered, 1)[..., 0]
    if kind.kind == "u":
        return np.where(raw == 0, np.float32(np.nan), raw / np.float32(1000))
    known = (raw > 0) & (raw < np.inf)
    return np.where(known, raw, np.float32(np.nan)).astype(np.float32, copy=False)


def _check_size(message: ImageMessage, layout: _Layout) -> None:
    height, width = message.height, message.width
    if min(height, width) < layout.least:
        raise InputError(
            f"{_told(message)} is too small: it needs {layout.least} x {layout.least} pixels."
        )
    rows, columns = layout.block
    if height % rows or width % columns:
        raise InputError(
            f"{_told(message)} has an odd size: {columns} x {rows} pixels share their colour."
        )


def _pixels(message: ImageMessage, rows: int, kind: np.dtype[Any], channels: int) -> NDArray[Any]:
    """View the data as [rows, W, channels], without a copy."""
    data, step = _bytes(message.data), message.step
    row = message.width * channels * kind.itemsize
    if step < row:
        raise InputError(f"{_told(message)} has a step of {step} bytes; a row takes {row}.")
    # Padding after the last row is nobody's loss.
    needed = step * (rows - 1) + row
    if len(data) < needed:
        raise InputError(
            f"{_told(message)} is cut short: {len(data)} bytes of data, step {step} takes {needed}."
        )
    strides = (step, channels * kind.itemsize, kind.itemsize)
    return np.ndarray((rows, message.width, channels), kind, data, strides=strides)


def _bytes(data: Data) -> Frame:
    """View anything that lends bytes as uint8 [n], without a copy."""
    return np.asarray(memoryview(data)).reshape(-1).view(np.uint8)


def _told(message: ImageMessage) -> str:
    return f"an image ({message.encoding}, {message.width} x {message.height})"


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG file has its end: decoders fill up what is missing."""
    if data.startswith(_JPEG):
        # A thumbnail in the header has an end of its own.
        return data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    return not data.startswith(_PNG) or _PNG_END in data
