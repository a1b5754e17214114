"""Depth images, against their definition."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doubles.image_messages import DATA, Image, random_image
from vditrack.errors import InputError
from vditrack.ros_messages.images import decode_depth

unhurried = settings(max_examples=60, deadline=None)
INF = float("inf")


@unhurried
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    **DATA,
)
def test_depth_in_millimetres(height, width, padding, seed, big):
    image = random_image("16UC1", height, width, 2 * width, padding, seed=seed, big=int(big))
    data = bytearray(image.data)
    data[:2] = b"\0\0"
    depth = decode_depth(replace(image, data=data))
    assert (depth.dtype, depth.shape) == (np.float32, (height, width))
    assert np.isnan(depth[0, 0])
    for i in range(height):
        for j in range(width):
            (raw,) = struct.unpack_from(">H" if big else "<H", data, i * image.step + 2 * j)
            assert depth[i, j] == pytest.approx(raw / 1000, rel=1e-6) or not raw


@unhurried
@given(
    values=st.lists(st.floats(width=32), min_size=6, max_size=6),
    padding=st.integers(0, 5),
    big=st.booleans(),
)
@example(values=[INF, -INF, float("nan"), 0.0, -1.0, 2.5], padding=1, big=True)
def test_depth_in_metres(values, padding, big):
    order = ">" if big else "<"
    rows = [struct.pack(f"{order}3f", *row) for row in (values[:3], values[3:])]
    data = b"".join(row + b"\xff" * padding for row in rows)
    depth = decode_depth(Image(2, 3, "32FC1", 12 + padding, data, int(big)))
    expected = [v if 0 < v < INF else float("nan") for v in values]
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth.ravel(), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image(2, 3, "mono16", 6, bytes(12)), r"mono16, 3 x 2.*not a depth image.*16UC1.*32FC1"),
        (Image(2, 3, "32FC1", 11, bytes(24)), "step of 11 bytes; a row takes 12"),
        (Image(2, 3, "16UC1", 6, bytes(11)), "truncated"),
        (Image(2, 0, "16UC1", 6, bytes(12)), "too small"),
    ],
)
def test_malformed_depth(image, message):
    with pytest.raises(InputError, match=message):
        decode_depth(image)
