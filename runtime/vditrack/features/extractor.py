"""From frames to feature maps: resize, window, run the model, keep what matching needs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.bundle.folder import Bundle
from vditrack.coordinates import Grid, cells_from_pixels, hat_weights, linear_weights, pixel_centres
from vditrack.features.latent_encoder import Caches, LatentEncoder, require_tensors
from vditrack.inference.session import Array, OpenGraph, Tensor, open_session
from vditrack.stage_timing import stage

Frame = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureMap:
    """Descriptors of one frame, read between cells by bilinear interpolation.

    The similarity is a cosine, and the norm of an interpolated descriptor is not the interpolated
    norm. It depends on no template, so it is worked out once a frame, without interpolating the
    descriptors themselves: the squared norm is a sum over pairs of neighbouring cells.
    """

    grid: Grid
    descriptors: Floats
    """[rows, columns, C]"""

    @cached_property
    def pixel_inverse_norms(self) -> Floats:
        """[height, width]: one over the norm at the centre of every model pixel."""
        grid = self.grid
        rows = _interpolation(grid.rows, grid.stride)
        columns = _interpolation(grid.columns, grid.stride)
        return _inverse_norms(self.descriptors, rows, columns)

    @cached_property
    def half_cell_inverse_norms(self) -> Floats:
        """[2 rows - 1, 2 columns - 1]: the same at cell centres and half way between them."""
        rows, columns = half_cell_weights(self.grid.rows), half_cell_weights(self.grid.columns)
        return _inverse_norms(self.descriptors, rows, columns)

    def sample(self, points: Floats) -> Floats:
        """Descriptors [N, C] around points [N, 2] (x, y) in model pixels.

        A mean over the 3 x 3 places one pixel apart, weighted by exp(-3 distance) (HeFT).
        """
        places = points[:, :, None] + _STENCIL
        cells = cells_from_pixels(places, self.grid.stride)
        columns, column_weights = linear_weights(cells[:, 0], self.grid.columns)
        rows, row_weights = linear_weights(cells[:, 1], self.grid.rows)
        weights = row_weights.transpose(0, 2, 1) @ _STENCIL_WEIGHTS @ column_weights
        around = self.descriptors[rows[:, :, None], columns[:, None, :]]
        return np.asarray(np.einsum("nij,nijc->nc", weights, around), np.float32)


class FeatureExtractor:
    """The graphs of a bundle, loaded and checked against its manifest."""

    def __init__(self, bundle: Bundle, open_graph: OpenGraph = open_session) -> None:
        """Load the graphs, with ``open_graph``.

        Raises:
            BackendError: no inference engine is installed or it refuses a graph.
            BundleError: a graph has not the inputs and outputs the manifest claims.

        """
        inp, out = bundle.manifest.input, bundle.manifest.output
        self.grid = Grid(out.rows, out.columns, out.stride)
        self.window, self.described = inp.frames, inp.described_frames
        self.latents, self.described_latents = inp.latents, inp.described_latents
        self.temporal_stride, self.overlap = inp.temporal_stride, inp.overlap
        self.encoder = LatentEncoder(bundle, open_graph)
        self._features = open_graph(bundle.features)
        shape = (inp.described_latents, out.rows, out.columns, out.channels)
        descriptors = Tensor(shape, np.dtype(np.float32))
        require_tensors(bundle.features, self._features.outputs, {"descriptors": descriptors})
        latents = _windowed(self.encoder.latents, inp.latents)
        require_tensors(bundle.features, self._features.inputs, {"latents": latents})

    def resize(self, frame: Frame) -> Frame:
        """Bring a frame to the model's size."""
        size = (self.grid.width, self.grid.height)
        shrinks = frame.shape[1] > size[0] or frame.shape[0] > size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        with stage("resize"):
            resized: Frame = cv2.resize(frame, size, interpolation=method)
        return resized

    def describe(self, window: Sequence[Array]) -> list[FeatureMap]:
        """Maps of the newest of a window's latents, which come in order, in one array or more."""
        latents = np.concatenate(window, axis=2)
        with stage("transformer"):
            descriptors = self._features.run({"latents": latents})["descriptors"]
        return [FeatureMap(self.grid, latent) for latent in descriptors]

    def describe_frames(self, window: Sequence[Frame]) -> Iterator[FeatureMap]:
        """Maps of the newest of a window's resized frames, encoded from the window's beginning."""
        latents = list(self.encoder.from_beginning(window))
        return _frame_by_frame(self.describe(latents), self.temporal_stride)


