"""The node's parameters: what there is to set, and what each may be. Needs no ROS."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from vditrack.errors import InputError
from vditrack.inference.selection import BackendName

Value = bool | int | float | str | list[str]

_NAME = re.compile(r"([A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*)?")


@dataclass(frozen=True)
class Parameter:
    """One parameter of the node: as `ros2 param describe` shows it."""

    name: str
    default: Value
    description: str
    range: tuple[float, float] | None = None
    """Least and greatest value, both allowed."""
    live: bool = False
    """Whether it may be set while the node is configured or active."""
    choices: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The type's name in ROS."""
        return _KINDS[type(self.default)]

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.range is not None:
            low, high = self.range
            return f"{_article(self.kind)} from {low:g} to {high:g}"
        return _article(self.kind)

    def checked(self, value: Any) -> Value:  # noqa: ANN401
        """The value, a whole number as a real one where one is wanted.

        Raises:
            InputError: it is not of the parameter's type, or not allowed.

        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list) and isinstance(value, (tuple, list)):
            value = list(value)
        fits = type(value) is type(self.default)
        if fits and self.choices:
            fits = value in self.choices
        if fits and self.range is not None:
            # Written so that NaN fails too.
            fits = self.range[0] <= value <= self.range[1]
        if not fits:
            raise InputError(f"{self.name} is {value!r}; it must be {self.allowed}.")
        if self.name == "cameras":
            _check_cameras(value)
        return cast("Value", value)


_KINDS: dict[type, str] = {
    bool: "bool",
    int: "integer",
    float: "double",
    str: "string",
    list: "string array",
}


def _article(kind: str) -> str:
    return f"an {kind}" if kind == "integer" else f"a {kind}"


def _check_cameras(names: list[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise InputError(f"cameras is {names}; it must be a string array that names each once.")
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"cameras names {name!r}; it must be a string array of names of letters, digits "
                "and underscores that begin with a letter; parts may be joined by /."
            )


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        True,
        "Whether the node configures and activates itself. Read at start only.",
    ),
    Parameter("bundle", "", "Folder of the model's bundle; empty for the model that comes along."),
    Parameter(
        "backend",
        "auto",
        "What runs the model; auto takes the best that fits and proves itself here.",
        choices=get_args(BackendName),
    ),
    Parameter(
        "mode",
        "points",
        "What is followed: points, masks of objects that were marked, or both. Masks take a bundle "
        "that propagates them.",
        choices=("points", "masks", "both"),
    ),
    Parameter(
        "cameras",
        [""],
        "Names of the cameras. Topics of each are below its name; those of one without a name are "
        "not. All share one loaded model.",
    ),
    Parameter(
        "image_transport",
        "raw",
        "raw subscribes to image (sensor_msgs/Image), compressed to image/compressed "
        "(sensor_msgs/CompressedImage).",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "reliability",
        "best_effort",
        "Reliability of the subscriptions. best_effort fits every publisher; reliable fits only "
        "reliable ones, and helps where large images are lost on the way.",
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "population",
        "grid",
        "Where points are put to keep `points` of them alive: grid spreads them evenly, features "
        "puts them on corners, none leaves all to those who ask for points.",
        choices=("grid", "features", "none"),
        live=True,
    ),
    Parameter("points", 64, "How many points are kept alive.", (0, 4096), live=True),
    Parameter(
        "max_points",
        512,
        "Most points alive at a time, those asked for included; more are refused.",
        (1, 4096),
        live=True,
    ),
    Parameter(
        "lost_after",
        1.0,
        "Seconds for which a point may be invisible or outside the picture before it is given up.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "min_confidence",
        0.5,
        "Least confidence of a point in ~/features; those in ~/tracks say theirs.",
        (0.5, 1.0),
        live=True,
    ),
    Parameter(
        "max_age",
        0.5,
        "Seconds by which an image may be older than the node's clock before it is dropped; 0 "
        "takes images of any age.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "max_gap",
        2.0,
        "Seconds between the stamps of two images after which tracking starts over.",
        (0.01, 3600.0),
        live=True,
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "Seconds by which the stamps of an image and of the depth used with it may differ.",
        (0.0, 10.0),
        live=True,
    ),
    Parameter(
        "overlay",
        True,
        "Whether ~/overlay is drawn while somebody subscribes to it.",
        live=True,
    ),
    Parameter(
        "warn_latency",
        0.1,
        "Seconds from an image's stamp to its points or masks, at the 95th percentile, that "
        "/diagnostics warns of.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "error_latency",
        0.5,
        "The same, for an error.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "warn_dropped",
        0.1,
        "Share of images dropped or missed that /diagnostics warns of.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "stale_after",
        1.0,
        "Seconds without an image that /diagnostics calls an error.",
        (0.1, 3600.0),
        live=True,
    ),
)


@dataclass(frozen=True)
class Settings:
    """Values of all parameters, checked; their meaning is in `PARAMETERS`."""

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
    min_confidence: float
    max_age: float
    max_gap: float
    depth_tolerance: float
    overlay: bool
    warn_latency: float
    error_latency: float
    warn_dropped: float
    stale_after: float


def checked_settings(values: Mapping[str, Any]) -> Settings:
    """Settings of a value for each parameter.

    Raises:
        InputError: a value is of a wrong type or not allowed, or values do not fit each other.

    """
    checked = {
        parameter.name: parameter.checked(values[parameter.name]) for parameter in PARAMETERS
    }
    cameras = tuple(cast("list[str]", checked.pop("cameras")))
    settings = Settings(cameras=cameras, **cast("dict[str, Any]", checked))
    if settings.points > settings.max_points:
        raise InputError(
            f"points is {settings.points}, more than max_points, {settings.max_points}. Raise "
            "max_points first, or keep fewer points."
        )
    if settings.warn_latency > settings.error_latency:
        raise InputError(
            f"warn_latency is {settings.warn_latency:g}, more than error_latency, "
            f"{settings.error_latency:g}. A warning comes before an error."
        )
    return settings
