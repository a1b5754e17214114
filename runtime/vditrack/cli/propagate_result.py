"""Summary of a run of ``propagate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Mask
from vditrack.bundle.configuration import Propagation
from vditrack.cli.console import echo, echo_json


class PropagatedObject(msgspec.Struct, frozen=True, kw_only=True):
    """One object over the frames of a clip."""

    index: int
    """Index in the masks."""
    name: str | None
    """Name of its file, if it came in a file of its own."""
    marked: list[int]
    """Frames in which the user marked it."""
    pixels: list[int]
    """Area in each frame, in pixels."""
    frames_present: int
    """Number of frames in which it has pixels."""
    lost_at: int | None
    """First frame after the last one that has pixels; None if the last frame has some."""


class PropagateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``result.json``."""

    video: str
    frames: int
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    times: list[float]
    """Time of each frame since the first one of the video, in seconds."""
    gaps: list[dict[str, float]]
    """Where frames are missing: ``start`` and ``end`` in seconds, and the number of ``frames``."""
    remarks: tuple[str, ...]
    """What the input and the masks lack, and what was done about it."""
    objects: list[PropagatedObject]
    bundle: str
    """Path of the bundle."""
    bundle_name: str
    propagation: Propagation
    backend: str
    propagating_seconds: float
    """Time that propagation took, with loading the graphs for masks."""
    frames_per_second: float
    masks: str
    """Path of the folder of masks."""
    overlay: str | None
    """Path of the video; None if it was not written."""
    recording: str | None = None
    """Path of the recording for the Rerun viewer; None if it was not asked for or not written."""
    not_written: dict[str, str] = {}
    """Why results were not written, by the name of the file."""


def list_objects(
    areas: NDArray[np.integer[Any]], marked: Mapping[int, Mask], names: Mapping[int, str]
) -> list[PropagatedObject]:
    """Return the objects by index.

    Args:
        areas: Areas [T, K] of the marked objects in each frame, in pixels, by ascending index.
        marked: Masks [H, W] that the user marked, by frame.
        names: Names of objects, by index.

    """
    marked_in = {frame: set(np.unique(mask).tolist()) - {0} for frame, mask in marked.items()}
    return [
        _summarize_object(
            index,
            names.get(index),
            sorted(frame for frame, indices in marked_in.items() if index in indices),
            pixels,
        )
        for index, pixels in zip(
            sorted(set[int]().union(*marked_in.values())), areas.T, strict=True
        )
    ]


def _summarize_object(
    index: int, name: str | None, marked: list[int], pixels: NDArray[np.integer[Any]]
) -> PropagatedObject:
    present = np.flatnonzero(pixels)
    after = int(present[-1]) + 1 if len(present) else marked[0]
    return PropagatedObject(
        index=index,
        name=name,
        marked=marked,
        pixels=pixels.tolist(),
        frames_present=len(present),
        lost_at=after if after < len(pixels) else None,
    )


def write_result(path: Path, result: PropagateResult) -> None:
    """Write the summary as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def print_result(result: PropagateResult, *, as_json: bool) -> None:
    """Print the summary on stdout, as JSON or as text, and remarks on stderr."""
    for remark in result.remarks:
        echo(f"note: {remark}", err=True)
    if as_json:
        echo_json(result)
        return
    count = len(result.objects)
    echo(
        f"propagated {count} object{'s' * (count > 1)} through {result.frames} frames of "
        f"{result.width} x {result.height} at {result.frames_per_second} frames per second "
        f"({result.backend})"
    )
    for found in result.objects:
        label = f"{found.index} ({found.name})" if found.name else f"{found.index}"
        lost = "" if found.lost_at is None else f", lost at frame {found.lost_at}"
        echo(f"object {label}: in {found.frames_present} frames{lost}")
    if result.overlay:
        echo(f"video:   {result.overlay}")
    echo(f"masks:   {result.masks}")
    if result.recording:
        echo(f"rerun:   {result.recording}")
