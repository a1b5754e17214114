"""Checked values of the node's parameters. Needs no ROS."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from vditrack.errors import InputError
from vditrack_ros.parameters.table import PARAMETERS

Region = tuple[float, float, float, float]
"""x, y, width and height: in pixels, or in shares of the image if none is above 1."""


@dataclass(frozen=True)
class Settings:
    """Checked values of all parameters; `vditrack_ros.parameters.table` describes them."""

    autostart: bool
    bond: bool
    bundle: str
    require_signature: str
    allow_host_code: bool
    backend: str
    device: int
    threads: int
    mode: str
    cameras: tuple[str, ...]
    image_transport: str
    reliability: str
    population: str
    region: Region
    points: int
    max_points: int
    lost_after: float
    refill_interval: float
    corner_quality: float
    min_confidence: float
    features_layout: str
    features_rate: float
    features_outlier_distance: float
    features_max_jump: float
    max_rate: float
    masks_rate: float
    max_age: float
    max_gap: float
    max_lateness: float
    depth: str
    depth_transport: str
    depth_tolerance: float
    depth_wait: float
    target_frame: str
    transform_wait: float
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
    x, y, width, height = cast("list[float]", checked.pop("region"))
    settings = Settings(
        cameras=cameras, region=(x, y, width, height), **cast("dict[str, Any]", checked)
    )
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
