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
    EpisodeOption,
    HostCodeOption,
    Json,
    MaskOption,
    ObjectOption,
    RerunOption,
    SignatureOption,
    StartOption,
    TopicOption,
    VerifyFilesOption,
    check_recording_path,
    choose_backend,
    default_output,
)
from vditrack.cli.partial_runs import PARTIAL, ResumeOption, report_partial_run
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.cli.propagate_result import (
    PropagateResult,
    list_objects,
    print_result,
    write_result,
)
from vditrack.cli.stored_propagation import propagate_stored
from vditrack.errors import InputError
from vditrack.inference.selection import open_backend
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.mask_store import MaskStore
from vditrack.io.overlay import draw_masks
from vditrack.io.rerun_recording import write_recording
from vditrack.io.video import write_video
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
    video: Annotated[
        Path,
        typer.Argument(
            help="Video file, a folder of JPEG or PNG images, or a rosbag2: its folder, an .mcap "
            "or a .db3 file."
        ),
    ],
    mask: MaskOption = None,
    objects: ObjectOption = None,
    topic: TopicOption = None,
    episode: EpisodeOption = None,
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
    resume: ResumeOption = False,
    backend: BackendOption = "auto",
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    verify_files: VerifyFilesOption = False,
    rerun: RerunOption = None,
    as_json: Json = False,
) -> None:
    """Propagate masks of objects through a video; write masks/, overlay.mp4 and result.json.

    A recording may be of any length. If a run of more than 256 frames is interrupted, its masks so
    far are in the folder "partial" of the output, and --resume continues it.
    """
    if rerun is not None:
        check_recording_path(rerun, "--rerun")
    chosen = choose_backend(backend, device)
    marked = read_marked_objects(mask or [], objects or [])
    destination = output or default_output(video, "masks", episode)
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
        report_partial_run(destination / PARTIAL, "masks", resume=resume),
        # Loaded before the bars, which end with an empty line where there is none yet.
        nullcontext(load()) as tracker,
        progress_bars(quiet=as_json) as bars,
    ):
        source = open_source(video, topic, start, end, add_progress_bar(bars, "reading"), episode)
        progress = add_progress_bar(bars, "masks", len(source))
        began = time.perf_counter()
        store, count = propagate_stored(
            "propagate", tracker, source, marked.masks, destination / PARTIAL, progress
        )
        pace = count, time.perf_counter() - began
        result = _summarize(source, store, marked, tracker, pace, destination)
        with folder.file(RESULT) as path, folder.folder(MASKS) as images:
            store.copy_masks(images)
            write_result(path, result)
        overlay = partial(_write_overlay, source, store, bars)
        record = partial(_write_recording, source, store, marked.names, bars)
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


def _write_overlay(source: FrameSource, store: MaskStore, bars: Progress, path: Path) -> None:
    frames = (timed.frame for timed in source.read())
    drawn = bars.track(draw_masks(frames, store.read()), total=len(source), description="drawing")
    write_video(path, drawn, source.times)


def _write_recording(
    source: FrameSource, store: MaskStore, names: Mapping[int, str], bars: Progress, path: Path
) -> None:
    pictures = (timed.frame for timed in source.read())
    stamps = None if source.messages is None else source.messages.stamps
    frames = view_clip(source.times, pictures, masks=store.read(), stamps=stamps)
    shown = bars.track(frames, total=len(source), description="for Rerun")
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
    source: FrameSource,
    store: MaskStore,
    marked: MarkedObjects,
    tracker: Tracker,
    pace: tuple[int, float],
    folder: Path,
) -> PropagateResult:
    """Return the summary; ``pace`` is the number of frames propagated through, and the seconds."""
    height, width = source.size
    count, seconds = pace
    return PropagateResult(
        video=str(source.path),
        frames=len(source),
        width=width,
        height=height,
        times=source.times.tolist(),
        gaps=[gap._asdict() for gap in source.gaps],
        remarks=(*marked.remarks, *source.remarks),
        objects=list_objects(store.areas, marked.masks, marked.names),
        bundle=str(tracker.bundle.root),
        bundle_name=tracker.bundle.manifest.name,
        propagation=tracker.propagation,
        backend=tracker.backend.name,
        propagating_seconds=round(seconds, 2),
        frames_per_second=round(count / seconds, 1),
        masks=str(folder / MASKS),
        overlay=str(folder / OVERLAY),
    )
