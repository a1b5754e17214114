"""One run of ``track`` or ``demo``: tracks a recording and writes the results."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from rich.progress import Progress

from vditrack.arrays import Frame, Mask
from vditrack.atomic_files import results_folder
from vditrack.cli.console import echo
from vditrack.cli.drawn_results import exit_if_incomplete, write_drawn_results
from vditrack.cli.partial_runs import (
    CHECKPOINT_FRAMES,
    PARTIAL,
    PARTIAL_MASKS,
    report_partial_run,
)
from vditrack.cli.progress import ProgressCallback, add_progress_bar, progress_bars
from vditrack.cli.stored_propagation import propagate_stored
from vditrack.cli.stored_tracking import track_stored
from vditrack.cli.track_request import TrackRequest
from vditrack.cli.track_result import (
    BAG,
    OVERLAY,
    TABLE,
    TRACKS,
    print_result,
    summarize_tracks,
)
from vditrack.features.clip_frames import ClipFrames
from vditrack.input_checks.arrays import validate_masks
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.mask_store import MaskStore
from vditrack.io.overlay import draw_tracks
from vditrack.io.rerun_recording import write_recording
from vditrack.io.rosbag.recordings import ImageMessages
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.run_store import find_store
from vditrack.io.track_files import save_csv, save_npz
from vditrack.io.video import write_video
from vditrack.io.viewed_frames import view_clip
from vditrack.points.clip_tracking import Progress as StepProgress
from vditrack.points.heft_differences import list_differences
from vditrack.points.track_blocks import collect_tracks
from vditrack.points.tracks import Tracks, concatenate_tracks
from vditrack.tracker import Tracker


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
        report_partial_run(request.output / PARTIAL, "tracks", resume=request.resume),
        report_partial_run(request.output / PARTIAL_MASKS, "masks", resume=request.resume),
        # Loaded before the bars, which end with an empty line where there is none yet.
        nullcontext(_load_tracker(request)) as tracker,
        progress_bars(quiet=as_json) as bars,
    ):
        path, progress = request.video, add_progress_bar(bars, "reading")
        source = open_source(
            path, request.topic, request.start, request.end, progress, request.episode
        )
        if request.points.masks:
            validate_masks(request.points.masks, len(source), source.size)
        progress = add_progress_bar(bars, "tracking")
        began = time.perf_counter()
        shot_tracks, tracked = _track_source(tracker, source, request, progress)
        seconds = time.perf_counter() - began
        tracks, masks = concatenate_tracks(shot_tracks), None
        if request.points.masks:
            progress = add_progress_bar(bars, "masks", len(source))
            given, place = request.points.masks, request.output / PARTIAL_MASKS
            masks, _ = propagate_stored("track", tracker, source, given, place, progress)
            tracks = tracks.on_objects(masks.read())
        with folder.file(TRACKS) as path:
            save_npz(path, tracks, source.times, source.gaps, request.video)
        with folder.file(TABLE) as path:
            save_csv(path, tracks, source.times)
        drawing = _Drawing(source, shot_tracks, tracks, masks, bars)
        writers = {OVERLAY: drawing.write_overlay}
        if source.messages is not None:
            writers = {BAG: partial(drawing.write_bag, source.messages), **writers}
        record = partial(drawing.write_recording, request.points.names)
        recording = None if request.rerun is None else (request.rerun, record)
        failures = write_drawn_results(folder, writers, recording)
        pace = tracked / seconds
        result = summarize_tracks(
            request, source, shot_tracks, (seconds, pace), tracker.backend.name, failures
        )
    if request.rerun is not None and str(request.rerun) not in failures:
        result = replace(result, recording=str(request.rerun))
    remarks = (*request.points.remarks, *result.remarks)
    result = replace(result, remarks=remarks, fallbacks=dict(tracker.backend.fallbacks))
    if request.mode == "reference":
        manifest, queries = tracker.bundle.manifest, tracks.queries
        differs = list_differences(manifest, tracker.settings, len(source), queries)
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


def _track_source(
    tracker: Tracker, source: FrameSource, request: TrackRequest, progress: ProgressCallback
) -> tuple[list[Tracks], int]:
    """Return the tracks of each shot, and the number of frames that were tracked now."""
    shots, tracked, before = request.points.split(source), [], 0
    long = len(source) > CHECKPOINT_FRAMES or find_store(request.output / PARTIAL)
    if long and len(shots) == 1 and request.mode != "reference":
        queries = request.points.queries_on(source.size)
        tracks, count = track_stored(
            tracker, source, queries, request.mode, request.output, progress
        )
        return [tracks], count
    for shot in shots:
        # Points queried late in a clip are also tracked backward, which takes more steps.
        def show(done: int, steps: int, before: int = before) -> None:
            progress(before + done, max(len(source), steps))

        tracked.append(_track_shot(tracker, shot, request, show))
        before += len(shot)
    return tracked, len(source)


def _track_shot(
    tracker: Tracker, shot: ClipFrames, request: TrackRequest, progress: StepProgress
) -> Tracks:
    queries = request.points.queries_on(shot.size)
    if request.mode == "reference":
        return tracker.track_reference(shot, queries, progress=progress)
    blocks = tracker.track_video(shot, queries, mode=request.mode, progress=progress)
    return collect_tracks(blocks, queries, len(shot))


@dataclass(frozen=True)
class _Drawing:
    """Writes the results that need the frames again."""

    source: FrameSource
    shot_tracks: Sequence[Tracks]
    """Tracks of each shot."""
    tracks: Tracks
    """Tracks of the whole recording."""
    masks: MaskStore | None
    bars: Progress

    def write_overlay(self, path: Path) -> None:
        """Write the video with the tracks of each shot."""
        frames = self._read("drawing")
        masks = self._read_masks()
        shots = (
            draw_tracks(islice(frames, tracks.points.shape[1]), tracks, masks)
            for tracks in self.shot_tracks
        )
        write_video(path, chain.from_iterable(shots), self.source.times)

    def write_bag(self, messages: ImageMessages, path: Path) -> None:
        """Write the bag of the tracks."""
        pictures = draw_tracks(self._read("recording"), self.tracks, self._read_masks())
        write_tracks(path, messages, self.tracks, pictures)

    def write_recording(self, names: Mapping[int, str], path: Path) -> None:
        """Write the recording for Rerun, with the names of objects by index."""
        messages, frames = self.source.messages, self._read("for Rerun")
        stamps = None if messages is None else messages.stamps
        shown = view_clip(self.source.times, frames, self.tracks, self._read_masks(), stamps)
        write_recording(path, shown, names)

    def _read_masks(self) -> Iterator[Mask] | None:
        return None if self.masks is None else self.masks.read()

    def _read(self, title: str) -> Iterator[Frame]:
        frames = (timed.frame for timed in self.source.read())
        return iter(self.bars.track(frames, total=len(self.source), description=title))
