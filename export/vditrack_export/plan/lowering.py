"""From a recorded run to the steps that an engine executes, and to their cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from vditrack_export.plan.costs import Cost, Fusion
from vditrack_export.plan.memory import Step, Tensor, live_peak, planned_peak
from vditrack_export.plan.recorder import Recording, Value

# Views that name the same elements in the same order.
_RESHAPES = {"_unsafe_view", "alias", "detach", "squeeze", "unsqueeze", "view"}


@lru_cache(maxsize=1024)
def lower(recording: Recording, fusion: Fusion) -> Cost:
    """Return the cost of one run of a recorded network on an engine with this fusion."""
    fused = fusion == "all"
    lowering = (
        _FusedLowering(_count_readers(recording), recording.results)
        if fused
        else _GraphLowering(has_nodes=fusion == "attention")
    )
    for value in recording.values:
        lowering.add(value)
    state = recording.state
    results = [array for value in recording.results if (array := lowering.array_of(value))]
    return Cost(
        fp16=recording.operations_in(torch.float16),
        bf16=recording.operations_in(torch.bfloat16),
        fp32=recording.operations_in(torch.float32),
        weight_bytes=recording.weight_bytes,
        moved_bytes=lowering.moved,
        peak_bytes=(live_peak if fused else planned_peak)(lowering.steps, results),
        input_bytes=recording.input_bytes - state.taken,
        output_bytes=recording.output_bytes - state.replaced - state.slots,
        replaced_bytes=state.replaced,
        ring_bytes=state.rings,
        slot_bytes=state.slots,
    )


def _count_readers(recording: Recording) -> Counter[Value]:
    """Count the operations that read each value, or a view of it; a result is read once more."""
    viewed: dict[Value, Value] = {}
    readers: Counter[Value] = Counter()
    for value in recording.values:
        if value.kind == "view":
            viewed[value] = viewed.get(value.reads[0], value.reads[0])
        else:
            readers.update({viewed.get(read, read) for read in value.reads})
    readers.update(viewed.get(value, value) for value in recording.results)
    return readers


@dataclass(eq=False)
class _Entry:
    """The elements of a value: in an array, or still to be computed from other arrays.

    Those of a constant are neither.
    """

    shape: tuple[int, ...]
    itemsize: int
    array: Tensor | None = None
    sources: tuple[Tensor, ...] = ()
    any_order: bool = False
    """Whether a transposition costs nothing: what computed the elements writes any order."""

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """Arrays to be read if the elements are computed as they are used."""
        return self.sources if self.array is None else (self.array,)


class _Lowering(ABC):
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.moved = 0
        """Bytes of activations that products, convolutions and attention read and write."""
        self._entries: dict[Value, _Entry] = {}

    def add(self, value: Value) -> None:
        """Append the steps that compute a value; the values that it reads come before it."""
        if value.kind == "input":
            array = Tensor(_squeezed(value.shape), value.dtype.itemsize)
            entry = _Entry(value.shape, value.dtype.itemsize, array)
        elif value.kind == "constant":
            entry = _Entry(value.shape, value.dtype.itemsize)
        else:
            operands = [self._entries[read] for read in value.reads]
            entry = self._lower(value, operands)
            if value.operations:
                activations = [operand.arrays for operand in operands]
                self.moved += value.nbytes + sum(
                    read.nbytes
                    for read, arrays in zip(value.reads, activations, strict=True)
                    if arrays
                )
        self._entries[value] = entry

    def array_of(self, value: Value) -> Tensor | None:
        """Return the array of a value; None for a constant."""
        return self._array(self._entries[value])

    @abstractmethod
    def _lower(self, value: Value, operands: Sequence[_Entry]) -> _Entry: ...

    def _array(self, entry: _Entry) -> Tensor | None:
        """Return an entry's array, and append the step that computes it where none did."""
        if entry.array is None and entry.sources:
            entry.array = self._write(entry.shape, entry.itemsize, entry.sources, in_place=True)
        return entry.array

    def _arrays(self, entries: Iterable[_Entry]) -> list[Tensor]:
        return [array for entry in entries if (array := self._array(entry))]

    def _write(
        self,
        shape: tuple[int, ...],
        itemsize: int,
        reads: Iterable[Tensor],
        working: int = 0,
        *,
        in_place: bool = False,
    ) -> Tensor:
        written = Tensor(_squeezed(shape), itemsize)
        self.steps.append(Step(tuple(dict.fromkeys(reads)), written, working, in_place))
        return written


