"""Long recordings in ``track``: tracks are written as they come, and an interrupted run goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import msgspec

from vditrack.arrays import Floats
from vditrack.cli.console import echo
from vditrack.errors import InputError
from vditrack.io.frame_source import FrameSource
from vditrack.io.track_store import (
    NOT_BEGUN,
    TrackStore,
    check_origin,
    describe_place,
    digest_array,
    find_store,
    read_checkpoint,
    remove_store,
)
from vditrack.points.clip_tracking import Progress, VideoMode
from vditrack.points.tracks import Tracks
from vditrack.tracker import Tracker

PARTIAL = "partial"
"""Name of the folder of a run that is not complete, in the folder of the results."""
CHECKPOINT_FRAMES = 256
"""Frames between checkpoints. A shorter recording has none, and is tracked in memory."""


def track_stored(
    tracker: Tracker,
    source: FrameSource,
    queries: Floats,
    mode: VideoMode,
    output: Path,
    progress: Progress,
) -> tuple[Tracks, int]:
    """Track a recording into a store, or continue to.

    Args:
        tracker: the tracker.
        source: the recording.
        queries: float32 [N, 3] (t, x, y).
        mode: see `Tracker.track_video`.
        output: folder of the results.
        progress: called with (steps done, steps in all).

    Returns:
        Tracks whose arrays are on the disk, and the number of frames that were tracked now.

    Raises:
        InputError: The queries are not valid, the store is of another run or damaged, or it cannot
            be written.

    """
    folder = output / PARTIAL
    made_from = {
        "recording": source.digest,
        "set of points": digest_array(queries),
        "bundle": sha256(msgspec.json.encode(tracker.bundle.manifest)).hexdigest(),
        "setting of the tracker": sha256(
            msgspec.json.encode((tracker.settings, tracker.streaming))
        ).hexdigest(),
        "mode": mode,
        "backend": tracker.backend.name,
        "version of vditrack": metadata.version("vditrack"),
    }
    store, checkpoint = TrackStore(folder, queries, len(source)), None
    continued = find_store(folder)
    if continued:
        check_origin(folder, made_from)
        store.check_arrays()
        checkpoint = read_checkpoint(folder)
    tracking = tracker.track_video(
        source, queries, mode=mode, progress=progress, checkpoint=checkpoint
    )
    if not continued:
        store.create(made_from)
    tracked = since = 0
    for block in tracking:
        store.write(block)
        tracked, since = tracked + len(block.times), since + len(block.times)
        if since >= CHECKPOINT_FRAMES:
            store.save(tracking.checkpoint())
            since = 0
    store.save(tracking.checkpoint())
    return store.open(), tracked


@contextmanager
def report_partial_run(output: Path, *, resume: bool) -> Iterator[None]:
    """Remove the store after the block; if the block raises, say how to continue instead.

    Args:
        output: folder of the results, which this process has locked.
        resume: whether the user asked to continue an interrupted run.

    Raises:
        InputError: There is an interrupted run, and it is not to be continued; or something else is
            in its place.

    """
    folder = output / PARTIAL
    before = describe_place(folder)
    if before is not None and not resume:
        raise InputError(
            f"{folder} is an interrupted run, {before}. Add --resume to continue it, or delete the "
            "folder to start again."
        )
    complete = False
    try:
        yield
        complete = True
    finally:
        if complete and find_store(folder):
            remove_store(folder)
        elif describe_place(folder) not in (None, NOT_BEGUN, before):
            echo(
                f"note: {folder} has the tracks of this run so far. Run the same command with "
                "--resume to continue it.",
                err=True,
            )
