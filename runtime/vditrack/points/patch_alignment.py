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

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import PatchAlignment
from vditrack.points.array_tables import select_rows
from vditrack.points.pyramid import Pyramid

_STILL = np.float32(0.01)
"""Pixels of the patch; an alignment ends with a step that moves no pixel by as much."""
_LEAST_WEIGHT = 1e-6
"""Sum of weights that is divided by at least."""


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

    @property
    def whole(self) -> Bools:
        """Which patches [N] are inside their frame with all pixels."""
        return np.asarray(self.inside.all(axis=1), np.bool_)


@dataclass(frozen=True)
class _Comparison:
    """The pixels of N patches and those of the image, at zero mean and unit variance.

    Both are 0 where either is beyond the border of its frame.
    """

    pixels: Floats
    """[N, K] of the image."""
    expected: Floats
    """[N, K] of the patches."""
    cut: Indices
    """[M] the patches that have pixels beyond a border."""
    inside_of_cut: Bools
    """[M, K] which of their pixels are inside both frames."""

    @property
    def difference(self) -> Floats:
        """Of the pixels, [N, K]."""
        return np.asarray(self.pixels - self.expected, np.float32)


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
        self._corners = self._offsets[:, np.abs(self._offsets).min(axis=0) == radius]
        self._reach = np.array([1, 1] + [radius] * 4, np.float32)
        """How far a step of 1 in each parameter moves a pixel of the patch at most."""

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
        """Align patches in an image by Gauss-Newton steps, each until its steps are small.

        Args:
            patches: of this aligner's size.
            image: the frame to align in.
            placement: where the search begins.
            rounds: number of steps at most.

        Returns:
            The aligned placement. Without texture it may be anywhere, even not finite.

        """
        levels = image.nearest_levels(_scales(placement.shapes))
        points, shapes = placement.points.copy(), placement.shapes.copy()
        rows = np.arange(len(points))
        for _ in range(rounds):
            if not len(rows):
                break
            here = Placement(points[rows], shapes[rows])
            found = self._compare(patches, image, here, levels[rows])
            step = (patches.solver @ found.difference[:, :, None])[:, :, 0]
            shapes[rows] = turned = _compose_inverse(here.shapes, step[:, 2:])
            points[rows] = here.points - (turned @ step[:, :2, None])[:, :, 0]
            moving = np.abs(step * self._reach).max(axis=1) >= _STILL
            if not moving.all():
                rows, patches = rows[moving], select_rows(patches, moving)
        return Placement(points, shapes)

    def correlate(self, patches: Patches, image: Pyramid, placement: Placement) -> Floats:
        """Return the weighted normalised cross-correlation [N] of patches with an image."""
        levels = image.nearest_levels(_scales(placement.shapes))
        found = self._compare(patches, image, placement, levels)
        correlation = np.einsum("nk,nk->n", found.pixels * self._weights, found.expected)
        if len(found.cut):
            share = np.maximum(found.inside_of_cut @ self._weights, _LEAST_WEIGHT)
            correlation[found.cut] /= share
        return np.asarray(correlation, np.float32)

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
        self, patches: Patches, image: Pyramid, placement: Placement, levels: Indices
    ) -> "_Comparison":
        """Compare the patches with the pixels of levels [N] of the image, where they are placed."""
        points, shapes = placement.points, placement.shapes
        values = image.read_warped(points, shapes, self._offsets, levels)
        pixels, expected = self._normalise(values, self._weights)[0], patches.pixels
        # A patch is inside if its corners are.
        corners = points[:, :, None] + shapes @ self._corners
        cut = np.flatnonzero(~(image.contains(corners).all(axis=1) & patches.whole))
        inside = patches.inside[cut]
        # What a patch is compared with does not depend on the patches beside it.
        if len(cut):
            inside = inside & image.contains(_positions(select_rows(placement, cut), self._offsets))
            weights, expected = self._weigh(inside), expected.copy()
            pixels[cut] = self._normalise(values[cut], weights)[0] * inside
            expected[cut] = self._normalise(expected[cut], weights)[0] * inside
        return _Comparison(pixels, expected, cut, inside)

    def _weigh(self, inside: Bools) -> Floats:
        """Return the weights [N, K] of the pixels that are inside; their sum is 1, or 0."""
        weights = self._weights * inside
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray(weights / np.maximum(total, _LEAST_WEIGHT), np.float32)

    def _normalise(self, pixels: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Return pixels [N, K] at zero mean and unit variance, and their deviations [N, 1].

        The weights [N, K], or [K] for all patches, have the sum 1, or 0.
        """
        pixels = pixels - (pixels * weights).sum(axis=1, keepdims=True)
        variance = np.einsum("nk,nk->n", pixels * weights, pixels)[:, None]
        deviations = np.sqrt(variance) + np.float32(self._settings.noise)
        pixels /= deviations
        return pixels, np.asarray(deviations, np.float32)


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
    xx, xy, yx, yy = step[:, 0] + 1, step[:, 1], step[:, 2], step[:, 3] + 1
    adjugate = np.stack([yy, -xy, -yx, xx], axis=1).reshape(-1, 2, 2)
    return np.asarray((shapes @ adjugate) / (xx * yy - xy * yx)[:, None, None], np.float32)
