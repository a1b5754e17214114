"""Latents of resized frames: the encoder's graphs, and the state between their runs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from vditrack.arrays import Frame
from vditrack.bundle.folder import Bundle
from vditrack.bundle.manifest import Input, latents_of
from vditrack.errors import BundleError
from vditrack.inference.session import OpenGraph, Resident, Session, State, TensorSpec
from vditrack.stage_timing import stage


class LatentEncoder:
    """The encoder's graphs. Any number of clips and streams can share one: they keep its state."""

    def __init__(self, bundle: Bundle, open_graph: OpenGraph) -> None:
        """Load the graphs.

        Raises:
            BackendError: No inference engine is installed, or it refuses a graph.
            BundleError: A graph does not have the inputs and outputs that the manifest claims.

        """
        encoder = bundle.manifest.encoder
        self.frames = encoder.frames
        self.cached = encoder.caches > 0
        self.windowed = encoder.frames > 1 and not self.cached
        """Whether windows share no latents, because one run takes several frames of a window."""
        self._encoder = _open_encoder(bundle, open_graph)
        self._start: Session | None = None
        if self.cached and bundle.manifest.input.temporal_stride > 1:
            self._start = _open_start(bundle, open_graph, self._encoder.outputs)
        self.latents = self._encoder.outputs["latents"]
        """Latents of one run."""

    def encode(self, group: Sequence[Frame], state: State | None) -> tuple[Resident, State]:
        """Encode the frames of one run.

        Args:
            group: at most as many frames, uint8 [height, width, 3], as a run takes; at the
                beginning of a clip whose later latents share frames, its first frame alone. The
                newest frame is repeated for those that a group lacks.
            state: the stream's caches, which the run updates; None at the beginning of a clip.

        Returns:
            Latents [1, C, t, h, w] where the graphs run, and the state for the next run.

        """
        session, size = self._encoder, self.frames
        if state is None:
            state = self._encoder.new_state()
            if self._start is not None:
                session, size = self._start, 1
        frames = _stack([*group, *[group[-1]] * (size - len(group))])
        with stage("encoder"):
            outputs = session.run_resident({"frames": frames}, state)
        return outputs["latents"], state

    def encode_clip(self, frames: Iterable[Frame]) -> Iterator[Resident]:
        """Yield the latents of a clip, or of a window as if it were one, run by run."""
        coming, state = iter(frames), None
        size = self.frames if self._start is None else 1
        while group := list(islice(coming, size)):
            latents, state = self.encode(group, state)
            yield latents
            size = self.frames


def require_tensors(
    graph: Path, found: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec | None]
) -> None:
    """Check that a graph has the inputs or outputs that the manifest claims.

    Args:
        graph: path of the graph, for the error message.
        found: the graph's tensors by name.
        expected: the manifest's tensors by name; None for a tensor of any shape.

    Raises:
        BundleError: A tensor is missing, is one too many, or has another shape or dtype.

    """
    for name in [*expected, *found]:
        tensor, wanted = found.get(name), expected.get(name)
        if tensor is None:
            complaint = "is missing"
        elif name not in expected:
            complaint = "is not in the manifest"
        elif wanted is not None and tensor != wanted:
            complaint = f"should be {wanted} by the manifest, the graph has {tensor}"
        else:
            continue
        raise BundleError(f"{graph}: tensor {name!r} {complaint}. Export the bundle again.")


def _open_encoder(bundle: Bundle, open_graph: OpenGraph) -> Session:
    graph, encoder, inp = bundle.encoder, bundle.manifest.encoder, bundle.manifest.input
    session = open_graph(graph)
    names = [f"cache.{number}" for number in range(encoder.caches)]
    frames = _frames_spec(encoder.frames, inp)
    require_tensors(graph, session.inputs, {"frames": frames, **dict.fromkeys(names)})
    left = {f"next_{name}": session.inputs[name] for name in names}
    require_tensors(graph, session.outputs, {"latents": None, **left})
    count = 1 if encoder.caches else latents_of(encoder.frames, inp.temporal_stride)
    shape = session.outputs["latents"].shape
    if len(shape) != 5 or shape[2] != count:
        raise BundleError(
            f"{graph}: tensor 'latents' should be [1, channels, {count}, rows, columns] by the "
            f"manifest, the graph has {list(shape)}. Export the bundle again."
        )
    return session


def _open_start(
    bundle: Bundle, open_graph: OpenGraph, outputs: Mapping[str, TensorSpec]
) -> Session:
    """Open the graph of the first frame alone, which gives the caches that every run gives."""
    session = open_graph(bundle.encoder_start)
    frames = _frames_spec(1, bundle.manifest.input)
    require_tensors(bundle.encoder_start, session.inputs, {"frames": frames})
    require_tensors(bundle.encoder_start, session.outputs, outputs)
    return session


def _frames_spec(count: int, inp: Input) -> TensorSpec:
    return TensorSpec((count, inp.height, inp.width, 3), np.dtype(np.uint8))


def _stack(frames: Sequence[Frame]) -> Frame:
    # One frame is not copied.
    return frames[0][None] if len(frames) == 1 else np.stack(frames)
