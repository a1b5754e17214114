"""Annotates one unit: reads a recording, tracks its points, measures the tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.metric_positions import measure_positions
from vditrack.annotation.points import (
    choose_queries,
    explain_lack,
    keep_points,
    select_points,
)
from vditrack.annotation.regions import place_on_objects
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import Unit, check_unchanged
from vditrack.arrays import Doubles, Floats, Frame, Ints
from vditrack.features.clip_frames import ClipFrames
from vditrack.io.clip import Gap
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.overlay import (
    choose_point_colours,
    choose_point_radius,
    draw_point,
    draw_trails,
    to_fixed_point,
)
from vditrack.points.feature_renewal import FeatureRenewal
from vditrack.points.ragged_tracks import RaggedTracks, collect_ragged
from vditrack.points.track_blocks import collect_tracks
from vditrack.points.tracks import Tracks
from vditrack.tracker import Tracker

Progress = Callable[[int, int | None], None]
LIFE_BINS = 10
"""Number of bins of `Measures.life`."""
LIFE_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Limits between the bins of `Measures.life_seconds`."""
_TRAIL = 24
"""Frames of a trail in a thumbnail."""
_PANELS = 3
"""Frames in a thumbnail."""
_PANEL_HEIGHT = 144
_JPEG_QUALITY = 80
_DRAWN = 200
"""Largest number of points in a thumbnail."""


class Measures(msgspec.Struct, frozen=True):
    """Figures of the tracks of one unit."""

    points: int
    """Number of points that are written, without padding."""
    queries: int
    """Number of points that were tracked."""
    visible_share: float | None
    """Share of all positions that are visible, 0 to 1, of each point while it lives; None without
    points."""
    confidence: float | None
    """Mean confidence of visible positions, 0 to 1; None if none is visible."""
    life: tuple[int, ...]
    """Histogram of the points by the share of frames in which they are visible, in equal bins."""
    life_seconds: tuple[int, ...]
    """Histogram of the points by the time for which they are visible in all, see `LIFE_SECONDS`."""


@dataclass(frozen=True)
class Annotation:
    """Tracks of one unit."""

    unit: Unit
    tracks: Tracks | RaggedTracks
    """Tracks that are written, in pixels; ragged if points live for different parts."""
    times: Doubles
    """float64 [T] seconds since the first frame of the recording."""
    stamps: Ints | None
    """int64 [T] stamps of a bag in nanoseconds."""
    size: tuple[int, int]
    """Height and width of the frames."""
    gaps: tuple[Gap, ...]
    remarks: tuple[str, ...]
    measures: Measures
    objects: NDArray[np.uint8] | None
    """[N] numbers of the objects that points were put on; None if they were put on none."""
    positions: Floats | None
    """Positions in metres, as `MetricPositions` has them."""
    thumbnail: bytes
    """JPEG of three frames with their points."""


class _Tracked(NamedTuple):
    tracks: Tracks | RaggedTracks
    objects: NDArray[np.uint8] | None = None
    """As `Annotation` has them."""
    remarks: tuple[str, ...] = ()


def annotate_unit(
    unit: Unit, specification: Specification, tracker: Tracker, progress: Progress | None = None
) -> Annotation:
    """Read a unit's frames, track the points that the specification asks for, and measure them.

    Args:
        unit: The unit.
        specification: Says which points.
        tracker: Tracks them.
        progress: Called with the steps done and the steps in all, None where it is not known.

    Raises:
        SourceError: The recording changed since it was identified.
        InputError: The recording cannot be read, or the queries do not fit it.

    """
    source = unit.source
    frames = open_source(
        source.path, source.topic, source.start, source.end, progress, source.episode
    )
    tracked, objects, remarks = _track(unit, specification, tracker, frames, progress)
    kept = select_points(specification, tracked, frames.size)
    tracks = keep_points(specification, tracked, kept, len(frames))
    positions = measure_positions(specification, frames, tracks)
    thumbnail = draw_thumbnail(frames, tracks)
    check_unchanged(source, unit.identity.status)
    return Annotation(
        unit=unit,
        tracks=tracks,
        times=frames.times,
        stamps=None if frames.messages is None else frames.messages.stamps,
        size=frames.size,
        gaps=tuple(frames.gaps),
        remarks=(
            *frames.remarks,
            *remarks,
            *positions.remarks,
            *explain_lack(len(tracked.queries), len(tracks.queries)),
        ),
        objects=None if objects is None else objects[kept],
        positions=positions.xyz,
        measures=measure_tracks(tracks, frames.times, len(tracked.queries)),
        thumbnail=thumbnail,
    )


