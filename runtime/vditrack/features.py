"""From frames to feature maps: resize, window, run the model, keep what matching needs."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.backends import Array, Tensor, open_session
from vditrack.bundle import Bundle
from vditrack.errors import BundleError
from vditrack.grid import Grid, cells_from_pixels, hat_weights, linear_weights, pixel_centres
from vditrack.timing import stage

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
    """The two graphs of a bundle, loaded and checked against its manifest."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graphs.

        Raises:
            BackendError: no inference engine is installed or it refuses a graph.
            BundleError: a graph has not the inputs and outputs the manifest claims.

        """
        inp, out = bundle.manifest.input, bundle.manifest.output
        self.grid = Grid(out.rows, out.columns, out.stride)
        self.window = inp.frames
        self.described = inp.described_frames
        self._encoder_frames = inp.encoder_frames
        self._encoder = open_session(bundle.encoder)
        self._features = open_session(bundle.features)
        frames = Tensor((inp.encoder_frames, inp.height, inp.width, 3), np.dtype(np.uint8))
        shape = (inp.described_frames, out.rows, out.columns, out.channels)
        _require(bundle, bundle.encoder.name, self._encoder.inputs, "frames", frames)
        _require(
            bundle,
            bundle.features.name,
            self._features.outputs,
            "descriptors",
            Tensor(shape, np.dtype(np.float32)),
        )
        latents = _windowed(self._encoder.outputs.get("latents"), inp.frames)
        _require(bundle, bundle.features.name, self._features.inputs, "latents", latents)

    def prepare(self, frame: Frame) -> Array:
        """Do what one frame needs alone: resize it, and encode it if the encoder takes one frame.

        A frame that several windows share is then prepared once.
        """
        size = (self.grid.width, self.grid.height)
        shrinks = frame.shape[1] > size[0] or frame.shape[0] > size[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        with stage("resize"):
            resized = cv2.resize(frame, size, interpolation=method)
        return self._encode(resized[None]) if self._encoder_frames == 1 else resized

    def describe(self, window: Sequence[Array]) -> list[FeatureMap]:
        """Feature maps of the newest of prepared frames, as many as the model's window takes."""
        if self._encoder_frames == 1:
            latents = np.concatenate(window, axis=2)
        else:
            latents = self._encode(np.stack(window))
        with stage("transformer"):
            descriptors = self._features.run({"latents": latents})["descriptors"]
        return [FeatureMap(self.grid, frame) for frame in descriptors]

    def _encode(self, frames: Frame) -> Array:
        step = self._encoder_frames
        groups = [frames[i : i + step] for i in range(0, len(frames), step)]
        with stage("encoder"):
            latents = [self._encoder.run({"frames": group})["latents"] for group in groups]
        return np.concatenate(latents, axis=2)


class SlidingWindow:
    """Causal features: each frame's map is read from the window that ends with it.

    Before the window is full, its first frame stands in for the ones before it.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self._extractor = extractor
        self._prepared: deque[Array] = deque(maxlen=extractor.window)

    def push(self, frame: Frame) -> FeatureMap:
        prepared = self._extractor.prepare(frame)
        if not self._prepared:
            self._prepared.extend([prepared] * self._extractor.window)
        self._prepared.append(prepared)
        return self._extractor.describe(list(self._prepared))[-1]


def clip_features(extractor: FeatureExtractor, frames: Iterable[Frame]) -> Iterator[FeatureMap]:
    """One feature map a frame of a clip: no frame is left out.

    Where a window describes all its frames, windows overlap by one; else they follow each other
    by as many frames as they describe, and the clip's first frame stands in for those before it.
    The last window is moved back so that it ends with the clip, and where a clip is shorter than
    one window, its last frame stands in for those after it.
    """
    length, described = extractor.window, extractor.described
    prepared: deque[Array] = deque(maxlen=length)
    waiting, needed = 0, described
    for frame in frames:
        newest = extractor.prepare(frame)
        if not prepared:
            prepared.extend([newest] * (length - described))
        prepared.append(newest)
        waiting += 1
        if waiting == needed:
            yield from extractor.describe(list(prepared))[-waiting:]
            waiting, needed = 0, described if described < length else max(1, length - 1)
    if waiting:
        missing = length - len(prepared)
        filled = list(prepared) + [prepared[-1]] * missing
        yield from extractor.describe(filled)[: described - missing][-waiting:]


def causal_features(extractor: FeatureExtractor, frames: Iterable[Frame]) -> Iterator[FeatureMap]:
    """One feature map a frame, each from the window that ends with it, as a stream has them."""
    window = SlidingWindow(extractor)
    return (window.push(frame) for frame in frames)


_TINY = np.float32(1e-12)
_STENCIL = np.arange(-1, 2, dtype=np.float32)
_STENCIL_WEIGHTS = np.exp(-3 * np.hypot(_STENCIL[:, None], _STENCIL)).astype(np.float32)
_STENCIL_WEIGHTS /= _STENCIL_WEIGHTS.sum()


def _windowed(latents: Tensor | None, frames: int) -> Tensor:
    if latents is None or len(latents.shape) != 5:
        return Tensor((), np.dtype(np.float32))
    batch, channels, _, rows, columns = latents.shape
    return Tensor((batch, channels, frames, rows, columns), latents.dtype)


def _require(
    bundle: Bundle, graph: str, tensors: dict[str, Tensor], name: str, expected: Tensor
) -> None:
    if tensors.get(name) != expected:
        raise BundleError(
            f"{bundle.root / graph}: tensor {name!r} should be {expected.dtype} "
            f"{list(expected.shape)} by the manifest, the graph has {tensors}. "
            "Export the bundle again."
        )


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
