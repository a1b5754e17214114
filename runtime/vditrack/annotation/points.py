"""Which points of a recording are tracked, and which of their tracks are written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vditrack.annotation.specification import Specification
from vditrack.arrays import Floats, Frame, Indices
from vditrack.points.corners import detect_corners
from vditrack.points.optical_flow import grey_levels
from vditrack.points.ragged_tracks import RaggedTracks
from vditrack.points.tracks import Tracks

Size = tuple[int, int]
"""Height and width of frames, in pixels."""


def choose_queries(specification: Specification, first: Frame, frames: int, unit_id: str) -> Floats:
    """Return the queries of a recording, float32 [N, 3] (t, x, y), in pixels.

    Args:
        specification: Says which points.
        first: Its first frame, uint8 [H, W, 3] RGB.
        frames: Its number of frames.
        unit_id: Id of the unit, hexadecimal; the random points of two units differ.

    """
    height, width = first.shape[:2]
    shape = np.array([1, width, height], np.float64)
    if specification.queries is not None:
        queries = np.array(specification.queries, np.float64).reshape(-1, 3)
        scaled = specification.coordinates == "normalized"
        return np.asarray(queries * shape if scaled else queries, np.float32)
    if specification.grid is not None:
        middles = (np.arange(specification.grid) + 0.5) / specification.grid
        x, y = np.meshgrid(middles, middles)
        queries = np.stack([np.zeros(x.size), x.ravel(), y.ravel()], axis=1)
        return np.asarray(queries * shape, np.float32)
    if specification.features is not None:
        count, quality = specification.features, specification.corner_quality
        nobody = np.zeros((0, 2), np.float32)
        corners = detect_corners(grey_levels(first), count, count, nobody, quality)
        return np.pad(corners, ((0, 0), (1, 0)))
    count = specification.random or 0
    generator = np.random.default_rng([specification.seed, int(unit_id, 16)])
    places_in_time = generator.integers(0, frames, count)
    places = generator.random((count, 2)) * shape[1:]
    # Rounded to single precision, a position could be on the far edge.
    inside = np.nextafter(np.array([width, height], np.float32), np.float32(0))
    return np.concatenate(
        [places_in_time[:, None].astype(np.float32), np.minimum(places.astype(np.float32), inside)],
        axis=1,
    )


def explain_lack(queries: int, tracks: int) -> tuple[str, ...]:
    """Return remarks on why a recording has no points.

    Args:
        queries: Number of points that were tracked.
        tracks: Number of those that are written.

    """
    if not queries:
        return ("there are no points: no corners were found.",)
    if not tracks:
        return ("there are no points: none moves as far as min_spread asks.",)
    return ()


def measure_spread(tracks: Tracks | RaggedTracks, size: Size) -> Floats:
    """Return how far the visible positions of each point spread, float32 [N].

    It is the square root of the sum of the variances of x / width and y / height, over the frames
    in which the point is visible; 0 for a point that is visible in less than two.

    Args:
        tracks: N tracks, in pixels.
        size: Of the frames.

    """
    height, width = size
    if isinstance(tracks, RaggedTracks):
        variances = tracks.measure_variances(np.array([1 / width, 1 / height]))
        return np.asarray(np.sqrt(variances.sum(axis=1)), np.float32)
    spread = np.zeros(len(tracks.points), np.float32)
    # One by one: the positions of all points of a long recording are large in double precision.
    for n, (points, visible) in enumerate(zip(tracks.points, tracks.visible, strict=True)):
        if visible.any():
            shares = points[visible] / np.array([width, height])
            spread[n] = np.sqrt(shares.var(axis=0).sum())
    return spread


def select_points(
    specification: Specification, tracks: Tracks | RaggedTracks, size: Size
) -> Indices:
    """Return the points that are written, ascending: at most ``pad_to`` of those that move enough.

    Args:
        specification: Says which points.
        tracks: All tracks, in pixels.
        size: Of the frames.

    """
    spread = measure_spread(tracks, size)
    kept = np.flatnonzero(spread >= specification.min_spread)
    most = specification.pad_to
    if most is not None and len(kept) > most:
        furthest = np.argsort(-spread[kept], kind="stable")[:most]
        kept = np.sort(kept[furthest])
    return kept


def keep_points(
    specification: Specification, tracks: Tracks | RaggedTracks, kept: Indices, frames: int
) -> Tracks | RaggedTracks:
    """Return the tracks of the points that are written, as a rectangle if they shall be one.

    Args:
        specification: Says whether they shall.
        tracks: All tracks.
        kept: From `select_points`.
        frames: Number of frames.

    """
    if isinstance(tracks, RaggedTracks):
        selected = tracks.select_points(kept)
        return selected.fill_rectangle(0, frames) if specification.is_rectangular else selected
    return replace(
        tracks,
        queries=tracks.queries[kept],
        points=tracks.points[kept],
        visible=tracks.visible[kept],
        confidence=tracks.confidence[kept],
        forward_backward_error=tracks.forward_backward_error[kept],
    )
