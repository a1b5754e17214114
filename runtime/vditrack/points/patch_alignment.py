"""How a point first looked: the pixels around it, found again in any later frame.

Flow from frame to frame drifts, for each of its steps begins where the last one ended. The patch
around a point in the frame it was asked for in does not change. It is aligned anew in every frame
by Gauss-Newton steps on an affine warp, inverse compositional, so that nothing but pixel
differences is worked out again (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004). Patches
are compared at zero mean and unit variance: a change of gain or brightness changes nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, Floats
from vditrack.coordinates import pixel_centres

Picture = NDArray[np.float32]
"""Grey levels [H, W]."""

_SIGMA = 0.7
"""Of the weights around a patch's centre, in its radii."""
_SHIFT_DAMPING, _SHAPE_DAMPING = 1e-4, 1e-1
"""Added to the Hessian's diagonal: shape follows only where there is texture enough to show it."""
_FLAT = 1e-3
"""Standard deviation in grey levels, added to all, so that a flat patch is not divided by zero."""
_SMALLEST, _LARGEST = 0.4, 2.5
"""Singular values of a believable shape, against the patch's own frame."""


@dataclass(frozen=True)
class Patches:
    """N patches of K pixels, and what alignment needs of them."""

    looks: Floats
    """[N, K] at zero mean and unit variance."""
    steps: Floats
    """[N, 6, K]: what a difference at a pixel says of shift (x, y) and shape (xx, xy, yx, yy)."""


@dataclass(frozen=True)
class Placed:
    """Where patches are in a frame."""

    points: Floats
    """[N, 2] (x, y) of their centres, in pixels of the frame."""
    shapes: Floats
    """[N, 2, 2]: pixels (x, y) of the frame for one pixel (x, y) of the patch."""

    def where(self, chosen: Bools, other: "Placed") -> "Placed":
        """These where chosen [N], else the others."""
        return Placed(
            np.where(chosen[:, None], self.points, other.points),
            np.where(chosen[:, None, None], self.shapes, other.shapes),
        )


def unturned(points: Floats) -> Placed:
    """Patches [N, 2] of their own frame's shape."""
    return Placed(points, np.repeat(np.eye(2, dtype=np.float32)[None], len(points), axis=0))


class PatchLens:
    """Looks at square patches of one size, with weights that fall off from the centre."""

    def __init__(self, radius: int) -> None:
        """Look at patches of ``2 radius + 1`` pixels a side."""
        reach = np.arange(-radius, radius + 1, dtype=np.float32)
        x, y = (axis.ravel() for axis in np.meshgrid(reach, reach))
        weights = np.exp(-(x**2 + y**2) / (2 * (_SIGMA * radius) ** 2))
        self._offsets = np.stack([x, y])
        self._weights = np.asarray(weights / weights.sum(), np.float32)

    def take(self, image: Picture, points: Floats) -> Patches:
        """Remember how a frame looks around points [N, 2] (x, y), in its pixels."""
        placed = unturned(points)
        looks, deviations = self._look(image, placed)
        across, down = (
            (self._read(image, placed, step) - self._read(image, placed, -step)) / (2 * deviations)
            for step in np.eye(2, dtype=np.float32)
        )
        x, y = self._offsets
        parts = [across, down, across * x, across * y, down * x, down * y]
        change = self._without_light(np.stack(parts, axis=1), looks)
        weighted = change * self._weights
        damping = np.diag([_SHIFT_DAMPING] * 2 + [_SHAPE_DAMPING] * 4)
        hessian = weighted @ change.transpose(0, 2, 1) + damping
        return Patches(looks, np.asarray(np.linalg.inv(hessian) @ weighted, np.float32))

    def align(self, patches: Patches, image: Picture, placed: Placed, rounds: int) -> Placed:
        """Align patches in a frame by so many rounds of Gauss-Newton, from where they may be.

        Where there is nothing to hold on to the result can be anywhere, even not finite.
        """
        points, shapes = placed.points, placed.shapes
        for _ in range(rounds):
            looks, _ = self._look(image, Placed(points, shapes))
            step = (patches.steps @ (looks - patches.looks)[:, :, None])[:, :, 0]
            shapes = _after_inverse(shapes, step[:, 2:])
            points = points - (shapes @ step[:, :2, None])[:, :, 0]
        return Placed(points, shapes)

    def correlation(self, patches: Patches, image: Picture, placed: Placed) -> Floats:
        """Weighted normalised cross-correlation [N] of patches with a frame, in [-1, 1]."""
        looks, _ = self._look(image, placed)
        return np.asarray((looks * patches.looks) @ self._weights, np.float32)

    def _look(self, image: Picture, placed: Placed) -> tuple[Floats, Floats]:
        """Pixels [N, K] at zero mean and unit variance, and their standard deviations [N, 1]."""
        pixels = self._read(image, placed, np.zeros(2, np.float32))
        pixels = pixels - (pixels @ self._weights)[:, None]
        deviations = np.sqrt(pixels**2 @ self._weights)[:, None] + np.float32(_FLAT)
        return pixels / deviations, deviations

    def _read(self, image: Picture, placed: Placed, shift: Floats) -> Floats:
        """Pixels [N, K] of the image, linearly interpolated, constant beyond its border."""
        # OpenCV counts from the first pixel's centre.
        corner = placed.points + shift - pixel_centres(np.zeros(1, np.intp))
        places = corner[:, :, None] + placed.shapes @ self._offsets
        border = cv2.BORDER_REPLICATE
        read = cv2.remap(image, places[:, 0], places[:, 1], cv2.INTER_LINEAR, borderMode=border)
        return np.asarray(read, np.float32)

    def _without_light(self, change: Floats, looks: Floats) -> Floats:
        """Changes [N, 6, K] less what gain and brightness would do as well."""
        change = change - (change @ self._weights)[:, :, None]
        gain = change @ (looks * self._weights)[:, :, None]
        return np.asarray(change - gain * looks[:, None], np.float32)


def believable(shapes: Floats) -> Bools:
    """Whether shapes [N, 2, 2] are those of a surface still near and seen from the front."""
    finite = np.isfinite(shapes).all(axis=(1, 2), keepdims=True)
    values = np.linalg.svd(np.where(finite, shapes, np.float32(0)), compute_uv=False)
    return np.asarray((values[:, 0] < _LARGEST) & (values[:, 1] > _SMALLEST), np.bool_)


def _after_inverse(shapes: Floats, step: Floats) -> Floats:
    """Shapes [N, 2, 2] times the inverse of identity plus step [N, 4]."""
    xx, xy, yx, yy = (step + np.array([1, 0, 0, 1], np.float32)).T
    determinant = xx * yy - xy * yx
    inverse = np.stack([yy, -xy, -yx, xx], axis=1).reshape(-1, 2, 2) / determinant[:, None, None]
    return np.asarray(shapes @ inverse, np.float32)
