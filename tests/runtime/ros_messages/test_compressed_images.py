"""Compressed images, against FFmpeg."""

import struct
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from doubles.image_messages import each_buffer
from vditrack.errors import DamagedImageError
from vditrack.ros_messages.brightness import HIGH_BYTE
from vditrack.ros_messages.images import decode_compressed

decode = partial(decode_compressed, reduce=HIGH_BYTE.reduce)
thorough = partial(decode, check_scans=True)


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
        frame = decode(compressed(data, told))
        assert frame.shape == smooth().shape
        assert np.abs(frame.astype(int) - smooth()).mean() < 2
    for kind, buffer in each_buffer(data).items():
        np.testing.assert_array_equal(decode(compressed(buffer)), frame, err_msg=kind)


def test_grey_jpeg():
    _, data = cv2.imencode(".jpg", smooth()[..., 0])
    frame = decode(compressed(data, "mono8; jpeg compressed "))
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
    frame = decode(compressed(ffmpeg_file("png", pix_fmt, picture, layout), "png"))
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, expected)


def test_an_orientation_in_the_metadata_is_not_followed():
    data = ffmpeg_file("mjpeg", "yuvj444p", smooth(), "rgb24")
    # Exif with one entry: tag 0x112 (orientation), a short, one, with value 6 (turn by 90 degrees).
    exif = b"Exif\0\0" + struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x112, 3, 1, 6, 0, 0)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    upright = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert upright.shape[:2] == (64, 48)
    frame = decode(compressed(turned))
    np.testing.assert_array_equal(frame, decode(compressed(data)))


# What image_transport's plug-in writes, and what it reads, by the names that it puts in front.
@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("rgb8; png compressed bgr8", False),
        ("bgr8; png compressed bgr8", False),
        ("bgra8; png compressed bgra8", False),
        ("8UC3; png compressed ", False),
        ("png", False),
        ("rgb8", False),
        ("rgb8; png compressed rgb8", True),
        ("bgr8; png compressed ", True),
    ],
)
def test_colours_by_the_format(text, swapped):
    expected = smooth()[..., ::-1] if swapped else smooth()
    data = ffmpeg_file("png", "rgb24", smooth(), "rgb24")
    np.testing.assert_array_equal(decode(compressed(data, text)), expected)


def textured(height=96, width=128) -> np.ndarray:
    """Colours that vary over some 16 pixels."""
    coarse = np.random.default_rng(1).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def mosaic(picture: np.ndarray, pattern: str) -> np.ndarray:
    """Keep of each pixel [H, W, 3] the channel that the pattern's name puts there."""
    i, j = np.mgrid[: picture.shape[0], : picture.shape[1]]
    channel = np.array(["rgb".index(name) for name in pattern])[2 * (i % 2) + j % 2]
    return np.take_along_axis(picture, channel[..., None], axis=2)[..., 0]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(
    ("bits", "suffix", "text", "tolerance"),
    [
        (8, ".png", "bayer_{}8; png compressed ", 3),
        (8, ".png", "bayer_{}8; png compressed bayer_{}8", 3),
        (16, ".png", "bayer_{}16; png compressed ", 3),
        (8, ".jpg", "bayer_{}8; jpeg compressed ", 6),
    ],
)
def test_compressed_bayer(pattern, bits, suffix, text, tolerance):
    picture = textured()
    stored = mosaic(picture, pattern)
    stored = stored.astype(np.uint16) * 256 + 77 if bits == 16 else stored
    data = cv2.imencode(suffix, stored, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    frame = decode(compressed(data, text.replace("{}", pattern)))
    error = np.abs(frame.astype(int) - picture)[2:-2, 2:-2]
    assert error.mean() < tolerance


def test_bayer_that_was_interpolated_before_it_was_compressed():
    data = ffmpeg_file("png", "rgb24", smooth(), "rgb24")
    frame = decode(compressed(data, "bayer_rggb8; jpeg compressed bgr8"))
    np.testing.assert_array_equal(frame, smooth())
    grey = ffmpeg_file("png", "gray", smooth()[..., 1], "gray")
    frame = decode(compressed(grey, "bayer_rggb8; png compressed mono8"))
    np.testing.assert_array_equal(frame, smooth()[..., [1, 1, 1]])


JPEGS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    "optimized": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
}
LAST = b"\xff\xd9"


def jpeg_file(kind="baseline", quality=90) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality, *JPEGS[kind]]
    return cv2.imencode(".jpg", textured(), parameters)[1].tobytes()


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("read", [decode, thorough])
def test_jpeg_without_its_end_or_with_more_after_it(kind, read):
    data = jpeg_file(kind)
    expected = read(compressed(data))
    stale = jpeg_file()[3000:]
    without = data[: -len(LAST)]
    for other in (
        *(data + bytes(500), data + b"\n", data + stale, data + data, data + LAST),
        *(without, without + bytes(500), without + b"\xff"),
    ):
        np.testing.assert_array_equal(read(compressed(other)), expected)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("filling", [b"", bytes(20_000), LAST])
def test_jpeg_cut_short(kind, share, filling):
    data = jpeg_file(kind)
    cut = data[: int(share * len(data))] + filling
    with pytest.raises(DamagedImageError, match="truncated"):
        thorough(compressed(cut))
    if filling != LAST:
        with pytest.raises(DamagedImageError, match="truncated"):
            decode(compressed(cut))


@pytest.mark.parametrize("kind", ["baseline", "progressive", "optimized"])
def test_jpeg_with_other_bytes_inside(kind):
    data = bytearray(jpeg_file(kind))
    middle = len(data) // 2
    data[middle : middle + 1500] = np.random.default_rng(0).bytes(1500)
    with pytest.raises(DamagedImageError, match="damaged"):
        thorough(compressed(bytes(data)))


@pytest.mark.parametrize("quality", [50, 95])
@pytest.mark.parametrize("size", [128, 1024])
@pytest.mark.parametrize("read", [decode, thorough])
def test_jpeg_with_a_hole(quality, size, read):
    """A block of a disk or a packet of a network that was lost, filled up with zeros."""
    data = bytearray(jpeg_file(quality=quality))
    middle = len(data) // 2
    data[middle : middle + size] = bytes(size)
    with pytest.raises(DamagedImageError, match="damaged"):
        read(compressed(bytes(data)))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_black_jpeg_is_none_with_a_hole(kind):
    black = np.zeros((480, 640, 3), np.uint8)
    data = cv2.imencode(".jpg", black, JPEGS[kind])[1].tobytes()
    assert not thorough(compressed(data)).any()


def test_the_end_marker_of_a_thumbnail_is_not_the_file_s():
    data = jpeg_file()
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
    whole = data[:2] + thumbnail + data[2:]
    np.testing.assert_array_equal(decode(compressed(whole)), decode(compressed(data)))
    with pytest.raises(DamagedImageError, match="truncated"):
        decode(compressed(whole[: -len(data) // 2]))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_png_cut_short_or_changed(share):
    data = ffmpeg_file("png", "rgb24", textured(), "rgb24")
    at = int(share * len(data))
    for damaged in (data[:at], data[:at] + bytes([data[at] ^ 5]) + data[at + 1 :]):
        with pytest.raises(DamagedImageError, match="truncated, damaged, or not an image"):
            decode(compressed(damaged))


@pytest.mark.parametrize("data", [b"", b"no image at all", bytes(1000)])
def test_what_is_no_image(data):
    with pytest.raises(
        DamagedImageError, match=r"compressedDepth png.*not an image that OpenCV reads"
    ):
        decode(compressed(data, "16UC1; compressedDepth png"))
