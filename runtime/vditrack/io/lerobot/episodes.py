"""Decodes the frames of an episode of a LeRobot data set, from the video that several share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import av
import av.container
import av.video
import numpy as np

from vditrack.arrays import Doubles
from vditrack.errors import InputError
from vditrack.io.clip import ClipReader, DecodeProgress, MakeSink, Picture, Selection, Sink
from vditrack.io.decoding.streams import choose_stream, describe_error, open_container
from vditrack.io.decoding.video_files import VideoFileReader, seek_to
from vditrack.io.lerobot.data_set import EpisodeFrames, open_data_set
from vditrack.io.parquet import import_pyarrow

_TOLERANCE = 0.25
"""Part of the time between two frames by which a frame may be early or late."""
_REPORTED_PACKETS = 256


class EpisodeReader:
    """Decodes one camera of an episode.

    Its frames are those at the timestamps of its rows. If the video does not have them all, the
    episode is refused: a row without a frame has no meaning.
    """

    def __init__(self, frames: EpisodeFrames) -> None:
        """Take an episode.

        Raises:
            InputError: Its rows cannot be read, or do not fit its length.

        """
        self._frames, self.path = frames, frames.video
        self._stamps = read_timestamps(frames)
        start, end = _find_range(frames, self._stamps)
        self._video = VideoFileReader(frames.video, start, end, seeks=True)

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """See `ClipReader`."""
        sink, selection = self._video.decode(make_sink, progress)
        self._check(selection)
        return sink, replace(selection, times=selection.times - selection.times[0], remarks=())

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """See `ClipReader`."""
        return self._video.pictures(selection, first)

    def pictures_from_start(self, selection: Selection, first: int) -> Iterator[Picture]:
        """Yield the selected frames from number ``first`` on, decoded from the first one on."""
        return self._video.pictures_from_start(selection, first)

    def _check(self, selection: Selection) -> None:
        """Check that there is one intact frame at each timestamp."""
        damaged = sum(gap.frames for gap in selection.gaps)
        if damaged:
            raise InputError(
                f"{self._frames.title}: {damaged} of its frames in {self.path} are damaged. Copy "
                "the video again."
            )
        found, length = len(selection.times), len(self._stamps)
        if found != length:
            raise InputError(
                f"{self._frames.title}: {self.path} has {found} frames at its timestamps, and the "
                f"table {length} rows. Repair the data set, or leave the episode out."
            )
        late = np.abs(selection.times - self._frames.start - self._stamps)
        if late.max() > _TOLERANCE / self._frames.rate:
            worst = int(late.argmax())
            raise InputError(
                f"{self._frames.title}: frame {worst} in {self.path} is {late[worst]:.4f} s from "
                "its timestamp. Repair the data set, or leave the episode out."
            )


def open_episode(root: Path, episode: int, camera: str | None) -> ClipReader:
    """Return what decodes one camera of an episode.

    Args:
        root: Folder of the data set.
        episode: Its number.
        camera: Key of the camera; None for the only one.

    Raises:
        InputError: There is no such camera or episode, or the data set cannot be read.

    """
    data_set = open_data_set(root)
    return EpisodeReader(data_set.locate(episode, data_set.choose_camera(camera)))


def read_timestamps(frames: EpisodeFrames) -> Doubles:
    """Return the timestamps of an episode's rows, float64 [T] seconds.

    Raises:
        InputError: The table cannot be read, or has other rows than the length and the numbers of
            the frames say.

    """
    pa, parquet = import_pyarrow()
    try:
        rows = parquet.read_table(
            frames.table,
            columns=["frame_index", "timestamp"],
            filters=[("episode_index", "=", frames.episode)],
        )
        numbers, stamps = (
            np.asarray(rows[name].to_numpy(), np.float64) for name in rows.column_names
        )
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(
            f"{frames.table} does not have the rows of episode {frames.episode}: {error}. Repair "
            "the data set."
        ) from error
    if len(stamps) != frames.length or not frames.length:
        raise InputError(
            f"{frames.table} has {len(stamps)} rows of episode {frames.episode}, and its length in "
            f"meta/episodes is {frames.length}. Repair the data set."
        )
    ascending = np.isfinite(stamps).all() and (np.diff(stamps) > 0).all()
    if not ascending or not np.array_equal(numbers, np.arange(len(numbers))):
        raise InputError(
            f"{frames.table}: frame_index or timestamp of episode {frames.episode} do not ascend "
            "from the first row. Repair the data set."
        )
    return stamps


def digest_episode(frames: EpisodeFrames, progress: Callable[[int, int | None], None]) -> str:
    """Return the SHA-256 of an episode's compressed frames and timestamps.

    Episodes that are added to the video later do not change it.

    Args:
        frames: The episode.
        progress: Called with the packets that were read, and None.

    Raises:
        InputError: The episode cannot be read.

    """
    stamps = read_timestamps(frames)
    first, (_, end) = frames.start + float(stamps[0]), _find_range(frames, stamps)
    digest = hashlib.sha256(repr((frames.rate, len(stamps))).encode() + stamps.tobytes())
    try:
        with open_container(frames.video) as container:
            stream, _ = choose_stream(frames.video, container)
            digest.update(stream.codec_context.extradata or b"")
            # The first key frame of an episode is mostly its first frame.
            seek_to(container, stream, first + _TOLERANCE / frames.rate)
            for number, packet in enumerate(container.demux(stream)):
                if packet.dts is None or packet.pts is None:
                    continue
                if packet.dts * packet.time_base >= end:
                    break
                if packet.pts * packet.time_base >= end:
                    continue
                place = round(float(packet.pts * packet.time_base) - frames.start, 4)
                digest.update(f"{place}\n".encode() + bytes(packet))
                if number % _REPORTED_PACKETS == 0:
                    progress(number, None)
    except av.error.FFmpegError as error:
        raise InputError(
            f"{frames.title}: {frames.video} cannot be read: {describe_error(error)}. Copy it "
            "again."
        ) from error
    return digest.hexdigest()


def _find_range(frames: EpisodeFrames, stamps: Doubles) -> tuple[float, float]:
    """Return the times in the video between which the frames are, in seconds."""
    half = 0.5 / frames.rate
    return frames.start + float(stamps[0]) - half, frames.start + float(stamps[-1]) + half
