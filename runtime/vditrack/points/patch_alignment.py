"""Alignment of the patch around a query in later frames.

Flow from frame to frame drifts, because each of its steps begins where the last one ended. The
patch around a point in its query frame does not change. It is aligned anew in every frame by
Gauss-Newton steps on an affine warp, inverse compositional, so that only pixel differences are
computed again (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004). Patches are compared at
zero mean and unit variance, so a change of gain or brightness makes no difference.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats
from vditrack.bundle.configuration import PatchAlignment
from vditrack.coordinates import pixel_centres

GreyFloats = NDArray[np.float32]
"""Grey levels float32 [H, W]."""


@dataclass(frozen=True)
class Patches:
    """N patches of K pixels, and what alignment precomputes for them."""

    pixels: Floats
    """[N, K] grey levels at zero mean and unit variance."""
    solver: Floats
    """[N, 6, K]: maps pixel differences to a step in shift (x, y) and shape (xx, xy, yx, yy)."""


@dataclass(frozen=True)
class Placement:
    """Where patches are in a frame."""

    points: Floats
    """[N, 2] (x, y) of the patches' centres, in pixels of the frame."""
    shapes: Floats
    """[N, 2, 2]: pixels (x, y) of the frame for one pixel (x, y) of the patch."""

    def where(self, mask: Bools, other: "Placement") -> "Placement":
        """Return these placements where the mask [N] is true, and the other ones elsewhere."""
        return Placement(
            np.where(mask[:, None], self.points, other.points),
            np.where(mask[:, None, None], self.shapes, other.shapes),
        )


def place_unwarped(points: Floats) -> Placement:
    """Return the placement of patches at points [N, 2] in their own frame."""
    return Placement(points, np.repeat(np.eye(2, dtype=np.float32)[None], len(points), axis=0))


class PatchAligner:
    """Aligns square patches of one size, weighted by a Gaussian around the centre."""

    def __init__(self, radius: int, settings: PatchAlignment) -> None:
        """Prepare patches of ``2 radius + 1`` pixels a side.

        Args:
            radius: in pixels; the radius in ``settings`` is not used.
            settings: of the alignment.

        """
        offsets = np.arange(-radius, radius + 1, dtype=np.float32)
        x, y = (axis.ravel() for axis in np.meshgrid(offsets, offsets))
        weights = np.exp(-(x**2 + y**2) / (2 * (settings.weight_sigma * radius) ** 2))
        self._settings = settings
        self._offsets = np.stack([x, y])
        self._weights = np.asarray(weights / weights.sum(), np.float32)

    def extract(self, image: GreyFloats, points: Floats) -> Patches:
        """Extract the patches around points [N, 2] (x, y), in pixels of the image."""
        placement = place_unwarped(points)
        pixels, deviations = self._normalised_pixels(image, placement)
        gradient_x, gradient_y = (
            (self._read(image, placement, step) - self._read(image, placement, -step))
            / (2 * deviations)
            for step in np.eye(2, dtype=np.float32)
        )
        x, y = self._offsets
        parts = [
            *(gradient_x, gradient_y, gradient_x * x),
            *(gradient_x * y, gradient_y * x, gradient_y * y),
        ]
        jacobian = self._remove_lighting(np.stack(parts, axis=1), pixels)
        weighted = jacobian * self._weights
        settings = self._settings
        damping = np.diag([settings.shift_damping] * 2 + [settings.shape_damping] * 4)
        hessian = weighted @ jacobian.transpose(0, 2, 1) + damping
        return Patches(pixels, np.asarray(np.linalg.inv(hessian) @ weighted, np.float32))

    def align(
        self, patches: Patches, image: GreyFloats, placement: Placement, rounds: int
    ) -> Placement:
        """Align patches in an image by Gauss-Newton steps.

        Args:
            patches: of this aligner's size.
            image: the frame to align in.
            placement: where the search begins.
            rounds: number of steps.

        Returns:
            The aligned placement. Without texture it may be anywhere, even not finite.

        """
        points, shapes = placement.points, placement.shapes
        for _ in range(rounds):
            pixels, _ = self._normalised_pixels(image, Placement(points, shapes))
            step = (patches.solver @ (pixels - patches.pixels)[:, :, None])[:, :, 0]
            shapes = _compose_inverse(shapes, step[:, 2:])
            points = points - (shapes @ step[:, :2, None])[:, :, 0]
        return Placement(points, shapes)

    def correlate(self, patches: Patches, image: GreyFloats, placement: Placement) -> Floats:
        """Return the weighted normalised cross-correlation [N] of patches with an image."""
        pixels, _ = self._normalised_pixels(image, placement)
        return np.asarray((pixels * patches.pixels) @ self._weights, np.float32)

    def is_believable(self, shapes: Floats) -> Bools:
        """Return which shapes [N, 2, 2] a surface that is near and seen frontally can have."""
        finite = np.isfinite(shapes).all(axis=(1, 2), keepdims=True)
        values = np.linalg.svd(np.where(finite, shapes, np.float32(0)), compute_uv=False)
        settings = self._settings
        within = (values[:, 0] < settings.max_scale) & (values[:, 1] > settings.min_scale)
        return np.asarray(within, np.bool_)

    def _normalised_pixels(self, image: GreyFloats, placement: Placement) -> tuple[Floats, Floats]:
        """Return pixels [N, K] at zero mean and unit variance, and their deviations [N, 1]."""
        pixels = self._read(image, placement, np.zeros(2, np.float32))
        pixels = pixels - (pixels @ self._weights)[:, None]
        noise = np.float32(self._settings.noise)
        deviations = np.sqrt(pixels**2 @ self._weights)[:, None] + noise
        return pixels / deviations, deviations

    def _read(self, image: GreyFloats, placement: Placement, shift: Floats) -> Floats:
        """Read pixels [N, K] of the image, interpolated linearly and constant beyond its border."""
        # OpenCV puts (0, 0) at the first pixel's centre.
        corner = placement.points + shift - pixel_centres(np.zeros(1, np.intp))
        positions = corner[:, :, None] + placement.shapes @ self._offsets
        border = cv2.BORDER_REPLICATE
        x, y = positions[:, 0], positions[:, 1]
        read = cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(read, np.float32)

    def _remove_lighting(self, jacobian: Floats, pixels: Floats) -> Floats:
        """Return the Jacobian [N, 6, K] without what gain and brightness can explain."""
        jacobian = jacobian - (jacobian @ self._weights)[:, :, None]
        gain = jacobian @ (pixels * self._weights)[:, :, None]
        return np.asarray(jacobian - gain * pixels[:, None], np.float32)


def _compose_inverse(shapes: Floats, step: Floats) -> Floats:
    """Return shapes [N, 2, 2] times the inverse of (identity + step [N, 4])."""
    xx, xy, yx, yy = (step + np.array([1, 0, 0, 1], np.float32)).T
    determinant = xx * yy - xy * yx
    inverse = np.stack([yy, -xy, -yx, xx], axis=1).reshape(-1, 2, 2) / determinant[:, None, None]
    return np.asarray(shapes @ inverse, np.float32)
