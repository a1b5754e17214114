"""Objects on which the points of a recording are put: those of a mask, or boxes."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.annotation.failures import SourceError
from vditrack.annotation.mask_files import identify_mask, locate_mask
from vditrack.annotation.recordings import Source
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import Unit
from vditrack.arrays import Bools, Floats, Frame, Mask
from vditrack.coordinates import pixel_indices
from vditrack.errors import InputError
from vditrack.features.clip_frames import ClipFrames
from vditrack.io.marked_masks import read_marked_mask
from vditrack.masks.boxes import check_boxes, fill_boxes
from vditrack.points.corners import detect_corners
from vditrack.points.optical_flow import grey_levels

Size = tuple[int, int]
"""Height and width of frames, in pixels."""


class Regions(NamedTuple):
    """The objects of a frame."""

    mask: Mask
    """uint8 [H, W]: number of the object at each pixel, 0 for the background."""
    remarks: tuple[str, ...] = ()
    """What was done to read the mask."""


class ObjectQueries(NamedTuple):
    """Queries on objects."""

    queries: Floats
    """float32 [N, 3] (t, x, y), in pixels."""
    objects: NDArray[np.uint8]
    """[N] numbers of their objects."""
    remarks: tuple[str, ...]


def read_regions(specification: Specification, source: Source, size: Size) -> Regions:
    """Return the objects that a specification with a mask or boxes names in a recording.

    Raises:
        SourceError: There is no such mask.
        InputError: The mask cannot be read, marks nothing, or has another size than the frames, or
            a box is none.

    """
    if specification.boxes is not None:
        height, width = size
        scaled = specification.coordinates == "normalized"
        boxes = np.array(specification.boxes, np.float64)
        boxes *= [width, height, width, height] if scaled else 1
        check_boxes(boxes, size)
        return Regions(fill_boxes(boxes, size))
    path = locate_mask(specification.mask or "", source)
    if not path.is_file():
        raise SourceError("absent", f"there is no mask {path} of {source.path}.")
    marked = read_marked_mask(path, {})
    if marked.mask.shape != size:
        (height, width), (rows, columns) = size, marked.mask.shape
        raise InputError(
            f"the mask {path} is {columns} x {rows}, and the frames are {width} x {height}. Give a "
            "mask of their size."
        )
    if not marked.mask.any():
        raise InputError(f"the mask {path} marks no object: it is 0 everywhere.")
    return Regions(marked.mask, marked.remarks)


def place_on_objects(specification: Specification, unit: Unit, frames: ClipFrames) -> ObjectQueries:
    """Return queries on each object of a recording.

    Args:
        specification: Says which points, on which objects.
        unit: The recording, or the range of it.
        frames: Its frames.

    Raises:
        SourceError: There is no such mask, or it has changed.
        InputError: There is no frame of the mask, or `read_regions` refuses the objects.

    """
    number = specification.mask_frame
    if number >= len(frames):
        raise InputError(
            f"mask_frame is {number}, and {unit.source.path} has {len(frames)} frames."
        )
    regions = read_regions(specification, unit.source, frames.size)
    if specification.mask is not None:
        check_mask(specification.mask, unit)
    mask, image = regions.mask, next(frames.read(number)).frame
    generator = np.random.default_rng([specification.seed, int(unit.id, 16)])
    objects = np.unique(mask[mask > 0])
    found = [_place_points(specification, mask == one, image, generator) for one in objects]
    missed = [str(one) for one, points in zip(objects, found, strict=True) if not len(points)]
    lack = (f"there are no points on object {', '.join(missed)}.",) if missed else ()
    queries = np.pad(np.concatenate(found), ((0, 0), (1, 0)), constant_values=number)
    labels = np.repeat(objects, [len(points) for points in found])
    return ObjectQueries(queries, labels, (*regions.remarks, *lack))


def check_mask(pattern: str, unit: Unit) -> None:
    """Check that the mask of a unit is the one that it was identified by.

    Raises:
        SourceError: It is another one.

    """
    if identify_mask(pattern, unit.source) != unit.mask_sha256:
        path = locate_mask(pattern, unit.source)
        raise SourceError("changed", f"the mask {path} has changed. Run the command again.")


def _place_points(
    specification: Specification, region: Bools, image: Frame, generator: np.random.Generator
) -> Floats:
    """Return points in a region, float32 [N, 2] (x, y)."""
    if specification.grid is not None:
        return _place_grid(region, specification.grid)
    if specification.features is not None:
        count, quality = specification.features, specification.corner_quality
        nobody, allowed = np.zeros((0, 2), np.float32), region.astype(np.uint8)
        return detect_corners(grey_levels(image), count, count, nobody, quality, allowed)
    return _place_random(region, specification.random or 0, generator)


def _place_grid(region: Bools, count: int) -> Floats:
    """Return the middles of ``count`` x ``count`` cells of the bounding box, in the region."""
    left, top, width, height = cv2.boundingRect(region.astype(np.uint8))
    middles = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(left + middles * width, top + middles * height)
    column, row = pixel_indices(x.ravel()), pixel_indices(y.ravel())
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.asarray(points[region[row, column]], np.float32)


def _place_random(region: Bools, count: int, generator: np.random.Generator) -> Floats:
    """Return random points of a region, each pixel of which is as likely as the others."""
    pixels = np.argwhere(region)
    chosen = pixels[generator.integers(0, len(pixels), count), ::-1]
    # Rounded to single precision, a position could be on the far edge of its pixel.
    within = np.minimum(generator.random((count, 2)), 1 - 2.0**-8)
    return np.asarray(chosen + within, np.float32)
