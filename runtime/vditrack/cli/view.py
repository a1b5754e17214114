"""Verb ``view``: show results in the Rerun viewer, or write them to a recording for it."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

from vditrack.annotation.results import REPORT
from vditrack.annotation.settings import JOB_FILE
from vditrack.annotation.settings import TRACKS as ANNOTATIONS
from vditrack.annotation.track_tables import SUFFIX as PARQUET
from vditrack.annotation.track_tables import read_tracks as read_annotation
from vditrack.arrays import Doubles, Mask
from vditrack.cli.console import echo, echo_json
from vditrack.cli.options import EpisodeOption, Json, check_recording_path
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.cli.propagate import MASKS, RESULT
from vditrack.cli.propagate_result import PropagateResult
from vditrack.cli.track_result import TRACKS
from vditrack.errors import InputError
from vditrack.input_checks.files import MAX_JSON_SIZE, MalformedError, decode_json, read_file
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.lerobot.data_set import is_data_set
from vditrack.io.mask_png import read_mask
from vditrack.io.mask_store import name_mask
from vditrack.io.rerun_recording import SUFFIX, import_rerun, write_recording
from vditrack.io.rosbag.bags import is_bag_file
from vditrack.io.rosbag.recordings import BagReader
from vditrack.io.rosbag.track_clouds import merge_stamps, read_tracks, view_recorded
from vditrack.io.track_files import SavedTracks, read_npz
from vditrack.io.viewed_frames import ViewedFrame, view_clip

_TIME_TOLERANCE = 1e-3
"""Largest difference of a frame's time, in seconds, for the video to be that of the results."""
_MOST_SHOWN = 20
"""Recordings of a job that are shown together: the viewer holds them in memory."""


@dataclass(frozen=True)
class _Pictures:
    """Where the pictures are to come from."""

    video: Path | None
    """As the user gave it."""
    topic: str | None
    """Image topic of a bag, or camera of a data set."""
    episode: int | None
    """Episode of a LeRobot data set."""


@dataclass(frozen=True)
class _Results:
    """What is shown."""

    frames: Callable[[], Iterator[ViewedFrame]]
    """Reads them, one after the other."""
    count: int
    """Number of frames."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of objects by index."""
    remark: str | None = None


def view(
    results: Annotated[
        Path,
        typer.Argument(
            help="Folder that track or propagate has written, its tracks.npz, result.json or "
            "tracks.mcap, the folder of annotate or one of its files of tracks (.parquet), another "
            "bag with tracks, or a recording (.rrd)."
        ),
    ],
    video: Annotated[
        Path | None,
        typer.Option(
            help="Video that the results are of: a file, a folder of images or a bag. Default: "
            "the one that the results name; of a bag with tracks, its own images."
        ),
    ] = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Image topic of a bag. Optional if the bag has a single image topic."),
    ] = None,
    tracks_topic: Annotated[
        str | None,
        typer.Option(help="Topic of tracks of a bag. Optional if the bag has a single one."),
    ] = None,
    episode: EpisodeOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Recording (.rrd) to write. Default: open the viewer."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show tracks and masks in the Rerun viewer, or write them to a recording for it."""
    import_rerun()
    if output is not None:
        check_recording_path(output, "-o")
    if results.suffix == SUFFIX and results.is_file():
        if output is not None:
            raise InputError(f"{results} is a recording already. Copy it, or leave -o out.")
        _open_viewer(results)
        return
    files, pictures = [results], _Pictures(video, topic, episode)
    if (results / JOB_FILE).is_file():
        files = _list_annotations(results)
        if len(files) > 1 and (output or video or topic or episode is not None):
            raise InputError(
                f"{results} has the tracks of {len(files)} recordings, and -o, --video, --topic "
                f"and --episode are for one. Give one of its files, such as {files[0]}."
            )
    frames = 0
    if output is not None:
        frames = _write(output, files[0], pictures, tracks_topic, quiet=as_json)
    else:
        with TemporaryDirectory(prefix="vditrack-") as folder:
            scratch = [Path(folder) / f"{file.resolve().name}{SUFFIX}" for file in files]
            for path, file in zip(scratch, files, strict=True):
                frames += _write(path, file, pictures, tracks_topic, quiet=as_json)
            _open_viewer(*scratch)
    if as_json:
        echo_json({"recording": output and str(output), "frames": frames})
    elif output is not None:
        echo(f"recording: {output}")


def _list_annotations(folder: Path) -> list[Path]:
    """Return the files of tracks in the folder of a job.

    Raises:
        InputError: There is none, or there are too many to be shown together.

    """
    files = sorted((folder / ANNOTATIONS).glob(f"*{PARQUET}"))
    if not files:
        raise InputError(f"{folder} has no tracks yet. Run `vditrack annotate` to its end.")
    if len(files) > _MOST_SHOWN:
        raise InputError(
            f"{folder} has the tracks of {len(files)} recordings, and at most {_MOST_SHOWN} are "
            f"shown together. Give one of its files, such as {files[0]}; {REPORT} shows pictures "
            "of a sample."
        )
    return files


def _write(
    path: Path, results: Path, pictures: _Pictures, tracks_topic: str | None, *, quiet: bool
) -> int:
    """Write a recording of results, print its remark, and return the number of its frames."""
    with progress_bars(quiet=quiet) as bars:
        shown = _read_results(results, pictures, tracks_topic, bars)
        frames = bars.track(shown.frames(), total=shown.count, description="recording")
        write_recording(path, frames, shown.names)
    if shown.remark is not None:
        echo(f"note: {shown.remark}", err=True)
    return shown.count


