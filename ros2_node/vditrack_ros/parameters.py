"""The node's parameters: names, types, limits and descriptions. Needs no ROS."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from vditrack.errors import InputError
from vditrack.inference.selection import BackendName

Value = bool | int | float | str | list[str]

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
        if isinstance(self.default, list) and isinstance(value, (tuple, list)):
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
        return cast("Value", value)


_ROS_TYPES: dict[type, str] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
    list: "string array",
}


def _with_article(ros_type: str) -> str:
    return f"an {ros_type}" if ros_type == "integer" else f"a {ros_type}"


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


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        True,
        "Whether the node configures and activates itself at start. Read at start only.",
    ),
    Parameter("bundle", "", "Folder of the model's bundle; empty for the bundled model."),
    Parameter(
        "backend",
        "auto",
        "Backend that runs the model; auto selects the fastest one that works on this machine.",
        choices=get_args(BackendName),
    ),
    Parameter(
        "mode",
        "points",
        "What is tracked: points, masks of objects, or both. Masks need a bundle that propagates "
        "masks.",
        choices=("points", "masks", "both"),
    ),
    Parameter(
        "cameras",
        [""],
        "Names of the cameras. A name is the prefix of the camera's topics; an empty name adds no "
        "prefix. All cameras share one loaded model.",
    ),
    Parameter(
        "image_transport",
        "raw",
        "Transport of the images: raw subscribes to image (sensor_msgs/Image), compressed to "
        "image/compressed (sensor_msgs/CompressedImage).",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "reliability",
        "best_effort",
        "Reliability of the camera subscriptions. best_effort connects to every publisher. "
        "reliable connects to reliable publishers only, and helps if large images are lost.",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "population",
        "grid",
        "How points are added to keep `points` of them alive: grid spaces them evenly, features "
        "places them on corners, none adds requested points only.",
        choices=("grid", "features", "none"),
        live=True,
    ),
    Parameter(
        "points",
        64,
        "Number of points to keep alive, in addition to requested points.",
        (0, 4096),
        live=True,
    ),
    Parameter(
        "max_points",
        512,
        "Maximum number of points alive, including requested points; more are refused.",
        (1, 4096),
        live=True,
    ),
    Parameter(
        "lost_after",
        1.0,
        "Seconds for which a point may stay invisible before it is removed. A point outside the "
        "image is removed at once, a requested point never.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "refill_interval",
        0.2,
        "Minimum number of seconds between two searches for new points.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "corner_quality",
        0.01,
        "With population features: minimum quality of a corner, as a share of the best corner's.",
        (0.0001, 1.0),
        live=True,
    ),
    Parameter(
        "min_confidence",
        0.5,
        "Minimum confidence of a point in ~/features. ~/tracks has all points and their "
        "confidence.",
        (0.5, 1.0),
        live=True,
    ),
    Parameter(
        "max_age",
        0.5,
        "Maximum age of an image in seconds, by the node's clock; an older image is dropped. 0 "
        "accepts any age.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "max_gap",
        2.0,
        "Maximum number of seconds between the stamps of two images; a longer gap resets tracking.",
        (0.01, 3600.0),
        live=True,
    ),
    Parameter(
        "max_lateness",
        0.1,
        "Seconds by which the stamp of an image may be before that of its predecessor; such an "
        "image is dropped. If it is earlier still, the clock was set back, and tracking is reset.",
        (0.0, 10.0),
        live=True,
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "Maximum difference between the stamps of an image and its depth image, in seconds.",
        (0.0, 10.0),
        live=True,
    ),
    Parameter(
        "overlay",
        True,
        "Whether ~/overlay is drawn while it has subscribers.",
        live=True,
    ),
    Parameter(
        "warn_latency",
        0.1,
        "Latency in seconds above which /diagnostics warns. It is measured from an image's stamp "
        "to its result, as the 95th percentile.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "error_latency",
        0.5,
        "Latency in seconds above which /diagnostics reports an error; measured in the same way.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "warn_dropped",
        0.1,
        "Share of dropped and lost images above which /diagnostics warns.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "stale_after",
        1.0,
        "Seconds without an image after which /diagnostics reports an error.",
        (0.1, 3600.0),
        live=True,
    ),
)


@dataclass(frozen=True)
class Settings:
    """Checked values of all parameters; `PARAMETERS` describes them."""

    autostart: bool
    bundle: str
    backend: str
    mode: str
    cameras: tuple[str, ...]
    image_transport: str
    reliability: str
    population: str
    points: int
    max_points: int
    lost_after: float
    refill_interval: float
    corner_quality: float
    min_confidence: float
    max_age: float
    max_gap: float
    max_lateness: float
    depth_tolerance: float
    overlay: bool
    warn_latency: float
    error_latency: float
    warn_dropped: float
    stale_after: float


def build_settings(values: Mapping[str, Any]) -> Settings:
    """Validate a value for each parameter and return them as settings.

    Args:
        values: by parameter name.

    Raises:
        InputError: a value has a wrong type or is not allowed, or values contradict each other.

    """
    checked = {
        parameter.name: parameter.validate(values[parameter.name]) for parameter in PARAMETERS
    }
    cameras = tuple(cast("list[str]", checked.pop("cameras")))
    settings = Settings(cameras=cameras, **cast("dict[str, Any]", checked))
    if settings.points > settings.max_points:
        raise InputError(
            f"points is {settings.points}, more than max_points, {settings.max_points}. Raise "
            "max_points first, or lower points."
        )
    if settings.warn_latency > settings.error_latency:
        raise InputError(
            f"warn_latency is {settings.warn_latency:g}, more than error_latency, "
            f"{settings.error_latency:g}. Raise error_latency first, or lower warn_latency."
        )
    return settings
