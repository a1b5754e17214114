"""Reads how points look in the frame of their query: descriptors, and patches of a fitting size."""

import numpy as np

from vditrack.arrays import Bools, Floats
from vditrack.bundle.configuration import FlowTracking, Matching
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import match_elsewhere
from vditrack.points.patch_alignment import PatchAligner, place_unwarped
from vditrack.points.point_memory import Appearance, PointMemory, View
from vditrack.points.pyramid import Pyramid


class AppearanceReader:
    """Reads the appearance of points.

    A patch has a fixed number of pixels. How large they are depends on the picture: the near patch
    is the finest one that has texture enough to locate its point, so that it is larger in large,
    blurred or flat pictures. The wide patch grows with the picture's size.
    """

    def __init__(self, grid: Grid, settings: Matching, flow_tracking: FlowTracking) -> None:
        """Prepare the patches.

        Args:
            grid: the bundle's feature grid.
            settings: for descriptors.
            flow_tracking: for patches.

        """
        self._grid, self._settings, self._patches = grid, settings, flow_tracking.patches
        recovery = flow_tracking.recovery
        self.near = PatchAligner(self._patches.radius, self._patches)
        """Aligns the near patches."""
        wide_radius = self._patches.radius if recovery is None else recovery.wide_radius
        self.wide = PatchAligner(wide_radius, self._patches)
        """Aligns the wide patches."""
        self._rival_distance = 0.0 if recovery is None else recovery.rival_distance

    def find_textureless(self, points: Floats, image: Pyramid) -> Bools:
        """Return which points [N, 2] of an image no patch locates."""
        _, expected_error = self._choose_sizes(points, image)
        return np.asarray(expected_error > self._patches.max_error, np.bool_)

    def read(
        self,
        points: Floats,
        features: FeatureMap | None,
        image: Pyramid,
        positions: Floats | None = None,
    ) -> Appearance:
        """Read the appearance of N points.

        Args:
            points: [N, 2] (x, y) in pixels of the image.
            features: the feature map of the same frame or of a later one; None to read no
                descriptors, which are then zero.
            image: grey levels of the frame.
            positions: [N, 2] (x, y) in model pixels, where the points are in the feature map; None
                if it is of the same frame.

        """
        scale = self._grid.model_from_frame(image.size)
        if positions is None:
            positions = np.asarray(points * scale, np.float32)
        descriptors, rivals = self.describe(positions, features, image)
        size, expected_error = self._choose_sizes(points, image)
        wide_size = np.maximum(size / 2, 2.0 ** max(0, round(float(np.log2(image.unit)))))
        return Appearance(
            descriptor=descriptors,
            rival_similarity=rivals,
            near=self.near.prepare(self.near.read(image, place_unwarped(points, size))),
            wide=self.wide.read(image, place_unwarped(points, wide_size)),
            scale=np.asarray(scale * size[:, None], np.float32),
            wide_size=np.asarray(wide_size / size, np.float32),
            textureless=np.asarray(expected_error > self._patches.max_error, np.bool_),
            expected_error=expected_error,
        )

    def describe(
        self, positions: Floats, features: FeatureMap | None, image: Pyramid
    ) -> tuple[Floats, Floats]:
        """Return the descriptors of N points, and their largest cosines with other places.

        Args:
            positions: [N, 2] (x, y) in model pixels.
            features: of the frame; None for descriptors [N, 0].
            image: grey levels of the frame.

        Returns:
            Descriptors [N, C], and similarities [N].

        """
        count = len(positions)
        if features is None:
            return np.zeros((count, 0), np.float32), np.zeros(count, np.float32)
        descriptors = features.sample(positions, self._settings.template_falloff)
        scale = self._grid.model_from_frame(image.size)
        apart = self._rival_distance * image.unit * float(scale.max())
        rivals = match_elsewhere(descriptors, features, positions, apart)
        return descriptors, rivals.similarity

    def describe_new(self, memory: PointMemory, view: View, points: Floats) -> None:
        """Read the descriptors of tracked points that have none yet, into their memory.

        Args:
            memory: of N points.
            view: a frame with a feature map.
            points: [N, 2] (x, y) in pixels of the frame.

        """
        new = np.flatnonzero(~memory.described & (memory.lost_frames == 0))
        if not len(new):
            return
        positions = view.model_positions(points[new])
        descriptors, rivals = self.describe(positions, view.features, view.image)
        memory.query.descriptor[new] = memory.template[new] = descriptors
        memory.query.rival_similarity[new] = memory.rival[new] = rivals
        memory.described[new] = True

    def _choose_sizes(self, points: Floats, image: Pyramid) -> tuple[Floats, Floats]:
        """Choose the finest patches that locate their points, or those that do it best.

        Returns:
            The pixels [N] of the frame that a patch's pixel is, a power of two, and the expected
            error [N] of an alignment, in pixels at a width of 256.

        """
        settings = self._patches
        finest = round(max(0.0, float(np.log2(settings.finest_pixel * image.unit))))
        widest = settings.max_radius * image.unit / settings.radius
        coarsest = min(max(finest, int(np.log2(max(1.0, widest)))), image.last_level)
        sizes = np.full(len(points), 2.0**coarsest, np.float32)
        errors = np.full(len(points), np.inf, np.float32)
        for level in range(finest, coarsest + 1):
            rows = np.flatnonzero(errors > settings.max_error)
            placement = place_unwarped(points[rows], 2.0**level)
            patches = self.near.prepare(self.near.read(image, placement))
            error = patches.expected_error * np.float32(2.0**level / image.unit)
            better = error < errors[rows]
            sizes[rows[better]], errors[rows[better]] = 2.0**level, error[better]
        return sizes, errors
