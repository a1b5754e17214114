"""Opens a video file, and chooses its stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import av.container
import av.video
from av.stream import Disposition

from vditrack.errors import InputError

_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails
"""Dispositions of streams that are pictures beside a film: covers and previews."""
_LESS_LIKELY = Disposition.dependent | Disposition.non_diegetic | Disposition.still_image
"""Dispositions of streams that complete another one, or hold pictures."""


def open_container(path: Path) -> av.container.InputContainer:
    """Open a file with FFmpeg.

    Raises:
        InputError: There is no such file, or FFmpeg does not know it.

    """
    if path.is_char_device():
        raise InputError(
            f"{path} is a device, and recordings are files. For a camera, push its frames into "
            "Tracker.live() in Python or run the ROS node; or record a video first."
        )
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        return _open_leniently(path)
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{path} is no video that FFmpeg can read: {describe_error(error)}."
        ) from error


def _open_leniently(path: Path) -> av.container.InputContainer:
    """Open a file, whatever the encoding of its metadata: old files have other ones than UTF-8."""
    try:
        return av.open(str(path), metadata_errors="replace")
    except TypeError:
        # Newer versions of PyAV do not have the option.
        return av.open(str(path))


def choose_stream(
    path: Path, container: av.container.InputContainer
) -> tuple[av.video.VideoStream, str | None]:
    """Return the stream that is the film, and a remark if there are several.

    Covers and thumbnails are no film. Of several films those that the file marks as default come
    first, then the largest, as in FFmpeg.

    Raises:
        InputError: The file has no film, or FFmpeg cannot decode it.

    """
    streams: Sequence[av.video.VideoStream] = container.streams.video
    films = [stream for stream in streams if not stream.disposition & _NO_FILM]
    if not films:
        has = "only a cover or a thumbnail" if streams else "no video stream"
        raise InputError(f"{path} holds {has}. Give a file with a video stream.")
    films.sort(key=_rank)
    chosen = films[0]
    if chosen.codec_context is None:
        raise InputError(f"{path}: FFmpeg has no decoder for the video stream. Convert the file.")
    remark = None
    if len(films) > 1:
        others = ", ".join(_describe_stream(stream) for stream in films[1:])
        remark = (
            f"{path} holds {len(films)} video streams; {_describe_stream(chosen)} is read, not "
            f"{others}."
        )
    return chosen, remark


def describe_error(error: Exception) -> str:
    """Return the text of an error of FFmpeg, without its number."""
    return getattr(error, "strerror", None) or str(error)


def _rank(stream: av.video.VideoStream) -> tuple[bool, bool, bool, int, int]:
    """Return a key that sorts the most likely film first."""
    disposition, context = stream.disposition, stream.codec_context
    # Some cameras do not mark their preview, a stream of one picture.
    return (
        bool(disposition & _LESS_LIKELY),
        stream.frames == 1,
        not disposition & Disposition.default,
        0 if context is None else -context.width * context.height,
        stream.index,
    )


def _describe_stream(stream: av.video.VideoStream) -> str:
    context = stream.codec_context
    size = f" ({context.width} x {context.height})" if context is not None else ""
    return f"stream {stream.index}{size}"
