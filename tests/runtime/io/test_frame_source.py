"""Frames that are decoded as a stream are those of the clip in memory."""

import av
import cv2
import numpy as np
import pytest

from doubles import bags
from doubles.video_files import moving_texture, overwrite_packet, packets_of, write_video_file
from vditrack import InputError
from vditrack.io import frame_source
from vditrack.io.decoding.seeking import SeekIndex
from vditrack.io.decoding.video_files import VideoFileReader
from vditrack.io.frame_source import open_source
from vditrack.io.rosbag.recordings import read_recording
from vditrack.io.video import read_video

FRAMES = moving_texture(40)
GROUP = {"g": "8"}


def write_folder(path):
    path.mkdir()
    for number in (0, 1, 2, 4, 5):
        cv2.imwrite(str(path / f"{number}.png"), FRAMES[number])
    (path / "6.png").write_bytes(b"none")
    return path


def write_damaged(path):
    write_video_file(path, FRAMES, options=GROUP)
    keys = [index for index, (_, key, _) in enumerate(packets_of(path)) if key]
    return overwrite_packet(path, keys[2], 0, 1)


KINDS = {
    "h264.mp4": lambda path: write_video_file(path, FRAMES, options=GROUP),
    "open.mkv": lambda path: write_video_file(
        path, FRAMES, options={"g": "8", "bf": "2", "x264-params": "open-gop=1"}
    ),
    # Has one key frame.
    "refresh.mkv": lambda path: write_video_file(
        path, FRAMES, options={"g": "8", "x264-params": "intra-refresh=1"}
    ),
    "jpeg.avi": lambda path: write_video_file(path, FRAMES, "mjpeg", pix_fmt="yuvj420p"),
    "damaged.mp4": write_damaged,
    "folder": write_folder,
    "bag": lambda path: bags.write_bag(path, bags.images(), bags.camera_info()),
}


@pytest.fixture(params=[0, 1 << 28], ids=["decoded", "kept"])
def kept_bytes(request, monkeypatch):
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", request.param)


@pytest.mark.usefixtures("kept_bytes")
@pytest.mark.parametrize("kind", KINDS)
def test_a_source_has_the_frames_of_the_clip(tmp_path, kind):
    path = KINDS[kind](tmp_path / kind)
    read = read_recording if kind == "bag" else read_video
    for part in ((0.0, None), (0.1, 0.4)):
        clip, source = read(path, start=part[0], end=part[1]), open_source(path, None, *part)
        assert source.size == clip.frames.shape[1:3]
        assert (tuple(source.gaps), tuple(source.remarks)) == (clip.gaps, clip.remarks)
        assert source.expected == len(source) == len(clip.times)
        np.testing.assert_array_equal(source.times, clip.times)
        for first in (0, 1, len(clip.times) * 2 // 3, len(clip.times) - 1):
            frames, times = zip(*source.read(first), strict=True)
            np.testing.assert_array_equal(np.stack(frames), clip.frames[first:])
            np.testing.assert_array_equal(times, clip.times[first:])
    assert source.digest == open_source(path, None, *part).digest != open_source(path).digest


def test_an_intact_video_is_decoded_from_the_key_frame_before(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    source = open_source(KINDS["h264.mp4"](tmp_path / "v.mp4"))
    monkeypatch.setattr(VideoFileReader, "pictures_from_start", None)
    assert len(list(source.read(33))) == 7


def test_decoding_starts_anew_where_seeking_gives_other_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    path = KINDS["h264.mp4"](tmp_path / "v.mp4")
    source, seek = open_source(path), SeekIndex.pictures
    monkeypatch.setattr(
        SeekIndex, "pictures", lambda index, path, first: seek(index, path, first - 1)
    )
    frames = [timed.frame for timed in source.read(33)]
    np.testing.assert_array_equal(np.stack(frames), read_video(path).frames[33:])


def test_a_file_that_changes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    path = write_video_file(tmp_path / "v.mp4", FRAMES)
    source = open_source(path)
    write_video_file(path, FRAMES[::-1])
    for first in (0, 20):
        with pytest.raises(InputError, match="has changed while it was read"):
            list(source.read(first))


def test_checksums_ignore_what_is_behind_the_rows_of_a_picture(tmp_path):
    """Two decoders of the same frame, of an odd width."""
    path = write_video_file(tmp_path / "v.mkv", FRAMES[:2, :, :77], "ffv1", pix_fmt="yuv444p")
    with av.open(str(path)) as container:
        image = next(container.decode(video=0))
    assert image.planes[0].line_size > image.width
    source = open_source(path)
    assert source.digest == open_source(path).digest
