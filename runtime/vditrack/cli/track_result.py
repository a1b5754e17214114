"""Summary of a run of ``track`` or ``demo``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from vditrack.cli.console import echo
from vditrack.cli.track_request import TrackRequest
from vditrack.io.frame_source import FrameSource
from vditrack.points.tracks import Tracks

TRACKS, TABLE, BAG, OVERLAY = "tracks.npz", "tracks.csv", "tracks.mcap", "overlay.mp4"
"""Names of the results. Those of an earlier run are replaced."""


@dataclass(frozen=True)
class TrackResult:
    """What a run did, as printed by ``--json``."""

    video: str
    frames: int
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    points: int
    visible_share: float
    """Share of all positions that are visible, 0 to 1."""
    tracking_seconds: float
    frames_per_second: float
    backend: str
    tracks: list[str]
    """Paths of the track files."""
    overlay: str | None
    """Path of the video; None if it was not written."""
    bag: str | None = None
    """Path of the bag of tracks; None if the input is a video file, or if it was not written."""
    recording: str | None = None
    """Path of the recording for the Rerun viewer; None if it was not asked for or not written."""
    not_written: Mapping[str, str] = field(default_factory=dict)
    """Why results were not written, by the name of the file."""
    gaps: list[dict[str, float]] = field(default_factory=list)
    """Where frames are missing: ``start`` and ``end`` in seconds, and the number of ``frames``."""
    remarks: tuple[str, ...] = ()
    """What the input and the masks lack, and what was done about it."""
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    """Why backends were not used that were tried before ``backend``, by their names."""
    differs_from_heft: list[str] | None = None
    """Differences from HeFT in reference mode; None in other modes."""


def summarize_tracks(
    request: TrackRequest,
    source: FrameSource,
    shots: Sequence[Tracks],
    pace: tuple[float, float],
    backend: str,
    not_written: Mapping[str, str],
) -> TrackResult:
    """Return the summary of a run.

    Args:
        request: The run.
        source: The input.
        shots: Tracks of each shot.
        pace: Time that tracking took, in seconds, and frames per second.
        backend: Name of the backend that ran the model.
        not_written: Why results were not written, by the name of the file.

    """
    output = request.output
    visible = sum(int(tracks.visible.sum()) for tracks in shots)
    height, width = source.size
    remark = source.messages and source.messages.camera_remark
    return TrackResult(
        video=str(request.video),
        frames=len(source),
        width=width,
        height=height,
        points=sum(len(tracks.queries) for tracks in shots),
        visible_share=round(visible / sum(tracks.visible.size for tracks in shots), 4),
        tracking_seconds=round(pace[0], 2),
        frames_per_second=round(pace[1], 1),
        backend=backend,
        tracks=[str(output / TRACKS), str(output / TABLE)],
        overlay=None if OVERLAY in not_written else str(output / OVERLAY),
        bag=str(output / BAG) if source.messages and BAG not in not_written else None,
        not_written=not_written,
        gaps=[gap._asdict() for gap in source.gaps],
        remarks=(*source.remarks, *([remark] if remark else [])),
    )


def print_result(result: TrackResult, *, as_json: bool) -> None:
    """Print the summary on stdout, as JSON or as text, and remarks on stderr."""
    for remark in result.remarks:
        echo(f"note: {remark}", err=True)
    if as_json:
        echo(json.dumps(asdict(result)))
        return
    echo(
        f"tracked {result.points} points through {result.frames} frames of {result.width} x "
        f"{result.height} at {result.frames_per_second} frames per second ({result.backend})"
    )
    echo(f"visible: {100 * result.visible_share:.0f}% of positions")
    if result.overlay:
        echo(f"video:   {result.overlay}")
    echo(f"tracks:  {', '.join(result.tracks)}")
    if result.bag:
        echo(f"bag:     {result.bag}")
    if result.recording:
        echo(f"rerun:   {result.recording}")
    for difference in result.differs_from_heft or []:
        echo(f"differs from HeFT: {difference}", err=True)