def _open_viewer(*recordings: Path) -> None:
    """Run the viewer on recordings until its window is closed.

    Raises:
        InputError: It fails, for instance because there is no display.

    """
    # A viewer that runs already might read the file after it is removed.
    command = [sys.executable, "-m", "rerun", "--port", "auto", *map(str, recordings)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(
            f"the Rerun viewer failed: {lines[-1].rstrip('.')}. Without a display, write a "
            "recording with -o FILE.rrd, and open it with `rerun FILE.rrd` on another machine."
        )


def _read_results(
    results: Path, pictures: _Pictures, tracks_topic: str | None, bars: Progress
) -> _Results:
    if is_bag_file(results) or (results / "metadata.yaml").is_file():
        return _read_bag(results, pictures, tracks_topic, bars)
    if results.suffix == PARQUET:
        annotated, record = read_annotation(results)
        if pictures.video is None:
            episode = record.episode if pictures.episode is None else pictures.episode
            pictures = _Pictures(None, pictures.topic or record.topic, episode)
        return _read_clip((results, results.parent), annotated, None, pictures, bars)
    folder = results if results.is_dir() else results.parent
    if results.name == MASKS and (results.parent / RESULT).is_file():
        folder = results.parent
    tracks = results if results.suffix == ".npz" else folder / TRACKS
    summary = folder / RESULT
    shows_tracks = tracks.is_file() and (results == tracks or results.is_dir())
    shows_masks = summary.is_file() and results != tracks
    if not shows_tracks and not shows_masks:
        raise InputError(
            f"{results} has no results. Give the folder that `vditrack track` or `vditrack "
            f"propagate` has written, its {TRACKS}, {RESULT} or tracks.mcap, or a recording (.rrd)."
        )
    saved = read_npz(tracks) if shows_tracks else None
    result = _read_summary(summary) if shows_masks else None
    return _read_clip((results, folder), saved, result, pictures, bars)


def _read_clip(
    places: tuple[Path, Path],
    saved: SavedTracks | None,
    result: PropagateResult | None,
    pictures: _Pictures,
    bars: Progress,
) -> _Results:
    """Return what is shown of a clip; ``places`` are what the user gave, and its folder."""
    results, folder = places
    times = saved.times if saved is not None else np.array(result.times if result else [])
    if saved is not None and result is not None and len(result.times) != len(times):
        raise InputError(
            f"{folder} has tracks of {len(times)} frames and masks of {len(result.times)}: they "
            f"are of different videos. Give {TRACKS} or {RESULT}."
        )
    named = saved.video if saved is not None else Path(result.video) if result else None
    source = pictures.video or named
    clip, remark = None, None
    if source is not None and (source.exists() or pictures.video is not None):
        clip = _open_pictures(source, times, pictures, bars)
    else:
        missing = f"{source} is not there" if source else f"{results} does not name its video"
        remark = f"{missing}: results are shown without pictures. Give --video VIDEO."
    messages = None if clip is None else clip.messages
    stamps = None if messages is None else messages.stamps
    tracks = None if saved is None else saved.tracks
    names = {one.index: one.name for one in (result.objects if result else []) if one.name}

    def read() -> Iterator[ViewedFrame]:
        frames = None if clip is None else (timed.frame for timed in clip.read())
        masks = None if result is None else _read_masks(folder / MASKS, result)
        return view_clip(times, frames, tracks, masks, stamps)

    return _Results(read, len(times), names, remark)


def _read_bag(
    path: Path, pictures: _Pictures, tracks_topic: str | None, bars: Progress
) -> _Results:
    tracks = read_tracks(path, tracks_topic)
    recording, stamps, remark = None, None, None
    try:
        reader = BagReader(pictures.video or path, pictures.topic, 0.0, None)
        recording = FrameSource(reader, add_progress_bar(bars, "reading"))
        stamps = reader.messages.stamps
    except InputError as error:
        if pictures.video is not None or pictures.topic is not None:
            raise
        remark = f"tracks are shown without pictures: {error}"

    def read() -> Iterator[ViewedFrame]:
        frames = None if recording is None else (timed.frame for timed in recording.read())
        return view_recorded(tracks, frames, stamps)

    return _Results(read, len(merge_stamps(tracks, stamps)), remark=remark)


def _read_summary(path: Path) -> PropagateResult:
    try:
        return decode_json(read_file(path, MAX_JSON_SIZE), PropagateResult)
    except MalformedError as error:
        raise InputError(
            f"{path} is not a summary that `vditrack propagate` has written: {error}."
        ) from error


def _read_masks(folder: Path, result: PropagateResult) -> Iterator[Mask]:
    for t in range(result.frames):
        path = folder / name_mask(t, result.frames)
        mask = read_mask(path)
        if mask.shape != (result.height, result.width):
            raise InputError(f"{path} has another size than {RESULT} says. Propagate again.")
        yield mask


def _open_pictures(path: Path, times: Doubles, pictures: _Pictures, bars: Progress) -> FrameSource:
    """Open the frames of a video at the times of the results.

    Raises:
        InputError: The video cannot be read, or has other frames.

    """
    start, end = max(0.0, float(times[0]) - _TIME_TOLERANCE), float(times[-1]) + _TIME_TOLERANCE
    # Episodes are read as a whole.
    first, last = (0.0, None) if is_data_set(path) else (start, end)
    progress = add_progress_bar(bars, "reading")
    video = open_source(path, pictures.topic, first, last, progress, pictures.episode)
    same = len(video) == len(times)
    if not same or np.abs(video.times - times).max() > _TIME_TOLERANCE:
        raise InputError(
            f"{path} is not the video of the results: it has {len(video)} frames from "
            f"{start:.3f} s to {end:.3f} s, and the results have {len(times)}, or other times. "
            "Give the video that was tracked with --video."
        )
    return video
