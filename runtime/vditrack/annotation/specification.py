"""The specification of a job: which points to track in each recording, and how to write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vditrack.errors import InputError
from vditrack.input_checks.files import (
    MAX_TOML_SIZE,
    MalformedError,
    decode_toml,
    read_file,
)

Coordinates = Literal["pixels", "normalized"]
"""Unit of positions: pixels of the frame, or shares of its width and height, 0 to 1."""
MAX_GRID = 100
MAX_POINTS = 100_000
_PLACES = ("{stem}", "{topic}", "{episode}")
"""What stands for names of a recording in the path of its mask."""
_CHOICES = ("grid", "features", "random", "queries")
"""Fields that say which points are tracked; exactly one of them is set."""


class Specification(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which points to track in each recording, and how to write them."""

    grid: Annotated[int, msgspec.Meta(ge=1, le=MAX_GRID)] | None = None
    """A grid of N x N points on the first frame."""
    features: Annotated[int, msgspec.Meta(ge=1, le=MAX_POINTS)] | None = None
    """About this number of corners (Shi and Tomasi, 1994) at a time, from the first frame on."""
    corner_quality: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.01
    """Minimum quality of a corner, as a share of the best corner's; OpenCV's own example."""
    renew: bool = True
    """Whether corners are replaced as they are lost, or are those of the first frame alone."""
    lost_after: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Seconds for which a corner that is renewed may stay invisible before it ends; as in the ROS
    node."""
    refill_interval: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    """Minimum number of seconds between two searches for new corners; as in the ROS node."""
    random: Annotated[int, msgspec.Meta(ge=1, le=MAX_POINTS)] | None = None
    """This number of random points, each at a random frame, tracked forward and backward."""
    queries: (
        Annotated[tuple[tuple[float, float, float], ...], msgspec.Meta(min_length=1)] | None
    ) = None
    """Points (t, x, y): a frame number and a position in units of ``coordinates``."""
    mask: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """A PNG of object numbers: points are put on its objects. The path begins at the folder of the
    recording; ``{stem}`` is its name, ``{topic}`` that of the topic or camera with _ in place of
    /, ``{episode}`` the number of an episode."""
    boxes: (
        Annotated[
            tuple[tuple[float, float, float, float], ...],
            msgspec.Meta(min_length=1, max_length=255),
        ]
        | None
    ) = None
    """Boxes (x0, y0, x1, y1) in units of ``coordinates``: points are put in these, as on objects
    that are numbered from 1."""
    mask_frame: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the frame of the mask, or of the boxes."""
    masks: bool = False
    """Whether the mask is also propagated, and the masks of all frames after it are written."""
    depth: bool = False
    """Whether results have positions in metres where a bag has depth that is aligned to images."""
    depth_topic: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """Topic of the depth; by default the one in the coordinate frame of the images."""
    depth_tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    """Maximum difference of the stamps of an image and of its depth, in seconds; as in the ROS
    node."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Another seed gives other random points; it is combined with the id of the recording."""
    min_spread: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Points are written only if their positions spread at least so far (`measure_spread`)."""
    coordinates: Coordinates = "pixels"
    """Unit of positions, in ``queries`` and in the results."""
    pad_to: Annotated[int, msgspec.Meta(ge=1, le=MAX_POINTS)] | None = None
    """Number of points of every result: missing ones are empty, those that move least are left
    out."""

    @property
    def renews(self) -> bool:
        """Whether points live for a part of a recording, and others replace them."""
        return self.features is not None and self.renew and not self.has_objects

    @property
    def has_objects(self) -> bool:
        """Whether points are put on objects."""
        return self.mask is not None or self.boxes is not None

    @property
    def wants_depth(self) -> bool:
        """Whether results have positions in metres where they are known."""
        return self.depth or self.depth_topic is not None

    @property
    def is_rectangular(self) -> bool:
        """Whether results have all points in all frames."""
        return self.pad_to is not None or not self.renews


def read_specification(path: Path) -> Specification:
    """Read a specification from a TOML file.

    Raises:
        InputError: The file cannot be read, is not TOML, or has other fields or values.

    """
    try:
        return decode_toml(read_file(path, MAX_TOML_SIZE), Specification)
    except OSError as error:
        raise InputError(f"--spec {path} cannot be read: {error.strerror}.") from error
    except MalformedError as error:
        raise InputError(f"--spec {path} is not a specification: {error}.") from error


def override_fields(specification: Specification, fields: Mapping[str, object]) -> Specification:
    """Return a specification with other fields; a new choice of points replaces the former.

    Args:
        specification: The specification.
        fields: Values by the names of their fields; those that are None are not given.

    Raises:
        InputError: A value is not valid, or not exactly one choice of points is left.

    """
    given = {name: value for name, value in fields.items() if value is not None}
    base = msgspec.structs.asdict(specification)
    if any(name in given for name in _CHOICES):
        base |= dict.fromkeys(_CHOICES)
    try:
        changed = msgspec.convert(base | given, Specification)
    except msgspec.ValidationError as error:
        raise InputError(f"the specification is not valid: {error}.") from error
    if sum(getattr(changed, name) is not None for name in _CHOICES) != 1:
        raise InputError(
            "say which points to track: give exactly one of --grid N, --features N, --random N, "
            "--points FILE and --at t,x,y, or one of grid, features, random and queries in the "
            "file of --spec."
        )
    _check_objects(changed)
    return changed


def _check_objects(specification: Specification) -> None:
    """Check that what is said of objects fits together."""
    if specification.mask is not None and specification.boxes is not None:
        raise InputError("give one of mask and boxes (--mask FILE, --box x0,y0,x1,y1).")
    if specification.has_objects and specification.queries is not None:
        raise InputError(
            "points that are given (queries, --points, --at) are put on no mask or box. Give a "
            "grid, features or random points."
        )
    if specification.masks and specification.mask is None:
        raise InputError("masks are propagated from a mask. Give one (mask, --mask FILE).")
    if specification.mask_frame and not specification.has_objects:
        raise InputError("mask_frame is the frame of a mask or of boxes. Give these.")
    unknown = set(re.findall(r"{.*?}", specification.mask or "")) - set(_PLACES)
    if unknown:
        raise InputError(
            f"the name of the mask has {unknown.pop()}. It may have {', '.join(_PLACES)}."
        )
