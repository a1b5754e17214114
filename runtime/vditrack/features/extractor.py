"""Feature maps of frames: resizing, encoding, and running the transformer on windows of latents."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.bundle.folder import Bundle
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap, interpolate_frames
from vditrack.features.latent_encoder import LatentEncoder, require_tensors
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import SLOT, Given, OpenGraph, Resident, State, TensorSpec
from vditrack.stage_timing import stage


class FeatureExtractor:
    """The graphs of a bundle, loaded and checked against its manifest."""

    def __init__(self, bundle: Bundle, open_graph: OpenGraph = open_session) -> None:
        """Load the graphs with ``open_graph``.

        Raises:
            BackendError: No inference engine is installed, or it refuses a graph.
            BundleError: A graph does not have the inputs and outputs that the manifest claims.

        """
        inp, out = bundle.manifest.input, bundle.manifest.output
        self.grid = Grid(out.rows, out.columns, out.stride)
        self.window, self.described = inp.frames, inp.described_frames
        self.latents, self.described_latents = inp.latents, inp.described_latents
        self.temporal_stride, self.overlap = inp.temporal_stride, inp.overlap
        self.keeps_keys = inp.attention != "window"
        """Whether the transformer takes chunks of latents, and keys and values of those before."""
        self.cached_latents, self.latents_of_step = inp.cached_latents, inp.latents_of_step
        self.frames_of_step = inp.frames_of_step
        self.encoder = LatentEncoder(bundle, open_graph)
        self._features = open_graph(bundle.features)
        shape = (inp.described_latents, out.rows, out.columns, out.channels)
        descriptors = TensorSpec(shape, np.dtype(np.float32))
        taken = inp.described_latents if self.keeps_keys else inp.latents
        latents = _windowed(self.encoder.latents, taken)
        caches, slots = self._caches() if self.keeps_keys else ({}, {})
        outputs = {"descriptors": descriptors, **slots}
        require_tensors(bundle.features, self._features.outputs, outputs)
        require_tensors(bundle.features, self._features.inputs, {"latents": latents, **caches})

    def _caches(self) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
        """Return the inputs and outputs of the keys and values that the graph should have."""
        rings = {n: ring for n, ring in self._features.inputs.items() if n.startswith("cache.")}
        if not rings:
            return {}, {}
        slots, chunk = self.cached_latents, self.described_latents
        places = TensorSpec((slots,), np.dtype(np.int32))
        taken = {n: TensorSpec((slots, *ring.shape[1:]), ring.dtype) for n, ring in rings.items()}
        given = {
            SLOT + n: TensorSpec((chunk, *ring.shape[1:]), ring.dtype) for n, ring in rings.items()
        }
        return {"places": places, **taken}, given

    def resize(self, frame: Frame) -> Frame:
        """Resize a frame to the model's input size."""
        with stage("resize"):
            return resize_frame(frame, self.grid)

    def describe(self, window: Sequence[Resident]) -> list[FeatureMap]:
        """Return the maps of the newest latents of a window.

        Args:
            window: latents [1, C, t, h, w] in order, in one array or more.

        """
        with stage("transformer"):
            descriptors = self._features.run({"latents": window})["descriptors"]
        return [FeatureMap(self.grid, latent) for latent in descriptors]

    def new_state(self) -> State:
        """Return the keys and values before the first chunk, where the transformer runs."""
        return self._features.new_state()

    def describe_chunk(
        self, chunk: Sequence[Resident], places: NDArray[np.int32], state: State, slot: int
    ) -> list[FeatureMap]:
        """Return the maps of the newest latents, given keys and values of those before.

        Args:
            chunk: as many latents [1, C, 1, h, w] as the bundle describes at a time.
            places: [slots] of the cached latents in the window, 0 for the oldest of a full one; -1
                for empty slots.
            state: keys and values, which get those of the chunk.
            slot: first slot of the chunk.

        """
        inputs: dict[str, Given] = {"latents": chunk}
        if "places" in self._features.inputs:
            inputs["places"] = places
        with stage("transformer"):
            descriptors = self._features.run(inputs, state, slot)["descriptors"]
        return [FeatureMap(self.grid, latent) for latent in descriptors]

    def describe_frames(self, window: Sequence[Frame]) -> Iterator[FeatureMap]:
        """Return the maps of the newest resized frames of a window, encoded from its beginning."""
        latents = list(self.encoder.encode_clip(window))
        return interpolate_frames(self.describe(latents), self.temporal_stride)


def resize_frame(frame: Frame, grid: Grid) -> Frame:
    """Resize a frame, uint8 [H, W, 3] RGB, to the input size of the model that has a grid."""
    size = (grid.width, grid.height)
    shrinks = frame.shape[1] > size[0] or frame.shape[0] > size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Frame = cv2.resize(frame, size, interpolation=method)
    return resized


def _windowed(latents: TensorSpec, count: int) -> TensorSpec:
    batch, channels, _, rows, columns = latents.shape
    return TensorSpec((batch, channels, count, rows, columns), latents.dtype)
