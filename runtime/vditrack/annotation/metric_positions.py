"""Positions of points in space, from the depth that a recording has."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.specification import Specification
from vditrack.arrays import Floats
from vditrack.errors import InputError
from vditrack.io.frame_source import FrameSource
from vditrack.io.rosbag.depth_images import DepthReader
from vditrack.points.ragged_tracks import RaggedTracks
from vditrack.points.tracks import Tracks
from vditrack.ros_messages.positions import place_by_depth

Place = tuple[slice, int] | slice
"""Where the points of a frame are in the arrays of tracks."""


class MetricPositions(NamedTuple):
    """Positions of points in the camera's optical frame."""

    xyz: Floats | None
    """float32, shaped as the points of the tracks, but [..., 3]: metres; NaN where the point is not
    visible or its depth is not known. None if the recording has no depth."""
    remarks: tuple[str, ...]
    """Why there are none, or how many frames have none."""


def measure_positions(
    specification: Specification, frames: FrameSource, tracks: Tracks | RaggedTracks
) -> MetricPositions:
    """Return the metric positions of points, if the specification asks for them.

    Args:
        specification: Says whether, and from which topic.
        frames: The recording.
        tracks: In its frames.

    """
    if not specification.wants_depth:
        return MetricPositions(None, ())
    messages = frames.messages
    if messages is None:
        return _explain("the recording is no bag")
    if messages.camera is None:
        return _explain("the camera is not calibrated")
    try:
        reader = DepthReader(frames.path, messages, frames.size, specification.depth_topic)
    except InputError as error:
        return _explain(str(error).rstrip("."))
    xyz = np.full((*tracks.points.shape[:-1], 3), np.nan, np.float32)
    placed: NDArray[np.bool_] = np.zeros(len(frames), np.bool_)
    for numbers, depth in reader.read(specification.depth_tolerance):
        for frame in numbers:
            place, placed[frame] = _find_place(tracks, frame), True
            positions = place_by_depth(tracks.points[place], messages.camera, depth).xyz
            visible = tracks.visible[place][:, None]
            xyz[place] = np.where(visible, positions, np.float32(np.nan))
    missing = int((~placed).sum())
    remarks = []
    if missing:
        remarks.append(f"{missing} of {len(frames)} frames have no depth.")
    if reader.damaged:
        remarks.append(f"depth images left out because they are damaged: {reader.damaged}.")
    return MetricPositions(xyz, tuple(remarks))


def _explain(reason: str) -> MetricPositions:
    return MetricPositions(None, (f"there are no positions in metres: {reason}.",))


def _find_place(tracks: Tracks | RaggedTracks, frame: int) -> Place:
    if isinstance(tracks, RaggedTracks):
        begin, end = np.searchsorted(tracks.frames, [frame, frame + 1]).tolist()
        return slice(begin, end)
    return slice(None), frame
