"""Sessions that export runs graphs with, which refuse numbers that are not finite."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vditrack.errors import VditrackError
from vditrack.inference.session import Array, ArraySession, Session, TensorSpec
from vditrack_export.families.encoder_form import Graph, shapes_of


class TorchSession(ArraySession):
    """A graph run by torch: see `vditrack.inference.session.Session`."""

    def __init__(self, graph: Graph) -> None:
        """Derive inputs and outputs from the graph's examples."""
        self._graph = graph
        self.inputs = {name: _specify(value) for name, value in graph.examples.items()}
        shapes = shapes_of(graph.module, graph.examples.values())
        named = zip(graph.outputs, shapes, strict=True)
        self.outputs = {name: _specify(value) for name, value in named}

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once: see `vditrack.inference.session.ArraySession`.

        Raises:
            VditrackError: an output has a number that is not finite.

        """
        tensors = [torch.from_numpy(inputs[name]) for name in self.inputs]
        with torch.no_grad():
            outputs = self._graph.module(*tensors)
        values = [outputs] if isinstance(outputs, Tensor) else outputs
        named = dict(zip(self._graph.outputs, values, strict=True))
        return require_finite(self._graph.file, {n: value.numpy() for n, value in named.items()})


class FiniteSession(ArraySession):
    """A session whose outputs have to be finite."""

    def __init__(self, file: str, session: Session) -> None:
        """Take the name of the graph's file, and its session."""
        self._file, self._session = file, session
        self.inputs, self.outputs = session.inputs, session.outputs

    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once: see `vditrack.inference.session.ArraySession`.

        Raises:
            VditrackError: an output has a number that is not finite.

        """
        return require_finite(self._file, self._session.run(inputs))


def require_finite(file: str, outputs: dict[str, Array]) -> dict[str, Array]:
    """Return the outputs of a graph.

    Raises:
        VditrackError: an output has a number that is not finite.

    """
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise VditrackError(
                f"{name} of {file} are not finite: they exceed the range of the precision. Nothing "
                "was written; give another precision."
            )
    return outputs


def _specify(value: Tensor) -> TensorSpec:
    return TensorSpec(tuple(value.shape), np.dtype(str(value.dtype).removeprefix("torch.")))
