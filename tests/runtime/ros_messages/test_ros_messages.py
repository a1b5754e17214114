"""Messages as arrays, against the formats' definitions written out pixel by pixel."""

import struct
from array import array
from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vditrack.errors import InputError
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.images import decode_compressed, decode_depth, decode_image
from vditrack.ros_messages.track_cloud import POINT_FIELDS, TRACK_FIELDS, build_track_rows

unhurried = settings(max_examples=60, deadline=None)
INF = float("inf")


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
    "mono16": (2, lambda m, i, j: [high_byte(m, i, j)] * 3),
}


@pytest.mark.parametrize("encoding", DIRECT)
@unhurried
@given(
    height=st.integers(1, 7),
    width=st.integers(1, 9),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
    big=st.booleans(),
)
def test_direct_encodings(encoding, height, width, padding, seed, big):
    size, pixel = DIRECT[encoding]
    image = random_image(encoding, height, width, size * width, padding, seed=seed, big=int(big))
    frame = decode_image(image)
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
    assert np.abs(decode_image(image) - each_pixel(image, pixel)).max() <= 2


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
        assert np.abs(decode_image(image).astype(int) - plain).max() <= 3


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
    frame = decode_image(mosaic(picture, pattern, bits, padding, int(big)))
    np.testing.assert_array_equal(frame, picture)


@pytest.mark.parametrize(("pattern", "bits"), BAYER)
def test_bayer_of_a_ramp(pattern, bits):
    """Linear interpolation keeps what is linear, but for the border and rounding."""
    i, j = np.mgrid[:12, :16]
    picture = np.stack([10 + 8 * j + 2 * i, 200 - 6 * i - 2 * j, 30 + 4 * i + 6 * j], axis=2)
    frame = decode_image(mosaic(picture, pattern, bits, padding=4, big=0))
    inside = np.s_[1:-1, 1:-1]
    assert np.abs(frame[inside].astype(int) - picture[inside]).max() <= 1


def each_buffer(data: bytes) -> dict[str, Any]:
    return {
        "bytes": data,
        "bytearray": bytearray(data),
        "array": array("B", data),
        "memoryview": memoryview(data),
        "slice": memoryview(b"head" + data)[4:],
        "numpy": np.frombuffer(data, np.uint8),
    }


@pytest.mark.parametrize(
    ("decode", "image"),
    [
        (decode_image, random_image("rgb8", 5, 4, 12)),
        (decode_image, random_image("bgr8", 5, 4, 12, padding=3)),
        (decode_image, random_image("mono16", 5, 4, 8, padding=1)),
        (decode_depth, random_image("16UC1", 5, 4, 8, padding=1)),
    ],
)
def test_any_buffer(decode, image):
    expected = decode(image)
    for kind, data in each_buffer(image.data).items():
        np.testing.assert_array_equal(decode(replace(image, data=data)), expected, err_msg=kind)


def test_rgb_without_padding_is_not_copied():
    image = random_image("rgb8", 6, 8, 24)
    data = np.frombuffer(image.data, np.uint8).copy()
    frame = decode_image(replace(image, data=data))
    assert np.shares_memory(frame, data)
    assert not frame.flags.writeable
    assert data.flags.writeable
    assert not np.shares_memory(decode_image(random_image("rgb8", 6, 8, 24, padding=2)), data)


def test_padding_of_the_last_row_may_be_missing():
    image = random_image("bgr8", 5, 4, 12, padding=3)
    cut = replace(image, data=image.data[:-3])
    np.testing.assert_array_equal(decode_image(cut), decode_image(image))


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
        decode_image(image)


def smooth(height=48, width=64) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 4 * y, 255 - 2 * x], axis=2).astype(np.uint8)


