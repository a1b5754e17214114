"""Images, against the definitions of their encodings written out pixel by pixel."""

import struct
from dataclasses import replace
from functools import partial

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.image_messages import DATA, Image, each_buffer, random_image
from vditrack.errors import InputError
from vditrack.ros_messages.brightness import HIGH_BYTE
from vditrack.ros_messages.depth_images import read_depth
from vditrack.ros_messages.images import decode_image, describe_image

decode = partial(decode_image, reduce=HIGH_BYTE.reduce)
unhurried = settings(max_examples=60)


def byte_at(image: Image, row: int, offset: int) -> int:
    return image.data[row * image.step + offset]


def high_byte(image: Image, row: int, column: int) -> int:
    order = ">" if image.is_bigendian else "<"
    return struct.unpack_from(f"{order}H", image.data, row * image.step + 2 * column)[0] >> 8


def each_pixel(image: Image, pixel) -> np.ndarray:
    rows = [[pixel(image, i, j) for j in range(image.width)] for i in range(image.height)]
    return np.array(rows, float)


# What a pixel is, by the encodings' names.
DIRECT = {
    "rgb8": (3, lambda m, i, j: [byte_at(m, i, 3 * j + k) for k in (0, 1, 2)]),
    "bgr8": (3, lambda m, i, j: [byte_at(m, i, 3 * j + k) for k in (2, 1, 0)]),
    "rgba8": (4, lambda m, i, j: [byte_at(m, i, 4 * j + k) for k in (0, 1, 2)]),
    "bgra8": (4, lambda m, i, j: [byte_at(m, i, 4 * j + k) for k in (2, 1, 0)]),
    "mono8": (1, lambda m, i, j: [byte_at(m, i, j)] * 3),
    "8UC1": (1, lambda m, i, j: [byte_at(m, i, j)] * 3),
    "8UC3": (3, lambda m, i, j: [byte_at(m, i, 3 * j + k) for k in (2, 1, 0)]),
    "8UC4": (4, lambda m, i, j: [byte_at(m, i, 4 * j + k) for k in (2, 1, 0)]),
    "mono16": (2, lambda m, i, j: [high_byte(m, i, j)] * 3),
    "16UC1": (2, lambda m, i, j: [high_byte(m, i, j)] * 3),
    "rgb16": (6, lambda m, i, j: [high_byte(m, i, 3 * j + k) for k in (0, 1, 2)]),
    "bgr16": (6, lambda m, i, j: [high_byte(m, i, 3 * j + k) for k in (2, 1, 0)]),
    "16UC3": (6, lambda m, i, j: [high_byte(m, i, 3 * j + k) for k in (2, 1, 0)]),
    "rgba16": (8, lambda m, i, j: [high_byte(m, i, 4 * j + k) for k in (0, 1, 2)]),
    "bgra16": (8, lambda m, i, j: [high_byte(m, i, 4 * j + k) for k in (2, 1, 0)]),
    "16UC4": (8, lambda m, i, j: [high_byte(m, i, 4 * j + k) for k in (2, 1, 0)]),
}


@pytest.mark.parametrize("encoding", DIRECT)
@unhurried
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 9),
    **DATA,
)
def test_direct_encodings(encoding, height, width, padding, seed, big):
    size, pixel = DIRECT[encoding]
    image = random_image(encoding, height, width, size * width, padding, seed=seed, big=int(big))
    frame = decode(image)
    assert frame.dtype == np.uint8
    assert frame.flags.c_contiguous
    np.testing.assert_array_equal(frame, each_pixel(image, pixel))


def rgb_of_yuv(y, u, v) -> list[float]:
    """ITU-R BT.601 in the limited range: Y from 16 (less is no blacker), U and V about 128."""
    luma, blue, red = max(0, y - 16) / 219, (u - 128) / 112, (v - 128) / 112
    r = luma + red * (1 - 0.299)
    b = luma + blue * (1 - 0.114)
    g = (luma - 0.299 * r - 0.114 * b) / 0.587
    return [min(255.0, max(0.0, 255 * part)) for part in (r, g, b)]


