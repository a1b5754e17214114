"""The protocol of inference sessions: named NumPy arrays in, named NumPy arrays out.

Some tensors of a graph are *state*, which a run passes to the next run and which stays where the
graph runs. The names of outputs say so: ``next_X`` replaces the state ``X``, and ``slot_X`` is
written into the ring ``X`` along its first axis, at the slot that the run is given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vditrack.errors import BackendError

Array = NDArray[Any]
NEXT, SLOT = "next_", "slot_"
"""Prefixes of the outputs that update a state: with a replacement, or a slot of a ring."""
_HALF_EXPONENT = np.uint16(0x7C00)
"""Bits of the exponent of an FP16 number: all are set in NaN and infinity (IEEE 754)."""


@dataclass(frozen=True)
class TensorSpec:
    """The static shape and dtype of one named input or output of a graph."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class Resident(Protocol):
    """An array where the graphs run: NumPy's, or one in a GPU's memory."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        ...


Given = Resident | Sequence[Resident]
"""What an input takes: an array, or the parts of one along its third axis."""


class State(Protocol):
    """What the graphs of a bundle pass from run to run in one stream, where they run."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        ...

    def copy(self) -> "State":
        """Return a state with the same values, which later runs change independently."""
        ...


class Session(Protocol):
    """A loaded graph that is ready to run."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    """All tensors of the graph, with those of its state."""

    def new_state(self) -> State:
        """Return the state at the beginning of a stream: zeros; empty if the graph has none."""
        ...

    def run(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> dict[str, Array]:
        """Run the graph once.

        Args:
            inputs: Arrays by name for the inputs that are not state, of the shapes and dtypes in
                ``inputs``: arrays of the host, or of `run_resident` of a session of the bundle.
            state: The state of the stream, made by a session of the same bundle on the same
                backend. None for a graph without state.
            slot: First slot of the rings that the run writes.

        Returns:
            Arrays by name of the outputs that are not state, of the shapes and dtypes in
            ``outputs``, all finite.

        Raises:
            BackendError: The graph fails to run, or an output is not finite.

        """
        ...

    def run_resident(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> Mapping[str, Resident]:
        """Run the graph once, as `run` does, and leave its outputs where it runs.

        They are inputs of other graphs of the bundle. Numbers that are not finite are only found
        in outputs that come to the host.
        """
        ...


class StateTensors(NamedTuple):
    """The state of a graph, by the name of each output that updates it."""

    replaced: dict[str, str]
    """Names of the state that outputs ``next_X`` replace."""
    rings: dict[str, str]
    """Names of the rings that outputs ``slot_X`` are written into."""
    specs: dict[str, TensorSpec]
    """Shapes and dtypes of the state, by its name."""


def find_state(inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]) -> StateTensors:
    """Return which tensors of a graph are state.

    A graph may give state that it does not take, as that of a clip's first frame does.

    Raises:
        BackendError: An output does not fit the state that it updates.

    """
    replaced = {name: name.removeprefix(NEXT) for name in outputs if name.startswith(NEXT)}
    rings = {name: name.removeprefix(SLOT) for name in outputs if name.startswith(SLOT)}
    specs = {state: inputs.get(state, outputs[name]) for name, state in replaced.items()}
    for name, state in rings.items():
        ring = specs[state] = inputs.get(state, TensorSpec((), outputs[name].dtype))
        slots, sides = outputs[name].shape[:1], outputs[name].shape[1:]
        fits = slots <= ring.shape[:1] and sides == ring.shape[1:]
        if not fits or outputs[name].dtype != ring.dtype:
            raise BackendError(
                f"output {name!r}, {outputs[name]}, is no slot of an input {state!r}, {ring}. "
                "Export the bundle again."
            )
    for name, state in replaced.items():
        if specs[state] != outputs[name]:
            raise BackendError(
                f"output {name!r}, {outputs[name]}, does not fit input {state!r}, {specs[state]}. "
                "Export the bundle again."
            )
    return StateTensors(replaced, rings, specs)


class ArrayState:
    """A state in NumPy arrays. Runs replace arrays, and write into rings."""

    def __init__(self, arrays: dict[str, Array], rings: Collection[str]) -> None:
        """Take arrays by name, and the names of those that are rings."""
        self.arrays, self._rings = arrays, frozenset(rings)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def copy(self) -> "ArrayState":
        """Return an independent state. Only rings are copied: nothing writes into the others."""
        arrays = {
            name: array.copy() if name in self._rings else array
            for name, array in self.arrays.items()
        }
        return ArrayState(arrays, self._rings)


class ArraySession(ABC):
    """A session whose state is in NumPy arrays, which each run of its graph takes and gives."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]

    @abstractmethod
    def run_arrays(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once: arrays of all inputs by name; returns those of all outputs."""

    def new_state(self) -> ArrayState:
        """Return a state of zeros, as `Session` defines it."""
        specs = self._tensors.specs
        arrays = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
        return ArrayState(arrays, self._tensors.rings.values())

    def run(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> dict[str, Array]:
        """Run the graph once, as `Session` defines it.

        Without a state, the inputs and outputs include the arrays of the state.
        """
        given = {name: join_parts(value) for name, value in inputs.items()}
        if state is None:
            return self.run_arrays(given)
        arrays = require_state(state, ArrayState).arrays
        taken = {name: arrays[name] for name in self.inputs if name in arrays}
        outputs = self.run_arrays({**given, **taken})
        for name, replaced in self._tensors.replaced.items():
            arrays[replaced] = outputs.pop(name)
        for name, ring in self._tensors.rings.items():
            array = outputs.pop(name)
            arrays[ring][slot : slot + len(array)] = array
        return outputs

    def run_resident(
        self,
        inputs: Mapping[str, Given],
        state: State | None = None,
        slot: int = 0,
    ) -> Mapping[str, Resident]:
        """Run the graph once, as `Session` defines it: its outputs are arrays of the host."""
        return self.run(inputs, state, slot)

    @cached_property
    def _tensors(self) -> StateTensors:
        return find_state(self.inputs, self.outputs)


def join_parts(value: Given) -> Array:
    """Return an input's array from its parts on the host."""
    if not isinstance(value, Sequence):
        return np.asarray(value)
    parts = [np.asarray(part) for part in value]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


_State = TypeVar("_State")


def require_state(state: State, kind: type[_State]) -> _State:
    """Return a state if a session can use it.

    Raises:
        BackendError: The state is of another backend.

    """
    if not isinstance(state, kind):
        raise BackendError(
            f"a {type(state).__name__} is not a state of this backend. Make states with "
            "new_state() of a session of the same bundle and backend."
        )
    return state


def check_outputs(graph: Path, outputs: Mapping[str, Array]) -> None:
    """Check that the outputs of a graph are finite numbers.

    Args:
        graph: The graph or engine, for the message.
        outputs: Arrays by output name.

    Raises:
        BackendError: An output holds NaN or infinite values.

    """
    for name, output in outputs.items():
        if not _is_finite(output):
            count = np.count_nonzero(~np.isfinite(output))
            raise BackendError(
                f"{graph} gives wrong results: {count} of the {output.size} values of its output "
                f"{name!r} are NaN or infinite. In FP16, numbers above 65504 overflow: export the "
                "bundle in BF16 or FP32 (--precision) and build its engines again. In FP32, its "
                "weights are damaged: export it again from the original checkpoint."
            )


def _is_finite(output: Array) -> bool:
    if output.dtype == np.float16 and output.size:
        # NumPy converts each value first; the bits of the exponent say the same, in less time.
        return bool((output.view(np.uint16) & _HALF_EXPONENT).max() < _HALF_EXPONENT)
    return bool(np.isfinite(output).all())


OpenGraph = Callable[[Path], Session]
"""Loads one ONNX graph of a bundle on an inference engine."""


class AbsentError(BackendError):
    """A backend is not available: a library is not installed, or no engine was built."""