def ffmpeg_file(codec: str, pix_fmt: str, picture: np.ndarray, layout: str) -> bytes:
    """One image as FFmpeg's encoder writes it."""
    frame = av.VideoFrame.from_ndarray(picture, format=layout).reformat(format=pix_fmt)
    encoder = av.CodecContext.create(codec, "w")
    encoder.height, encoder.width, encoder.pix_fmt = frame.height, frame.width, pix_fmt
    encoder.time_base = Fraction(1, 25)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def compressed(data, told: str = "") -> SimpleNamespace:
    return SimpleNamespace(format=told, data=data)


def test_jpeg():
    data = ffmpeg_file("mjpeg", "yuvj444p", smooth(), "rgb24")
    for told in ("jpeg", "rgb8; jpeg compressed bgr8", "bgr8; png compressed bgr8", ""):
        frame = decode_compressed(compressed(data, told))
        assert frame.shape == smooth().shape
        assert np.abs(frame.astype(int) - smooth()).mean() < 2
    for kind, buffer in each_buffer(data).items():
        np.testing.assert_array_equal(decode_compressed(compressed(buffer)), frame, err_msg=kind)


def test_grey_jpeg():
    _, data = cv2.imencode(".jpg", smooth()[..., 0])
    frame = decode_compressed(compressed(data, "mono8; jpeg compressed "))
    assert (frame == frame[..., :1]).all()
    assert np.abs(frame[..., 0].astype(int) - smooth()[..., 0]).mean() < 2


@pytest.mark.parametrize(
    ("pix_fmt", "picture", "layout", "expected"),
    [
        ("rgb24", smooth(), "rgb24", smooth()),
        ("rgba", np.dstack([smooth(), smooth()[..., 0]]), "rgba", smooth()),
        ("gray", smooth()[..., 1], "gray", smooth()[..., [1, 1, 1]]),
        (
            "gray16be",
            smooth()[..., 1].astype(np.uint16) * 256 + 77,
            "gray16le",
            smooth()[..., [1, 1, 1]],
        ),
        ("rgb48be", smooth().astype(np.uint16) * 256 + 77, "rgb48le", smooth()),
    ],
)
def test_png_is_exact(pix_fmt, picture, layout, expected):
    frame = decode_compressed(compressed(ffmpeg_file("png", pix_fmt, picture, layout), "png"))
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, expected)


def test_an_orientation_in_the_metadata_is_not_followed():
    data = ffmpeg_file("mjpeg", "yuvj444p", smooth(), "rgb24")
    # Exif with one entry: tag 0x112 (orientation), a short, one, with value 6 (turn by 90 degrees).
    exif = b"Exif\0\0" + struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright.shape[:2] == (64, 48)
    frame = decode_compressed(compressed(turned))
    np.testing.assert_array_equal(frame, decode_compressed(compressed(data)))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("png", "rgb24")])
def test_compressed_images_cut_short(codec, pix_fmt, share):
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = ffmpeg_file(codec, pix_fmt, picture, "rgb24")
    assert decode_compressed(compressed(data)).shape == (64, 64, 3)
    with pytest.raises(InputError, match="truncated"):
        decode_compressed(compressed(data[: int(share * len(data))], "x"))


@pytest.mark.parametrize("data", [b"", b"no image at all", bytes(1000)])
def test_what_is_no_image(data):
    with pytest.raises(InputError, match=r"compressedDepth png.*not an image that OpenCV reads"):
        decode_compressed(compressed(data, "16UC1; compressedDepth png"))


@unhurried
@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    padding=st.integers(0, 5),
    seed=st.integers(0, 99),
    big=st.booleans(),
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


