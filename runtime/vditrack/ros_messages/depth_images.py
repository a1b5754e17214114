"""Depth images: sensor_msgs/Image, and the files of image_transport's depth plug-ins.

By REP 118, 16UC1 is in millimetres with 0 for unknown, and 32FC1 is in metres. In 32FC1, values
that are not finite or not positive are unknown.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats
from vditrack.coordinates import pixel_indices
from vditrack.errors import DamagedImageError, InputError
from vditrack.input_checks.text import clean_line
from vditrack.ros_messages.images import (
    CompressedMessage,
    ImageMessage,
    check_size,
    describe_image,
    view_bytes,
    view_pixels,
)
from vditrack.ros_messages.rvl import decode_rvl

_DTYPES: dict[str, np.dtype[Any]] = {"16UC1": np.dtype("u2"), "32FC1": np.dtype("f4")}
_HEADER = struct.Struct("<iff")
"""What compressedDepth stores before the file: a format that nobody reads, and two parameters of
the quantization of 32FC1."""


@dataclass(frozen=True)
class DepthImage:
    """A depth image; values are converted to metres where they are read."""

    values: NDArray[Any]
    """[H, W] as stored."""
    to_metres: Callable[[NDArray[Any]], Floats]
    """Converts stored values to metres along z, float32, NaN where unknown."""

    @classmethod
    def from_values(cls, values: NDArray[Any]) -> DepthImage:
        """Return the depth image of stored values.

        Args:
            values: [H, W] unsigned integers in millimetres or floats in metres.

        """
        return cls(values, _from_millimetres if values.dtype.kind == "u" else _from_metres)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.values.shape
        return height, width

    @property
    def metres(self) -> Floats:
        """Depth of all pixels in metres, float32 [H, W], NaN where unknown."""
        return self.to_metres(self.values)

    def sample(self, points: Floats) -> Floats:
        """Return the depths float32 [N] of the pixels that contain points; NaN outside.

        Depth is not interpolated: between two surfaces there may be nothing.

        Args:
            points: pixels (x, y) [N, 2].

        """
        height, width = self.size
        size = np.array([width, height], np.float32)
        inside = np.all((points >= 0) & (points < size), axis=1)
        columns, rows = pixel_indices(np.where(inside[:, None], points, 0)).T
        depths = self.to_metres(self.values[rows, columns])
        return np.where(inside, depths, np.float32(np.nan))


def read_depth(message: ImageMessage) -> DepthImage:
    """View the depth of a sensor_msgs/Image, without a copy.

    Args:
        message: has the fields of sensor_msgs/Image.

    Raises:
        InputError: the encoding is neither 16UC1 nor 32FC1.
        DamagedImageError: size, step and data are inconsistent.

    """
    dtype = _DTYPES.get(message.encoding)
    if dtype is None:
        raise InputError(
            f"{describe_image(message)} is not a depth image. Publish 16UC1 (millimetres) or 32FC1 "
            "(metres)."
        )
    check_size(message)
    return DepthImage.from_values(view_pixels(message, dtype)[..., 0])


def read_compressed_depth(message: CompressedMessage) -> DepthImage:
    """Decode the depth of a sensor_msgs/CompressedImage.

    `format` is read as image_transport does. "16UC1; compressedDepth png" and "rvl" are of the
    plug-in compressedDepth, which stores 32FC1 as inverse depth with 16 bits. "16UC1; png
    compressed" is of the plug-in compressed.

    Args:
        message: has the fields of sensor_msgs/CompressedImage.

    Raises:
        InputError: the format is not one of depth.
        DamagedImageError: the data are truncated or damaged.

    """
    data, name = view_bytes(message.data), message.format.partition(";")[0].strip()
    description = (
        f"a compressed depth image of {len(data)} bytes (format '{clean_line(message.format)}')"
    )
    if name not in _DTYPES:
        raise InputError(
            f"{description} is not of 16UC1 (millimetres) or 32FC1 (metres). Publish depth by "
            "image_transport's plug-in compressedDepth."
        )
    if "compressedDepth" not in message.format:
        values = _decode_file(data, description)
        if values.dtype != _DTYPES[name]:
            raise InputError(
                f"{description} holds {values.dtype} and not {_DTYPES[name]}: its depth was cut "
                "off. Use the plug-in compressedDepth, or PNG in place of JPEG."
            )
        return DepthImage.from_values(values)
    if len(data) < _HEADER.size:
        raise DamagedImageError(f"{description} is truncated.")
    _, scale, offset = _HEADER.unpack(data[: _HEADER.size].tobytes())
    stored = data[_HEADER.size :]
    is_rvl = "rvl" in message.format.partition("compressedDepth")[2]
    values = decode_rvl(stored, description) if is_rvl else _decode_file(stored, description)
    if values.dtype != np.uint16:
        raise DamagedImageError(f"{description} holds {values.dtype}, not 16 bits.")
    if name == "16UC1":
        return DepthImage.from_values(values)
    return DepthImage(values, lambda raw: _from_inverse(raw, scale, offset))


def _decode_file(data: NDArray[np.uint8], description: str) -> NDArray[Any]:
    """Decode an image file with one channel, [H, W] as stored."""
    try:
        values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    except cv2.error:
        values = None
    if values is None or values.ndim != 2:
        raise DamagedImageError(f"{description} is truncated, damaged, or not of one channel.")
    return np.asarray(values)


def _from_millimetres(raw: NDArray[Any]) -> Floats:
    return np.where(raw == 0, np.float32(np.nan), raw / np.float32(1000))


def _from_metres(raw: NDArray[Any]) -> Floats:
    known = (raw > 0) & (raw < np.inf)
    return np.where(known, raw, np.float32(np.nan)).astype(np.float32, copy=False)


def _from_inverse(raw: NDArray[Any], scale: float, offset: float) -> Floats:
    """Return the metres of inverse depth as compressedDepth quantizes it; 0 is unknown."""
    with np.errstate(divide="ignore"):
        metres = np.float32(scale) / (raw.astype(np.float32) - np.float32(offset))
    return _from_metres(np.where(raw == 0, np.float32(np.nan), metres))
