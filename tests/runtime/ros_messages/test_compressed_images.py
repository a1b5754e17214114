"""Compressed images, against FFmpeg."""

import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from doubles.image_messages import each_buffer
from vditrack.errors import InputError
from vditrack.ros_messages.images import decode_compressed


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
