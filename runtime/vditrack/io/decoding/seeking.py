"""Decoding a video file from the last key frame before the frame that is needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
import numpy as np

from vditrack.arrays import Ints
from vditrack.io.clip import Picture
from vditrack.io.decoding.orientation import OrientationReader
from vditrack.io.decoding.stored_pictures import StoredPicture
from vditrack.io.decoding.streams import choose_stream, open_container


@dataclass(frozen=True)
class SeekIndex:
    """The time stamps of the frames of a part of an intact file, and which are key frames."""

    stamps: Ints
    """int64 [T] in the time base of the stream, ascending."""
    keys: Ints
    """Numbers of the key frames, ascending."""

    def pictures(self, path: Path, first: int) -> Iterator[Picture]:
        """Yield the frames from number ``first`` on; end early where the file cannot be sought.

        Some files say that decoding can start where it cannot, so the caller has to compare the
        frames with those of a pass from the start.
        """
        place = bisect_right(self.keys, first)
        if not place:
            return
        expected = iter(self.stamps[first:].tolist())
        following, orientations = next(expected, None), OrientationReader()
        with open_container(path) as container:
            stream, _ = choose_stream(path, container)
            stream.thread_type = "AUTO"
            try:
                container.seek(int(self.stamps[self.keys[place - 1]]), stream=stream)
                for image in container.decode(stream):
                    if following is None:
                        return
                    if image.pts is not None and image.pts < following:
                        continue
                    if image.pts != following:
                        return
                    yield StoredPicture(image, orientations.read(image))
                    following = next(expected, None)
            except av.error.FFmpegError:
                return


def make_seek_index(frames: Sequence[tuple[int | None, bool]]) -> SeekIndex | None:
    """Return the index of a part of a file; None if its time stamps do not ascend.

    Args:
        frames: time stamp of each frame, and whether decoding can start with it.

    """
    stamps = [stamp for stamp, _ in frames if stamp is not None]
    if len(stamps) < len(frames) or any(after <= before for before, after in pairwise(stamps)):
        return None
    keys = [number for number, (_, is_key) in enumerate(frames) if is_key]
    return SeekIndex(np.array(stamps, np.int64), np.array(keys, np.int64))
