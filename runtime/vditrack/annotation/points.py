"""Which points of a recording are tracked, and which of their tracks are written."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vditrack.annotation.specification import Specification
from vditrack.arrays import Floats
from vditrack.points.tracks import Tracks

Size = tuple[int, int]
"""Height and width of frames, in pixels."""


@dataclass(frozen=True)
class Clip:
    """What a choice of points depends on."""

    frames: int
    """Number of frames."""
    size: Size


def choose_queries(specification: Specification, clip: Clip, unit_id: str) -> Floats:
    """Return the queries of a recording, float32 [N, 3] (t, x, y), in pixels.

    Args:
        specification: Says which points.
        clip: The recording.
        unit_id: Id of the unit, hexadecimal; the random points of two units differ.

    """
    height, width = clip.size
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
    count = specification.random or 0
    generator = np.random.default_rng([specification.seed, int(unit_id, 16)])
    frames = generator.integers(0, clip.frames, count)
    places = generator.random((count, 2)) * shape[1:]
    # Rounded to single precision, a position could be on the far edge.
    inside = np.nextafter(np.array([width, height], np.float32), np.float32(0))
    return np.concatenate(
        [frames[:, None].astype(np.float32), np.minimum(places.astype(np.float32), inside)], axis=1
    )


def measure_spread(tracks: Tracks, size: Size) -> Floats:
    """Return how far the visible positions of each point spread, float32 [N].

    It is the square root of the sum of the variances of x / width and y / height, over the frames
    in which the point is visible; 0 for a point that is visible in less than two.

    Args:
        tracks: N tracks, in pixels.
        size: Of the frames.

    """
    height, width = size
    shares = tracks.points.astype(np.float64) / np.array([width, height])
    seen = tracks.visible[..., None]
    count = np.maximum(seen.sum(axis=1), 1)
    means = (shares * seen).sum(axis=1) / count
    variances = (((shares - means[:, None]) ** 2) * seen).sum(axis=1) / count
    return np.asarray(np.sqrt(variances.sum(axis=-1)), np.float32)


def select_tracks(specification: Specification, tracks: Tracks, size: Size) -> Tracks:
    """Return the tracks that are written: those that move enough, at most ``pad_to`` of them."""
    spread = measure_spread(tracks, size)
    kept = np.flatnonzero(spread >= specification.min_spread)
    most = specification.pad_to
    if most is not None and len(kept) > most:
        furthest = np.argsort(-spread[kept], kind="stable")[:most]
        kept = np.sort(kept[furthest])
    return replace(
        tracks,
        queries=tracks.queries[kept],
        points=tracks.points[kept],
        visible=tracks.visible[kept],
        confidence=tracks.confidence[kept],
        forward_backward_error=tracks.forward_backward_error[kept],
    )
