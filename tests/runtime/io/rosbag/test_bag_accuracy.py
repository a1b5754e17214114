"""Accuracy of the tracks of bags whose images are stored as cameras store them."""

import json

import cv2
import numpy as np
import pytest

from doubles import bags

MOTION = 3, 1
"""Pixels by which the texture moves in a frame."""
HEIGHT, WIDTH, LENGTH = 144, 192, 10


def frames() -> list[np.ndarray]:
    """A window over a colourful texture that moves by whole pixels; uint8 [H, W, 3]."""
    coarse = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    texture = cv2.resize(coarse, (300, 240), interpolation=cv2.INTER_CUBIC)
    return [
        texture[40 - MOTION[1] * t :, 60 - MOTION[0] * t :][:HEIGHT, :WIDTH] for t in range(LENGTH)
    ]


def bayer(frame):
    """The mosaic of a camera whose upper left pixel is red; uint8 [H, W]."""
    i, j = np.mgrid[:HEIGHT, :WIDTH]
    channel = np.array([0, 1, 1, 2])[2 * (i % 2) + j % 2]
    return np.take_along_axis(frame, channel[..., None], axis=2)[..., 0]


def compressed_bayer8(frame, stamp):
    data = cv2.imencode(".png", bayer(frame))[1].ravel()
    text = "bayer_rggb8; png compressed "
    return bags.new(bags.JPEG, header=bags.header(stamp), format=text, data=data)


def compressed_bayer12(frame, stamp):
    data = cv2.imencode(".png", bayer(frame).astype(np.uint16) * 16)[1].ravel()
    text = "bayer_rggb16; png compressed "
    return bags.new(bags.JPEG, header=bags.header(stamp), format=text, data=data)


def narrow(frame, stamp, low, high, encoding="mono16"):
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) / 255
    values = np.round(low + grey * (high - low)).astype("<u2")
    return bags.new(
        bags.IMAGE,
        header=bags.header(stamp),
        height=HEIGHT,
        width=WIDTH,
        encoding=encoding,
        is_bigendian=0,
        step=2 * WIDTH,
        data=np.frombuffer(values.tobytes(), np.uint8),
    )


def twelve_bits(frame, stamp):
    return narrow(frame, stamp, 0, 4095)


def thermal(frame, stamp):
    """Centikelvins of a scene from 18 to 32 degrees Celsius."""
    return narrow(frame, stamp, 29_115, 30_515, "16UC1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (bags.JPEG, compressed_bayer8),
        (bags.JPEG, compressed_bayer12),
        (bags.IMAGE, twelve_bits),
        (bags.IMAGE, thermal),
    ],
)
def test_points_follow_the_motion(tmp_path, kind, make, run_vditrack):
    messages = [
        (bags.BEGAN + t * bags.SECOND // 30, make(frame, bags.BEGAN + t * bags.SECOND // 30))
        for t, frame in enumerate(frames())
    ]
    bag = bags.write_bag(tmp_path / "bag", ("/cam/image", kind, messages))
    done = run_vditrack("track", bag, "--grid", "6", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == LENGTH
    with np.load(tmp_path / "bag_tracks" / "tracks.npz") as tracks:
        times = np.arange(LENGTH)[:, None]
        truth = tracks["queries"][:, None, 1:] + times * np.array(MOTION)
        inside = ((truth > 0) & (truth < (WIDTH, HEIGHT))).all(axis=2)
        seen = tracks["visible"] & inside
        error = np.linalg.norm(tracks["points"] - truth, axis=2)[seen]
        assert seen.sum() > 0.9 * inside.sum()
    assert np.median(error) < 0.05
    assert np.percentile(error, 95) < 0.3
    assert error.max() < 4