def test_rows_of_a_cloud():
    """Read as any subscriber does: by the offsets and types that the message's fields tell."""
    update = SimpleNamespace(
        ids=np.array([7, 2**31 - 1]),
        points=np.array([[1.5, 2.5], [3.25, 4.0]], np.float32),
        visible=np.array([True, False]),
        confidence=np.array([0.75, 0.25], np.float32),
        forward_backward_error=np.array([0.5, np.inf], np.float32),
        seconds_since_model=np.array([0, 0.125], np.float32),
    )
    xyz = np.array([[1, 2, 3], [np.nan, np.nan, np.nan]], np.float32)
    data = build_track_rows(xyz, update, np.array([255, 0], np.uint8)).tobytes()
    assert len(data) == 2 * TRACK_FIELDS.itemsize
    code = {2: "<B", 5: "<i", 7: "<f"}  # sensor_msgs/PointField: UINT8, INT32, FLOAT32.
    first, second = (
        {
            name: struct.unpack_from(code[kind], data, start + at)[0]
            for name, at, kind in POINT_FIELDS
        }
        for start in (0, TRACK_FIELDS.itemsize)
    )
    assert first == {
        **{"x": 1, "y": 2, "z": 3, "u": 1.5, "v": 2.5, "id": 7, "visible": 1},
        **{
            "object_id": 255,
            "confidence": 0.75,
            "forward_backward_error": 0.5,
            "seconds_since_model": 0,
        },
    }
    assert (second["id"], second["visible"], second["forward_backward_error"]) == (
        2**31 - 1,
        0,
        float("inf"),
    )
    assert np.isnan([second["x"], second["y"], second["z"]]).all()
    assert second["object_id"] == 0 and not build_track_rows(xyz, update)["object_id"].any()


def camera_info(model: str, coefficients) -> SimpleNamespace:
    k = [500, 0, 319.5, 0, 510, 239.5, 0, 0, 1]
    whole = SimpleNamespace(x_offset=0, y_offset=0, height=0, width=0)
    return SimpleNamespace(
        **{"height": 480, "width": 640, "binning_x": 0, "binning_y": 0, "roi": whole},
        **{"distortion_model": model, "d": array("d", coefficients), "k": np.array(k)},
    )


def distorted(model: str, d, x, y):
    """The models' formulas, as OpenCV's documentation states them."""
    r2 = x * x + y * y
    if model == "equidistant":
        d = d or [0, 0, 0, 0]
        r = np.sqrt(r2)
        a = np.arctan(r)
        bent = a * (1 + d[0] * a**2 + d[1] * a**4 + d[2] * a**6 + d[3] * a**8)
        return x * bent / r, y * bent / r
    k1, k2, p1, p2, k3, k4, k5, k6 = [*d, 0, 0, 0, 0, 0, 0, 0, 0][:8]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", []),
        ("", []),
        ("plumb_bob", [-0.3, 0.1, 0.001, -0.002, 0.01]),
        ("plumb_bob", [-0.2, 0.05, 0.001, -0.002]),
        ("rational_polynomial", [0.3, -0.1, 0.001, 0.002, 0.02, 0.4, -0.05, 0.01]),
        ("equidistant", [0.01, -0.02, 0.003, 0.001]),
        ("equidistant", []),
    ],
)
def test_rays(model, coefficients):
    x, y = np.random.default_rng(0).uniform(-0.6, 0.6, (2, 50))
    bent_x, bent_y = distorted(model, coefficients, x, y)
    # The principal point counts from the first pixel's centre, points from its corner.
    points = np.stack([500 * bent_x + 319.5 + 0.5, 510 * bent_y + 239.5 + 0.5], axis=1)
    camera = Camera.from_info(camera_info(model, coefficients))
    rays = camera.unproject(points.astype(np.float32))
    np.testing.assert_allclose(rays, np.stack([x, y], axis=1), atol=2e-6)
    assert camera.unproject(np.zeros((0, 2), np.float32)).shape == (0, 2)


def test_cameras_without_a_calibration():
    unknown = camera_info("plumb_bob", [])
    unknown.k = np.zeros(9)
    assert Camera.from_info(unknown) is None
    for model, d in (("fov", [0.9]), ("plumb_bob", [0.1] * 8), ("equidistant", [0.1] * 5)):
        with pytest.raises(InputError, match=f"'{model}' with {len(d)} coefficients"):
            Camera.from_info(camera_info(model, d))