def uyvy(m, i, j):
    pair = 4 * (j // 2)
    return rgb_of_yuv(byte_at(m, i, 2 * j + 1), byte_at(m, i, pair), byte_at(m, i, pair + 2))


def yuyv(m, i, j):
    pair = 4 * (j // 2)
    return rgb_of_yuv(byte_at(m, i, 2 * j), byte_at(m, i, pair + 1), byte_at(m, i, pair + 3))


def nv12(m, i, j):
    row, pair = m.height + i // 2, 2 * (j // 2)
    return rgb_of_yuv(byte_at(m, i, j), byte_at(m, row, pair), byte_at(m, row, pair + 1))


def nv21(m, i, j):
    row, pair = m.height + i // 2, 2 * (j // 2)
    return rgb_of_yuv(byte_at(m, i, j), byte_at(m, row, pair + 1), byte_at(m, row, pair))


YUV = {
    "yuv422": (2, uyvy),
    "uyvy": (2, uyvy),
    "yuv422_yuy2": (2, yuyv),
    "yuyv": (2, yuyv),
    "nv12": (1, nv12),
    "nv21": (1, nv21),
}


def stored_rows(encoding: str, height: int) -> int:
    return height * 3 // 2 if encoding in ("nv12", "nv21") else height


@pytest.mark.parametrize("encoding", YUV)
@unhurried
@given(
    pairs=st.tuples(st.integers(1, 3), st.integers(1, 5)),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_yuv_encodings(encoding, pairs, padding, seed):
    size, pixel = YUV[encoding]
    height, width = 2 * pairs[0], 2 * pairs[1]
    rows = stored_rows(encoding, height)
    image = random_image(encoding, height, width, size * width, padding, rows=rows, seed=seed)
    # OpenCV's fixed-point coefficients are good to one level, and so is its rounding.
    assert np.abs(decode(image) - each_pixel(image, pixel)).max() <= 2


@pytest.mark.parametrize(
    ("encoding", "pix_fmt"),
    [("yuv422", "uyvy422"), ("yuyv", "yuyv422"), ("nv12", "nv12"), ("nv21", "nv21")],
)
def test_yuv_as_ffmpeg_reads_it(encoding, pix_fmt):
    """Constant colours: what FFmpeg does with chroma between pixels is its own affair."""
    for colour in [(0, 0, 0), (255, 255, 255), (200, 30, 40), (20, 180, 60), (40, 60, 210)]:
        plain = np.full((16, 32, 3), colour, np.uint8)
        picture = av.VideoFrame.from_ndarray(plain, format="rgb24").reformat(format=pix_fmt)
        data = b"".join(bytes(plane) for plane in picture.planes)
        image = Image(16, 32, encoding, picture.planes[0].line_size, data)
        assert np.abs(decode(image).astype(int) - plain).max() <= 3


BAYER = [(pattern, bits) for pattern in ("rggb", "bggr", "gbrg", "grbg") for bits in (8, 16)]


def mosaic(picture: np.ndarray, pattern: str, bits: int, padding: int, big: int) -> Image:
    """Keep of each pixel [H, W, 3] the channel that the pattern's name puts there."""
    height, width = picture.shape[:2]
    i, j = np.mgrid[:height, :width]
    channel = np.array(["rgb".index(name) for name in pattern])[2 * (i % 2) + j % 2]
    kept = np.take_along_axis(picture, channel[..., None], axis=2)[..., 0]
    if bits == 8:
        lines = [row.astype(np.uint8).tobytes() + b"\x07" * padding for row in kept]
    else:
        wide = (kept.astype(int) * 256 + 91).astype(">u2" if big else "<u2")
        lines = [row.tobytes() + b"\x07" * padding for row in wide]
    return Image(height, width, f"bayer_{pattern}{bits}", len(lines[0]), b"".join(lines), big)


@pytest.mark.parametrize(("pattern", "bits"), BAYER)
@unhurried
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    padding=st.integers(0, 3),
    big=st.booleans(),
)
def test_bayer_of_one_colour(pattern, bits, size, colour, padding, big):
    picture = np.full((*size, 3), colour, np.uint8)
    frame = decode(mosaic(picture, pattern, bits, padding, int(big)))
    np.testing.assert_array_equal(frame, picture)


@pytest.mark.parametrize(("pattern", "bits"), BAYER)
def test_bayer_of_a_ramp(pattern, bits):
    """Linear interpolation keeps what is linear, but for the border and rounding."""
    i, j = np.mgrid[:12, :16]
    picture = np.stack([10 + 8 * j + 2 * i, 200 - 6 * i - 2 * j, 30 + 4 * i + 6 * j], axis=2)
    frame = decode(mosaic(picture, pattern, bits, padding=4, big=0))
    inside = np.s_[1:-1, 1:-1]
    assert np.abs(frame[inside].astype(int) - picture[inside]).max() <= 1


@pytest.mark.parametrize(
    ("read", "image"),
    [
        (decode, random_image("rgb8", 5, 4, 12)),
        (decode, random_image("bgr8", 5, 4, 12, padding=3)),
        (decode, random_image("mono16", 5, 4, 8, padding=1)),
        (lambda message: read_depth(message).metres, random_image("16UC1", 5, 4, 8, padding=1)),
    ],
)
def test_any_buffer(read, image):
    expected = read(image)
    for kind, data in each_buffer(image.data).items():
        np.testing.assert_array_equal(read(replace(image, data=data)), expected, err_msg=kind)


def test_rgb_without_padding_is_not_copied():
    image = random_image("rgb8", 6, 8, 24)
    data = np.frombuffer(image.data, np.uint8).copy()
    frame = decode(replace(image, data=data))
    assert np.shares_memory(frame, data)
    assert not frame.flags.writeable
    assert data.flags.writeable
    assert not np.shares_memory(decode(random_image("rgb8", 6, 8, 24, padding=2)), data)


def test_padding_of_the_last_row_may_be_missing():
    image = random_image("bgr8", 5, 4, 12, padding=3)
    cut = replace(image, data=image.data[:-3])
    np.testing.assert_array_equal(decode(cut), decode(image))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (random_image("rgb8", 4, 6, 17), r"rgb8, 6 x 4.*step of 17 bytes; a row takes 18"),
        (Image(4, 6, "rgb8", 0, b""), "step of 0"),
        (
            Image(4, 6, "bgr8", 18, bytes(71)),
            "truncated: it has 71 bytes of data; with a step of 18 it needs 72",
        ),
        (Image(4, 6, "mono16", 12, b""), "truncated: it has 0 bytes"),
        (
            Image(4, 6, "nv12", 6, bytes(24)),
            "truncated: it has 24 bytes of data; with a step of 6 it needs 36",
        ),
        (Image(4, 0, "rgb8", 0, b""), "0 x 4.*too small"),
        (Image(0, 4, "rgb8", 12, b""), "4 x 0.*too small"),
        (Image(4, 5, "yuyv", 10, bytes(40)), "5 x 4.*invalid size: blocks of 2 x 1 pixels"),
        (Image(4, 5, "yuv422", 10, bytes(40)), "invalid size"),
        (Image(3, 4, "nv12", 4, bytes(40)), "4 x 3.*invalid size: blocks of 2 x 2 pixels"),
        (Image(4, 5, "nv21", 5, bytes(40)), "invalid size"),
        (Image(2, 8, "bayer_rggb8", 8, bytes(16)), "too small; the minimum is 3 x 3"),
        (Image(4, 6, "", 18, bytes(72)), "unsupported encoding"),
        (Image(4, 6, "32FC1", 24, bytes(96)), r"32FC1, 6 x 4.*unsupported.*rgb8, bgr8"),
    ],
)
def test_malformed_images(image, message):
    with pytest.raises(InputError, match=message):
        decode(image)


def test_the_encoding_of_a_hostile_message_is_text_alone():
    message = Image(3, 4, "rgb8\x1b[2J\x9b\nfine", 12, b"")
    assert describe_image(message) == "an image (rgb8\ufffd[2J\ufffd fine, 4 x 3)"
