"""Reads and writes video files with PyAV (FFmpeg)."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.container
import av.video
import numpy as np

from vditrack.arrays import Doubles, Frame
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_time_range
from vditrack.io.clip import ClipReader, DecodeProgress, Video, collect
from vditrack.io.decoding.animated_webp import WebpReader, is_animated_webp
from vditrack.io.decoding.image_folders import FolderReader
from vditrack.io.decoding.streams import describe_error
from vditrack.io.decoding.video_files import VideoFileReader

_ENCODERS = ("libx264", "libopenh264", "mpeg4")
_LARGEST_SIDES = {"libx264": 16384, "mpeg4": 8191}
"""Largest width and height that an encoder takes, in pixels, where it is known."""
_TIME_BASE = Fraction(1, 90_000)


def read_video(
    path: Path, start: float = 0.0, end: float | None = None, progress: DecodeProgress | None = None
) -> Video:
    """Decode a video file or a folder of images, or a part of it.

    Frames are shown as the file's metadata says: rotated, mirrored; alpha is dropped, grey becomes
    RGB. Times are those of the file, also where the frame rate varies. Damaged frames, and those
    that are predicted from them, are left out; the video has a list of the gaps.

    Args:
        path: Any file that FFmpeg reads, an animated WebP, or a folder of JPEG or PNG images
            (`vditrack.io.decoding.image_folders`).
        start: Start of the part, in seconds after the first frame.
        end: End of the part (exclusive), in seconds after the first frame; None for the end of the
            file.
        progress: Called after each frame.

    Raises:
        InputError: The file does not exist, holds no video, is cut short, has no intact frame
            between ``start`` and ``end``, or its frames do not fit into memory.

    """
    return collect(open_video_reader(path, start, end), progress)


def open_video_reader(path: Path, start: float, end: float | None) -> ClipReader:
    """Return what decodes a part of a video file or a folder of images; see `read_video`.

    Raises:
        InputError: The part is no range of time, or a folder has no images in it.

    """
    check_time_range(start, end)
    if path.is_dir():
        return FolderReader(path, start, end)
    if is_animated_webp(path):
        return WebpReader(path, start, end)
    return VideoFileReader(path, start, end)


def write_video(path: Path, frames: Iterable[Frame], times: Doubles) -> None:
    """Write a video as MP4.

    Odd sizes are padded by a row or column.

    Args:
        path: Destination, replaced when all frames are written.
        frames: Frames uint8 [H, W, 3] RGB of one size.
        times: float64 [T] time of each frame, in seconds.

    Raises:
        InputError: The file cannot be written, or the frames are too large for the encoder.

    """
    with staged_file(path) as scratch:
        try:
            with av.open(str(scratch), "w", format="mp4") as container:
                _encode(container, frames, times)
        except av.error.FFmpegError as error:
            raise InputError(f"{path} cannot be written: {describe_error(error)}.") from error


def _encode(
    container: av.container.OutputContainer, frames: Iterable[Frame], times: Doubles
) -> None:
    stream: av.video.VideoStream | None = None
    last = -1
    for frame, time in zip(frames, times, strict=True):
        padded = _pad_to_even(frame)
        if stream is None:
            stream = _new_stream(container, padded)
        image = av.VideoFrame.from_ndarray(padded, format="rgb24")
        last = max(last + 1, round((time - times[0]) / _TIME_BASE))
        image.pts, image.time_base = last, _TIME_BASE
        container.mux(stream.encode(image))
    if stream is not None:
        container.mux(stream.encode(None))


def _pad_to_even(frame: Frame) -> Frame:
    """Repeat the last row or column of odd sizes, since chroma has half the resolution."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _new_stream(container: av.container.OutputContainer, frame: Frame) -> av.video.VideoStream:
    encoder = next(name for name in _ENCODERS if name in av.codecs_available)
    height, width = frame.shape[:2]
    largest = _LARGEST_SIDES.get(encoder)
    if largest is not None and max(height, width) > largest:
        raise InputError(
            f"{width} x {height} pixels are too large for the encoder {encoder}, which takes "
            f"{largest} a side."
        )
    stream = cast(av.video.VideoStream, container.add_stream(encoder, rate=30))
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    if encoder == "libx264":
        stream.options = {"crf": "20", "preset": "veryfast"}
    return stream
