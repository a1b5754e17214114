"""Conversion between pixels of a camera's image and points in its optical frame.

Pixels follow the project's raster convention: (0, 0) is the upper-left corner of the upper-left
pixel. Calibrations and OpenCV place (0, 0) at the centre of that pixel, half a pixel further in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles, Floats
from vditrack.coordinates import cells_from_pixels, pixels_from_cells
from vditrack.errors import InputError

_POLYNOMIAL_MODELS = frozenset({"plumb_bob", "rational_polynomial", "thin_prism", "radtan"})
"""Names of the models whose coefficients have OpenCV's order: k1 k2 p1 p2 [k3 [k4 k5 k6 [s1 s2 s3
s4 [tx ty]]]]. Drivers use any of the names with any number of coefficients."""
_POLYNOMIAL_COUNTS = (4, 5, 8, 12, 14)
_FISHEYE_MODELS = frozenset({"equidistant", "fisheye", "kannala_brandt"})
"""Names of the model with coefficients k1 k2 k3 k4 of the angle of incidence."""
_FISHEYE_COUNT = 4
_PINHOLE_MODELS = _POLYNOMIAL_MODELS | {"", "none", "pinhole", "perspective", "rectilinear"}
"""Names of the models that are a pinhole camera if all coefficients are zero or missing."""
_UNDISTORTION_CRITERIA = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-6)
_MAX_REPROJECTION_ERROR = 0.1
"""Pixels by which a ray may miss its pixel. Where the distortion has no inverse it misses by far
more."""


class RegionMessage(Protocol):
    """The fields of sensor_msgs/RegionOfInterest that are read here."""

    x_offset: int
    y_offset: int
    height: int
    width: int


class CameraInfoMessage(Protocol):
    """The fields of sensor_msgs/CameraInfo that are read here."""

    height: int
    width: int
    distortion_model: str
    d: Sequence[float] | NDArray[Any]
    k: Sequence[float] | NDArray[Any]
    binning_x: int
    binning_y: int
    roi: RegionMessage


@dataclass(frozen=True)
class Camera:
    """A calibrated camera, as sensor_msgs/CameraInfo describes it.

    The optical frame has x to the right, y down and z forward (REP 103).
    """

    matrix: Doubles
    """Intrinsics [3, 3] of the published image, with binning and region of interest applied."""
    distortion: Doubles
    """Distortion coefficients [K]; zeros for a lens without distortion."""
    fisheye: bool
    """Whether the model is equidistant; otherwise it is a polynomial in OpenCV's order."""
    size: tuple[int, int] | None
    """(height, width) of the published image; None if the message does not give it."""

    @classmethod
    def from_info(cls, info: CameraInfoMessage) -> Camera | None:
        """Read a sensor_msgs/CameraInfo; return None for an uncalibrated camera (K is zero).

        Args:
            info: the message.

        Raises:
            InputError: K or D has NaN or infinity, K has a negative focal length, or the distortion
                model is unknown or has a wrong number of coefficients.

        """
        matrix = np.array(info.k, np.float64).reshape(3, 3)
        _check_numbers(info)
        if matrix[0, 0] == 0:
            return None
        distortion, fisheye = _read_distortion(info)
        return cls(
            matrix=_apply_region(matrix, info),
            distortion=distortion,
            fisheye=fisheye,
            size=_published_size(info),
        )

    def unproject(self, points: Floats) -> Floats:
        """Return the rays (x, y) float32 [N, 2] of pixels on the plane z = 1, undistorted.

        The ray is NaN for a pixel that no ray projects to under the calibration.

        Args:
            points: pixels (x, y) [N, 2] of the published image.

        """
        if not len(points):
            return np.zeros((0, 2), np.float32)
        centred = cells_from_pixels(np.asarray(points, np.float64), 1)[:, None]
        if self.fisheye:
            undistorted = cv2.fisheye.undistortPoints(centred, self.matrix, self.distortion)
        else:
            pixels = cv2.undistortImagePoints(
                centred, self.matrix, self.distortion, None, _UNDISTORTION_CRITERIA
            )
            undistorted = (pixels - self.matrix[:2, 2]) / self.matrix[[0, 1], [0, 1]]
        rays = np.asarray(undistorted[:, 0], np.float64)
        reprojected = self.project(np.column_stack([rays, np.ones(len(rays))]))
        # A NaN error counts as a miss.
        hits = np.linalg.norm(reprojected - points, axis=1) < _MAX_REPROJECTION_ERROR
        return np.where(hits[:, None], rays, np.nan).astype(np.float32)

    def project(self, xyz: NDArray[np.floating[Any]]) -> Floats:
        """Project points of the optical frame to pixels float32 [N, 2]; NaN behind the camera.

        Args:
            xyz: points [N, 3] of the optical frame.

        """
        if not len(xyz):
            return np.zeros((0, 2), np.float32)
        in_front = xyz[:, 2] > 0
        points = np.where(in_front[:, None], xyz, np.nan).astype(np.float64)[:, None]
        project = cv2.fisheye.projectPoints if self.fisheye else cv2.projectPoints
        zeros = np.zeros(3)
        centred = project(points, zeros, zeros, self.matrix, self.distortion)[0]
        return np.asarray(pixels_from_cells(centred[:, 0], 1), np.float32)