def _track(
    unit: Unit,
    specification: Specification,
    tracker: Tracker,
    frames: FrameSource,
    progress: Progress | None,
) -> _Tracked:
    """Track all points that the specification asks for."""
    if specification.features is not None and specification.renews:
        renewal = FeatureRenewal(
            count=specification.features,
            quality=specification.corner_quality,
            lost_after=specification.lost_after,
            interval=specification.refill_interval,
        )
        living = tracker.track_features(frames, renewal, progress=progress)
        return _Tracked(collect_ragged(living))
    if specification.has_objects:
        queries, objects, remarks = place_on_objects(specification, unit, frames)
        blocks = tracker.track_video(frames, queries, progress=progress)
        return _Tracked(collect_tracks(blocks, queries, len(frames)), objects, remarks)
    queries = choose_queries(specification, read_frame(frames, 0), len(frames), unit.id)
    blocks = tracker.track_video(frames, queries, progress=progress)
    return _Tracked(collect_tracks(blocks, queries, len(frames)))


def read_frame(frames: ClipFrames, number: int) -> Frame:
    """Return one frame of a recording, uint8 [H, W, 3]."""
    return next(frames.read(number)).frame


def measure_tracks(tracks: Tracks | RaggedTracks, times: Doubles, queries: int) -> Measures:
    """Return the figures of tracks.

    Args:
        tracks: Tracks that are written.
        times: Times of the frames, float64 [T] seconds.
        queries: Number of points that were tracked.

    """
    visible = tracks.visible
    seen_in = tracks.count_visible() if isinstance(tracks, RaggedTracks) else visible.sum(axis=1)
    counts, _ = np.histogram(seen_in / len(times), LIFE_BINS, (0.0, 1.0))
    seconds = seen_in * (times[-1] - times[0]) / max(1, len(times) - 1)
    places = np.searchsorted(LIFE_SECONDS, seconds, side="right")
    seen = visible.any()
    # Where a padded point does not live, it has no position.
    living = np.isfinite(tracks.points).all(axis=-1)
    return Measures(
        points=len(tracks.queries),
        queries=queries,
        visible_share=round(float(visible[living].mean()), 4) if living.any() else None,
        confidence=round(float(tracks.confidence[visible].mean()), 4) if seen else None,
        life=tuple(counts.tolist()),
        life_seconds=tuple(np.bincount(places, minlength=len(LIFE_SECONDS) + 1).tolist()),
    )


def draw_thumbnail(frames: ClipFrames, tracks: Tracks | RaggedTracks) -> bytes:
    """Return a JPEG of three frames of a recording, side by side, with points and trails.

    Args:
        frames: The recording.
        tracks: Tracks in the same frames.

    """
    height, width = frames.size
    scale = _PANEL_HEIGHT / height
    size = (max(1, round(width * scale)), _PANEL_HEIGHT)
    radius = choose_point_radius(size)
    panels = []
    for t in np.linspace(0, len(frames) - 1, _PANELS).round().astype(int).tolist():
        panel = np.asarray(
            cv2.resize(read_frame(frames, t), size, interpolation=cv2.INTER_AREA), np.uint8
        )
        drawn = _select_drawn(tracks, t)
        colours = choose_point_colours(drawn.queries, (height, width)).tolist()
        positions = to_fixed_point(drawn.points * np.float32(scale))
        visible = drawn.visible
        draw_trails(panel, positions, visible[:, 1:] & visible[:, :-1], colours, 1)
        for n, colour in enumerate(colours):
            draw_point(panel, positions[n, -1], bool(visible[n, -1]), colour, radius)
        panels.append(panel)
    picture = cv2.cvtColor(np.hstack(panels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(encoded)


def _select_drawn(tracks: Tracks | RaggedTracks, frame: int) -> Tracks:
    """Return a sample of the points that live in a frame, in the frames of their trails."""
    first, end = max(0, frame - _TRAIL), frame + 1
    if isinstance(tracks, RaggedTracks):
        living = tracks.ids[tracks.frames == frame]
        tracks = tracks.select_points(living).fill_rectangle(first, end)
        first, end = 0, end - first
    living = np.flatnonzero(np.isfinite(tracks.points[:, end - 1]).all(axis=1))
    drawn, frames = living[:: max(1, -(-len(living) // _DRAWN))], slice(first, end)
    return Tracks(
        queries=tracks.queries[drawn],
        # Where a point does not live, nothing is drawn.
        points=np.nan_to_num(tracks.points[drawn, frames]),
        visible=tracks.visible[drawn, frames],
        confidence=tracks.confidence[drawn, frames],
        forward_backward_error=tracks.forward_backward_error[drawn, frames],
    )
