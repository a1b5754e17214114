"""Applies what the model says of an earlier frame to the points in the newest frame."""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats, Grey, Ints
from vditrack.bundle.configuration import LiveTracking
from vditrack.coordinates import pixel_unit
from vditrack.errors import InputError
from vditrack.points.base import PointTracker
from vditrack.points.bridging import follow, size_ratio
from vditrack.points.optical_flow import resize_grey
from vditrack.stage_timing import stage
from vditrack.streams.live_points import LivePoints
from vditrack.streams.recent_images import RecentImages


@dataclass(frozen=True)
class TrackedFrame:
    """A frame that points are tracked into, and the points in it when the model began."""

    image: Grey
    stamp: float
    has_map: bool
    """Whether the frame completes a latent, so that it has a feature map."""
    ids: Ints
    """[N], ascending."""
    places: Floats
    """[N, 2] (x, y) in pixels of the frame."""


def apply_correction(
    points: LivePoints,
    tracker: PointTracker,
    described: TrackedFrame,
    newest: Grey,
    recent: RecentImages,
    settings: LiveTracking,
) -> None:
    """Apply the tracker's result in the described frame to the points in the newest frame.

    A point that flow has carried on since then moves by the small difference, or is followed anew
    if that is large. One that flow had lost, and that the tracker found, is carried through the
    frames between.

    Args:
        points: in the newest frame, updated in place.
        tracker: has tracked the points into the described frame.
        described: that frame.
        newest: grey levels of the newest frame.
        recent: the frames up to the newest.
        settings: of bridging.

    """
    rows = np.searchsorted(points.ids, tracker.ids)
    followed, places = points.visible[rows], points.places[rows]
    points.place(tracker, described.stamp if described.has_map else None)
    if newest is described.image:
        return
    was = described.places[np.searchsorted(described.ids, tracker.ids)]
    factor = size_ratio(described.image, newest)
    correction = (tracker.points - was) * factor
    points.places[rows] = places + correction
    limit = settings.max_correction * pixel_unit(newest.shape)
    differs = np.linalg.norm(correction, axis=1) > limit
    anew = tracker.visible & followed & differs
    if anew.any():
        placed = np.asarray(tracker.points[anew] * factor, np.float32)
        _follow_anew(points, rows[anew], described.image, newest, placed, settings)
    found = tracker.visible & ~followed
    if found.any():
        _carry_on(points, tracker, rows, found, described.stamp, recent)


def _follow_anew(
    points: LivePoints,
    rows: Ints,
    image: Grey,
    newest: Grey,
    placed: Floats,
    settings: LiveTracking,
) -> None:
    """Track points by flow anew, from the tracker's positions in the described frame."""
    with stage("flow"):
        described = resize_grey(image, newest.shape)
        guess, flow = points.places[rows], settings.correction_flow
        flowed, held = follow(described, newest, placed, guess, flow, settings)
    points.places[rows[held]] = flowed[held]
    points.followed[rows[~held]] = False


def _carry_on(
    points: LivePoints,
    tracker: PointTracker,
    rows: Ints,
    found: Bools,
    stamp: float,
    recent: RecentImages,
) -> None:
    """Carry points that were found in the described frame on to the newest."""
    rows, textureless = rows[found], tracker.textureless[found]
    points.followed[rows] = False
    try:
        with stage("flow"):
            carried = recent.carry(tracker.points[found], stamp, lambda _: textureless)
    except InputError:
        # The model took longer than frames are kept.
        return
    points.places[rows], points.followed[rows] = carried.places, carried.held
