"""What a run of ``vditrack propagate`` found."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.manifest import Propagation


class ObjectFound(msgspec.Struct, frozen=True, kw_only=True):
    """One object over the frames."""

    index: int
    """In the masks."""
    name: str | None
    """Of the file that it came in, where it came alone."""
    marked: list[int]
    """Frames in which it was marked."""
    pixels: list[int]
    """In each frame."""
    frames_present: int
    """In which it has pixels."""
    lost_at: int | None
    """First frame from which on it has none; None where the last frame has some."""


class PropagateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``result.json``."""

    video: str
    frames: int
    width: int
    height: int
    times: list[float]
    """Seconds since the video's first frame, of each frame."""
    objects: list[ObjectFound]
    bundle: str
    bundle_name: str
    propagation: Propagation
    backend: str
    propagating_seconds: float
    """Also what it took to load the graphs for masks."""
    frames_per_second: float
    masks: str
    """Folder of the masks."""
    overlay: str


def objects_found(
    carried: NDArray[np.uint8], marks: Mapping[int, NDArray[np.uint8]], names: Mapping[int, str]
) -> list[ObjectFound]:
    """Count each object's pixels.

    Args:
        carried: [T, H, W] of indices.
        marks: [H, W] by frame, as they were asked for.
        names: of objects, by index.

    """
    counts = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in carried], axis=1)
    marked = {frame: set(np.unique(mask).tolist()) - {0} for frame, mask in marks.items()}
    return [
        _found(
            index,
            names.get(index),
            sorted(frame for frame, named in marked.items() if index in named),
            counts[index],
        )
        for index in sorted(set[int]().union(*marked.values()))
    ]


def _found(
    index: int, name: str | None, marked: list[int], pixels: NDArray[np.intp]
) -> ObjectFound:
    present = np.flatnonzero(pixels)
    after = int(present[-1]) + 1 if len(present) else marked[0]
    return ObjectFound(
        index=index,
        name=name,
        marked=marked,
        pixels=pixels.tolist(),
        frames_present=len(present),
        lost_at=after if after < len(pixels) else None,
    )


def write_result(path: Path, result: PropagateResult) -> None:
    """Write it as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
