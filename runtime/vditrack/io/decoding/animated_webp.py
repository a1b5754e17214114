"""Reads animated WebP with OpenCV, since FFmpeg does not decode it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vditrack.errors import InputError
from vditrack.io.clip import DecodeProgress, GrowingClip, Video
from vditrack.io.decoding.file_length import missing_bytes

_ANIMATION = 0x02
"""Flag of the chunk VP8X (WebP container specification)."""
_SHORTEST, _DEFAULT = 20, 100
"""Milliseconds: durations below the first are shown as the second, as FFmpeg does for GIF."""
_CHUNK_BYTES = 1 << 28
"""Memory for the frames that are decoded at once."""


def is_animated_webp(path: Path) -> bool:
    """Return whether a path is a file of animated WebP."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(21)
    return (
        head[:4] == b"RIFF"
        and head[8:16] == b"WEBPVP8X"
        and bool(head[20:21])
        and bool(head[20] & _ANIMATION)
    )


def read_animated_webp(
    path: Path, start: float, end: float | None, progress: DecodeProgress | None
) -> Video:
    """Decode an animated WebP, or a part of it; see `vditrack.io.video.read_video`.

    Raises:
        InputError: The file is damaged or cut short, has no frame in the part, or OpenCV is older
            than 4.11.

    """
    if not hasattr(cv2, "imreadanimation"):
        raise InputError(
            f"{path} is animated WebP, which needs OpenCV 4.11 or newer; this is "
            f"{cv2.__version__}. Update opencv-python-headless, or convert the file."
        )
    if missing_bytes(path):
        raise InputError(f"{path} is cut short. Copy it again.")
    with path.open("rb") as file:
        head = file.read(30)
    width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
    # OpenCV decodes from the beginning for each chunk.
    length = max(1, _CHUNK_BYTES // (4 * width * height))
    clip, milliseconds, first = GrowingClip(path, 0), 0, 0
    while True:
        decoded, animation = cv2.imreadanimation(str(path), first, length)
        if not decoded:
            break
        for image, duration in zip(animation.frames, animation.durations, strict=True):
            time = milliseconds / 1000
            milliseconds += int(duration) if duration >= _SHORTEST else _DEFAULT
            if start <= time and (end is None or time < end):
                clip.append(np.asarray(cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)), time)
                if progress is not None:
                    progress(len(clip.times), None)
        first += len(animation.frames)
        if len(animation.frames) < length:
            break
    if not first:
        raise InputError(f"{path} is damaged: none of its frames can be decoded. Copy it again.")
    if not clip.times:
        raise InputError(f"{path} has no frame between {start:g} s and {end or 'its end'}.")
    return Video(clip.frames[: len(clip.times)], np.array(clip.times))
