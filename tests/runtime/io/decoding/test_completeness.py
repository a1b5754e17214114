"""Files that were cut short are refused; headers that count other things are not believed."""

from fractions import Fraction

import av
import numpy as np
import pytest

from doubles.video_files import (
    add_video,
    frame_time,
    moving_texture,
    mux_video,
    write_video_file,
)
from vditrack import InputError
from vditrack.io.video import read_video

FRAMES = moving_texture(30)


def write_jpegs(path, slots, *, last=1):
    """Write frames at the given numbers; the last one lasts ``last`` intervals."""
    with av.open(str(path), "w") as container:
        stream = add_video(container, "mjpeg", FRAMES, pix_fmt="yuvj420p")
        pictures = [av.VideoFrame.from_ndarray(FRAMES[t]) for t in range(len(slots))]
        packets = [packet for picture in [*pictures, None] for packet in stream.encode(picture)]
        for packet, slot in zip(packets, slots, strict=True):
            packet.pts = packet.dts = round(Fraction(slot, 25) / packet.time_base)
            packet.duration = round(Fraction(1, 25) / packet.time_base)
        packets[-1].duration *= last
        container.mux(packets)
    return path


def test_dropped_frames_of_avi_keep_the_times_of_the_others(tmp_path):
    slots = [0, 6, 7, 8, 20, 50, 51, 90]
    video = read_video(write_jpegs(tmp_path / "v.avi", slots))
    np.testing.assert_allclose(video.times, np.array(slots) / 25, atol=1e-6)
    assert (video.gaps, video.remarks) == ((), ())


def test_frames_that_avi_drops_at_its_end_are_no_damage(tmp_path):
    path = write_jpegs(tmp_path / "v.avi", [0, 1, 2, 3])
    content = bytearray(path.read_bytes())
    # Total frames in the main header, and length of the stream.
    at = content.index(b"avih") + 8 + 16
    content[at : at + 4] = (100).to_bytes(4, "little")
    at = content.index(b"strh") + 8 + 32
    content[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(content)
    video = read_video(path)
    assert len(video.times) == 4
    assert "4% of the frames" in video.remarks[0]


@pytest.mark.parametrize("kind", ["subtitles", "sound"])
def test_the_duration_of_another_stream_is_not_that_of_the_film(tmp_path, kind):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        film = add_video(container, "libx264", FRAMES)
        if kind == "sound":
            other = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 80000), np.int16), layout="mono")
            silence.sample_rate = 8000
            packets = [*other.encode(silence), *other.encode(None)]
        else:
            text = tmp_path / "text.srt"
            text.write_text("1\n00:00:00,500 --> 00:00:10,000\nthe end\n")
            source = av.open(str(text))
            other = container.add_stream_from_template(source.streams[0])
            packets = [packet for packet in source.demux() if packet.size]
            for packet in packets:
                packet.stream = other
        mux_video(container, film, FRAMES)
        container.mux(packets)
    with av.open(str(path)) as container:
        assert container.duration > 9e6
    video = read_video(path)
    assert video.frames.shape == FRAMES.shape
    assert (video.gaps, video.remarks) == ((), ())


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_last_frame_that_stays_is_no_damage(tmp_path, suffix):
    video = read_video(write_jpegs(tmp_path / f"v.{suffix}", range(5), last=1000))
    assert len(video.times) == 5
    assert (video.gaps, video.remarks) == ((), ())


CONTAINERS = [
    ("v.avi", "mpeg4", {}),
    ("v.mkv", "libx264", {}),
    ("v.webm", "libvpx-vp9", {}),
    ("v.mp4", "libx264", {"movflags": "faststart"}),
    ("f.mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
]


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 255, (30, 64, 96, 3), np.uint8)


@pytest.mark.parametrize(("name", "codec", "muxer"), CONTAINERS)
def test_what_was_cut_off_is_refused_or_said(tmp_path, noise, name, codec, muxer):
    path = write_video_file(tmp_path / name, noise, codec, options={"g": "5"}, muxer=muxer)
    whole, content = read_video(path), path.read_bytes()
    assert (len(whole.times), whole.remarks) == (30, ())
    path.write_bytes(content[: len(content) * 6 // 10])
    if name == "f.mp4":
        # A file of fragments tells their number only.
        assert "bytes of its end are missing" in read_video(path).remarks[0]
        return
    with pytest.raises(InputError, match=r"cut short or damaged: it ends at .*--end, or end in a"):
        read_video(path)
    # Its beginning can be asked for.
    assert len(read_video(path, end=frame_time(5)).times) == 5
    path.write_bytes(content[: len(content) * 95 // 100])
    almost = read_video(path)
    assert len(almost.times) < 30
    assert "bytes of its end are missing" in almost.remarks[0]


def test_fragments_that_cannot_be_reached_are_refused(tmp_path, noise):
    muxer = {"movflags": "frag_keyframe+empty_moov"}
    path = write_video_file(tmp_path / "v.mp4", noise, options={"g": "5"}, muxer=muxer)
    content = bytearray(path.read_bytes())
    at = -1
    for _ in range(3):
        at = content.index(b"moof", at + 1)
    content[at - 4 : at + 4] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"cut short or damaged: it ends at 0\.\d\d s"):
        read_video(path)
    assert len(read_video(path, end=frame_time(5)).times) == 5


@pytest.mark.parametrize(("name", "codec", "muxer"), CONTAINERS)
def test_a_file_that_ends_in_zeros_is_said(tmp_path, noise, name, codec, muxer):
    """An interrupted download often has its full length."""
    path = write_video_file(tmp_path / name, noise, codec, options={"g": "5"}, muxer=muxer)
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(content[:half] + bytes(len(content) - half))
    video = read_video(path)
    assert 5 <= len(video.times) < 20
    assert video.remarks
