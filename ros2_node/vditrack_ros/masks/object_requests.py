"""Requests on `~/add_objects`: masks and boxes of objects, and the indices that objects get.

Needs no ROS.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vditrack.arrays import Mask
from vditrack.errors import InputError
from vditrack.masks.boxes import find_box_fault
from vditrack_ros.masks.requests import (
    Box,
    MaskRequest,
    MaskRequestError,
    check_indices,
    check_request_size,
    decode_mask,
)

_SERVICE = "~/add_objects"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_INDEX = 255
_NUMBERS_OF_A_BOX = 4


class ObjectIndices:
    """The indices of the objects of a camera, and of those that were requested."""

    def __init__(self) -> None:
        """Start without objects."""
        self._used: set[int] = set()
        self._last = 0

    def __contains__(self, index: int) -> bool:
        return index in self._used

    def clear(self) -> None:
        """Forget all objects."""
        self._used.clear()

    def reserve(self, indices: Iterable[int]) -> None:
        """Take note of the indices of objects."""
        self._used.update(indices)

    def release(self, index: int) -> None:
        """Forget an object."""
        self._used.discard(index)

    def find_free(self, taken: Iterable[int] = ()) -> int:
        """Return a free index, the one that was free for longest; 0 if there is none.

        Args:
            taken: further indices that are not free.

        """
        used = {*self._used, *taken}
        candidates = ((self._last + n) % _MAX_INDEX + 1 for n in range(_MAX_INDEX))
        free = next((index for index in candidates if index not in used), 0)
        self._last = free or self._last
        return free


@dataclass(frozen=True)
class ObjectsRequest:
    """A request of `~/add_objects`."""

    stamp: int
    """Stamp of the image in nanoseconds; 0 for the newest image."""
    mask: Mask | None
    """Object indices, uint8 [H, W]; None if boxes alone are given."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """(x0, y0, x1, y1) of each box in pixels of the image."""
    box_ids: tuple[int, ...]
    """Index of the object of each box; 0 for a new object."""

    @property
    def mask_indices(self) -> list[int]:
        """Indices of the objects in the mask, ascending."""
        return [] if self.mask is None else np.unique(self.mask[self.mask > 0]).tolist()

    def refuse(self, error: MaskRequestError) -> "CheckedObjects":
        """Return the request with all its objects refused for the same reason."""
        count = len(self.mask_indices) + len(self.boxes)
        return CheckedObjects(None, [0] * count, [str(error)] * count, [error])


@dataclass(frozen=True)
class CheckedObjects:
    """A checked request: what of it is carried out, and why the rest is refused."""

    accepted: MaskRequest | None
    """What is carried out; None if nothing is."""
    ids: list[int]
    """Index of each object, 0 if it is refused: those of the mask, then those of the boxes."""
    reasons: list[str]
    """Why each object is refused; empty if it is not."""
    errors: list[MaskRequestError]
    """The reasons, each once."""


def read_objects(fields: Mapping[str, Any]) -> ObjectsRequest:
    """Return a request of the values of its fields.

    Args:
        fields: `stamp` in nanoseconds, `mask` as sensor_msgs/Image or as bytes of a PNG, `boxes`
            and `box_ids`; a field that is left out is empty.

    Raises:
        InputError: the mask cannot be read, the boxes are not four numbers each, there is not one
            index for each box, or the request has neither.

    """
    mask = _read_mask(fields.get("mask", b""))
    numbers = [float(number) for number in fields.get("boxes", ())]
    if len(numbers) % _NUMBERS_OF_A_BOX:
        raise InputError(
            f"~/add_objects has {len(numbers)} numbers as boxes. Give x0, y0, x1, y1 of each."
        )
    boxes = np.reshape(numbers, (-1, _NUMBERS_OF_A_BOX)).tolist()
    ids = [int(number) for number in fields.get("box_ids", ())] or [0] * len(boxes)
    if len(ids) != len(boxes):
        raise InputError(
            f"~/add_objects has {len(boxes)} boxes and {len(ids)} box_ids. Give one index for each "
            "box, 0 for a new object, or none at all."
        )
    if mask is None and not boxes:
        raise InputError("~/add_objects has neither a mask nor boxes.")
    corners = tuple((x0, y0, x1, y1) for x0, y0, x1, y1 in boxes)
    return ObjectsRequest(int(fields.get("stamp", 0)), mask, corners, tuple(ids))


def check_objects(
    request: ObjectsRequest, size: tuple[int, int] | None, known: ObjectIndices
) -> CheckedObjects:
    """Check each object of a request, and give indices to new objects.

    Args:
        request: a request.
        size: (height, width) of its image; None if that is to come.
        known: the indices in use.

    """
    errors: list[MaskRequestError] = []
    mask, ids, reasons = request.mask, list[int](), list[str]()
    if mask is not None:
        in_mask = request.mask_indices
        fault = None if size is None else _find_size_fault(mask, size)
        ids, reasons = [0 if fault else index for index in in_mask], [fault or ""] * len(in_mask)
        if fault:
            errors.append(MaskRequestError("size", fault))
            mask = None
    boxes: list[Box] = []
    given = [index for index in request.box_ids if index]
    for corners, wanted in zip(request.boxes, request.box_ids, strict=True):
        fault, reason = _find_box_fault(corners, size), "boxes"
        index = wanted or (0 if fault else known.find_free([*given, *ids]))
        if fault is None:
            fault, reason = _find_index_fault(index, wanted, ids), "indices"
        ids.append(0 if fault else index)
        reasons.append(fault or "")
        if fault:
            errors.append(MaskRequestError(reason, fault))
        else:
            boxes.append(Box(corners, index))
    accepted = None
    if mask is not None or boxes:
        accepted = MaskRequest(request.stamp, mask, tuple(boxes), topic=_SERVICE)
    return CheckedObjects(accepted, ids, reasons, errors)


def _find_size_fault(mask: Mask, size: tuple[int, int]) -> str | None:
    try:
        check_request_size(mask, size, _SERVICE)
    except MaskRequestError as error:
        return str(error)
    return None


def _find_box_fault(corners: Sequence[float], size: tuple[int, int] | None) -> str | None:
    if size is None:
        # Its image is to come; the box must be one on some image.
        size = (1 << 24, 1 << 24)
    fault = find_box_fault(np.array(corners, np.float64), size)
    return None if fault is None else f"The box {fault}"


def _find_index_fault(index: int, wanted: int, taken: Sequence[int]) -> str | None:
    if not 0 <= wanted <= _MAX_INDEX:
        return f"{wanted} is no index of an object; give 0 for a new object, or 1 to {_MAX_INDEX}."
    if not index:
        return f"All {_MAX_INDEX} indices are in use. Remove objects by ~/remove."
    if index in taken:
        return f"The request has object {index} twice."
    return None


def _read_mask(mask: Any) -> Mask | None:  # noqa: ANN401
    if isinstance(mask, (bytes, list)):
        if not mask:
            return None
        data, decoded = bytes(mask), None
        # OpenCV prints a warning about what it cannot read.
        if data.startswith(_PNG_SIGNATURE):
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if decoded is None or decoded.ndim != 2 or decoded.dtype not in (np.uint8, np.uint16):
            raise MaskRequestError(
                "encoding",
                "~/add_objects: the mask is no PNG with one channel of 8 or 16 bits.",
            )
        return check_indices(decoded, _SERVICE)
    return decode_mask(mask, _SERVICE) if mask.height and mask.width else None