class SlidingWindow:
    """Causal features: each frame's map is that of the newest latent of the window it ends.

    Before the window is full, its first latent stands in for the ones before it. Where latents
    share frames, the newest frame stands in for those its group still lacks, so that every frame
    has a map; the latent of the whole group is kept.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        length = extractor.window if extractor.encoder.windowed else extractor.latents
        self._kept: deque[Array] = deque(maxlen=length - 1)
        self._group: list[Frame] = []
        self._caches: Caches | None = None

    def push(self, frame: Frame) -> FeatureMap:
        resized = self._extractor.resize(frame)
        windowed = self._extractor.encoder.windowed
        latents = self._anew(resized) if windowed else self._going_on(resized)
        return self._extractor.describe(latents)[-1]

    def _anew(self, frame: Frame) -> list[Array]:
        """Encode all frames of the window that the frame ends."""
        window = self._window(frame)
        self._kept.append(frame)
        return list(self._extractor.encoder.from_beginning(window))

    def _going_on(self, frame: Frame) -> list[Array]:
        """Encode the newest frames alone, and keep their latent once their group is whole."""
        encoder = self._extractor.encoder
        group = [*self._group, frame]
        latent, caches = encoder.encode(group, self._caches)
        window = self._window(latent)
        if self._caches is None or len(group) == encoder.frames:
            self._kept.append(latent)
            self._group, self._caches = [], caches
        else:
            self._group = group
        return window

    def _window(self, newest: Array) -> list[Array]:
        if not self._kept:
            self._kept.extend([newest] * (self._kept.maxlen or 0))
        return [*self._kept, newest]


def clip_features(
    extractor: FeatureExtractor, frames: Frame | Sequence[Frame]
) -> Iterator[FeatureMap]:
    """One feature map a frame of a clip: no frame is left out.

    Where a window describes all its frames, windows overlap, by one as in HeFT or as the bundle
    says, and each is encoded from its own beginning. Else they follow each other by as many frames
    as they describe, the encoder goes on through the clip, and the clip's first frame stands in for
    those before it. The last window is moved back so that it ends with the clip, and where a clip
    is shorter than one window, its last frame stands in for those after it.

    Args:
        extractor: a bundle's graphs.
        frames: uint8 [T, H, W, 3] RGB, or T frames [H, W, 3].

    """
    encoder = extractor.encoder
    resized = (extractor.resize(frame) for frame in frames)
    if encoder.windowed or (encoder.cached and extractor.described == extractor.window):
        size = (extractor.window, extractor.described, extractor.overlap)
        maps = _in_windows(resized, *size, extractor.describe_frames)
    else:
        latents = encoder.from_beginning(resized)
        size = (extractor.latents, extractor.described_latents, extractor.overlap)
        of_latents = _in_windows(latents, *size, extractor.describe)
        maps = _frame_by_frame(of_latents, extractor.temporal_stride)
    # The frames of the last latent may go on beyond the clip.
    return islice(maps, len(frames))


def _in_windows(
    units: Iterable[Array],
    length: int,
    described: int,
    overlap: int,
    describe: Callable[[Sequence[Array]], Iterable[FeatureMap]],
) -> Iterator[FeatureMap]:
    """Maps of frames or latents in order, where ``describe`` gives a window's newest ones."""
    window: deque[Array] = deque(maxlen=length)
    waiting, needed = 0, described
    for newest in units:
        if not window:
            window.extend([newest] * (length - described))
        window.append(newest)
        waiting += 1
        if waiting == needed:
            yield from islice(describe(list(window)), described - waiting, None)
            waiting, needed = 0, described if described < length else max(1, length - overlap)
    if waiting:
        missing = length - len(window)
        filled = list(window) + [window[-1]] * missing
        end = described - missing
        yield from islice(describe(filled), end - waiting, end)


