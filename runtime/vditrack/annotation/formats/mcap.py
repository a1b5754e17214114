"""MCAP with tracks for Foxglove, which shows them over the images of the recording."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.annotate import Progress
from vditrack.annotation.formats.content import TrackContent
from vditrack.arrays import Bools, Floats, Ints
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError, install_command
from vditrack.io.rerun_recording import choose_id_colours

TOPIC = "tracks"
"""Last part of the topic of the tracks."""
_SECOND = 10**9
"""Nanoseconds."""
_THICKNESS = 4.0
"""Diameter of a point in pixels of the image."""
_FAINT = 0.3
"""Opacity of a point that is not visible."""


class _Packages(NamedTuple):
    """Modules of the packages that write MCAP."""

    writer: Any
    image: Any
    """foxglove.ImageAnnotations"""
    points: Any
    """foxglove.PointsAnnotation"""


def import_mcap() -> _Packages:
    """Import what writes MCAP with messages of Foxglove, optional dependencies of the runtime.

    Raises:
        InputError: A package is not installed or cannot be imported.

    """
    schemas = "foxglove_schemas_protobuf"
    try:
        return _Packages(
            import_module("mcap_protobuf.writer"),
            import_module(f"{schemas}.ImageAnnotations_pb2"),
            import_module(f"{schemas}.PointsAnnotation_pb2"),
        )
    except ImportError as error:
        raise InputError(
            f"mcap-protobuf-support and foxglove-schemas-protobuf, which write MCAP, cannot be "
            f"imported ({error}). Run `{install_command('mcap')}`."
        ) from error


def write_mcap(path: Path, content: TrackContent, progress: Progress) -> None:
    """Write a foxglove.ImageAnnotations (Protobuf) for each frame.

    The topic is that of the images with ``/tracks`` at its end, or ``/tracks``. The times of a
    message are the stamp of its image, or, without stamps, the time since the first frame of the
    recording. Its points are in pixels, each with a colour of its own, those that are not visible
    faint; those without a position are left out. Without points there are no messages. The metadata
    ``vditrack`` has, under ``record``, what the Parquet file says of itself, in JSON.

    Args:
        path: Destination, replaced when the file is complete.
        content: What is written.
        progress: Called with the frames that are written.

    Raises:
        InputError: A package is not installed, or the file cannot be written.

    """
    packages = import_mcap()
    tracks, stamps = content.tracks, _list_stamps(content)
    topic = f"{content.record.topic or ''}/{TOPIC}"
    colours = choose_id_colours(np.arange(len(tracks.points)))
    with staged_file(path) as scratch, scratch.open("wb") as file:
        writer = packages.writer.Writer(file)
        record = msgspec.json.encode(content.record).decode()
        writer.add_metadata("vditrack", {"record": record})
        for t, stamp in enumerate(stamps.tolist() if len(tracks.points) else ()):
            points, visible = tracks.points[:, t], tracks.visible[:, t]
            message = _make_message(packages, stamp, points, visible, colours)
            writer.write_message(topic, message, log_time=stamp, publish_time=stamp, sequence=t)
            progress(t + 1, len(stamps))
        writer.finish()


def _list_stamps(content: TrackContent) -> Ints:
    """Return the times of the frames, int64 [T] nanoseconds."""
    if content.stamps is not None:
        return content.stamps
    return np.rint(content.times * _SECOND).astype(np.int64)


def _make_message(
    packages: _Packages, stamp: int, points: Floats, visible: Bools, colours: NDArray[np.uint8]
) -> Any:  # noqa: ANN401
    message = packages.image.ImageAnnotations()
    annotation = message.points.add(
        type=packages.points.PointsAnnotation.Type.POINTS, thickness=_THICKNESS
    )
    annotation.timestamp.FromNanoseconds(stamp)
    opacities = np.where(visible, 1.0, _FAINT)
    # A point whose position is not known does not live in the frame.
    known = np.isfinite(points).all(axis=1)
    for (x, y), (r, g, b), a in zip(
        points[known].tolist(),
        (colours[known] / 255).tolist(),
        opacities[known].tolist(),
        strict=True,
    ):
        annotation.points.add(x=x, y=y)
        annotation.outline_colors.add(r=r, g=g, b=b, a=a)
    return message
