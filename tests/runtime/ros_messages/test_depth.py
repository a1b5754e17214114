"""Depth images, against their definition."""

import struct
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from doubles.image_messages import DATA, Image, random_image
from vditrack.errors import InputError
from vditrack.ros_messages.depth_images import DepthImage, read_compressed_depth, read_depth
from vditrack.ros_messages.image_transport import DEPTH_TRANSPORTS, IMAGE_TRANSPORTS, remove_suffix

unhurried = settings(max_examples=60)
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
    depth = read_depth(replace(image, data=data)).metres
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
    depth = read_depth(Image(2, 3, "32FC1", 12 + padding, data, int(big))).metres
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
        read_depth(image)


def test_depth_of_points_is_that_of_their_pixel():
    depth = read_depth(Image(2, 2, "16UC1", 4, np.array([1000, 0, 3000, 4000], "<u2").tobytes()))
    points = np.float32([[0, 0], [0.99, 1.01], [1.5, 1.5], [1.5, 0.5], [2.0, 0.0], [-0.1, 0.5]])
    nan = np.nan
    np.testing.assert_array_equal(depth.sample(points), np.float32([1, 3, 4, nan, nan, nan]))


def encode_rvl(image):
    """RVL number by number, from its definition."""
    nibbles, last = [], 0

    def put(number):
        while True:
            nibble, number = number & 7, number >> 3
            nibbles.append(nibble | (8 if number else 0))
            if not number:
                return

    values = image.ravel().tolist()
    at = 0
    while at < len(values):
        zeros = next((n for n, v in enumerate(values[at:]) if v), len(values) - at)
        at += zeros
        others = next((n for n, v in enumerate(values[at:]) if not v), len(values) - at)
        put(zeros)
        put(others)
        for value in values[at : at + others]:
            delta = value - last
            put(2 * delta if delta >= 0 else -2 * delta - 1)
            last = value
        at += others
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << (28 - 4 * n) for n, nibble in enumerate(nibbles[i : i + 8]))
        for i in range(0, len(nibbles), 8)
    ]
    height, width = image.shape
    return struct.pack("<II", width, height) + struct.pack(f"<{len(words)}I", *words)


def encode_png(image):
    return cv2.imencode(".png", image)[1].tobytes()


def compressed(text, data, scale=0.0, offset=0.0, header=True):
    head = struct.pack("<iff", 0, scale, offset) if header else b""
    return SimpleNamespace(format=text, data=head + data)


@unhurried
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    seed=st.integers(0, 99),
    empty=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_compressed_depth_is_lossless(rows, columns, seed, empty):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 65_536, (rows, columns), np.uint16)
    image[rng.random(image.shape) < empty] = 0
    expected = np.where(image == 0, np.nan, image / 1000).astype(np.float32)
    for message in (
        compressed("16UC1; compressedDepth rvl", encode_rvl(image)),
        compressed("16UC1; compressedDepth png", encode_png(image)),
        compressed("16UC1; compressedDepth", encode_png(image)),
        compressed("16UC1; png compressed ", encode_png(image), header=False),
    ):
        depth = read_compressed_depth(message)
        assert depth.size == image.shape
        np.testing.assert_allclose(depth.metres, expected, rtol=1e-6)


@pytest.mark.parametrize(("name", "encode"), [("png", encode_png), ("rvl", encode_rvl)])
def test_compressed_metres_are_quantized_as_inverse_depth(name, encode):
    """With the parameters that compressedDepth takes from its depth_quantization and depth_max."""
    quantization, maximum = 100.0, 10.0
    scale = quantization * (quantization + 1)
    offset = 1 - scale / maximum
    metres = np.float32([[0.5, 1.0, 2.5], [9.9, np.nan, 4.0]])
    stored = np.where(np.isnan(metres), 0, scale / np.nan_to_num(metres, nan=1) + offset)
    message = compressed(
        f"32FC1; compressedDepth {name}", encode(stored.astype(np.uint16)), scale, offset
    )
    depth = read_compressed_depth(message)
    np.testing.assert_allclose(depth.metres, metres, rtol=2e-3)
    assert np.isnan(depth.metres[1, 1])


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (compressed("bgr8; jpeg compressed bgr8", b"12345678"), "not of 16UC1"),
        (compressed("16UC1; compressedDepth png", b""), "truncated"),
        (compressed("16UC1; compressedDepth png", b"", header=False), "truncated"),
        (compressed("16UC1; compressedDepth rvl", struct.pack("<II", 4, 4)), "truncated"),
        (compressed("16UC1; compressedDepth rvl", b"\xff" * 64), "truncated"),
        (compressed("16UC1; compressedDepth rvl", struct.pack("<III", 4, 4, 0)), "truncated"),
        (
            compressed("16UC1; jpeg compressed", encode_png(np.zeros((4, 4), np.uint8)), header=0),
            "cut off",
        ),
    ],
)
def test_malformed_compressed_depth(message, error):
    with pytest.raises(InputError, match=error):
        read_compressed_depth(message)


def test_transports_name_their_topics():
    for transport in (*IMAGE_TRANSPORTS.values(), *DEPTH_TRANSPORTS.values()):
        assert remove_suffix("/cam/image_raw" + transport.suffix) == "/cam/image_raw"
    for name, transport in (IMAGE_TRANSPORTS | DEPTH_TRANSPORTS).items():
        assert transport.suffix == ("" if name == "raw" else f"/{name}")


def test_depth_is_not_copied():
    data = np.full(6, 1500, "<u2")
    depth = read_depth(Image(2, 3, "16UC1", 6, data))
    assert isinstance(depth, DepthImage) and np.shares_memory(depth.values, data)
