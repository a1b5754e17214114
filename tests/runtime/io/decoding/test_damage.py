"""Damaged packets: what is kept is right, what is left out is said, and its times are kept."""

from fractions import Fraction

import av
import numpy as np
import pytest

from doubles.video_files import (
    add_video,
    frame_time,
    moving_texture,
    mux_video,
    overwrite_packet,
    packets_of,
    write_video_file,
)
from vditrack import InputError
from vditrack.io.video import read_video

FRAMES = moving_texture(40)
GROUP = {"g": "8"}
KINDS = {
    "h264.mp4": ("libx264", GROUP, "yuv420p"),
    "h264.mkv": ("libx264", {"g": "8", "x264-params": "open-gop=1"}, "yuv420p"),
    "h265.mp4": ("libx265", {"x265-params": "keyint=8:log-level=none"}, "yuv420p"),
    "mpeg4.avi": ("mpeg4", GROUP, "yuv420p"),
    "mpeg2.mkv": ("mpeg2video", {"g": "8", "bf": "2"}, "yuv420p"),
    "jpeg.avi": ("mjpeg", {}, "yuvj420p"),
    "jpeg.mkv": ("mjpeg", {}, "yuvj420p"),
    "vp8.webm": ("libvpx", {"g": "8", "b": "1M"}, "yuv420p"),
    "vp9.webm": ("libvpx-vp9", {"g": "8", "b": "1M"}, "yuv420p"),
}


@pytest.fixture(scope="module", params=KINDS)
def source(request, tmp_path_factory):
    """A whole file, and its frames."""
    codec, options, pix_fmt = KINDS[request.param]
    path = tmp_path_factory.mktemp("source") / request.param
    write_video_file(path, FRAMES, codec, options=options, pix_fmt=pix_fmt)
    return path, read_video(path)


def check(video, whole) -> None:
    """Each kept frame is the one of its time, and the gaps count all others."""
    assert (np.diff(video.times) > 0).all()
    places = np.rint(video.times * 25).astype(int)
    np.testing.assert_allclose(video.times, whole.times[places], atol=2e-3)
    difference = np.abs(video.frames.astype(int) - whole.frames[places])
    assert difference.mean(axis=(1, 2, 3)).max() < 1
    assert sum(gap.frames for gap in video.gaps) == len(whole.times) - len(video.times)
    for gap in video.gaps:
        assert not ((video.times > gap.start) & (video.times < gap.end)).any()
    assert len(video.remarks) == bool(video.gaps)


