"""Between pixels of a camera's image and points in its optical frame.

Pixels follow the project's raster convention: (0, 0) is the upper-left corner of the upper-left
pixel. Calibrations, as OpenCV, count from that pixel's centre: half a pixel further in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats
from vditrack.coordinates import cells_from_pixels, pixel_indices, pixels_from_cells
from vditrack.errors import InputError

Doubles = NDArray[np.float64]

_COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14), "equidistant": (4,)}
"""Numbers of coefficients that each distortion model of sensor_msgs/CameraInfo may have."""
_CONVERGED = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-6)
_MISMATCH = 0.1
"""Pixels by which a ray may miss its pixel: far more where the distortion cannot be undone."""


class Region(Protocol):
    """Has the fields of sensor_msgs/RegionOfInterest that matter here."""

    @property
    def x_offset(self) -> int: ...
    @property
    def y_offset(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...


class CameraInfoMessage(Protocol):
    """Has the fields of sensor_msgs/CameraInfo that matter here."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def distortion_model(self) -> str: ...
    @property
    def d(self) -> Sequence[float] | NDArray[Any]: ...
    @property
    def k(self) -> Sequence[float] | NDArray[Any]: ...
    @property
    def binning_x(self) -> int: ...
    @property
    def binning_y(self) -> int: ...
    @property
    def roi(self) -> Region: ...


@dataclass(frozen=True)
class Camera:
    """A calibrated camera, as sensor_msgs/CameraInfo describes the image beside it.

    The optical frame has x to the right, y down and z forward (REP 103).
    """

    matrix: Doubles
    """[3, 3] intrinsics of the image as published, binning and region of interest applied."""
    distortion: Doubles
    """[K] coefficients; zeros of a model without distortion."""
    fisheye: bool
    """Whether the model is equidistant; else it is plumb_bob or rational_polynomial."""
    size: tuple[int, int] | None
    """(height, width) of the image as published; None where the message does not say."""

    @classmethod
    def from_info(cls, info: CameraInfoMessage) -> Camera | None:
        """Read a sensor_msgs/CameraInfo; None where it says that the camera is not calibrated.

        Raises:
            InputError: the distortion model is unknown, or its coefficients are not as many as it
                has.

        """
        matrix = np.array(info.k, np.float64).reshape(3, 3)
        if matrix[0, 0] == 0:
            return None
        distortion = np.array(info.d, np.float64)
        model = info.distortion_model
        if not distortion.any():
            distortion = np.zeros(4)
        elif len(distortion) not in _COEFFICIENTS.get(model, ()):
            raise InputError(
                f"camera_info has distortion model {model!r} with {len(distortion)} coefficients; "
                "known are plumb_bob (4 or 5), rational_polynomial (8, 12 or 14) and equidistant "
                "(4). Calibrate with one of these."
            )
        return cls(
            matrix=_published(matrix, info),
            distortion=distortion,
            fisheye=model == "equidistant",
            size=_published_size(info),
        )

    def rays(self, points: Floats) -> Floats:
        """Where pixels [N, 2] lie on the plane z = 1 [N, 2], the lens's distortion undone.

        NaN for a pixel that the lens, by its calibration, shows nothing in.
        """
        if not len(points):
            return np.zeros((0, 2), np.float32)
        centred = cells_from_pixels(np.asarray(points, np.float64), 1)[:, None]
        if self.fisheye:
            straight = cv2.fisheye.undistortPoints(centred, self.matrix, self.distortion)
        else:
            ideal = cv2.undistortImagePoints(
                centred, self.matrix, self.distortion, None, _CONVERGED
            )
            straight = (ideal - self.matrix[:2, 2]) / self.matrix[[0, 1], [0, 1]]
        rays = np.asarray(straight[:, 0], np.float64)
        forth = self.pixels(np.column_stack([rays, np.ones(len(rays))]))
        # Written so that NaN fails too.
        fits = np.linalg.norm(forth - points, axis=1) < _MISMATCH
        return np.where(fits[:, None], rays, np.nan).astype(np.float32)

    def pixels(self, xyz: NDArray[np.floating[Any]]) -> Floats:
        """Project points [N, 3] of the optical frame to pixels [N, 2]; NaN behind the camera."""
        if not len(xyz):
            return np.zeros((0, 2), np.float32)
        before = xyz[:, 2] > 0
        places = np.where(before[:, None], xyz, np.nan).astype(np.float64)[:, None]
        project = cv2.fisheye.projectPoints if self.fisheye else cv2.projectPoints
        still = np.zeros(3)
        centred = project(places, still, still, self.matrix, self.distortion)[0]
        return np.asarray(pixels_from_cells(centred[:, 0], 1), np.float32)


def place(points: Floats, camera: Camera | None, depth: Floats | None) -> Floats:
    """Place pixels [N, 2] in the camera's optical frame [N, 3].

    Args:
        points: (x, y) in pixels of the image.
        camera: its calibration; without one nothing is known, and all is NaN.
        depth: [H, W] metres along z, NaN where unknown, of the image's size and aligned to it;
            without it points are placed on the plane z = 1.

    Returns:
        float32 [N, 3], metric where depth is given; NaN where the depth is unknown.

    """
    if camera is None:
        return np.full((len(points), 3), np.nan, np.float32)
    rays = camera.rays(points)
    z = np.ones(len(points), np.float32) if depth is None else _sampled(depth, points)
    return np.column_stack([rays * z[:, None], z]).astype(np.float32)


def _published(matrix: Doubles, info: CameraInfoMessage) -> Doubles:
    """Intrinsics of the image as published: a region of the sensor, with its pixels binned."""
    binning = np.maximum([info.binning_x, info.binning_y], 1)
    offset = np.array([info.roi.x_offset, info.roi.y_offset])
    published = matrix.copy()
    centre = pixels_from_cells(matrix[:2, 2], 1)
    published[:2, 2] = cells_from_pixels((centre - offset) / binning, 1)
    published[:2, :2] /= binning[:, None]
    return published


def _published_size(info: CameraInfoMessage) -> tuple[int, int] | None:
    """Size of the region of interest, or of the sensor, with its pixels binned."""
    region = info.roi if info.roi.height and info.roi.width else info
    if not region.height or not region.width:
        return None
    return region.height // max(1, info.binning_y), region.width // max(1, info.binning_x)


def _sampled(depth: Floats, points: Floats) -> Floats:
    """Depths [N] of the pixels in which points [N, 2] lie: between two, there may be nothing."""
    height, width = depth.shape
    size = np.array([width, height], np.float32)
    inside = np.all((points >= 0) & (points < size), axis=1)
    columns, rows = pixel_indices(np.where(inside[:, None], points, 0)).T
    return np.where(inside, depth[rows, columns], np.nan).astype(np.float32)
