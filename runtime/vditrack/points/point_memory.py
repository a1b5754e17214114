"""What flow tracking remembers of its points, and the frame that they are tracked into."""

from dataclasses import dataclass, replace

import numpy as np

from vditrack.arrays import Bools, Floats, Indices
from vditrack.bundle.configuration import FlowTracking
from vditrack.features.feature_map import FeatureMap
from vditrack.points.array_tables import concatenate_rows
from vditrack.points.camera_motion import Motion
from vditrack.points.descriptor_matching import cosines
from vditrack.points.patch_alignment import Patches, PatchPixels
from vditrack.points.pyramid import Pyramid


@dataclass(frozen=True)
class Appearance:
    """How N points looked in the frame of their query."""

    descriptor: Floats
    """[N, C]; zero before the first feature map since the query."""
    rival_similarity: Floats
    """[N] the largest cosine of the descriptor with another place of that frame."""
    near: Patches
    wide: PatchPixels
    scale: Floats
    """[N, 2]: model pixels (x, y) for a pixel of the near patches."""
    wide_size: Floats
    """[N]: pixels of the near patch for a pixel of the wide patch."""
    textureless: Bools
    """[N] whether the near patch has too little texture to locate the point by it alone."""
    expected_error: Floats
    """[N] of an alignment of the near patch, in pixels at a width of 256."""


@dataclass(frozen=True)
class PointMemory:
    """What is remembered of N points."""

    query: Appearance
    template: Floats
    """[N, C] descriptors, updated while the points are visible."""
    shapes: Floats
    """[N, 2, 2] of the near patches when the points were last tracked; the identity at the
    query."""
    velocity: Floats
    """[N, 2] model pixels a frame."""
    relative_speed: Floats
    """[N] of the points relative to the camera's motion, when they were last tracked, in pixels a
    frame at a width of 256."""
    moving: Bools
    """[N] whether velocity and relative speed are known yet."""
    lost_frames: Floats
    """[N] frames since flow last tracked the point; 0 while it does."""
    missed_frames: Floats
    """[N] those of them in which the point was expected inside the frame."""
    radius: Floats
    """[N] how far from its predicted position a lost point may return, in pixels at a width of
    256."""
    unplaced: Bools
    """[N] whether nothing is known of the position of a lost point, so that only a search can say
    where it is."""
    described: Bools
    """[N] whether the point has a descriptor."""
    similarities: Floats
    """[N, 2] cosines with the query's descriptor and with the template in the last frame that has a
    feature map; 1 in the frame of the query."""
    rival: Floats
    """[N] the largest cosine that another place had with the point's descriptors lately."""
    shown: Bools
    """[N] whether the point was lost in that frame, and distinctive enough to be visible there."""


def remember(query: Appearance, shapes: Floats, *, described: bool) -> PointMemory:
    """Return the memory of N points that were just queried, with or without descriptors."""
    count = len(shapes)
    zeros = np.zeros(count, np.float32)
    return PointMemory(
        query=query,
        template=query.descriptor.copy(),
        shapes=shapes,
        velocity=np.zeros((count, 2), np.float32),
        relative_speed=zeros,
        moving=np.zeros(count, np.bool_),
        lost_frames=zeros.copy(),
        missed_frames=zeros.copy(),
        radius=zeros.copy(),
        unplaced=np.zeros(count, np.bool_),
        described=np.full(count, described),
        similarities=np.ones((count, 2), np.float32),
        rival=query.rival_similarity.copy(),
        shown=np.zeros(count, np.bool_),
    )


def add_memory(memory: PointMemory, new: PointMemory) -> PointMemory:
    """Return the memory of points, followed by that of new ones."""
    channels = max(memory.template.shape[1], new.template.shape[1])
    parts = widen_descriptors(memory, channels), widen_descriptors(new, channels)
    return concatenate_rows(*parts)


def widen_descriptors(memory: PointMemory, channels: int) -> PointMemory:
    """Return the memory with descriptors [N, channels], if it was made before the first map."""
    if memory.template.shape[1] == channels:
        return memory
    empty = np.zeros((len(memory.template), channels), np.float32)
    query = replace(memory.query, descriptor=empty)
    return replace(memory, query=query, template=empty.copy())


def compare_descriptors(memory: PointMemory, descriptors: Floats, settings: FlowTracking) -> None:
    """Compare the points with what is at their places in a frame that has a feature map, in place.

    Args:
        memory: of N points.
        descriptors: [N, C] at their places in the frame.
        settings: of flow tracking.

    """
    query = memory.query
    memory.similarities[:, 0] = cosines(query.descriptor, descriptors)
    memory.similarities[:, 1] = cosines(memory.template, descriptors)
    # A lost point has only its descriptor to show that it is where it is expected.
    distinct = memory.similarities[:, 0] > query.rival_similarity - settings.rival_tolerance
    possible = memory.described & ~query.textureless & (settings.recovery is not None)
    memory.shown[:] = distinct & possible & (memory.lost_frames > 0)


def lose(memory: PointMemory, rows: Indices) -> None:
    """Forget where the points in the given rows are and how they move, in place."""
    for motion in (memory.velocity, memory.relative_speed, memory.missed_frames, memory.radius):
        motion[rows] = 0
    memory.moving[rows] = False
    memory.lost_frames[rows] = 1
    memory.unplaced[rows] = True
    memory.shown[rows] = False


def remember_here(memory: PointMemory) -> PointMemory:
    """Return the memory of the same N points as if they had just been placed where they are."""
    new = remember(memory.query, memory.shapes, described=True)
    return replace(
        new,
        template=memory.template,
        described=memory.described,
        similarities=memory.similarities,
        rival=memory.rival,
    )


@dataclass(frozen=True)
class View:
    """The frame that points are tracked into."""

    features: FeatureMap | None
    """None if the frame has no feature map; nothing may then ask for descriptors."""
    image: Pyramid
    scale: Floats
    """Model pixels (x, y) in a pixel."""
    intervals: float
    """Usual frame intervals since the frame before."""
    camera: Motion
    """The camera's motion since the frame before."""

    @property
    def unit(self) -> float:
        """Pixels that one pixel at a width of 256 is."""
        return self.image.unit

    @property
    def feature_map(self) -> FeatureMap:
        """The feature map of a frame that has one."""
        if self.features is None:
            raise ValueError("the frame has no feature map")
        return self.features

    def model_positions(self, points: Floats) -> Floats:
        """Return the model pixels of points [N, 2]."""
        return np.asarray(points * self.scale, np.float32)

    def describe(self, points: Floats, falloff: float) -> Floats:
        """Return the descriptors [N, C] at points [N, 2] of the frame, in its pixels."""
        return self.feature_map.sample(self.model_positions(points), falloff)

    def patch_scale(self, query: Appearance) -> Floats:
        """Return the pixels (x, y) of this frame in one of the near patches', [N, 2, 1]."""
        return (query.scale / self.scale)[:, :, None]

    def patch_size(self, query: Appearance) -> Floats:
        """Return the pixels of this frame in one of the near patches', [N]."""
        return np.asarray(np.sqrt((query.scale / self.scale).prod(axis=1)), np.float32)

    def patch_levels(self, query: Appearance) -> Indices:
        """Return the levels [N] of the image's pyramid that the near patches are read from."""
        return self.image.nearest_levels(self.patch_size(query))


def are_close(points: Floats, others: Floats, limit: Floats | float) -> Bools:
    """Return which points [N, 2] are nearer to the others than a limit; not where not finite."""
    return np.asarray(np.linalg.norm(points - others, axis=1) < limit, np.bool_)
