"""Which of several video streams is the film."""

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from doubles.video_files import add_video, moving_texture, mux_video, write_cover
from vditrack import InputError
from vditrack.io.video import read_video

FILM = moving_texture(6)
PREVIEW = moving_texture(6, 48, 64)


@pytest.mark.parametrize("cover_first", [True, False])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_a_cover_is_no_film(tmp_path, suffix, cover_first):
    path = tmp_path / f"v.{suffix}"
    with av.open(str(path), "w") as container:
        if cover_first:
            put_cover = write_cover(container)
            film = add_video(container, "libx264", FILM)
        else:
            film = add_video(container, "libx264", FILM)
            put_cover = write_cover(container)
        put_cover()
        mux_video(container, film, FILM)
    video = read_video(path)
    assert video.frames.shape == FILM.shape
    assert video.remarks == ()


def test_a_cover_that_is_attached_to_matroska_is_no_film(tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        container.add_attachment("cover.jpg", "image/jpeg", encode_cover())
        film = add_video(container, "libx264", FILM)
        mux_video(container, film, FILM)
    assert read_video(path).frames.shape == FILM.shape


def encode_cover() -> bytes:
    return cv2.imencode(".jpg", np.full((48, 40, 3), 99, np.uint8))[1].tobytes()


def test_sound_with_a_cover_is_refused(tmp_path):
    path = tmp_path / "song.mkv"
    with av.open(str(path), "w") as container:
        container.add_attachment("cover.jpg", "image/jpeg", encode_cover())
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="only a cover or a thumbnail"):
        read_video(path)


@pytest.mark.parametrize(
    ("defaults", "expected"),
    [((True, False), PREVIEW), ((False, True), FILM), ((True, True), FILM), ((0, 0), FILM)],
)
def test_the_default_stream_is_read_then_the_largest(tmp_path, defaults, expected):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        streams = [add_video(container, "libx264", frames) for frames in (PREVIEW, FILM)]
        for stream, default in zip(streams, defaults, strict=True):
            stream.disposition = Disposition.default if default else Disposition(0)
        for stream, frames in zip(streams, (PREVIEW, FILM), strict=True):
            mux_video(container, stream, frames)
    video = read_video(path)
    assert video.frames.shape == expected.shape
    assert "holds 2 video streams" in video.remarks[0]
    assert f"({expected.shape[2]} x {expected.shape[1]}) is read" in video.remarks[0]


@pytest.mark.parametrize("disposition", [Disposition(0), Disposition.timed_thumbnails])
def test_a_preview_of_one_picture_is_no_film(tmp_path, disposition):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        put_cover = write_cover(container, disposition)
        film = add_video(container, "libx264", FILM)
        put_cover()
        mux_video(container, film, FILM)
    assert read_video(path).frames.shape == FILM.shape
