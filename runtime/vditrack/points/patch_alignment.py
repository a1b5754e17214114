"""Alignment of the patch around a query in later frames.

Flow from frame to frame drifts, because each of its steps begins where the last one ended. The
patch around a point in its query frame does not change. It is aligned anew in every frame by
Gauss-Newton steps on an affine warp, inverse compositional, so that only pixel differences are
computed again (Baker and Matthews, Lucas-Kanade 20 years on, IJCV 2004). Patches are compared at
zero mean and unit variance, so a change of gain or brightness makes no difference. Pixels beyond
the border of either frame do not count.
"""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Floats
from vditrack.bundle.configuration import PatchAlignment
from vditrack.points.pyramid import Pyramid


@dataclass(frozen=True)
class PatchPixels:
    """Grey levels of N square patches with a margin of one pixel: P pixels a patch."""

    values: Floats
    """Grey levels [N, P]; float16, to save memory."""
    inside: Bools
    """[N, P] whether a pixel is inside the frame that the patches are from."""


@dataclass(frozen=True)
class Patches:
    """N patches of K pixels, and what alignment precomputes for them."""

    pixels: Floats
    """[N, K] grey levels at zero mean and unit variance."""
    inside: Bools
    """[N, K] whether a pixel is inside the frame that the patches are from."""
    solver: Floats
    """[N, 6, K]: maps pixel differences to a step in shift (x, y) and shape (xx, xy, yx, yy)."""
    expected_error: Floats
    """[N] of an alignment, in pixels of the patch."""


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


def place_unwarped(points: Floats, size: Floats | float = 1.0) -> Placement:
    """Return the placement of patches at points [N, 2] in their own frame.

    Args:
        points: [N, 2] (x, y) in pixels of the frame.
        size: [N] pixels of the frame that one pixel of each patch is.

    """
    identity = np.repeat(np.eye(2, dtype=np.float32)[None], len(points), axis=0)
    sizes = np.broadcast_to(np.asarray(size, np.float32), (len(points),))
    return Placement(points, identity * sizes[:, None, None])


