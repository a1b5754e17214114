"""State and arrays in a GPU's memory, for engines."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vditrack.inference.cuda import ALIGNMENT, Gpu, Memory
from vditrack.inference.session import StateTensors, TensorSpec


@dataclass(frozen=True)
class DeviceArray:
    """An output that stayed on the GPU."""

    memory: Memory
    spec: TensorSpec

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.spec.nbytes


class Layout:
    """Where each of some tensors lies in one block of memory."""

    def __init__(self, specs: Mapping[str, TensorSpec], names: Collection[str]) -> None:
        """Place the named tensors in alphabetic order, so that graphs agree on it."""
        self.offsets: dict[str, int] = {}
        self.size = 0
        for name in sorted(names):
            self.offsets[name] = self.size
            self.size += -(-specs[name].nbytes // ALIGNMENT) * ALIGNMENT


class StateLayout:
    """How a state of a graph lies in memory: a block that runs replace, and a block of rings."""

    def __init__(self, tensors: StateTensors) -> None:
        """Lay out the state that ``tensors`` describe."""
        self.tensors, self.specs = tensors, tensors.specs
        self.replaced = Layout(tensors.specs, tensors.replaced.values())
        self.rings = Layout(tensors.specs, tensors.rings.values())
        self.nbytes = sum(spec.nbytes for spec in tensors.specs.values())


class DeviceState:
    """A state in a GPU's memory.

    Runs do not write into the block ``replaced``: they fill another and put it in its place. So
    copies share it, and a stream alternates between two blocks.
    """

    def __init__(self, gpu: Gpu, layout: StateLayout, replaced: Memory, rings: Memory) -> None:
        """Take the blocks of a layout."""
        self._gpu, self.layout = gpu, layout
        self.replaced, self.rings = replaced, rings

    @classmethod
    def zeros(cls, gpu: Gpu, layout: StateLayout) -> "DeviceState":
        """Allocate a state of zeros.

        Raises:
            BackendError: There is not enough memory.

        """
        with gpu.lock:
            gpu.activate()
            blocks = gpu.allocate(layout.replaced.size), gpu.allocate(layout.rings.size)
            for block in blocks:
                gpu.clear(block)
        return cls(gpu, layout, *blocks)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.layout.nbytes

    def copy(self) -> "DeviceState":
        """Return an independent state. Rings are copied on the GPU; the rest is shared.

        Raises:
            BackendError: There is not enough memory.

        """
        with self._gpu.lock:
            self._gpu.activate()
            rings = self._gpu.allocate(self.rings.nbytes)
            self._gpu.copy(rings.address, self.rings.address, rings.nbytes)
        return DeviceState(self._gpu, self.layout, self.replaced, rings)

    def addresses(self) -> dict[str, int]:
        """Return the address of each tensor of the state, by its name."""
        blocks = ((self.replaced, self.layout.replaced), (self.rings, self.layout.rings))
        return {
            name: block.address + offset
            for block, layout in blocks
            for name, offset in layout.offsets.items()
        }


def join_on_device(gpu: Gpu, address: int, spec: TensorSpec, parts: Sequence[DeviceArray]) -> None:
    """Enqueue copies of arrays to an input, along its third axis.

    Raises:
        ValueError: The arrays do not fit the input.

    """
    joined = list(parts[0].spec.shape)
    if len(parts) > 1:
        joined[2] = sum(part.spec.shape[2] for part in parts)
    sides = {(*part.spec.shape[:2], *part.spec.shape[3:]) for part in parts}
    if len(sides) > 1 or TensorSpec(tuple(joined), parts[0].spec.dtype) != spec:
        raise ValueError(f"arrays of {[part.spec.shape for part in parts]} do not make {spec}")
    rows = int(np.prod(spec.shape[:2], dtype=np.int64)) if len(parts) > 1 else 1
    pitch = spec.nbytes // rows
    for part in parts:
        width = part.nbytes // rows
        gpu.copy_rows(address, pitch, part.memory.address, width, rows)
        address += width
