"""Motion and appearance features of each frame, fused on one grid (TED, arXiv 2512.02339)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat

import numpy as np

from vditrack.arrays import Floats, Frame
from vditrack.bundle.configuration import Displacement, Propagation
from vditrack.bundle.folder import Bundle
from vditrack.coordinates import Grid, cells_from_pixels, hat_weights, pixels_from_cells
from vditrack.errors import InputError
from vditrack.features.cell_motion import MotionWindow, clip_motion
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import SlidingWindow, clip_features
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import OpenGraph

Push = Callable[[Frame], FeatureMap]

_TINY = 1e-12


@dataclass(frozen=True)
class FusedMap:
    """Fused features of a frame."""

    descriptors: Floats
    """[rows, columns, D]; of appearance alone where there is a velocity."""
    velocity: Floats | None = None
    """[rows, columns, 2] (x, y) in cells a frame, where motion is read as displacement."""


def fuse(motion: FeatureMap, appearance: FeatureMap, motion_weight: float) -> Floats:
    """Fuse the descriptors of one frame, as TED does.

    Args:
        motion: of any grid over the frame; read bilinearly at the centres of appearance's cells.
        appearance: of the grid of the result.
        motion_weight: λ, from 0 to 1.

    Returns:
        [rows, columns, D] on the grid of ``appearance``: λ x motion beside (1 - λ) x appearance,
        each of length 1 at every cell. A part without weight is left out.

    """
    grid, parts = appearance.grid, []
    if motion_weight > 0:
        there = _resampled(motion.descriptors, grid.rows, grid.columns)
        parts.append(motion_weight * _of_length_one(there))
    if motion_weight < 1:
        parts.append((1 - motion_weight) * _of_length_one(appearance.descriptors))
    return np.concatenate(parts, axis=2, dtype=np.float32)


class FusedFeatures:
    """The two feature extractors of a bundle that propagates masks.

    A part's graphs are loaded when its features are first asked for; those of a part without
    weight are never. Where the bundle has no motion features of its own, motion is the displacement
    of its appearance (`vditrack.features.cell_motion`).
    """

    def __init__(
        self,
        bundle: Bundle,
        open_graph: OpenGraph = open_session,
        settings: Propagation | None = None,
    ) -> None:
        """Read what the bundle says of its two parts.

        Args:
            bundle: a checked bundle.
            open_graph: loads each graph of the two bundles in it.
            settings: in the place of the bundle's.

        Raises:
            InputError: the bundle has no such features.

        """
        if bundle.manifest.propagation is None:
            raise InputError(
                f"bundle {bundle.manifest.name} ({bundle.root}) tracks points alone: it has no "
                "motion and appearance features. Take one that was exported with --masks "
                "(docs/masks.md)."
            )
        self.settings = settings or bundle.manifest.propagation
        output = bundle.appearance.manifest.output
        self.grid = Grid(output.rows, output.columns, output.stride)
        """Of the fused features: that of the appearance features."""
        self._bundle = bundle
        self._open_graph = open_graph

    def clip(self, frames: Frame | Sequence[Frame]) -> Iterator[FusedMap]:
        """Features of each frame of a clip, from windows that also look ahead.

        Args:
            frames: uint8 [T, H, W, 3] RGB, or T frames [H, W, 3].

        """
        motion, appearance = (
            repeat(self._nothing) if part is None else clip_features(part, frames)
            for part in self._parts
        )
        weight, displacement = self.settings.motion_weight, self._displacement
        if displacement is None:
            for pair in zip(motion, appearance, strict=False):
                yield FusedMap(fuse(*pair, weight))
            return
        for moving in clip_motion(appearance, displacement):
            yield FusedMap(fuse(self._nothing, moving.appearance, weight), moving.velocity)

    def window(self) -> "FusedWindow":
        """Start on the features of frames that come one by one."""
        motion, appearance = (
            (lambda _: self._nothing) if part is None else SlidingWindow(part).push
            for part in self._parts
        )
        displacement = None if self._displacement is None else MotionWindow(self._displacement)
        return FusedWindow(motion, appearance, displacement, self.settings.motion_weight)

    @property
    def _displacement(self) -> Displacement | None:
        """How motion is read of appearance, where it is, and has weight."""
        return self.settings.displacement if self.settings.motion_weight > 0 else None

    @cached_property
    def _parts(self) -> tuple[FeatureExtractor | None, FeatureExtractor | None]:
        """Of motion and of appearance; None for the one that is not needed."""
        weight, displaced = self.settings.motion_weight, self._displacement is not None
        motion = appearance = None
        if weight > 0 and not displaced:
            motion = FeatureExtractor(self._bundle.motion, self._open_graph)
        if weight < 1 or displaced:
            appearance = FeatureExtractor(self._bundle.appearance, self._open_graph)
        return motion, appearance

    @property
    def _nothing(self) -> FeatureMap:
        """In the place of the maps of the part that has no weight."""
        return FeatureMap(self.grid, np.zeros((self.grid.rows, self.grid.columns, 0), np.float32))


class FusedWindow:
    """Causal features of one stream: each frame's are those of the windows that end with it."""

    def __init__(
        self,
        motion: Push,
        appearance: Push,
        displacement: MotionWindow | None,
        motion_weight: float,
    ) -> None:
        self._motion, self._appearance = motion, appearance
        self._displacement, self._motion_weight = displacement, motion_weight

    def push(self, frame: Frame) -> FusedMap:
        """Features of the next frame, uint8 [H, W, 3] RGB."""
        motion, appearance = self._motion(frame), self._appearance(frame)
        velocity = None
        if self._displacement is not None:
            velocity = self._displacement.push(appearance).velocity
        return FusedMap(fuse(motion, appearance, self._motion_weight), velocity)


def _resampled(descriptors: Floats, rows: int, columns: int) -> Floats:
    """Descriptors [r, c, D] read bilinearly at the centres of [rows, columns] cells."""
    if descriptors.shape[:2] == (rows, columns):
        return descriptors
    down, across = _weights(descriptors.shape[0], rows), _weights(descriptors.shape[1], columns)
    # A product of matrices on either side, rather than a gather of four cells for each.
    wide = np.asarray(across @ descriptors, np.float32)
    return np.asarray(np.tensordot(down, wide, axes=1), np.float32)


@lru_cache(maxsize=16)
def _weights(count: int, wanted: int) -> Floats:
    """Weights [wanted, count] of an axis's cells at the centres of as many as are wanted."""
    # On an axis of count x wanted pixels both have whole strides.
    cells = cells_from_pixels(pixels_from_cells(np.arange(wanted, dtype=np.float64), count), wanted)
    weights = hat_weights(np.clip(cells, 0, count - 1), np.arange(count))
    return np.asarray(weights, np.float32)


def _of_length_one(descriptors: Floats) -> Floats:
    norms = np.linalg.norm(descriptors, axis=2, keepdims=True)
    return np.asarray(descriptors / np.maximum(norms, _TINY), np.float32)
