"""Annotates one unit: reads a recording, tracks its points, measures the tracks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import msgspec
import numpy as np

from vditrack.annotation.points import choose_queries, explain_lack, select_tracks
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import Unit, check_unchanged
from vditrack.arrays import Doubles, Frame, Ints
from vditrack.features.clip_frames import ClipFrames
from vditrack.io.clip import Gap
from vditrack.io.frame_source import open_source
from vditrack.io.overlay import (
    choose_point_colours,
    choose_point_radius,
    draw_point,
    draw_trails,
    to_fixed_point,
)
from vditrack.points.track_blocks import collect_tracks
from vditrack.points.tracks import Tracks
from vditrack.tracker import Tracker

Progress = Callable[[int, int | None], None]
LIFE_BINS = 10
"""Number of bins of `Measures.life`."""
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
    """Share of all positions that are visible, 0 to 1; None without points."""
    confidence: float | None
    """Mean confidence of visible positions, 0 to 1; None if none is visible."""
    life: tuple[int, ...]
    """Histogram of the points by the share of frames in which they are visible, in equal bins."""


@dataclass(frozen=True)
class Annotation:
    """Tracks of one unit."""

    unit: Unit
    tracks: Tracks
    """Tracks that are written, in pixels."""
    times: Doubles
    """float64 [T] seconds since the first frame of the recording."""
    stamps: Ints | None
    """int64 [T] stamps of a bag in nanoseconds."""
    size: tuple[int, int]
    """Height and width of the frames."""
    gaps: tuple[Gap, ...]
    remarks: tuple[str, ...]
    measures: Measures
    thumbnail: bytes
    """JPEG of three frames with their points."""


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
    frames = open_source(source.path, source.topic, source.start, source.end, progress)
    first = read_frame(frames, 0)
    queries = choose_queries(specification, first, len(frames), unit.id)
    blocks = tracker.track_video(frames, queries, progress=progress)
    tracked = collect_tracks(blocks, queries, len(frames))
    tracks = select_tracks(specification, tracked, frames.size)
    thumbnail = draw_thumbnail(frames, tracks)
    check_unchanged(source.path, unit.identity.status)
    return Annotation(
        unit=unit,
        tracks=tracks,
        times=frames.times,
        stamps=None if frames.messages is None else frames.messages.stamps,
        size=frames.size,
        gaps=tuple(frames.gaps),
        remarks=(*frames.remarks, *explain_lack(len(queries), len(tracks.points))),
        measures=measure_tracks(tracks, len(queries)),
        thumbnail=thumbnail,
    )


def read_frame(frames: ClipFrames, number: int) -> Frame:
    """Return one frame of a recording, uint8 [H, W, 3]."""
    return next(frames.read(number)).frame


def measure_tracks(tracks: Tracks, queries: int) -> Measures:
    """Return the figures of tracks.

    Args:
        tracks: Tracks that are written.
        queries: Number of points that were tracked.

    """
    visible = tracks.visible
    lives = visible.mean(axis=1) if len(visible) else np.zeros(0)
    counts, _ = np.histogram(lives, LIFE_BINS, (0.0, 1.0))
    seen = visible.any()
    return Measures(
        points=len(visible),
        queries=queries,
        visible_share=round(float(visible.mean()), 4) if len(visible) else None,
        confidence=round(float(tracks.confidence[visible].mean()), 4) if seen else None,
        life=tuple(counts.tolist()),
    )


def draw_thumbnail(frames: ClipFrames, tracks: Tracks) -> bytes:
    """Return a JPEG of three frames of a recording, side by side, with points and trails.

    Args:
        frames: The recording.
        tracks: Tracks in the same frames.

    """
    height, width = frames.size
    scale = _PANEL_HEIGHT / height
    size = (max(1, round(width * scale)), _PANEL_HEIGHT)
    drawn = np.arange(len(tracks.points))[:: max(1, -(-len(tracks.points) // _DRAWN))]
    colours = choose_point_colours(tracks.queries[drawn], (height, width)).tolist()
    radius = choose_point_radius(size)
    panels = []
    for t in np.linspace(0, len(frames) - 1, _PANELS).round().astype(int).tolist():
        panel = np.asarray(
            cv2.resize(read_frame(frames, t), size, interpolation=cv2.INTER_AREA), np.uint8
        )
        positions = to_fixed_point(tracks.points[drawn, : t + 1] * np.float32(scale))
        visible = tracks.visible[drawn, : t + 1]
        draw_trails(panel, positions, visible[:, 1:] & visible[:, :-1], colours, 1)
        for n, colour in enumerate(colours):
            draw_point(panel, positions[n, t], bool(visible[n, t]), colour, radius)
        panels.append(panel)
    picture = cv2.cvtColor(np.hstack(panels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return bytes(encoded)
