"""Decoding of compressed images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.ros_messages.brightness import Reduction


def decode_stored(image: NDArray[np.uint8], reduce: Reduction) -> NDArray[np.uint8] | None:
    """Decode an image that OpenCV reads, with the channels that are stored.

    Args:
        image: the file, uint8 [n].
        reduce: reduces channels of 16 bits to 8.

    Returns:
        Pixels uint8 [H, W], or [H, W, 3] in OpenCV's order BGR, without alpha and with the
        orientation in the metadata ignored; None if the data is empty, damaged, not an image, or
        has channels of other than 8 or 16 bits.

    """
    try:
        flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(image, flags) if len(image) else None
    except cv2.error:
        decoded = None
    if decoded is None or decoded.dtype not in (np.uint8, np.uint16):
        return None
    return reduce(decoded) if decoded.dtype == np.uint16 else np.asarray(decoded, np.uint8)


def decode_rgb(image: bytes | NDArray[np.uint8]) -> Frame | None:
    """Decode a JPEG, PNG or other image that OpenCV reads, to uint8 [H, W, 3] RGB.

    Grey becomes RGB, alpha is dropped, and 16 bits are reduced to 8. Pixels are returned as they
    are stored: an orientation in the metadata is ignored, since camera calibrations and annotations
    refer to the stored pixels.

    Returns:
        The image, or None if the data is empty, damaged or not an image.

    """
    data = np.frombuffer(image, np.uint8)
    try:
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        decoded = cv2.imdecode(data, flags) if len(data) else None
    except cv2.error:
        decoded = None
    return (
        None if decoded is None else np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
    )
