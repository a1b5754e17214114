"""The camera's motion from frame to frame: what moves most of the picture.

It says where a surface is that has left the view: a point that stands still in the scene moves with
the camera, seen or not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.configuration import CameraMotion, OpticalFlow
from vditrack.coordinates import pixel_centres
from vditrack.points.optical_flow import track_forward_backward
from vditrack.points.pyramid import Pyramid


@dataclass(frozen=True)
class Motion:
    """A similarity transform of the picture: translation, rotation, scale."""

    matrix: Floats
    """[2, 3], on positions (x, y) in pixels of the frame."""
    known: bool
    """Whether most of the picture moves like this; if not, it is the identity."""

    def step(self, points: Floats) -> Floats:
        """Return how far points [N, 2] of the frame before move, (x, y) in pixels of the frame."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.asarray(moved - points, np.float32)


STILL = Motion(np.eye(2, 3, dtype=np.float32), known=False)


def estimate_motion(
    before: Pyramid, image: Pyramid, settings: CameraMotion, flow: OpticalFlow
) -> Motion:
    """Estimate the camera's motion between two frames of one size.

    Optical flow follows a regular grid of places on a coarse level of both pyramids. RANSAC finds
    the similarity transform that most of them agree on. If they do not agree, coarser levels are
    tried, on which soft pictures have more texture.

    Args:
        before: the frame before.
        image: this frame.
        settings: of the estimate.
        flow: of optical flow.

    """
    finest = round(max(0.0, float(np.log2(max(image.size) / settings.width))))
    for level in range(finest, finest + settings.levels):
        motion = _estimate_at(before, image, min(level, image.last_level), settings, flow)
        if motion.known:
            return motion
    return STILL


def _estimate_at(
    before: Pyramid, image: Pyramid, number: int, settings: CameraMotion, flow: OpticalFlow
) -> Motion:
    """Estimate the camera's motion on one level of the pyramids."""
    first, second = before.level(number), image.level(number)
    places = _regular_grid(first.shape, settings.places)
    found, error = track_forward_backward(first, second, places, places, flow)
    good = error < settings.max_flow_error
    least = max(2, settings.min_cover * len(places), settings.min_agreement * good.sum())
    if good.sum() < least:
        return STILL
    # Pixel (i, j) of a level is at pixel 2**number (i, j) of the frame.
    scale, centre = np.float32(2**number), pixel_centres(np.zeros(1, np.intp))
    matrix, agreeing = cv2.estimateAffinePartial2D(
        (places[good] - centre) * scale + centre,
        (found[good] - centre) * scale + centre,
        method=cv2.RANSAC,
        ransacReprojThreshold=settings.max_residual * float(scale),
    )
    agreed = places[good][agreeing.ravel() > 0] if matrix is not None else places[:0]
    if len(agreed) < least:
        return STILL
    spread = agreed.std(axis=0) / np.array(first.shape[::-1])
    if spread.min() < settings.min_spread:
        return STILL
    return Motion(np.asarray(matrix, np.float32), known=True)


def _regular_grid(size: tuple[int, ...], count: int) -> Floats:
    """Return places [count**2, 2] (x, y), spread evenly over an image of (height, width)."""
    shares = (np.arange(count) + 0.5) / count
    x, y = np.meshgrid(shares * size[1], shares * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
