"""Long recordings in ``track``: tracks are written as they come, and an interrupted run goes on."""

from pathlib import Path

from vditrack.arrays import Floats
from vditrack.cli.partial_runs import CHECKPOINT_FRAMES, PARTIAL, describe_origin
from vditrack.io.frame_source import FrameSource
from vditrack.io.run_store import check_origin, digest_array, find_store, read_checkpoint
from vditrack.io.track_store import TrackStore
from vditrack.points.clip_tracking import Progress, VideoMode
from vditrack.points.tracks import Tracks
from vditrack.tracker import Tracker

_NOTE = "tracks of a run that is not complete; vditrack track --resume continues it"


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
    settings = tracker.settings, tracker.streaming
    given = {"set of points": digest_array(queries), "mode": mode}
    made_from = describe_origin("track", tracker, source, settings, given)
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
        store.create(made_from, _NOTE)
    tracked = since = 0
    for block in tracking:
        store.write(block)
        tracked, since = tracked + len(block.times), since + len(block.times)
        if since >= CHECKPOINT_FRAMES:
            store.save(tracking.checkpoint())
            since = 0
    store.save(tracking.checkpoint())
    return store.read(), tracked
