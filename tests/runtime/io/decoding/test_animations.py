"""Animated WebP, GIF and PNG."""

import cv2
import numpy as np
import pytest

from vditrack import InputError
from vditrack.io.video import read_video

DURATIONS = [100, 100, 200, 40, 100, 300]
TIMES = [0, 0.1, 0.2, 0.4, 0.44, 0.54]


@pytest.fixture(params=["webp", "gif", "png"])
def animation(request, tmp_path):
    """A file, and its frames: a blue square moves over a grey that becomes lighter."""
    frames = [np.full((48, 64, 3), 30 + 30 * t, np.uint8) for t in range(6)]
    for t, frame in enumerate(frames):
        frame[8:32, 6 * t : 6 * t + 24] = (0, 0, 255)
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGRA) for frame in frames]
    animation.durations = np.array(DURATIONS, np.int32)
    path = tmp_path / f"a.{request.param}"
    assert cv2.imwriteanimation(str(path), animation)
    return path, np.stack(frames)


def nearest(shown, frames) -> list[int]:
    """The frame that each shown frame resembles most; GIF has few colours."""
    difference = np.abs(shown[:, None].astype(int) - frames).mean(axis=(2, 3, 4))
    assert difference.min(axis=1).max() < 21
    return difference.argmin(axis=1).tolist()


def test_frames_and_times(animation):
    path, frames = animation
    video = read_video(path)
    np.testing.assert_allclose(video.times, TIMES, atol=1e-6)
    assert nearest(video.frames, frames) == list(range(6))
    assert (video.gaps, video.remarks) == ((), ())
    part = read_video(path, start=0.1, end=0.44)
    np.testing.assert_allclose(part.times, TIMES[1:4], atol=1e-6)
    np.testing.assert_array_equal(part.frames, video.frames[1:4])
    with pytest.raises(InputError, match=r"no (video )?frame between 5 s"):
        read_video(path, start=5)


def test_an_animation_that_was_cut_short_is_refused_or_said(animation):
    path, frames = animation
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 7 // 10])
    if path.suffix == ".webp":
        with pytest.raises(InputError, match="cut short"):
            read_video(path)
        return
    video = read_video(path)
    assert "cut short" in video.remarks[0]
    places = [TIMES.index(pytest.approx(time)) for time in video.times]
    assert len(places) < 6
    assert nearest(video.frames, frames) == places


def test_an_old_opencv_is_named(animation, monkeypatch):
    path, _ = animation
    if path.suffix == ".webp":
        monkeypatch.delattr(cv2, "imreadanimation")
        with pytest.raises(InputError, match=r"needs OpenCV 4\.11 or newer"):
            read_video(path)
