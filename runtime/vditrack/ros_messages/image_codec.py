"""Decoding of compressed images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame


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
