"""Sessions on ONNX Runtime whose state stays on a device, by IO binding.

Only inputs of the host go up and the outputs that are asked for come down. Where the device is the
CPU, the same code runs, which the tests use.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vditrack.errors import BackendError
from vditrack.inference.array_graphs import encode_concatenation_graph, encode_scatter_graph
from vditrack.inference.onnxruntime import (
    CPU,
    CUDA,
    TENSORRT,
    OnnxRuntimeSession,
    import_onnxruntime,
    open_inference_session,
)
from vditrack.inference.session import (
    Array,
    Given,
    Resident,
    State,
    TensorSpec,
    check_outputs,
    find_state,
    join_parts,
    require_state,
)


@dataclass(frozen=True)
class BoundArray:
    """An output that stayed on the device."""

    value: Any
    """ONNX Runtime's OrtValue."""
    nbytes: int


class BoundState:
    """A state in OrtValues on a device.

    Runs replace values. Rings are written in place, unless a copy of the state shares them: then
    the next write makes a ring of its own.
    """

    def __init__(self, values: dict[str, Any], nbytes: int) -> None:
        """Take OrtValues by name, and their size in bytes."""
        self.values, self.nbytes = values, nbytes
        self.shared = False
        """Whether other states may refer to the rings."""

    def copy(self) -> "BoundState":
        """Return an independent state, which shares all values until they change."""
        other = BoundState(dict(self.values), self.nbytes)
        self.shared = other.shared = True
        return other


class BoundSession:
    """A graph on one of ONNX Runtime's providers for GPUs; it follows `Session`.

    Runs from several threads are serialised.
    """

    def __init__(self, graph: Path, provider: str, device: int = 0) -> None:
        """Load a graph.

        Args:
            graph: Path of an ONNX file.
            provider: ONNX Runtime's name of the provider. The CPU runs nodes that it cannot.
            device: Number of the GPU, as CUDA counts.

        Raises:
            AbsentError: ONNX Runtime or its provider is not installed.
            BackendError: The provider does not start, or it refuses the graph.

        """
        opened = OnnxRuntimeSession(graph, provider, device=device)
        self._graph, self._index = graph, device
        self._kind = "cuda" if provider in {CUDA, TENSORRT} else "cpu"
        self._session = opened.session
        self.inputs, self.outputs = opened.inputs, opened.outputs
        self._tensors = find_state(self.inputs, self.outputs)
        self._left = [
            name
            for name in self.outputs
            if name not in self._tensors.replaced and name not in self._tensors.rings
        ]
        self._nodes: dict[bytes, Any] = {}
        self._lock = threading.Lock()

    def new_state(self) -> BoundState:
        """Return a state of zeros on the device, as `vditrack.inference.session.Session` does."""
        specs = self._tensors.specs
        values = {
            name: self._place(np.zeros(spec.shape, spec.dtype)) for name, spec in specs.items()
        }
        return BoundState(values, sum(spec.nbytes for spec in specs.values()))

    def run(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> dict[str, Array]:
        """Run the graph once, as `vditrack.inference.session.Session` defines it."""
        found = self._run(inputs, state, slot, "cpu")
        outputs = {name: value.numpy() for name, value in found.items()}
        check_outputs(self._graph, outputs)
        return outputs

    def run_resident(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> Mapping[str, Resident]:
        """Run the graph once, as `vditrack.inference.session.Session` defines it."""
        found = self._run(inputs, state, slot, self._kind)
        return {name: BoundArray(value, self.outputs[name].nbytes) for name, value in found.items()}

    def _run(
        self, inputs: Mapping[str, Given], state: State | None, slot: int, left: str
    ) -> dict[str, Any]:
        """Run the graph, update the state, and return what is left.

        Args:
            inputs: see `vditrack.inference.session.Session.run`.
            state: see there.
            slot: see there.
            left: "cpu" for outputs on the host, or the device's kind.

        """
        try:
            with self._lock:
                bound = self._require_state(state)
                binding = self._session.io_binding()
                for name, spec in self.inputs.items():
                    if name in bound.values:
                        binding.bind_ortvalue_input(name, bound.values[name])
                    else:
                        self._give(binding, name, spec, inputs[name])
                for name in self.outputs:
                    place = left if name in self._left else self._kind
                    binding.bind_output(name, place, self._index if place != "cpu" else 0)
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
                found = dict(zip(self.outputs, binding.get_outputs(), strict=True))
                self._update(bound, found, slot)
        except BackendError:
            raise
        # ONNX Runtime's exceptions share no base class of their own.
        except Exception as error:
            raise BackendError(f"{self._graph} loads but fails to run: {error}") from error
        return {name: found[name] for name in self._left}

    def _require_state(self, state: State | None) -> BoundState:
        if state is None and not self._tensors.specs:
            return self.new_state()
        if state is None:
            raise ValueError("it needs a state")
        return require_state(state, BoundState)

    def _give(self, binding: Any, name: str, spec: TensorSpec, value: Given) -> None:  # noqa: ANN401 - it ships no types
        parts = value if isinstance(value, Sequence) else [value]
        arrays = [part for part in parts if isinstance(part, BoundArray)]
        if arrays and len(arrays) == len(parts):
            values = [array.value for array in arrays]
            binding.bind_ortvalue_input(name, self._join(values, spec))
        else:
            binding.bind_cpu_input(name, np.ascontiguousarray(join_parts(value)))

    def _join(self, values: list[Any], spec: TensorSpec) -> Any:  # noqa: ANN401
        """Return an OrtValue of others along their third axis."""
        if len(values) == 1:
            return values[0]
        node = self._open_node(encode_concatenation_graph(spec.dtype, len(values)))
        binding = node.io_binding()
        for number, value in enumerate(values):
            binding.bind_ortvalue_input(str(number), value)
        binding.bind_output("result", self._kind, self._index)
        node.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _update(self, state: BoundState, found: Mapping[str, Any], slot: int) -> None:
        """Put what a run left into the state."""
        written = {}
        for name, ring in self._tensors.rings.items():
            spec, count = self._tensors.specs[ring], self.outputs[name].shape[0]
            if not 0 <= slot <= spec.shape[0] - count:
                raise ValueError(f"ring {ring!r} has no slot {slot}")
            node = self._open_node(encode_scatter_graph(spec.dtype))
            binding = node.io_binding()
            binding.bind_ortvalue_input("data", state.values[ring])
            binding.bind_cpu_input("indices", np.arange(slot, slot + count)[:, None])
            binding.bind_ortvalue_input("updates", found[name])
            if not state.shared:
                # The operator copies nothing where its output is its input.
                binding.bind_ortvalue_output("result", state.values[ring])
                node.run_with_iobinding(binding)
                continue
            binding.bind_output("result", self._kind, self._index)
            node.run_with_iobinding(binding)
            written[ring] = binding.get_outputs()[0]
        state.values.update(written)
        state.values.update({ring: found[name] for name, ring in self._tensors.replaced.items()})
        state.shared = False

    def _open_node(self, model: bytes) -> Any:  # noqa: ANN401
        """Return a session of a graph of one node on the same device."""
        if model not in self._nodes:
            # CUDA's provider runs one node as well as TensorRT's, which would build an engine.
            provider = CPU if self._kind == "cpu" else CUDA
            self._nodes[model] = open_inference_session(
                model, "a graph of one node", provider, device=self._index
            )
        return self._nodes[model]

    def _place(self, array: Array) -> Any:  # noqa: ANN401
        onnxruntime = import_onnxruntime()
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, self._kind, self._index)
