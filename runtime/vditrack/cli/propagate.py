"""Verb ``propagate``: propagate masks of objects through a video."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress

from vditrack.acceptance import verify_tracks
from vditrack.arrays import MaskClip
from vditrack.atomic_files import results_folder
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.cli.console import echo
from vditrack.cli.drawn_results import exit_if_incomplete, write_drawn_results
from vditrack.cli.mask_options import MarkedObjects, read_marked_objects
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
)
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.cli.propagate_result import (
    PropagateResult,
    list_objects,
    print_result,
    write_result,
)
from vditrack.errors import InputError
from vditrack.inference.selection import open_backend
from vditrack.io.clip import Video
from vditrack.io.mask_png import write_mask
from vditrack.io.overlay import draw_masks
from vditrack.io.rerun_recording import write_recording
from vditrack.io.video import read_video, write_video
from vditrack.io.viewed_frames import view_clip
from vditrack.tracker import Tracker

MASKS, OVERLAY, RESULT = "masks", "overlay.mp4", "result.json"
"""Names in the folder of the results."""

MasksFolder = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Folder that the results are written to. Default: VIDEO_masks."
    ),
]


def propagate(
    video: Annotated[Path, typer.Argument(help="Video file, or a folder of JPEG or PNG images.")],
    mask: MaskOption = None,
    objects: ObjectOption = None,
    bundle: BundleOption = None,
    motion_weight: Annotated[
        float | None,
        typer.Option(
            help="Weight of motion features, from 0 (appearance alone) to 1. Default: the bundle's."
        ),
    ] = None,
    start: StartOption = 0.0,
    end: EndOption = None,
    output: MasksFolder = None,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    rerun: RerunOption = None,
    as_json: Json = False,
) -> None:
    """Propagate masks of objects through a video; write masks/, overlay.mp4 and result.json."""
    if rerun is not None:
        check_recording_path(rerun, "--rerun")
    chosen = choose_backend(backend, device)
    marked = read_marked_objects(mask or [], objects or [])
    destination = output or default_output(video, "masks")
    inputs = (video, *marked.files)

    def load() -> Tracker:
        checked = load_bundle(
            bundle or bundled_model(),
            require_signature=require_signature,
            verify_files=verify_files,
            allow_host_code=allow_host_code,
        )
        return _open_tracker(checked, chosen, motion_weight)

    with (
        results_folder(destination, {MASKS, OVERLAY, RESULT}, RESULT, inputs) as folder,
        # Loaded before the bars, which end with an empty line where there is none yet.
        nullcontext(load()) as tracker,
        progress_bars(quiet=as_json) as bars,
    ):
        clip = read_video(video, start, end, add_progress_bar(bars, "reading"))
        progress = add_progress_bar(bars, "masks", len(clip.frames))
        began = time.perf_counter()
        masks = tracker.propagate(clip.frames, marked.masks, progress=progress)
        seconds = time.perf_counter() - began
        result = _summarize(video, clip, masks, marked, tracker, seconds, destination)
        with folder.file(RESULT) as path, folder.folder(MASKS) as images:
            for t, image in enumerate(bars.track(masks, description="writing")):
                write_mask(images / f"{t:05}.png", image)
            write_result(path, result)
        overlay = partial(_write_overlay, clip, masks, bars)
        record = partial(_write_recording, clip, masks, marked.names, bars)
        recording = None if rerun is None else (rerun, record)
        failures = write_drawn_results(folder, {OVERLAY: overlay}, recording)
        if failures or rerun is not None:
            result = _complete(result, rerun, failures)
            with folder.file(RESULT) as path:
                write_result(path, result)
    print_result(result, as_json=as_json)
    exit_if_incomplete(result.not_written)


def _open_tracker(bundle: Bundle, backend: str, motion_weight: float | None) -> Tracker:
    """Return the tracker of a bundle that propagates masks.

    Raises:
        InputError: ``motion_weight`` is not from 0 to 1, or the bundle does not propagate masks.

    """
    settings = None
    if motion_weight is not None:
        # Written so that NaN fails too.
        if not 0 <= motion_weight <= 1:
            raise InputError(f"--motion-weight {motion_weight:g} is not from 0 to 1.")
        own = bundle.manifest.propagation
        settings = own and msgspec.structs.replace(own, motion_weight=motion_weight)
    opened = open_backend(bundle, backend, verify_tracks)
    tracker = Tracker(bundle, opened, propagation=settings)
    settings = tracker.propagation
    uses_appearance = settings.displacement is not None or settings.motion_weight == 0
    part = tracker.bundle.appearance if uses_appearance else tracker.bundle.motion
    if part.manifest.source.random_weights:
        echo(f"warning: {part.root} has random weights; its masks mean nothing.", err=True)
    return tracker


def _write_overlay(clip: Video, masks: MaskClip, bars: Progress, path: Path) -> None:
    frames = bars.track(draw_masks(clip.frames, masks), total=len(masks), description="drawing")
    write_video(path, frames, clip.times)


def _write_recording(
    clip: Video, masks: MaskClip, names: Mapping[int, str], bars: Progress, path: Path
) -> None:
    frames = view_clip(clip.times, clip.frames, masks=masks)
    shown = bars.track(frames, total=len(masks), description="for Rerun")
    write_recording(path, shown, names)


def _complete(
    result: PropagateResult, rerun: Path | None, failures: dict[str, str]
) -> PropagateResult:
    """Return the summary with what was drawn, and why the rest was not."""
    recording = None if rerun is None or str(rerun) in failures else str(rerun)
    overlay = None if OVERLAY in failures else result.overlay
    return msgspec.structs.replace(
        result, overlay=overlay, recording=recording, not_written=failures
    )


def _summarize(
    path: Path,
    clip: Video,
    masks: MaskClip,
    marked: MarkedObjects,
    tracker: Tracker,
    seconds: float,
    folder: Path,
) -> PropagateResult:
    count, height, width = masks.shape
    return PropagateResult(
        video=str(path),
        frames=count,
        width=width,
        height=height,
        times=clip.times.tolist(),
        gaps=[gap._asdict() for gap in clip.gaps],
        remarks=(*marked.remarks, *clip.remarks),
        objects=list_objects(masks, marked.masks, marked.names),
        bundle=str(tracker.bundle.root),
        bundle_name=tracker.bundle.manifest.name,
        propagation=tracker.propagation,
        backend=tracker.backend.name,
        propagating_seconds=round(seconds, 2),
        frames_per_second=round(count / seconds, 1),
        masks=str(folder / MASKS),
        overlay=str(folder / OVERLAY),
    )