@pytest.mark.parametrize("part", [(0, 1), (0.3, 0.7), (0.7, 1)])
@pytest.mark.parametrize("which", ["key", "other"])
def test_decoding_goes_on_after_a_damaged_packet(source, which, part):
    path, whole = source
    assert whole.frames.shape == FRAMES.shape
    assert whole.gaps == ()
    packets = packets_of(path)
    keys = [index for index, (_, key, _) in enumerate(packets) if key]
    index = keys[len(keys) // 2]
    if which == "other":
        # The largest one: a run of a few zeros is no sign of damage.
        index = max(range(index + 1, index + 5), key=lambda place: len(packets[place][0]))
    video = read_video(overwrite_packet(path, index, *part))
    check(video, whole)
    # After the next key frame everything is there again.
    assert len(video.times) >= 22
    assert video.times[-1] == whole.times[-1]
    assert video.gaps or part != (0, 1)
    assert all(0 < gap.start < gap.end <= frame_time(39) for gap in video.gaps)


def test_a_damaged_first_frame_does_not_move_the_times(tmp_path):
    path = write_video_file(tmp_path / "v.mp4", FRAMES, options=GROUP)
    whole, video = read_video(path), read_video(overwrite_packet(path, 0, 0, 1))
    check(video, whole)
    assert video.gaps[0][:2] == (0, pytest.approx(frame_time(8)))


def test_a_damaged_last_group_is_a_gap_at_the_end(tmp_path):
    path = write_video_file(tmp_path / "v.mp4", FRAMES, options=GROUP)
    keys = [index for index, (_, key, _) in enumerate(packets_of(path)) if key]
    video = read_video(overwrite_packet(path, keys[-1], 0, 1))
    check(video, read_video(path))
    assert video.gaps[0].end == pytest.approx(frame_time(40), abs=1e-3)


def test_a_part_before_or_after_the_damage_has_no_gap(tmp_path):
    path = write_video_file(tmp_path / "v.mp4", FRAMES, options=GROUP)
    damaged = overwrite_packet(path, 16, 0, 1)
    assert read_video(damaged, end=frame_time(16)).gaps == ()
    late = read_video(damaged, start=frame_time(24))
    assert late.gaps == ()
    assert late.times[0] == pytest.approx(frame_time(24))
    (gap,) = read_video(damaged, start=frame_time(20)).gaps
    assert gap.frames == 4


def test_a_file_without_a_whole_frame_is_refused(tmp_path):
    path = write_video_file(tmp_path / "v.mp4", FRAMES[:8], options=GROUP)
    with pytest.raises(InputError, match=r"damaged: no video frame .* can be decoded"):
        read_video(overwrite_packet(path, 0, 0, 1))


@pytest.mark.parametrize("sound", [False, True])
def test_a_block_that_matroska_skips_is_a_gap(tmp_path, sound):
    """The head of a block is lost with it, so the demuxer goes on at the next one."""
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = add_video(container, "mjpeg", FRAMES, pix_fmt="yuvj420p")
        if sound:
            audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
            silence.sample_rate = 8000
            container.mux(audio.encode(silence))
        mux_video(container, stream, FRAMES)
    whole = read_video(path)
    content, (packet, _, _) = bytearray(path.read_bytes()), packets_of(path)[20]
    at = bytes(content).index(packet)
    content[at - 8 : at + len(packet)] = bytes(8 + len(packet))
    path.write_bytes(content)
    video = read_video(path)
    check(video, whole)
    assert video.gaps[0].start <= frame_time(20) < video.gaps[0].end


@pytest.mark.parametrize("codec", ["mjpeg", "mpeg4", "libx264"])
def test_a_chunk_that_avi_skips_is_a_gap_and_moves_no_times(tmp_path, codec):
    """Its demuxer counts frames, and does not count the one whose head was lost."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {} if codec == "mjpeg" else GROUP
    path = write_video_file(tmp_path / "v.avi", FRAMES, codec, options=options, pix_fmt=pix_fmt)
    whole, content = read_video(path), bytearray(path.read_bytes())
    assert whole.frames.shape == FRAMES.shape
    np.testing.assert_allclose(whole.times, np.arange(40) / 25, atol=1e-6)
    at = bytes(content).index(packets_of(path)[16][0])
    content[at - 8 : at] = bytes(8)
    path.write_bytes(content)
    video = read_video(path)
    assert video.times[-1] == pytest.approx(frame_time(39))
    # B-frames have no times of their own in AVI: near the gap they may be off by two.
    slack = frame_time(2)
    assert any(gap.start - slack <= frame_time(16) < gap.end + slack for gap in video.gaps)
    late = video.times > frame_time(24)
    places = np.rint(video.times * 25).astype(int)
    difference = np.abs(video.frames.astype(int) - whole.frames[places]).mean(axis=(1, 2, 3))
    assert difference[late].max() < 1
    assert len(video.times) + sum(gap.frames for gap in video.gaps) == 40


def test_sloppy_jpegs_are_whole(tmp_path):
    """Cameras write no end marker, bytes after it, or odd application data."""
    path = write_video_file(tmp_path / "v.avi", FRAMES[:3], "mjpeg", pix_fmt="yuvj420p")
    jpegs = [packet for packet, _, _ in packets_of(path)]
    sloppy = [
        jpegs[0][:-2],
        jpegs[1] + b"\x12\x34" * 40,
        jpegs[2][:2] + b"\xff\xe1\x00\x10Exif\0\0garbage!" + jpegs[2][2:],
    ]
    mended = tmp_path / "sloppy.avi"
    with av.open(str(mended), "w") as container:
        stream = add_video(container, "mjpeg", FRAMES, pix_fmt="yuvj420p")
        for index, jpeg in enumerate(sloppy):
            packet = av.Packet(jpeg)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = index
            packet.is_keyframe = True
            container.mux(packet)
    video = read_video(mended)
    assert video.gaps == ()
    np.testing.assert_array_equal(video.frames, read_video(path).frames)
