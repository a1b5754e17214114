"""Recordings for the Rerun viewer, with the frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vditrack.annotation.annotate import Progress
from vditrack.annotation.failures import SourceError
from vditrack.annotation.formats.content import TrackContent
from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.features.clip_frames import ClipFrames
from vditrack.io.frame_source import open_source
from vditrack.io.rerun_recording import write_recording
from vditrack.io.viewed_frames import view_clip


def write_rerun(path: Path, content: TrackContent, progress: Progress) -> None:
    """Write what `vditrack view` shows of the tracks.

    Args:
        path: Destination, replaced when the file is complete.
        content: What is written.
        progress: Called with the frames that are decoded, then with those that are written.

    Raises:
        SourceError: The recording cannot be read again.
        InputError: rerun-sdk is not installed, or the file cannot be written.

    """
    source = content.source
    try:
        frames = open_source(
            source.path,
            content.record.topic,
            source.start,
            source.end,
            progress,
            content.record.episode,
        )
    except InputError as error:
        raise SourceError("refused", str(error)) from error
    pictures = _show_progress(frames, progress)
    shown = view_clip(content.times, pictures, content.tracks, stamps=content.stamps)
    write_recording(path, shown)


def _show_progress(frames: ClipFrames, progress: Progress) -> Iterator[Frame]:
    for number, (frame, _) in enumerate(frames.read()):
        progress(number + 1, len(frames))
        yield frame