class PatchAligner:
    """Aligns square patches of one size, weighted by a Gaussian around the centre."""

    def __init__(self, radius: int, settings: PatchAlignment) -> None:
        """Prepare patches of ``2 radius + 1`` pixels a side.

        Args:
            radius: in pixels of the patch; the radius in ``settings`` is not used.
            settings: of the alignment.

        """
        self._settings = settings
        self._offsets = _square(radius)
        self._offsets_with_margin = _square(radius + 1)
        x, y = self._offsets
        weights = np.exp(-(x**2 + y**2) / (2 * (settings.weight_sigma * radius) ** 2))
        self._weights = np.asarray(weights / weights.sum(), np.float32)

    def read(self, image: Pyramid, placement: Placement) -> PatchPixels:
        """Read patches with their margin from the image of their query."""
        positions = _positions(placement, self._offsets_with_margin)
        values = image.read(positions, image.nearest_levels(_scales(placement.shapes)))
        return PatchPixels(values.astype(np.float16), image.contains(positions))

    def prepare(self, read: PatchPixels) -> Patches:
        """Prepare the alignment of patches that were read."""
        side = round(len(self._offsets_with_margin[0]) ** 0.5)
        values = read.values.astype(np.float32).reshape(-1, side, side)
        inside = read.inside.reshape(-1, side, side)[:, 1:-1, 1:-1]
        inside = inside.reshape(len(values), (side - 2) ** 2)
        middle = values[:, 1:-1, 1:-1].reshape(inside.shape)
        weights = self._weigh(inside)
        pixels, deviations = self._normalise(middle, weights)
        by_x = (values[:, 1:-1, 2:] - values[:, 1:-1, :-2]).reshape(inside.shape)
        by_y = (values[:, 2:, 1:-1] - values[:, :-2, 1:-1]).reshape(inside.shape)
        gradient_x, gradient_y = by_x / (2 * deviations), by_y / (2 * deviations)
        x, y = self._offsets
        parts = [
            *(gradient_x, gradient_y, gradient_x * x),
            *(gradient_x * y, gradient_y * x, gradient_y * y),
        ]
        jacobian = _remove_lighting(np.stack(parts, axis=1), pixels, weights)
        weighted = jacobian * weights[:, None]
        hessian = weighted @ jacobian.transpose(0, 2, 1)
        settings = self._settings
        damping = np.diag([settings.shift_damping] * 2 + [settings.shape_damping] * 4)
        solver = np.asarray(np.linalg.inv(hessian + damping) @ weighted, np.float32)
        least = np.linalg.eigvalsh(hessian[:, :2, :2])[:, 0]
        least = np.maximum(least, 1e-9)
        by_shape = settings.max_decorrelation / least
        by_noise = settings.grey_noise**2 / (least * deviations[:, 0] ** 2)
        expected_error = np.sqrt(by_shape + by_noise)
        return Patches(pixels, inside, solver, np.asarray(expected_error, np.float32))

    def align(
        self, patches: Patches, image: Pyramid, placement: Placement, rounds: int
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
            pixels, expected, inside = self._compare(patches, image, Placement(points, shapes))
            difference = (pixels - expected) * inside
            step = (patches.solver @ difference[:, :, None])[:, :, 0]
            shapes = _compose_inverse(shapes, step[:, 2:])
            points = points - (shapes @ step[:, :2, None])[:, :, 0]
        return Placement(points, shapes)

    def correlate(self, patches: Patches, image: Pyramid, placement: Placement) -> Floats:
        """Return the weighted normalised cross-correlation [N] of patches with an image."""
        pixels, expected, inside = self._compare(patches, image, placement)
        return np.asarray((pixels * expected * self._weigh(inside)).sum(axis=1), np.float32)

    def share_inside(self, patches: Patches, image: Pyramid, placement: Placement) -> Floats:
        """Return the share [N] of each patch, by weight, that is inside both frames."""
        inside = patches.inside & image.contains(_positions(placement, self._offsets))
        return np.asarray(inside @ self._weights, np.float32)

    def is_believable(self, shapes: Floats) -> Bools:
        """Return which shapes [N, 2, 2] a surface that is near and seen frontally can have."""
        finite = np.isfinite(shapes).all(axis=(1, 2), keepdims=True)
        values = np.linalg.svd(np.where(finite, shapes, np.float32(0)), compute_uv=False)
        settings = self._settings
        within = (values[:, 0] < settings.max_scale) & (values[:, 1] > settings.min_scale)
        return np.asarray(within, np.bool_)

    def _compare(
        self, patches: Patches, image: Pyramid, placement: Placement
    ) -> tuple[Floats, Floats, Bools]:
        """Return the image's pixels and the patches' [N, K], normalised, and which are compared."""
        positions = _positions(placement, self._offsets)
        values = image.read(positions, image.nearest_levels(_scales(placement.shapes)))
        inside = patches.inside & image.contains(positions)
        pixels, expected = self._normalise(values, self._weights[None])[0], patches.pixels
        # What a patch is compared with does not depend on the patches beside it.
        if len(cut := np.flatnonzero(~inside.all(axis=1))):
            weights, expected = self._weigh(inside[cut]), expected.copy()
            pixels[cut] = self._normalise(values[cut], weights)[0]
            expected[cut] = self._normalise(expected[cut], weights)[0]
        return pixels, expected, inside

    def _weigh(self, inside: Bools) -> Floats:
        """Return the weights [N, K] of the pixels that are inside; their sum is 1, or 0."""
        weights = self._weights * inside
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray(weights / np.maximum(total, 1e-6), np.float32)

    def _normalise(self, pixels: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Return pixels [N, K] at zero mean and unit variance, and their deviations [N, 1]."""
        pixels = pixels - (pixels * weights).sum(axis=1, keepdims=True)
        noise = np.float32(self._settings.noise)
        deviations = np.sqrt((pixels**2 * weights).sum(axis=1, keepdims=True)) + noise
        return pixels / deviations, deviations


def _square(radius: int) -> Floats:
    """Return the offsets [2, K] (x, y) of the pixels of a square patch from its centre."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    return np.stack([axis.ravel() for axis in np.meshgrid(offsets, offsets)])


def _positions(placement: Placement, offsets: Floats) -> Floats:
    """Return the positions [N, 2, K] of the pixels of patches, in pixels of the frame."""
    return np.asarray(placement.points[:, :, None] + placement.shapes @ offsets, np.float32)


def _scales(shapes: Floats) -> Floats:
    """Return the pixels of the frame that a pixel of each patch is as wide as, [N]."""
    determinants = shapes[:, 0, 0] * shapes[:, 1, 1] - shapes[:, 0, 1] * shapes[:, 1, 0]
    known = np.isfinite(determinants)
    return np.asarray(np.sqrt(np.abs(np.where(known, determinants, 1))), np.float32)


def _remove_lighting(jacobian: Floats, pixels: Floats, weights: Floats) -> Floats:
    """Return the Jacobian [N, 6, K] without what gain and brightness can explain."""
    jacobian = jacobian - (jacobian * weights[:, None]).sum(axis=2, keepdims=True)
    gain = jacobian @ (pixels * weights)[:, :, None]
    return np.asarray(jacobian - gain * pixels[:, None], np.float32)


def _compose_inverse(shapes: Floats, step: Floats) -> Floats:
    """Return shapes [N, 2, 2] times the inverse of (identity + step [N, 4])."""
    xx, xy, yx, yy = (step + np.array([1, 0, 0, 1], np.float32)).T
    determinant = xx * yy - xy * yx
    inverse = np.stack([yy, -xy, -yx, xx], axis=1).reshape(-1, 2, 2) / determinant[:, None, None]
    return np.asarray(shapes @ inverse, np.float32)
