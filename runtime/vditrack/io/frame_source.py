"""Sources of frames: videos, folders of images and bags, decoded as streams of any length."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles, Frame
from vditrack.errors import InputError
from vditrack.features.clip_frames import TimedFrame
from vditrack.features.prefetching import prefetch
from vditrack.io.clip import ClipReader, DecodeProgress, Gap, Picture, check_size
from vditrack.io.decoding.image_folders import is_image_folder
from vditrack.io.decoding.video_files import VideoFileReader
from vditrack.io.lerobot.data_set import describe_episodes, is_data_set, open_data_set
from vditrack.io.lerobot.episodes import EpisodeReader, open_episode
from vditrack.io.rosbag.bags import is_bag
from vditrack.io.rosbag.recordings import BagReader, ImageMessages
from vditrack.io.video import open_video_reader

_KEPT_BYTES = 1 << 28
"""Memory in which the frames of a short source are kept, so that they are decoded once."""
_AHEAD = 4
"""Frames that are decoded before they are asked for."""


class FrameSource:
    """The frames of a video, a folder of images or a bag, with memory that does not grow.

    The first pass decodes everything, keeps no frames and finds out which of them can be trusted,
    as `read_video` does. Each `read` then decodes again, in a thread of its own, and yields the
    same frames. The frames of a short source are kept in memory from the first pass on.
    """

    def __init__(self, reader: ClipReader, progress: DecodeProgress | None = None) -> None:
        """Make the first pass.

        Args:
            reader: decodes the file.
            progress: called with (frames decoded, frames expected).

        Raises:
            InputError: The file cannot be read, is cut short, or has no frame in the part.

        """
        self._reader = reader
        survey, self._selection = reader.decode(_Survey, progress)
        positions = list(self._selection.positions)
        self._checksums: NDArray[np.uint32] = np.array(survey.checksums, np.uint32)[positions]
        kept = survey.frames
        self._kept: list[Frame] | None = None if kept is None else [kept[p] for p in positions]
        self.size: tuple[int, int] = survey.size
        """(height, width) in pixels."""

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self._reader.path

    @property
    def times(self) -> Doubles:
        """Times of the frames, float64 [T] seconds since the first of the file, ascending."""
        return self._selection.times

    @property
    def gaps(self) -> Sequence[Gap]:
        """Where frames are missing, in order."""
        return self._selection.gaps

    @property
    def remarks(self) -> Sequence[str]:
        """Notes for the user: what the input lacks, and what was done about it."""
        return self._selection.remarks

    @property
    def messages(self) -> ImageMessages | None:
        """The metadata of the messages, if the source is a bag."""
        return self._reader.messages if isinstance(self._reader, BagReader) else None

    def __len__(self) -> int:
        """Return the number of frames, T."""
        return len(self.times)

    @property
    def expected(self) -> int:
        """The number of frames, T."""
        return len(self)

    @property
    def digest(self) -> str:
        """SHA-256 of the times and of checksums of all frames: another recording has another."""
        digest = hashlib.sha256(repr((self.size, len(self))).encode())
        digest.update(self.times.tobytes())
        digest.update(self._checksums.tobytes())
        return digest.hexdigest()

    def read(self, first_frame: int = 0) -> Iterator[TimedFrame]:
        """Yield the frames from the given one to the last.

        Intact video files are decoded from the last key frame before. If a frame is then not the
        same as in the first pass, and for other sources, decoding starts at the first frame.

        Raises:
            InputError: The source has changed since the first pass.

        """
        if self._kept is not None:
            frames: Iterator[Frame] = iter(self._kept[first_frame:])
        else:
            frames = prefetch(self._decode(first_frame), _AHEAD)
        for frame, time in zip(frames, self.times[first_frame:].tolist(), strict=True):
            yield TimedFrame(frame, time)

    def _decode(self, first: int) -> Iterator[Frame]:
        done = first
        for picture in self._reader.pictures(self._selection, first):
            if not self._is_known(done, picture):
                break
            yield picture.read()
            done += 1
        if done < len(self) and first and isinstance(self._reader, VideoFileReader | EpisodeReader):
            # The file says that decoding can start where it cannot.
            for picture in self._reader.pictures_from_start(self._selection, done):
                if not self._is_known(done, picture):
                    break
                yield picture.read()
                done += 1
        if done < len(self):
            raise InputError(
                f"{self.path} has changed while it was read: frame {done} is another one than "
                "before. Start again when it is complete."
            )

    def _is_known(self, number: int, picture: Picture) -> bool:
        return number < len(self) and picture.checksum() == self._checksums[number]


class _Survey:
    """Takes the frames of the first pass: checksums, and the frames themselves of a short clip."""

    def __init__(self, path: Path, expected: int) -> None:
        """Start before the first frame; ``expected`` is the number of frames, or 0."""
        self.times: list[float] = []
        """Times of the frames, in seconds."""
        self.checksums: list[int] = []
        """Checksums of the frames."""
        self.size = (0, 0)
        """(height, width) in pixels."""
        self.frames: list[Frame] | None = []
        """The frames, uint8 [H, W, 3]; None if they are too many to be kept."""
        self._path, self._expected = path, expected

    def append(self, picture: Picture, time: float) -> None:
        """Take the next frame; see `FrameSink`."""
        count = len(self.times)
        self.size = picture.size if count == 0 else self.size
        check_size(self._path, count, picture, self.size)
        self.times.append(time)
        self.checksums.append(picture.checksum())
        height, width = self.size
        if 3 * height * width * max(count + 1, self._expected) > _KEPT_BYTES:
            self.frames = None
        if self.frames is not None:
            self.frames.append(picture.read())


def open_source(
    path: Path,
    topic: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    progress: DecodeProgress | None = None,
    episode: int | None = None,
) -> FrameSource:
    """Open a video file, a folder of images or a bag, and decode it once to find its frames.

    Args:
        path: what `vditrack.io.video.read_video` takes, or a rosbag2: its folder, or one of its
            `.mcap` or `.db3` files, or the folder of a LeRobot data set.
        topic: image topic of a bag or camera of a data set; optional if there is a single one.
        start: begin of the part, in seconds after the first frame.
        end: end of the part, exclusive; the end of the file by default.
        progress: called with (frames decoded, frames expected).
        episode: number of the episode of a data set.

    Returns:
        The source. Its frames, times, gaps and remarks are those of `read_video` and
        `read_recording`.

    Raises:
        InputError: As `read_video` and `read_recording` do, but frames need not fit into memory.

    """
    return FrameSource(open_reader(path, topic, start, end, episode), progress)


def open_reader(
    path: Path, topic: str | None, start: float, end: float | None, episode: int | None = None
) -> ClipReader:
    """Return what decodes a part of what `open_source` takes.

    Raises:
        InputError: The part is no range of time, a topic is given and the path is neither a bag nor
            a data set, or an episode does not fit the path.

    """
    if is_data_set(path):
        if episode is None:
            data_set = open_data_set(path)
            raise InputError(
                f"{path} is a LeRobot data set: give --episode. {describe_episodes(data_set)}"
            )
        if start or end is not None:
            raise InputError(f"a part of an episode cannot be read; {path} is a LeRobot data set.")
        return open_episode(path, episode, topic)
    if episode is not None:
        raise InputError(f"--episode is for LeRobot data sets; {path} is none.")
    if is_bag(path) and not is_image_folder(path):
        return BagReader(path, topic, start, end)
    if topic is not None:
        raise InputError(f"--topic is for bags; {path} is none.")
    return open_video_reader(path, start, end)
