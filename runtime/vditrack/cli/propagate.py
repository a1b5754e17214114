"""The verb ``vditrack propagate``."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import Progress, TaskID

from vditrack.atomic_files import staged_folder
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.cli.mask_options import Marks, read_marks
from vditrack.cli.progress import progress_bars
from vditrack.cli.propagate_result import PropagateResult, objects_found, write_result
from vditrack.errors import InputError
from vditrack.inference.selection import BackendName
from vditrack.io.mask_png import write_mask
from vditrack.io.overlay import mask_overlay
from vditrack.io.video import Video, read_video, write_video
from vditrack.tracker import Tracker

MASKS, OVERLAY, RESULT = "masks", "overlay.mp4", "result.json"


def propagate(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="PNG of object indices, palette or grey, of the first frame; FRAME:FILE for "
            "another one. May be given again."
        ),
    ] = None,
    objects: Annotated[
        list[str] | None,
        typer.Option(
            "--object",
            help="PNG of one object, where it is not 0, or a folder of such; also FRAME:FILE. "
            "Numbered in the order given, in a folder by name. May be given again.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder of a bundle; the bundled model by default.")
    ] = None,
    motion_weight: Annotated[
        float | None,
        typer.Option(
            help="Of motion features, 0 (appearance alone) to 1; the bundle's by default."
        ),
    ] = None,
    start: Annotated[float, typer.Option(min=0, help="Seconds to begin at.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds to end at.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the results; VIDEO_masks by default."),
    ] = None,
    backend: Annotated[
        BackendName, typer.Option("--backend", help="What runs the model; auto alone falls back.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Carry masks of objects through a video: writes masks/, overlay.mp4 and result.json."""
    marks = read_marks(mask or [], objects or [])
    tracker = _tracker(bundle, backend, motion_weight)
    folder = output or Path(f"{video.stem}_masks")
    with (
        staged_folder(folder, {MASKS, OVERLAY, RESULT}) as scratch,
        progress_bars(quiet=as_json) as bars,
    ):
        reading = partial(_show, bars, bars.add_task("reading", total=None))
        clip = read_video(video, start, end, reading)
        following = partial(_show, bars, bars.add_task("masks", total=len(clip.frames)))
        began = time.perf_counter()
        carried = tracker.propagate(clip.frames, marks.masks, progress=following)
        seconds = time.perf_counter() - began
        _write_pictures(scratch, clip, carried, bars)
        done = _result(video, clip, carried, marks, tracker, seconds, folder)
        write_result(scratch / RESULT, done)
    _tell(done, as_json=as_json)


def _tracker(path: Path | None, backend: BackendName, motion_weight: float | None) -> Tracker:
    """Load the bundle, and find out before anything is decoded whether it propagates masks."""
    settings = None
    if motion_weight is not None:
        # Written so that NaN fails too.
        if not 0 <= motion_weight <= 1:
            raise InputError(f"--motion-weight {motion_weight:g} is not from 0 to 1.")
        own = load_bundle(path or bundled_model()).manifest.propagation
        settings = own and msgspec.structs.replace(own, motion_weight=motion_weight)
    tracker = Tracker.load(path, backend, propagation=settings)
    settings = tracker.propagation
    of_appearance = settings.displacement is not None or settings.motion_weight == 0
    part = tracker.bundle.appearance if of_appearance else tracker.bundle.motion
    if part.manifest.source.random_weights:
        typer.echo(f"warning: {part.root} has random weights, and propagates nothing.", err=True)
    return tracker


def _write_pictures(folder: Path, clip: Video, carried: NDArray[np.uint8], bars: Progress) -> None:
    (folder / MASKS).mkdir()
    for t, mask in enumerate(bars.track(carried, description="writing")):
        write_mask(folder / MASKS / f"{t:05}.png", mask)
    pictures = bars.track(
        mask_overlay(clip.frames, carried), total=len(carried), description="drawing"
    )
    write_video(folder / OVERLAY, pictures, clip.times)


def _result(
    path: Path,
    clip: Video,
    carried: NDArray[np.uint8],
    marks: Marks,
    tracker: Tracker,
    seconds: float,
    folder: Path,
) -> PropagateResult:
    count, height, width = carried.shape
    return PropagateResult(
        video=str(path),
        frames=count,
        width=width,
        height=height,
        times=clip.times.tolist(),
        objects=objects_found(carried, marks.masks, marks.names),
        bundle=str(tracker.bundle.root),
        bundle_name=tracker.bundle.manifest.name,
        propagation=tracker.propagation,
        backend=tracker.backend.name,
        propagating_seconds=round(seconds, 2),
        frames_per_second=round(count / seconds, 1),
        masks=str(folder / MASKS),
        overlay=str(folder / OVERLAY),
    )


def _tell(done: PropagateResult, *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(done).decode())
        return
    count = len(done.objects)
    typer.echo(
        f"propagated {count} object{'s' * (count > 1)} through {done.frames} frames of "
        f"{done.width} x {done.height} at {done.frames_per_second} frames per second "
        f"({done.backend})"
    )
    for found in done.objects:
        called = f"{found.index} ({found.name})" if found.name else f"{found.index}"
        lost = "" if found.lost_at is None else f", lost at frame {found.lost_at}"
        typer.echo(f"object {called}: in {found.frames_present} frames{lost}")
    typer.echo(f"video:   {done.overlay}")
    typer.echo(f"masks:   {done.masks}")


def _show(bars: Progress, task: TaskID, done: int, total: int | None) -> None:
    bars.update(task, completed=done, total=total)
