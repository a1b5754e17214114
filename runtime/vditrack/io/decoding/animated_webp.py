"""Reads animated WebP with OpenCV, since FFmpeg does not decode it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.io.clip import ArrayPicture, DecodeProgress, MakeSink, Picture, Selection, Sink
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


class WebpReader:
    """Decodes an animated WebP, or a part of it; see `vditrack.io.video.read_video`."""

    def __init__(self, path: Path, start: float, end: float | None) -> None:
        """Take the part from ``start`` to ``end`` (exclusive), in seconds."""
        self.path, self._start, self._end = path, start, end

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """See `ClipReader`.

        Raises:
            InputError: The file is damaged or cut short, has no frame in the part, or OpenCV is
                older than 4.11.

        """
        self._check()
        sink, found = make_sink(self.path, 0), False
        for frame, time in self._decode_all():
            found = True
            if self._is_inside(time):
                sink.append(ArrayPicture(frame), time)
                if progress is not None:
                    progress(len(sink.times), None)
        if not found:
            raise InputError(
                f"{self.path} is damaged: none of its frames can be decoded. Copy it again."
            )
        if not sink.times:
            raise InputError(
                f"{self.path} has no frame between {self._start:g} s and {self._end or 'its end'}."
            )
        return sink, Selection(np.array(sink.times), range(len(sink.times)), (), ())

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """See `ClipReader`."""
        within = (frame for frame, time in self._decode_all() if self._is_inside(time))
        return map(ArrayPicture, islice(within, first, len(selection.times)))

    def _check(self) -> None:
        if not hasattr(cv2, "imreadanimation"):
            raise InputError(
                f"{self.path} is animated WebP, which needs OpenCV 4.11 or newer; this is "
                f"{cv2.__version__}. Update opencv-python-headless, or convert the file."
            )
        if missing_bytes(self.path):
            raise InputError(f"{self.path} is cut short. Copy it again.")

    def _is_inside(self, time: float) -> bool:
        return self._start <= time and (self._end is None or time < self._end)

    def _decode_all(self) -> Iterator[tuple[Frame, float]]:
        """Yield the frames uint8 [H, W, 3] RGB of the file and their times in seconds."""
        with self.path.open("rb") as file:
            head = file.read(30)
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (24, 27))
        # OpenCV decodes from the beginning for each chunk.
        length = max(1, _CHUNK_BYTES // (4 * width * height))
        milliseconds, first = 0, 0
        while True:
            decoded, animation = cv2.imreadanimation(str(self.path), first, length)
            if not decoded:
                return
            for image, duration in zip(animation.frames, animation.durations, strict=True):
                time = milliseconds / 1000
                milliseconds += int(duration) if duration >= _SHORTEST else _DEFAULT
                yield np.asarray(cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)), time
            first += len(animation.frames)
            if len(animation.frames) < length:
                return
