"""Definition of a parameter of the node. Needs no ROS."""

import re
from array import array
from dataclasses import dataclass
from math import isfinite
from typing import Any, cast

from vditrack.errors import InputError

Value = bool | int | float | str | list[str] | list[float]

_ROUNDING = 1e-6
"""By how much the shares of a region may exceed the image."""
_CAMERA_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*)?")


@dataclass(frozen=True)
class Parameter:
    """A parameter of the node, as `ros2 param describe` shows it."""

    name: str
    default: Value
    description: str
    range: tuple[float, float] | None = None
    """Minimum and maximum, both allowed."""
    live: bool = False
    """Whether it may be set while the node is configured or active."""
    choices: tuple[str, ...] = ()

    @property
    def ros_type(self) -> str:
        """Name of the parameter's type in ROS."""
        if isinstance(self.default, list):
            return f"{_ROS_TYPES[type(self.default[0])]} array"
        return _ROS_TYPES[type(self.default)]

    @property
    def allowed(self) -> str:
        """The allowed values in words, for error messages."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.range is not None:
            low, high = self.range
            return f"{_with_article(self.ros_type)} from {low:g} to {high:g}"
        return _with_article(self.ros_type)

    def validate(self, value: Any) -> Value:  # noqa: ANN401
        """Return a value in the parameter's type; an integer is accepted for a double.

        Args:
            value: as ROS gives it.

        Raises:
            InputError: the value has another type or is not allowed.

        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list) and isinstance(value, (tuple, list, array)):
            value = list(value)
        allowed = type(value) is type(self.default)
        if allowed and self.choices:
            allowed = value in self.choices
        if allowed and self.range is not None:
            # NaN fails this comparison.
            allowed = self.range[0] <= value <= self.range[1]
        if not allowed:
            raise InputError(f"{self.name} is {value!r}; it must be {self.allowed}.")
        if self.name == "cameras":
            _check_camera_names(value)
        if self.name == "region":
            value = _check_region(value)
        return cast("Value", value)


_ROS_TYPES: dict[type, str] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
}


def _with_article(ros_type: str) -> str:
    return f"an {ros_type}" if ros_type == "integer" else f"a {ros_type}"


def _check_region(region: list[Any]) -> list[float]:
    """Return the numbers of a region of interest."""
    if len(region) == 4 and all(type(part) in (int, float) for part in region):
        x, y, width, height = (float(part) for part in region)
        in_pixels = max(x, y, width, height) > 1
        fits = in_pixels or max(x + width, y + height) <= 1 + _ROUNDING
        if isfinite(sum(region)) and min(x, y) >= 0 and min(width, height) > 0 and fits:
            return [x, y, width, height]
    raise InputError(
        f"region is {region}; it must be a double array of x, y, width and height: in pixels, or, "
        "if none is above 1, in shares of the image, with x + width and y + height at most 1."
    )


def _check_camera_names(names: list[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"cameras is {names}; it must be a string array of at least one name, without "
            "repetitions."
        )
    for name in names:
        if not isinstance(name, str) or not _CAMERA_NAME.fullmatch(name):
            raise InputError(
                f"cameras has the name {name!r}; it must be a string array of names of letters, "
                "digits and underscores that begin with a letter; / may join several of them."
            )