def _check_numbers(info: CameraInfoMessage) -> None:
    """Check that a calibration has numbers from which rays can be computed.

    Raises:
        InputError: it has not.

    """
    for name, values in (("K", info.k), ("D", info.d)):
        if not np.isfinite(np.array(values, np.float64)).all():
            raise InputError(
                f"camera_info has NaN or infinity in {name}. Calibrate the camera, or fix the "
                "calibration file."
            )
    matrix = np.array(info.k, np.float64).reshape(3, 3)
    if matrix[0, 0] < 0 or (matrix[1, 1] <= 0) != (matrix[0, 0] == 0):
        raise InputError(
            f"camera_info has the focal lengths {matrix[0, 0]:g} and {matrix[1, 1]:g} in K. "
            "Calibrate the camera."
        )


def _read_distortion(info: CameraInfoMessage) -> tuple[Doubles, bool]:
    """Return the distortion coefficients [K], and whether the model is equidistant.

    Raises:
        InputError: the distortion model is unknown or has a wrong number of coefficients.

    """
    distortion = np.array(info.d, np.float64)
    model = info.distortion_model.strip().lower()
    if model in _FISHEYE_MODELS:
        # Some drivers append zeros. Without distortion, a fisheye lens is still no pinhole.
        if not distortion[_FISHEYE_COUNT:].any() and len(distortion) not in (1, 2, 3):
            return np.append(distortion, np.zeros(_FISHEYE_COUNT))[:_FISHEYE_COUNT], True
    elif not distortion.any():
        if model in _PINHOLE_MODELS:
            return np.zeros(4), False
    elif model in _POLYNOMIAL_MODELS and len(distortion) in _POLYNOMIAL_COUNTS:
        return distortion, False
    raise InputError(
        f"camera_info has distortion model {info.distortion_model!r} with {len(distortion)} "
        "coefficients; supported are plumb_bob and rational_polynomial (4, 5, 8, 12 or 14), and "
        "equidistant or fisheye (4). Calibrate the camera with one of these."
    )


def _apply_region(matrix: Doubles, info: CameraInfoMessage) -> Doubles:
    """Return the intrinsics of the published image: a binned region of the sensor."""
    binning = np.maximum([info.binning_x, info.binning_y], 1)
    offset = np.array([info.roi.x_offset, info.roi.y_offset])
    published = matrix.copy()
    centre = pixels_from_cells(matrix[:2, 2], 1)
    published[:2, 2] = cells_from_pixels((centre - offset) / binning, 1)
    published[:2, :2] /= binning[:, None]
    return published


def _published_size(info: CameraInfoMessage) -> tuple[int, int] | None:
    """Return (height, width) of the region of interest, or of the sensor, after binning."""
    region = info.roi if info.roi.height and info.roi.width else info
    if not region.height or not region.width:
        return None
    return region.height // max(1, info.binning_y), region.width // max(1, info.binning_x)
