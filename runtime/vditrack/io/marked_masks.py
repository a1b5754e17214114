"""Reads the masks that users draw: any PNG becomes a mask of object indices.

Tools draw and save masks in many ways. What is certain is mended, and each change is reported; what
may mean several things is refused. Data sets with official metrics are read without any change, by
`vditrack.io.mask_png.read_mask`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Indices, Mask
from vditrack.errors import InputError
from vditrack.io.mask_png import MaskImage, read_mask_image
from vditrack.io.overlay import make_object_colours

_MAX_OBJECTS = 255
_VOID = 255
_LARGEST_INDEX_BESIDE_VOID = 40
"""Data sets that label 255 as void have at most this many classes or objects; masks with grey
levels for people to see have larger ones."""
_BLOCK = np.ones((3, 3), np.uint8)
"""The smallest object: cells of a model are larger."""
_MANY = 6
"""Number of grey levels from which on a mask may be a picture with smooth edges."""
_SHARE_BETWEEN = 0.5
"""Largest share of a soft mask that is neither background nor object."""
_SHARE_OF_OBJECT = 0.05
"""Share of a mask from which on a grey level between is an object."""

_SEPARATE = (
    "Save it without anti-aliasing and not as JPEG, or give a file for each object with --object."
)

Labels = dict[str, int]
"""Indices of objects that a file names by colours or large numbers, shared by files of one run."""


class MarkedMask:
    """A mask of object indices, and what was done to read it."""

    def __init__(self, mask: Mask, labels: Labels, remarks: Sequence[str]) -> None:
        """Take the mask uint8 [H, W], the labels of its objects, and remarks."""
        self.mask, self.labels, self.remarks = mask, labels, tuple(remarks)


def read_marked_mask(path: Path, known: Labels) -> MarkedMask:
    """Read a mask of object indices from a PNG.

    Indices come from a palette, from grey levels, from the colours of the palette of DAVIS or,
    numbered, from other colours and from 16-bit levels. One object with smooth edges becomes the
    pixels of at least half its level. Indices of a few pixels or at the edges of others, and 255
    that touches small indices (void), are removed.

    Args:
        path: The file.
        known: Labels of the files before, to which new ones are added.

    Raises:
        InputError: The file is not a PNG, several objects have smooth edges, it is a picture, or
            there are more than 255 objects.

    """
    image = read_mask_image(path)
    remarks: list[str] = []
    image = _apply_alpha(image, remarks)
    pixels = image.pixels
    if image.palette is not None and _has_picture_palette(pixels, image.palette):
        remarks.append("its palette holds the colours of a picture, which are read instead")
        pixels = image.palette[pixels]
    labels: Labels = {}
    if pixels.ndim == 3:
        colours = np.asarray(pixels, np.uint8)
        grey = _find_grey(colours)
        mask = _index_colours(path, colours, known, labels) if grey is None else grey
    elif pixels.dtype == np.uint16:
        mask = _index_levels(path, np.asarray(pixels, np.uint16), known, labels)
    else:
        mask = np.asarray(pixels, np.uint8)
    mended = _mend(path, mask, remarks)
    present = set(np.unique(mended).tolist())
    labels = {label: index for label, index in labels.items() if index in present}
    return MarkedMask(mended, labels, [f"{path}: {remark}." for remark in remarks])


def _apply_alpha(image: MaskImage, remarks: list[str]) -> MaskImage:
    """Return an image without opacity: transparent pixels are background."""
    pixels, alpha = image.pixels, image.alpha
    if alpha is None or alpha.min() == 255:
        return image._replace(alpha=None)
    if (pixels == pixels[:1, :1]).all():
        remarks.append("all colours are equal, so the object is where the image is opaque")
        return MaskImage(alpha, None, None)
    remarks.append("pixels that are less than half opaque are background")
    return MaskImage(np.where(alpha[..., None] < 128, np.uint8(0), pixels), None, None)


def _has_picture_palette(indices: NDArray[np.integer[Any]], palette: NDArray[np.uint8]) -> bool:
    """Return whether a palette holds the colours of a picture, in no order of objects."""
    used = palette[np.unique(indices)]
    return _is_picture(indices) or bool(palette[0].any() and (~used.any(axis=1)).any())


def _find_grey(pixels: NDArray[np.uint8]) -> Mask | None:
    """Return the levels [H, W] of an image [H, W, 3] of a single hue; None for several hues."""
    brightest = np.unravel_index(int(pixels.sum(axis=2).argmax()), pixels.shape[:2])
    hue = pixels[brightest].astype(np.int64)
    level = np.asarray(pixels.max(axis=2), np.uint8)
    # Rounding and compression move a channel by a few levels.
    differs = np.abs(pixels * hue.max() - level[..., None] * hue) > 4 * max(int(hue.max()), 1)
    if differs.any():
        return None
    # Colours of DAVIS are indices, also of a single object.
    palette = make_object_colours()
    of_palette = np.flatnonzero((palette == hue).all(axis=1))
    if len(of_palette) and (hue != hue[0]).any() and len(np.unique(level)) == 2:
        return np.where(level > 0, np.uint8(of_palette[0]), np.uint8(0))
    return level


def _index_colours(
    path: Path, pixels: NDArray[np.uint8], known: Labels, labels: Labels
) -> NDArray[np.uint8]:
    """Return indices [H, W] of the colours [H, W, 3] of an image."""
    codes = pixels.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    found = np.unique(codes)
    palette = make_object_colours().astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    if np.isin(found, palette).all():
        order = np.argsort(palette)
        return np.asarray(order[np.searchsorted(palette[order], codes)], np.uint8)
    if len(found) > _MANY and _is_picture(np.searchsorted(found, codes)):
        raise InputError(
            f"{path} has {len(found)} colours, most of them only in small pieces: a picture, or a "
            f"mask with smooth edges. {_SEPARATE}"
        )
    return _number(path, codes, "#{:06x}", known, labels)


def _index_levels(
    path: Path, pixels: NDArray[np.uint16], known: Labels, labels: Labels
) -> NDArray[np.uint8]:
    """Return indices [H, W] of 16-bit levels."""
    if pixels.max() <= _MAX_OBJECTS:
        return pixels.astype(np.uint8)
    if pixels.max() == 65535 or not (pixels % 257).any():
        return (pixels // 257).astype(np.uint8)
    return _number(path, pixels.astype(np.int64), "{}", known, labels)


def _number(
    path: Path, codes: Indices, form: str, known: Labels, labels: Labels
) -> NDArray[np.uint8]:
    """Return indices of codes, numbered as they were met; 0 stays 0."""
    found, inverse = np.unique(codes, return_inverse=True)
    indices = np.zeros(len(found), np.uint8)
    for place, code in enumerate(found.tolist()):
        if code == 0:
            continue
        label = form.format(code)
        index = known.setdefault(label, len(known) + 1)
        if index > _MAX_OBJECTS:
            raise InputError(
                f"{path} marks more than {_MAX_OBJECTS} objects. Give a file for each object that "
                "is to be tracked with --object."
            )
        indices[place] = labels[label] = index
    return indices[inverse.reshape(codes.shape)]


def _mend(path: Path, mask: Mask, remarks: list[str]) -> Mask:
    values, counts = _count_values(mask)
    if len(values) < 2:
        return mask
    if len(values) >= _MANY and _is_picture(mask):
        return _threshold(path, mask, values, counts, remarks)
    odd = [value for value in values.tolist() if _is_odd(mask, value)]
    if len(odd) == len(values):
        raise InputError(f"{path} marks no object of 3 x 3 pixels or more. Mark larger ones.")
    if odd:
        share = int(np.isin(mask, odd).sum())
        remarks.append(
            f"{'indices' if len(odd) > 1 else 'index'} {', '.join(map(str, odd))}, of {share} "
            "pixels in small pieces or at the edges of others, given to what is next to them"
        )
        mask = _fill_from_neighbours(mask, np.isin(mask, odd))
    return _remove_void(mask, remarks)


def _threshold(
    path: Path, mask: Mask, values: Indices, counts: Indices, remarks: list[str]
) -> Mask:
    """Return the single object of a mask with smooth edges."""
    top = int(values.max())
    between = (values > 0.1 * top) & (values < 0.9 * top)
    marked = counts.sum()
    large = between & (counts > _SHARE_OF_OBJECT * marked)
    if any(_has_block(mask == value) for value in values[large].tolist()):
        raise InputError(
            f"{path} has {len(values)} grey levels and several objects with smooth edges, where "
            f"their indices cannot be told. {_SEPARATE}"
        )
    if counts[between].sum() > _SHARE_BETWEEN * marked:
        raise InputError(
            f"{path} has {len(values)} grey levels, most of them in small pieces: it is a picture, "
            "not a mask. Give a PNG of object indices."
        )
    level = int(values[values >= 0.9 * top][counts[values >= 0.9 * top].argmax()])
    remarks.append(
        f"{len(values)} grey levels, most of them at smooth edges, are read as one object, index "
        f"{level}, where they are at least half of {level}"
    )
    return np.where(mask >= level / 2, np.uint8(level), np.uint8(0))


def _remove_void(mask: Mask, remarks: list[str]) -> Mask:
    values, _ = _count_values(mask)
    others = values[values != _VOID]
    if _VOID not in values or not len(others):
        return mask
    if others.max() > _LARGEST_INDEX_BESIDE_VOID and not (np.diff(others) == 1).any():
        return mask
    void = mask == _VOID
    if not (cv2.dilate(void.astype(np.uint8), _BLOCK)[(mask > 0) & ~void]).any():
        return mask
    remarks.append(
        f"index 255 beside small indices is read as void, as data sets label it: its {void.sum()} "
        "pixels are background"
    )
    return np.where(void, np.uint8(0), mask)


def _count_values(mask: Mask) -> tuple[Indices, Indices]:
    """Return the values above 0, and the number of pixels of each."""
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[0] = 0
    values = np.flatnonzero(counts)
    return values, counts[values]


def _is_picture(pixels: NDArray[np.integer[Any]]) -> bool:
    """Return whether at least half of many values are nowhere a block of 3 x 3 pixels."""
    values = np.unique(pixels[pixels > 0])
    if len(values) < _MANY:
        return False
    below, above = (
        morph(pixels.astype(np.float32), _BLOCK, borderType=cv2.BORDER_REPLICATE)
        for morph in (cv2.erode, cv2.dilate)
    )
    blocks = np.unique(pixels[(below == above) & (pixels > 0)])
    return len(blocks) <= len(values) / 2


def _has_block(region: Bools) -> bool:
    return bool(cv2.erode(region.astype(np.uint8), _BLOCK).any())


def _is_odd(mask: Mask, value: int) -> bool:
    """Return whether an index has only small pieces, or is a thin ring between two others."""
    region = mask == value
    if _has_block(region):
        return False
    *_, pieces, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8))
    if pieces[1:, cv2.CC_STAT_AREA].max() < _BLOCK.size:
        return True
    lower, higher = 0, 0
    for axis in (0, 1):
        first, second = (np.take(mask, range(s, mask.shape[axis] - 1 + s), axis) for s in (0, 1))
        for own, other in ((first, second), (second, first)):
            beside = other[(own == value) & (other != value)]
            lower, higher = (
                lower + int((beside < value).sum()),
                higher + int((beside > value).sum()),
            )
    return min(lower, higher) >= 0.25 * (lower + higher)


def _fill_from_neighbours(mask: Mask, holes: Bools) -> Mask:
    """Return a mask in which each pixel of the holes has the value of the nearest other pixel."""
    _, nearest = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    values = np.zeros(int(nearest.max()) + 1, np.uint8)
    values[nearest[~holes]] = mask[~holes]
    return np.asarray(values[nearest], np.uint8)