def _frame_by_frame(maps: Iterable[FeatureMap], stride: int) -> Iterator[FeatureMap]:
    """Maps of all frames from those of latents, which lie at the first and every stride after it.

    Between two latents descriptors are linear in time (HeFT).
    """
    before: FeatureMap | None = None
    for newest in maps:
        if before is not None:
            for step in range(1, stride):
                yield _between(before, newest, step / stride)
        yield newest
        before = newest


def _between(before: FeatureMap, after: FeatureMap, weight: float) -> FeatureMap:
    descriptors = (1 - weight) * before.descriptors + weight * after.descriptors
    return FeatureMap(after.grid, descriptors)


def causal_features(extractor: FeatureExtractor, frames: Iterable[Frame]) -> Iterator[FeatureMap]:
    """One feature map a frame, each from the window that ends with it, as a stream has them."""
    window = SlidingWindow(extractor)
    return (window.push(frame) for frame in frames)


_TINY = np.float32(1e-12)
_STENCIL = np.arange(-1, 2, dtype=np.float32)
_STENCIL_WEIGHTS = np.exp(-3 * np.hypot(_STENCIL[:, None], _STENCIL)).astype(np.float32)
_STENCIL_WEIGHTS /= _STENCIL_WEIGHTS.sum()


def _windowed(latents: Tensor, count: int) -> Tensor:
    batch, channels, _, rows, columns = latents.shape
    return Tensor((batch, channels, count, rows, columns), latents.dtype)


@lru_cache(maxsize=16)
def _interpolation(count: int, stride: int) -> Floats:
    """Return the weights [count * stride, count] of the cells at every pixel centre of an axis."""
    centres = cells_from_pixels(pixel_centres(np.arange(count * stride)), stride)
    weights = hat_weights(np.clip(centres, 0, count - 1), np.arange(count))
    return np.asarray(weights, np.float32)


@lru_cache(maxsize=16)
def half_cell_weights(count: int) -> Floats:
    """Return the weights [2 count - 1, count] of the cells at centres and half way between."""
    return np.asarray(hat_weights(np.arange(2 * count - 1) / 2, np.arange(count)), np.float32)


def _inverse_norms(descriptors: Floats, rows: Floats, columns: Floats) -> Floats:
    """1 / |sum_ij rows[y, i] columns[x, j] d_ij| for every (y, x): [Y, X].

    Each sample lies between at most two rows and two columns, so only products of neighbouring
    descriptors have weight: with itself, the next row, the next column, and both diagonals.
    """
    d = descriptors
    own_rows, own_columns = rows**2, columns**2
    pair_rows, pair_columns = 2 * rows[:, :-1] * rows[:, 1:], 2 * columns[:, :-1] * columns[:, 1:]
    diagonals = _products(d[:-1, :-1], d[1:, 1:]) + _products(d[:-1, 1:], d[1:, :-1])
    squared = own_rows @ _products(d, d) @ own_columns.T
    squared += pair_rows @ _products(d[:-1], d[1:]) @ own_columns.T
    squared += own_rows @ _products(d[:, :-1], d[:, 1:]) @ pair_columns.T
    squared += pair_rows @ (diagonals / 2) @ pair_columns.T
    return np.asarray(1 / np.sqrt(np.maximum(squared, _TINY)), np.float32)


def _products(a: Floats, b: Floats) -> Floats:
    return np.asarray(np.einsum("ijc,ijc->ij", a, b), np.float32)
