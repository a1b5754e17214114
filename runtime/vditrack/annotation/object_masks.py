"""Masks of objects in Parquet: a row for each frame and object, as run lengths.

The masks are propagated from the one that says where points are put.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from vditrack.annotation.annotate import Progress
from vditrack.annotation.failures import SourceError
from vditrack.annotation.regions import check_mask, read_regions
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import Record
from vditrack.annotation.units import Unit
from vditrack.arrays import Bools, Indices
from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack.io.frame_source import FrameSource, open_source
from vditrack.io.parquet import import_pyarrow
from vditrack.masks.clip_propagation import MaskBlock
from vditrack.tracker import Tracker


def write_masks(
    path: Path,
    unit: Unit,
    record: Record,
    tracker: Tracker,
    progress: Progress,
) -> None:
    """Propagate the mask of a unit to all frames after it, and write them as they come.

    Args:
        path: Destination; the file appears when it is complete.
        unit: The recording.
        record: What its file of tracks says of itself.
        tracker: Propagates masks.
        progress: Called with the frames done and the frames in all.

    Raises:
        SourceError: The recording or the mask cannot be read again.

    """
    pa, parquet = import_pyarrow()
    try:
        frames, mask = _open(unit, record.specification, progress)
        given = {record.specification.mask_frame: mask}
        blocks = tracker.propagate_video(frames, given, progress=progress)
    except SourceError:
        raise
    except InputError as error:
        raise SourceError("refused", str(error)) from error
    objects = np.unique(mask[mask > 0])
    content = {b"vditrack": msgspec.json.encode(record)}
    schema = _make_schema(pa).with_metadata(content)
    with (
        staged_file(path) as scratch,
        parquet.ParquetWriter(scratch, schema, compression="zstd") as writer,
    ):
        for block in _read_blocks(blocks):
            first = max(0, record.specification.mask_frame - block.first_frame)
            rows = [
                {
                    "frame": block.first_frame + place,
                    "time": float(block.times[place]),
                    "object": int(one),
                    **describe_mask(block.masks[place] == one),
                }
                for place in range(first, len(block.masks))
                for one in objects
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def describe_mask(mask: Bools) -> dict[str, Any]:
    """Return the run lengths, the area and the box of a mask [H, W], as COCO has them."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = None
    if len(rows):
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"counts": count_runs(mask).tolist(), "area": int(mask.sum()), "box": box}


def count_runs(mask: Bools) -> Indices:
    """Return the lengths of runs of equal pixels of a mask [H, W], column by column.

    The first run is of the background, and may have the length 0.
    """
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    turns = np.flatnonzero(pixels[1:] != pixels[:-1])
    return np.diff(np.concatenate([[0], turns, [mask.size]]))


def _open(unit: Unit, specification: Specification, progress: Progress) -> tuple[FrameSource, Any]:
    source = unit.source
    frames = open_source(
        source.path, source.topic, source.start, source.end, progress, source.episode
    )
    mask = read_regions(specification, source, frames.size).mask
    check_mask(specification.mask or "", unit)
    return frames, mask


def _read_blocks(blocks: Iterator[MaskBlock]) -> Iterator[MaskBlock]:
    try:
        yield from blocks
    except InputError as error:
        raise SourceError("changed", str(error)) from error


def _make_schema(pa: Any) -> Any:  # noqa: ANN401
    return pa.schema(
        [
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("time", pa.float64(), nullable=False),
            pa.field("object", pa.uint8(), nullable=False),
            pa.field("counts", pa.list_(pa.uint32()), nullable=False),
            pa.field("area", pa.int32(), nullable=False),
            pa.field("box", pa.list_(pa.int32())),
        ]
    )
