"""Frames as a decoder of FFmpeg returns them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame

from vditrack.arrays import Frame
from vditrack.io.clip import checksum_rows
from vditrack.io.decoding.orientation import Orientation


@dataclass(frozen=True)
class StoredPicture:
    """A decoded frame in the pixel format of its file."""

    image: VideoFrame
    orientation: Orientation

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels, upright."""
        size = self.image.height, self.image.width
        return size[::-1] if self.orientation.quarter_turns % 2 else size

    def read(self) -> Frame:
        """Return the frame, uint8 [H, W, 3] RGB, upright."""
        return self.orientation.apply(np.asarray(self.image.to_ndarray(format="rgb24"), np.uint8))

    def checksum(self) -> int:
        """Return a checksum of some rows of the first plane, 32 bits."""
        plane, bits = self.image.planes[0], self.image.format.components[0].bits
        rows = np.frombuffer(memoryview(plane), np.uint8)
        rows = rows[: plane.height * plane.line_size].reshape(plane.height, plane.line_size)
        # What follows a row in memory is undefined.
        return checksum_rows(rows[:, : plane.width * bits // 8])
