"""Masks of objects from boxes around them, for example those of a detector."""

import cv2
import numpy as np

from vditrack.arrays import Bools, Doubles, Frame, Ints, Mask
from vditrack.bundle.configuration import BoxOutlines
from vditrack.errors import InputError


def check_boxes(boxes: Doubles, size: tuple[int, int]) -> None:
    """Check that boxes [N, 4] (x0, y0, x1, y1) are finite, ordered, and meet the frame.

    Args:
        boxes: in pixels of the frame; (0, 0) is the upper-left corner of the upper-left pixel.
        size: (height, width) of the frame.

    Raises:
        InputError: A box is none, or has no pixel in the frame.

    """
    for number, box in enumerate(boxes):
        if (fault := find_box_fault(box, size)) is not None:
            raise InputError(f"box {number} {fault}")


def find_box_fault(box: Doubles, size: tuple[int, int]) -> str | None:
    """Return what is wrong with a box [4] (x0, y0, x1, y1) on a frame of a size; None if nothing.

    Args:
        box: in pixels.
        size: (height, width) of the frame.

    """
    x0, y0, x1, y1 = box.tolist()
    shown = f"({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    # Written so that NaN fails too.
    if not (np.isfinite(box).all() and x0 < x1 and y0 < y1):
        return f"{shown} is no box: x0 must be below x1, and y0 below y1."
    height, width = size
    left, top, right, bottom = _pixel_bounds(box, size)
    if left >= right or top >= bottom:
        return f"{shown} has no pixel in the image of {width} x {height}."
    return None


def segment_boxes(
    frame: Frame, size: tuple[int, int], boxes: Doubles, indices: Ints, settings: BoxOutlines
) -> Mask:
    """Return a mask of the objects in boxes, uint8 [H, W].

    The outline of each object is found by GrabCut within its box; where that finds almost nothing,
    or fills almost the whole box, the object is the box. Where boxes overlap, the smaller is in
    front.

    Args:
        frame: the frame, or the frame at a smaller size, uint8 [h, w, 3] RGB.
        size: (H, W), height and width of the frame in pixels.
        boxes: float64 [N, 4] (x0, y0, x1, y1) in pixels of the frame, checked.
        indices: [N] index of the object of each box.
        settings: of the search for outlines.

    """
    height, width = size
    mask = np.zeros(size, np.uint8)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    scale = np.array([frame.shape[1] / width, frame.shape[0] / height] * 2)
    for number in np.argsort(-areas, kind="stable"):
        left, top, right, bottom = _pixel_bounds(boxes[number], size)
        outline = _find_outline(frame, boxes[number] * scale, settings).astype(np.uint8)
        shape = cv2.resize(outline, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        inside = shape[top:bottom, left:right]
        if not inside.any():
            inside = np.ones_like(inside)
        mask[top:bottom, left:right][inside] = indices[number]
    return mask


def fill_boxes(boxes: Doubles, size: tuple[int, int]) -> Mask:
    """Return a mask uint8 [H, W] of whole boxes, numbered from 1; the smaller ones are in front.

    Args:
        boxes: float64 [N, 4] (x0, y0, x1, y1) in pixels, checked; at most 255.
        size: (H, W).

    """
    mask = np.zeros(size, np.uint8)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for number in np.argsort(-areas, kind="stable"):
        left, top, right, bottom = _pixel_bounds(boxes[number], size)
        mask[top:bottom, left:right] = number + 1
    return mask


def _pixel_bounds(box: Doubles, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the pixels of a frame whose centres are in a box."""
    height, width = size
    x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height])
    left, top = int(np.ceil(x0 - 0.5)), int(np.ceil(y0 - 0.5))
    return left, top, int(np.ceil(x1 - 0.5)), int(np.ceil(y1 - 0.5))


def _find_outline(frame: Frame, box: Doubles, settings: BoxOutlines) -> Bools:
    """Return the pixels of an object, bool [h, w], from a box in pixels of the frame."""
    height, width = frame.shape[:2]
    left, top, right, bottom = _pixel_bounds(box, (height, width))
    whole = np.zeros((height, width), np.bool_)
    whole[top:bottom, left:right] = True
    if min(right - left, bottom - top) < settings.min_side:
        return whole
    margin = settings.margin * max(right - left, bottom - top)
    rows = slice(max(0, int(top - margin)), int(bottom + margin) + 1)
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    crop, inside = np.ascontiguousarray(frame[rows, columns, ::-1]), whole[rows, columns]
    if inside.all():
        return whole
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    # GrabCut draws the initial colour models at random.
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(crop, labels, (0, 0, 1, 1), *models, settings.rounds, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_PR_FGD) & inside
    if found.sum() < settings.min_share * inside.sum():
        return whole
    outline = np.zeros_like(whole)
    outline[rows, columns] = found
    return outline
