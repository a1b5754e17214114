"""Inputs of a bundle's graphs on rendered clips, on which the ranges of INT8 are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vditrack.acceptance import acceptance_frames
from vditrack.bundle.folder import Bundle
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import causal_features
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import Array, ArraySession, Session
from vditrack.synthetic.layers.clips import render_clip

SEEDS = range(1000, 1004)
"""The seeds of the clips. Those of the acceptance clips begin at 0."""

Inputs = list[Mapping[str, Array]]
"""The inputs of a graph, run by run."""


@dataclass
class _Recording(ArraySession):
    """A session that records its inputs."""

    session: Session
    given: Inputs = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs, self.outputs = self.session.inputs, self.session.outputs

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once and record its inputs."""
        self.given.append(dict(inputs))
        return self.session.run(inputs)


def record_inputs(bundle: Bundle) -> dict[str, Inputs]:
    """Return the inputs of each graph of a bundle while the clips are streamed."""
    recordings: dict[str, _Recording] = {}

    def open_graph(graph: Path) -> Session:
        return recordings.setdefault(graph.name, _Recording(open_session(graph)))

    extractor, size = FeatureExtractor(bundle, open_graph), bundle.manifest.input
    for seed in SEEDS:
        clip = render_clip(seed, size.height, size.width, acceptance_frames(size))
        for _ in causal_features(extractor, clip.frames):
            pass
    return {name: recording.given for name, recording in recordings.items()}
