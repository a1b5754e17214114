"""Motion and appearance features of each frame, fused on one grid (TED, arXiv 2512.02339)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice, repeat
from threading import Lock

import numpy as np

from vditrack.arrays import Floats, Frame
from vditrack.bundle.configuration import CellColour, Displacement, Propagation
from vditrack.bundle.folder import Bundle
from vditrack.coordinates import Grid, cells_from_pixels, hat_weights, pixels_from_cells
from vditrack.errors import InputError
from vditrack.features.cell_colour import colour_map, read_coloured_features
from vditrack.features.cell_motion import MotionWindow, estimate_clip_motion
from vditrack.features.clip_frames import ClipFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap, normalise
from vditrack.features.restarting import read_clip_features
from vditrack.features.windows import SlidingWindow
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import OpenGraph


@dataclass(frozen=True)
class FusedMap:
    """Fused features of a frame."""

    descriptors: Floats
    """[rows, columns, D]; of appearance alone if there is a velocity."""
    velocity: Floats | None = None
    """[rows, columns, 2] (x, y) in cells a frame, if motion is read from displacements."""


def fuse(motion: FeatureMap, appearance: FeatureMap, motion_weight: float) -> Floats:
    """Fuse the descriptors of one frame, as TED does (arXiv 2512.02339).

    Args:
        motion: of any grid; interpolated bilinearly at the centres of the appearance cells.
        appearance: of the grid of the result.
        motion_weight: λ, from 0 to 1.

    Returns:
        [rows, columns, D] on the grid of ``appearance``: λ x motion beside (1 - λ) x appearance,
        each of length 1 at every cell. A part with weight 0 is left out.

    """
    grid, parts = appearance.grid, []
    if motion_weight > 0:
        there = _resample(motion.descriptors, grid.rows, grid.columns)
        parts.append(motion_weight * normalise(there))
    if motion_weight < 1:
        parts.append((1 - motion_weight) * normalise(appearance.descriptors))
    return np.concatenate(parts, axis=2, dtype=np.float32)


class FusedFeatures:
    """The motion and appearance features of a bundle that propagates masks.

    The graphs of a part are loaded when its features are first needed; those of a part with weight
    0 never are. If the bundle has no motion features of its own, motion is the displacement of its
    appearance (`vditrack.features.cell_motion`).
    """

    def __init__(
        self,
        bundle: Bundle,
        open_graph: OpenGraph = open_session,
        settings: Propagation | None = None,
    ) -> None:
        """Read the manifests of the two parts.

        Args:
            bundle: a checked bundle.
            open_graph: loads each graph of the two bundles in it.
            settings: replace the bundle's.

        Raises:
            InputError: The bundle has no features for masks.

        """
        if bundle.manifest.propagation is None:
            raise InputError(
                f"bundle {bundle.manifest.name} ({bundle.root}) tracks points alone: it has no "
                "motion and appearance features. Use one that was exported with --masks "
                "(docs/masks.md)."
            )
        self.settings = settings or bundle.manifest.propagation
        output = bundle.appearance.manifest.output
        self.grid = Grid(output.rows, output.columns, output.stride)
        """Grid of the fused features: that of the appearance features."""
        self._bundle = bundle
        self._open_graph = open_graph
        self._lock = Lock()

    def clip(self, clip: ClipFrames, first: int = 0) -> Iterator[FusedMap]:
        """Yield the features of the frames of a clip, from windows that also look ahead.

        Args:
            clip: T frames, which are read once for each of the two parts that is used.
            first: number of the first frame whose features are yielded.

        """
        weight, displacement = self.settings.motion_weight, self._displacement
        # The motion of a frame is that to the frames beside it.
        begin = first if displacement is None else max(0, first - displacement.frames)
        parts = zip(self._parts, (None, self.settings.colour), strict=True)
        motion, appearance = (self._read(part, clip, begin, colour) for part, colour in parts)
        if displacement is None:
            for pair in zip(motion, appearance, strict=False):
                yield FusedMap(fuse(*pair, weight))
            return
        moving_frames = estimate_clip_motion(appearance, displacement)
        for moving in islice(moving_frames, first - begin, None):
            yield FusedMap(fuse(self._empty_map, moving.appearance, weight), moving.velocity)

    def _read(
        self,
        part: FeatureExtractor | None,
        clip: ClipFrames,
        first: int,
        colour: CellColour | None,
    ) -> Iterator[FeatureMap]:
        if part is None:
            return repeat(self._empty_map)
        if colour is None:
            return read_clip_features(part, clip, first)
        return read_coloured_features(part, clip, first, colour)

    def window(self) -> "FusedWindow":
        """Start a stream of features of frames that come one by one."""
        motion, appearance = (None if part is None else SlidingWindow(part) for part in self._parts)
        displacement = None if self._displacement is None else MotionWindow(self._displacement)
        return FusedWindow(
            motion, appearance, displacement, self.settings, self._empty_map, self._lock
        )

    def shrink(self, frame: Frame) -> Frame:
        """Return a frame at the model's input size, the larger one of the two parts.

        Its features are those of the frame itself for this part. It shares no memory with the
        frame, uint8 [H, W, 3] RGB.
        """
        parts = [part for part in self._parts if part is not None]
        largest = max(parts, key=lambda part: part.grid.width * part.grid.height)
        resized = largest.resize(frame)
        return resized if resized is not frame else frame.copy()

    @property
    def has_one_size(self) -> bool:
        """Whether all parts take frames of the size that `shrink` returns."""
        grids = [part.grid for part in self._parts if part is not None]
        return len({(grid.width, grid.height) for grid in grids}) == 1

    @property
    def _displacement(self) -> Displacement | None:
        """Settings for motion that is read from appearance; None if it has another source."""
        return self.settings.displacement if self.settings.motion_weight > 0 else None

    @cached_property
    def _parts(self) -> tuple[FeatureExtractor | None, FeatureExtractor | None]:
        """Extractors of motion and of appearance; None for one that is not needed."""
        weight, displaced = self.settings.motion_weight, self._displacement is not None
        motion = appearance = None
        if weight > 0 and not displaced:
            motion = FeatureExtractor(self._bundle.motion, self._open_graph)
        if weight < 1 or displaced:
            appearance = FeatureExtractor(self._bundle.appearance, self._open_graph)
        return motion, appearance

    @property
    def _empty_map(self) -> FeatureMap:
        """Map without channels, for a part with weight 0."""
        return FeatureMap(self.grid, np.zeros((self.grid.rows, self.grid.columns, 0), np.float32))


class FusedWindow:
    """Causal fused features of one stream, from the windows that end with each frame.

    A frame has features if its appearance has a map, or its motion if appearance has no weight. If
    its motion has none, the newest map of motion takes its place.
    """

    def __init__(
        self,
        motion: SlidingWindow | None,
        appearance: SlidingWindow | None,
        displacement: MotionWindow | None,
        settings: Propagation,
        empty_map: FeatureMap,
        lock: Lock,
    ) -> None:
        """Start before the first frame.

        Args:
            motion: window of the motion features; None if they have no weight.
            appearance: window of the appearance features; None if they have no weight.
            displacement: reads motion from appearance; None if ``motion`` does.
            settings: the weight of motion, and the colours.
            empty_map: map without channels, for a part that is None.
            lock: held while the networks run, which windows in several threads share.

        """
        self._motion, self._appearance = motion, appearance
        self._displacement, self._settings = displacement, settings
        self._empty_map, self._lock = empty_map, lock
        self._newest_motion = empty_map if motion is None else None

    def copy(self) -> "FusedWindow":
        """Return a window with the same state, which shares its arrays."""
        other = FusedWindow(
            None if self._motion is None else self._motion.copy(),
            None if self._appearance is None else self._appearance.copy(),
            None if self._displacement is None else self._displacement.copy(),
            self._settings,
            self._empty_map,
            self._lock,
        )
        other._newest_motion = self._newest_motion
        return other

    @property
    def nbytes(self) -> int:
        """Memory that the newest frame added to the windows, in bytes."""
        windows = [part for part in (self._motion, self._appearance) if part is not None]
        return sum(window.newest_nbytes for window in windows)

    @property
    def describes_skipped_frames(self) -> bool:
        """Whether a copy can describe a frame that was skipped.

        It can if every frame has features; a copy of keys and values would be too large.
        """
        parts = [part for part in (self._appearance, self._motion) if part is not None]
        return parts[0].describes_each_frame and not any(part.keeps_keys for part in parts)

    def push(self, frame: Frame) -> FusedMap | None:
        """Return the features of the next frame, uint8 [H, W, 3] RGB; None if it has none."""
        with self._lock:
            moved = [] if self._motion is None else self._motion.push(frame)
            seen = moved if self._appearance is None else self._appearance.push(frame)
        if moved:
            self._newest_motion = moved[-1]
        if not seen or self._newest_motion is None:
            return None
        plain = self._empty_map if self._appearance is None else seen[-1]
        appearance = colour_map(plain, frame, self._settings.colour)
        velocity = None
        if self._displacement is not None:
            velocity = self._displacement.push(appearance).velocity
        return FusedMap(
            fuse(self._newest_motion, appearance, self._settings.motion_weight), velocity
        )


def _resample(descriptors: Floats, rows: int, columns: int) -> Floats:
    """Interpolate descriptors [r, c, D] bilinearly at the centres of [rows, columns] cells."""
    if descriptors.shape[:2] == (rows, columns):
        return descriptors
    down, across = _weights(descriptors.shape[0], rows), _weights(descriptors.shape[1], columns)
    # A product of matrices on either side, rather than a gather of four cells for each.
    wide = np.asarray(across @ descriptors, np.float32)
    return np.asarray(np.tensordot(down, wide, axes=1), np.float32)


@lru_cache(maxsize=16)
def _weights(count: int, wanted: int) -> Floats:
    """Return the weights [wanted, count] of an axis's cells at the centres of ``wanted`` cells."""
    # On an axis of count x wanted pixels both have whole strides.
    cells = cells_from_pixels(pixels_from_cells(np.arange(wanted, dtype=np.float64), count), wanted)
    weights = hat_weights(np.clip(cells, 0, count - 1), np.arange(count))
    return np.asarray(weights, np.float32)
