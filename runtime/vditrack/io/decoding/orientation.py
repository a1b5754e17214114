"""The orientation that a file asks for its frames, by a display matrix or by EXIF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame

from vditrack.arrays import Doubles, Frame

_TOLERANCE = 1.0
"""Degrees by which a display matrix may be off a multiple of 90 degrees by rounding."""


_ORIENTATION_TAG = 0x0112
_EXIF_BEGIN, _EXIF_LENGTH = 4096, 65536
"""Bytes of a JPEG within which its EXIF data begin, and their greatest length."""
_EXIF = {
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 1),
    6: (False, 3),
    7: (True, 3),
    8: (False, 1),
}
"""Whether a frame is mirrored, and quarter turns counterclockwise after it, by EXIF orientation."""


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


def read_orientation(image: VideoFrame, exif: int | None = None) -> Orientation:
    """Return the orientation that a decoded frame carries, upright if it has none.

    Args:
        image: The frame.
        exif: Value of the EXIF tag of its packet, if it has one.

    """
    if exif is not None:
        return Orientation(*_EXIF.get(exif, (False, 0)))
    try:
        # PyAV declares one kind of side data only.
        data: Any = image.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV does not list side data if it does not know one kind of it.
        return Orientation(quarter_turns=round(image.rotation / 90) % 4)
    if data is None:
        return Orientation()
    # FFmpeg keeps the matrix a b u, c d v, x y w of ISO/IEC 14496-12, 8.3.2, in native byte order.
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32, 5).astype(np.float64)
    return _nearest_orientation(np.array([[a, c], [b, d]]))


class OrientationReader:
    """Reads the orientations of the successive frames of a stream.

    PyAV ties a frame whose side data are read into a reference cycle, so that hundreds of frames
    would wait for the garbage collector. They are read where the rotation changes alone.
    """

    def __init__(self) -> None:
        """Start before the first frame."""
        self._rotation: int | None = None
        self._orientation = Orientation()

    def read(self, image: VideoFrame, exif: int | None = None) -> Orientation:
        """Return the orientation of the next frame; see `read_orientation`."""
        if exif is not None:
            return read_orientation(image, exif)
        if image.rotation != self._rotation:
            self._rotation = image.rotation
            self._orientation = read_orientation(image)
        return self._orientation


def read_exif_orientation(jpeg: bytes) -> int | None:
    """Return the orientation in the EXIF data of a JPEG, 1 to 8; None if it has none."""
    start = jpeg.find(b"Exif\0\0", 0, _EXIF_BEGIN)
    tiff = jpeg[start + 6 : start + 6 + _EXIF_LENGTH]
    order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
    if start < 0 or len(tiff) < 14:
        return None

    def read(at: int, length: int) -> int:
        return int.from_bytes(tiff[at : at + length], order)

    directory = read(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * read(directory, 2), 12):
        if read(entry, 2) == _ORIENTATION_TAG:
            return read(entry + 8, 2)
    return None


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
