"""The orientation that a file asks for its frames, by a display matrix or by EXIF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from vditrack.arrays import Doubles, Frame

_TOLERANCE = 1.0
"""Degrees by which a display matrix may be off a multiple of 90 degrees by rounding."""


@dataclass(frozen=True)
class Orientation:
    """How a stored frame is turned upright: mirrored first, then rotated."""

    mirrored: bool = False
    """Whether the frame is flipped left to right."""
    quarter_turns: int = 0
    """Quarter turns counterclockwise, 0 to 3, after the flip."""
    remark: str | None = None
    """What of the request could not be done."""

    def apply(self, frame: Frame) -> Frame:
        """Return a frame uint8 [H, W, 3] in this orientation."""
        flipped = frame[:, ::-1] if self.mirrored else frame
        return np.ascontiguousarray(np.rot90(flipped, self.quarter_turns))


def read_orientation(image: VideoFrame) -> Orientation:
    """Return the orientation that a decoded frame carries, upright if it has none."""
    # PyAV declares one kind of side data only.
    data: Any = image.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    # FFmpeg keeps the matrix a b u, c d v, x y w of ISO/IEC 14496-12, 8.3.2, in native byte order.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, 5).astype(np.float64)
    return _nearest_orientation(np.array([[a, c], [b, d]]))


def _nearest_orientation(matrix: Doubles) -> Orientation:
    """Return the orientation that is nearest to a linear map [2, 2].

    The map takes the stored (x, y) to the shown (x, y), y downward.
    """
    norm = np.linalg.norm(matrix)
    determinant = np.linalg.det(matrix / norm) if norm else 0.0
    if not abs(determinant) > 1e-6:
        return Orientation(remark="its display matrix is not invertible and was ignored")
    mirrored = bool(determinant < 0)
    rotation = matrix @ np.diag([-1.0, 1.0]) if mirrored else matrix
    # The rotation nearest to the map, whatever its scale.
    angle = -np.degrees(
        np.arctan2(rotation[1, 0] - rotation[0, 1], rotation[0, 0] + rotation[1, 1])
    )
    turns = round(angle / 90)
    remark = None
    if abs(angle - 90 * turns) > _TOLERANCE:
        remark = (
            f"its display matrix rotates by {-angle:.1f} degrees clockwise, which is not a "
            f"multiple of 90; the frames are rotated by {-90 * turns}"
        )
    return Orientation(mirrored, turns % 4, remark)
