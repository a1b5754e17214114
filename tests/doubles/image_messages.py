"""Image messages without ROS."""

from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

DATA = {"padding": st.integers(0, 5), "seed": st.integers(0, 99), "big": st.booleans()}
"""Strategies of how a random image is stored: bytes after each row, its seed, its byte order."""


@dataclass(frozen=True)
class Image:
    """Like sensor_msgs/Image."""

    height: int
    width: int
    encoding: str
    step: int
    data: Any
    is_bigendian: int = 0


def random_image(encoding, height, width, row_bytes, padding=0, *, rows=None, seed=0, big=0):
    step = row_bytes + padding
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, step * (rows or height), np.uint8).tobytes()
    return Image(height, width, encoding, step, data, big)


def each_buffer(data: bytes) -> dict[str, Any]:
    return {
        "bytes": data,
        "bytearray": bytearray(data),
        "array": array("B", data),
        "memoryview": memoryview(data),
        "slice": memoryview(b"head" + data)[4:],
        "numpy": np.frombuffer(data, np.uint8),
    }