class _FusedLowering(_Lowering):
    """TensorRT: an elementwise operation that one other reads runs in that one's kernel.

    Only products, convolutions, attention and norms need their inputs in memory as they are. Views
    are free.
    """

    def __init__(self, readers: Counter[Value], results: Iterable[Value]) -> None:
        super().__init__()
        self._readers, self._results = readers, set(results)

    def _lower(self, value: Value, operands: Sequence[_Entry]) -> _Entry:
        itemsize = value.dtype.itemsize
        if value.kind == "view":
            return operands[0]
        if value.kind in ("elementwise", "copy", "reduction"):
            sources = tuple(dict.fromkeys(x for operand in operands for x in operand.arrays))
            if value.kind == "elementwise":
                entry = _Entry(value.shape, itemsize, sources=sources)
                if self._readers[value] > 1 or value in self._results:
                    self._array(entry)
                return entry
            return _Entry(value.shape, itemsize, self._write(value.shape, itemsize, sources))
        arrays = self._arrays(operands)
        return _Entry(value.shape, itemsize, self._write(value.shape, itemsize, arrays))


class _GraphLowering(_Lowering):
    """ONNX Runtime's CPU provider: a node of the exported graph after the other.

    Slices and transpositions are copies. Attention has one node where the exporter writes one.
    """

    def __init__(self, *, has_nodes: bool) -> None:
        super().__init__()
        self._has_nodes = has_nodes

    def _lower(self, value: Value, operands: Sequence[_Entry]) -> _Entry:
        if value.kind == "view":
            return self._view(value, operands[0])
        if value.kind == "attention":
            return self._attention(value, operands)
        if value.operator == "clone":
            self._array(operands[0])
            return operands[0]
        arrays, itemsize = self._arrays(operands), value.dtype.itemsize
        if value.operator == "silu":
            arrays.append(self._write(value.shape, itemsize, arrays))
        if value.operator == "native_group_norm":
            arrays = [self._write((value.size,), itemsize, arrays)]
        in_place = value.kind == "elementwise" and value.operator != "gelu"
        written = self._write(value.shape, itemsize, arrays, in_place=in_place)
        return _Entry(value.shape, itemsize, written)

    def _view(self, value: Value, viewed: _Entry) -> _Entry:
        same = _squeezed(value.shape) == _squeezed(viewed.shape)
        if value.operator in _RESHAPES or same or viewed.any_order:
            # One entry, so that it is computed once.
            return viewed
        return _Entry(value.shape, value.dtype.itemsize, sources=viewed.arrays)

    def _attention(self, value: Value, operands: Sequence[_Entry]) -> _Entry:
        itemsize = value.dtype.itemsize
        if value.has_node and self._has_nodes:
            # The kernel takes heads side by side, and lays out all three head by head.
            reads = [array for operand in operands for array in operand.arrays]
            working = sum(read.nbytes for read in value.reads)
            array = self._write(value.shape, itemsize, reads, working)
            return _Entry(value.shape, itemsize, array, any_order=True)
        query, key = value.reads[:2]
        scores = (*query.shape[:-1], key.shape[-2])
        arrays = self._arrays(operands)
        shares = self._write(scores, itemsize, arrays[:2])
        weights = self._write(scores, itemsize, [shares], in_place=True)
        self.moved += 2 * weights.size
        attended = self._write(value.shape, itemsize, [weights, *arrays[2:]])
        return _Entry(value.shape, itemsize, attended)


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """Leave out sides of 1: arrays that differ in these alone are of one shape."""
    return tuple(side for side in shape if side != 1)
