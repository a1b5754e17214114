"""Real video files of every awkward kind, written by FFmpeg and read back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from vditrack import InputError
from vditrack.io.video import read_video, write_video


def ramp(height: int, width: int, level: int = 0) -> np.ndarray:
    """A smooth RGB picture that survives compression: red along x, green along y."""
    y, x = np.mgrid[:height, :width]
    red, green = 200 * x / width, 200 * y / height
    return np.stack([red, green, np.full_like(red, level)], axis=-1).astype(np.uint8)


def encode(path: Path, frames, *, codec="libx264", pix_fmt="yuv420p", pts=None) -> Path:
    """Write a file with FFmpeg directly, so that reading is not tested by our own writing."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        # AVI has no times, only a rate.
        base = Fraction(1, 25) if path.suffix == ".avi" else Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = base
        for i, frame in enumerate(frames):
            layout = {3: "rgb24", 4: "rgba"}[frame.shape[2]]
            picture = av.VideoFrame.from_ndarray(frame, format=layout).reformat(format=pix_fmt)
            picture.pts = pts[i] if pts is not None else round(0.04 * i / base)
            picture.time_base = base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a.astype(int) - b).mean()) < 4


@pytest.mark.parametrize("size", [(48, 64), (49, 64), (48, 63), (51, 77)])
def test_write_and_read(tmp_path, size):
    frames = [ramp(*size, level=20 * t) for t in range(8)]
    times = np.array([0.0, 0.04, 0.08, 0.2, 0.21, 0.5, 0.75, 1.0])
    write_video(tmp_path / "clip.mp4", frames, times)
    read = read_video(tmp_path / "clip.mp4")
    height, width = size
    assert read.frames.shape == (8, height + height % 2, width + width % 2, 3)
    assert close(read.frames[:, :height, :width], np.stack(frames))
    np.testing.assert_allclose(read.times, times, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [
        ("odd.mkv", "ffv1", "yuv444p"),
        ("alpha.mkv", "ffv1", "bgra"),
        ("grey.mkv", "ffv1", "gray"),
        ("motion_jpeg.avi", "mjpeg", "yuvj420p"),
    ],
)
def test_formats(tmp_path, name, codec, pix_fmt):
    channels = 4 if pix_fmt == "bgra" else 3
    frames = [np.dstack([ramp(37, 51, 9 * t), np.full((37, 51), 255, np.uint8)]) for t in range(5)]
    path = encode(
        tmp_path / name, [f[..., :channels].copy() for f in frames], codec=codec, pix_fmt=pix_fmt
    )
    read = read_video(path)
    assert read.frames.shape == (5, 37, 51, 3)
    if pix_fmt == "gray":
        assert (read.frames.max(axis=-1) - read.frames.min(axis=-1)).max() <= 1
    else:
        assert close(read.frames, np.stack(frames)[..., :3])


def test_a_variable_frame_rate_is_kept(tmp_path):
    pts = [0, 33, 40, 200, 1000]
    path = encode(tmp_path / "v.mkv", [ramp(32, 48, 9 * t) for t in range(5)], pts=pts)
    np.testing.assert_allclose(read_video(path).times, np.array(pts) / 1000, atol=2e-3)


def test_a_stretch(tmp_path):
    path = encode(tmp_path / "v.mp4", [ramp(32, 48, 9 * t) for t in range(20)])
    stretch = read_video(path, start=0.2, end=0.4)
    np.testing.assert_allclose(stretch.times, [0.2, 0.24, 0.28, 0.32, 0.36], atol=1e-3)
    assert close(stretch.frames[0], ramp(32, 48, 45))
    with pytest.raises(InputError, match="no video frame between 5"):
        read_video(path, start=5)
    for start, end in ((1, 0.5), (-1, None), (np.nan, None), (np.inf, None), (0, np.nan)):
        with pytest.raises(InputError, match="not a time range"):
            read_video(path, start, end)
    # Any finite number may follow the end of the file.
    assert len(read_video(path, end=1e308).frames) == 20


def test_what_is_no_video_is_refused(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("This is no video.\n" * 100)
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    for path in (text, empty):
        with pytest.raises(InputError, match=rf"{path.name} is no video"):
            read_video(path)
    with pytest.raises(InputError, match=r"absent\.mp4 is not a file"):
        read_video(tmp_path / "absent.mp4")
    with pytest.raises(InputError, match="/dev/null is a device"):
        read_video(Path("/dev/null"))
    with pytest.raises(InputError, match="is a folder without JPEG or PNG images"):
        read_video(tmp_path)


def test_a_title_that_is_no_utf_8_is_no_fault(tmp_path):
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Prufung"
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
        picture = av.VideoFrame.from_ndarray(ramp(32, 48)).reformat(format="yuvj420p")
        container.mux([*stream.encode(picture), *stream.encode(None)])
    content = path.read_bytes()
    assert b"Prufung" in content
    path.write_bytes(content.replace(b"Prufung", "Prüfung".encode("latin-1")))
    assert len(read_video(path).frames) == 1


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="no video stream"):
        read_video(path)


def noisy(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_file_cut_short_is_refused(tmp_path, suffix):
    path = encode(tmp_path / f"whole.{suffix}", noisy(30))
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"cut\.{suffix}.*(cut short|damaged|is no video)"):
        read_video(cut)


def test_a_file_that_cannot_tell_its_length_gives_what_is_there(tmp_path):
    path = encode(tmp_path / "whole.ts", noisy(30))
    cut = tmp_path / "cut.ts"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 10 <= len(read_video(cut).frames) <= 16


def test_what_is_there_of_a_file_cut_short_can_be_asked_for(tmp_path):
    path = encode(tmp_path / "whole.mkv", noisy(30))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_video(cut, end=0.2).frames) == 5


def test_a_file_without_a_frame_count_is_read_whole(tmp_path):
    path = encode(tmp_path / "v.ts", [ramp(32, 48, 2 * t) for t in range(100)])
    read = read_video(path)
    assert read.frames.shape == (100, 32, 48, 3)
    assert close(read.frames[99], ramp(32, 48, 198))


def test_a_change_of_size_is_refused(tmp_path):
    small = encode(tmp_path / "small.ts", [ramp(32, 48)] * 4).read_bytes()
    large = encode(tmp_path / "large.ts", [ramp(64, 96)] * 4).read_bytes()
    (tmp_path / "both.ts").write_bytes(small + large)
    with pytest.raises(InputError, match=r"from \(48, 32\) to \(96, 64\)"):
        read_video(tmp_path / "both.ts")


def test_a_file_that_cannot_be_written_is_reported(tmp_path):
    with pytest.raises(InputError, match="too large for the encoder"):
        write_video(tmp_path / "v.mp4", [np.zeros((2, 40000, 3), np.uint8)], np.zeros(1))


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mp4", [ramp(32, 48)] * 10)
    monkeypatch.setattr("vditrack.io.clip.available_bytes", lambda: 32 * 48 * 3 * 8.0)
    with pytest.raises(InputError, match=r"does not fit into memory: 10 frames.*--start and --end"):
        read_video(path)
    assert len(read_video(path, end=0.16).frames) == 4


def test_nothing_half_written_is_left(tmp_path):
    def failing():
        yield ramp(32, 48)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "clip.mp4", failing(), np.arange(2.0))
    assert list(tmp_path.iterdir()) == []
