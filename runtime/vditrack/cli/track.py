"""Verb ``track``: track points through a video or a recording."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

from vditrack.arrays import Doubles, Floats, Frame, Mask, MaskClip
from vditrack.atomic_files import results_folder
from vditrack.cli.console import echo
from vditrack.cli.drawn_results import exit_if_incomplete, write_drawn_results
from vditrack.cli.mask_options import read_marked_objects
from vditrack.cli.options import (
    BackendOption,
    BundleOption,
    DeviceOption,
    EndOption,
    HostCodeOption,
    Json,
    MaskOption,
    ObjectOption,
    RerunOption,
    SignatureOption,
    StartOption,
    VerifyFilesOption,
    check_recording_path,
    choose_backend,
    default_output,
    parse_points,
)
from vditrack.cli.progress import ProgressCallback, add_progress_bar, progress_bars
from vditrack.cli.track_result import (
    BAG,
    OVERLAY,
    TABLE,
    TRACKS,
    print_result,
    summarize_tracks,
)
from vditrack.errors import InputError
from vditrack.io.clip import Video
from vditrack.io.decoding.image_folders import is_image_folder
from vditrack.io.overlay import draw_tracks
from vditrack.io.rerun_recording import write_recording
from vditrack.io.rosbag.bags import is_bag
from vditrack.io.rosbag.recordings import Recording, read_recording
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.track_files import read_queries, save_csv, save_npz
from vditrack.io.video import read_video, write_video
from vditrack.io.viewed_frames import view_clip
from vditrack.points.clip_tracking import TrackMode
from vditrack.points.heft_differences import list_differences
from vditrack.points.tracks import Tracks, concatenate_tracks
from vditrack.tracker import Tracker

TracksFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder that the results are written to. Default: VIDEO_tracks."
    ),
]


def track(
    video: Annotated[
        Path,
        typer.Argument(
            help="Video file, a folder of JPEG or PNG images, or a rosbag2: its folder, an .mcap "
            "or a .db3 file."
        ),
    ],
    points: Annotated[
        Path | None,
        typer.Option(
            help="File of points to track, in pixels: a CSV with the header t,x,y or x,y, or an "
            ".npy of the same columns."
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="Track a grid of N x N points on the first frame."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Track a point given as t,x,y: frame number and pixels. Repeatable."),
    ] = None,
    mask: MaskOption = None,
    objects: ObjectOption = None,
    topic: Annotated[
        str | None,
        typer.Option(help="Image topic of a bag. Optional if the bag has a single image topic."),
    ] = None,
    bundle: BundleOption = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    output: TracksFolder = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="Track as HeFT does, and print what still differs."),
    ] = False,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    rerun: RerunOption = None,
    as_json: Json = False,
) -> None:
    """Track points through a video, and write tracks.npz, tracks.csv and overlay.mp4.

    With --mask or --object, tracks also say which object each point lies on. For a bag, tracks.mcap
    is written too: a bag of the tracks, for Foxglove and rosbag2.
    """
    if sum(choice is not None for choice in (points, grid, at)) != 1:
        raise InputError("give exactly one of --points FILE, --grid N and --at t,x,y.")
    if rerun is not None:
        check_recording_path(rerun, "--rerun")
    marked = read_marked_objects(mask or [], objects or []) if mask or objects else None
    requested = Points(
        queries=read_queries(points) if points else parse_points(at) if at else None,
        grid=(grid, grid) if grid else None,
        masks=marked.masks if marked else None,
        names=marked.names if marked else {},
        remarks=tuple(marked.remarks) if marked else (),
        files=(*([points] if points else []), *(marked.files if marked else [])),
    )
    folder = output or default_output(video, "tracks")
    mode: TrackMode = "reference" if reference else "offline"
    request = TrackRequest(
        video,
        requested,
        folder,
        bundle,
        start,
        end,
        topic,
        choose_backend(backend, device),
        mode,
        rerun,
        require_signature,
        verify_files,
        allow_host_code,
    )
    track_video(request, as_json=as_json)


@dataclass(frozen=True)
class Points:
    """The points to track: queries, or a grid on the first frame."""

    queries: Floats | None = None
    """float32 [N, 3] (t, x, y): frame number and pixels."""
    grid: tuple[int, int] | None = None
    """Columns and rows."""
    cuts: tuple[int, ...] = ()
    """Frames at which a new shot begins. Each shot is a clip with its own points."""
    masks: Mapping[int, Mask] | None = None
    """Masks [H, W] of marked objects by frame; only for a clip without cuts."""
    names: Mapping[int, str] = field(default_factory=dict)
    """Names of marked objects by index."""
    remarks: tuple[str, ...] = ()
    """What was done to read the masks."""
    files: tuple[Path, ...] = ()
    """Files that queries and masks were read from."""

    def split(self, frames: Frame) -> list[Frame]:
        """Return the shots of a clip uint8 [T, H, W, 3]."""
        return np.split(frames, self.cuts)

    def queries_on(self, frames: Frame) -> Floats:
        """Return the queries float32 [N, 3] for a shot uint8 [T, H, W, 3]."""
        if self.grid is None:
            return np.zeros((0, 3), np.float32) if self.queries is None else self.queries
        columns, rows = self.grid
        height, width = frames.shape[1:3]
        x, y = np.meshgrid(_split_evenly(columns, width), _split_evenly(rows, height))
        return np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)


@dataclass(frozen=True)
class TrackRequest:
    """One run of ``track`` or ``demo``."""

    video: Path
    """Video file, folder of images or rosbag2."""
    points: Points
    output: Path
    """Folder of the results."""
    bundle: Path | None = None
    start: float = 0.0
    """Seconds."""
    end: float | None = None
    """Seconds; None for the end of the video."""
    topic: str | None = None
    """Image topic of a bag."""
    backend: str = "auto"
    """As `Tracker.load` takes it."""
    mode: TrackMode = "offline"
    rerun: Path | None = None
    """Recording to write as well."""
    require_signature: Path | None = None
    """Public key that the bundle has to be signed with."""
    verify_files: bool = False
    """Whether to compute the digests of files that did not change."""
    allow_host_code: bool = False
    """Whether engines may bring code for the CPU."""


def track_video(request: TrackRequest, *, as_json: bool) -> None:
    """Decode the video, track the points, write the results and print a summary.

    Raises:
        InputError: The video, the points or the masks are not valid, or masks are given and the
            bundle does not propagate masks.
        BundleError: The bundle is damaged.

    """
    names = {TRACKS, TABLE, BAG, OVERLAY}
    inputs = (request.video, *request.points.files)
    with (
        results_folder(request.output, names, TRACKS, inputs) as folder,
        # Loaded before the bars, which end with an empty line where there is none yet.
        nullcontext(_load_tracker(request)) as tracker,
        progress_bars(quiet=as_json) as bars,
    ):
        video = _read(request, add_progress_bar(bars, "reading"))
        shots = request.points.split(video.frames)
        times = np.split(video.times, request.points.cuts)
        progress = add_progress_bar(bars, "tracking")
        began = time.perf_counter()
        shot_tracks = _track_shots(tracker, shots, times, request, progress)
        seconds = time.perf_counter() - began
        tracks, masks = concatenate_tracks(shot_tracks), None
        if request.points.masks:
            progress = add_progress_bar(bars, "masks", len(video.frames))
            masks = tracker.propagate(video.frames, request.points.masks, progress=progress)
            tracks = tracks.on_objects(masks)
        with folder.file(TRACKS) as path:
            save_npz(path, tracks, video.times, video.gaps, request.video)
        with folder.file(TABLE) as path:
            save_csv(path, tracks, video.times)
        writers = {OVERLAY: partial(_write_overlay, video, shots, shot_tracks, masks, bars)}
        if isinstance(video, Recording):
            writers = {BAG: partial(_write_bag, video, tracks, masks, bars), **writers}
        record = partial(_write_recording, video, tracks, masks, request.points.names, bars)
        recording = None if request.rerun is None else (request.rerun, record)
        failures = write_drawn_results(folder, writers, recording)
    result = summarize_tracks(
        request.video, video, shot_tracks, seconds, request.output, tracker.backend.name, failures
    )
    if request.rerun is not None and str(request.rerun) not in failures:
        result = replace(result, recording=str(request.rerun))
    remarks = (*request.points.remarks, *result.remarks)
    result = replace(result, remarks=remarks, fallbacks=dict(tracker.backend.fallbacks))
    if request.mode == "reference":
        manifest, queries = tracker.bundle.manifest, tracks.queries
        differs = list_differences(manifest, tracker.settings, len(video.frames), queries)
        result = replace(result, differs_from_heft=differs)
    print_result(result, as_json=as_json)
    exit_if_incomplete(failures)


def _load_tracker(request: TrackRequest) -> Tracker:
    tracker = Tracker.load(
        request.bundle,
        request.backend,
        require_signature=request.require_signature,
        verify_files=request.verify_files,
        allow_host_code=request.allow_host_code,
    )
    if tracker.bundle.manifest.source.random_weights:
        echo(f"warning: {request.bundle} has random weights; its tracks mean nothing.", err=True)
    if request.points.masks:
        # Refuse a bundle that does not propagate masks before decoding.
        _ = tracker.propagation
    return tracker


def _read(request: TrackRequest, progress: ProgressCallback) -> Video:
    path, topic = request.video, request.topic
    if is_bag(path) and not is_image_folder(path):
        return read_recording(path, topic, request.start, request.end, progress)
    if topic is not None:
        raise InputError(f"--topic is for bags; {path} is none.")
    return read_video(path, request.start, request.end, progress)


def _track_shots(
    tracker: Tracker,
    shots: Sequence[Frame],
    times: Sequence[Doubles],
    request: TrackRequest,
    progress: ProgressCallback,
) -> list[Tracks]:
    """Return the tracks of each shot; the progress bar counts the frames of all shots."""
    tracked: list[Tracks] = []
    frames, before = sum(map(len, shots)), 0
    for shot, seconds in zip(shots, times, strict=True):
        # Points queried late in a clip are also tracked backward, which takes more steps.
        def show(done: int, steps: int, before: int = before) -> None:
            progress(before + done, max(frames, steps))

        queries = request.points.queries_on(shot)
        tracked.append(
            tracker.track(shot, queries, mode=request.mode, times=seconds, progress=show)
        )
        before += len(shot)
    return tracked


def _write_overlay(
    video: Video,
    shots: Sequence[Frame],
    shot_tracks: Sequence[Tracks],
    masks: MaskClip | None,
    bars: Progress,
    path: Path,
) -> None:
    frames = chain.from_iterable(map(partial(draw_tracks, masks=masks), shots, shot_tracks))
    shown = bars.track(frames, total=len(video.frames), description="drawing")
    write_video(path, shown, video.times)


def _write_bag(
    recording: Recording, tracks: Tracks, masks: MaskClip | None, bars: Progress, path: Path
) -> None:
    frames = draw_tracks(recording.frames, tracks, masks)
    shown = bars.track(frames, total=len(recording.frames), description="recording")
    write_tracks(path, recording, tracks, shown)


def _write_recording(
    video: Video,
    tracks: Tracks,
    masks: MaskClip | None,
    names: Mapping[int, str],
    bars: Progress,
    path: Path,
) -> None:
    stamps = video.stamps if isinstance(video, Recording) else None
    frames = view_clip(video.times, video.frames, tracks, masks, stamps)
    shown = bars.track(frames, total=len(video.frames), description="for Rerun")
    write_recording(path, shown, names)


def _split_evenly(count: int, length: int) -> Doubles:
    """Return the middles of ``count`` equal parts of ``length`` pixels."""
    return (np.arange(count) + 0.5) * length / count
