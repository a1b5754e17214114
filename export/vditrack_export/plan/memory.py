"""Peak memory of the activations of a forward pass, in bytes."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from itertools import accumulate
from math import prod


@dataclass(frozen=True, eq=False)
class Tensor:
    """One array of a forward pass; two of the same shape are still two."""

    shape: tuple[int, ...]
    itemsize: int = 1
    """Bytes of an element."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.itemsize


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: the tensors that it reads and the one that it writes."""

    reads: tuple[Tensor, ...]
    written: Tensor
    working: int = 0
    """Bytes of scratch memory that only this step needs."""
    in_place: bool = False
    """Whether the output may overwrite an input of its size that no later step reads."""


@dataclass
class _Buffer:
    size: int
    first: int
    last: int


def live_peak(steps: Sequence[Step], results: Sequence[Tensor]) -> int:
    """Return the peak if every tensor's memory is free for any other after its last read.

    Inputs and results are not counted: they lie in buffers of whoever runs the engine.

    Args:
        steps: The forward pass in the order of execution.
        results: Tensors that stay live to the end.

    """
    needed = set(_execution_order(steps, results))
    run = [step for step in steps if step in needed]
    last = _last_reads(run, results)
    outside = {*results, *(last.keys() - {step.written for step in run})}
    return _peak(run, _assign_buffers(run, last, outside, reuse=False))


def planned_peak(steps: Sequence[Step], results: Sequence[Tensor]) -> int:
    """Return the peak as ONNX Runtime's CPU provider plans it.

    Steps run in the order of `_execution_order`. A tensor takes over the buffer of a dead one of
    just its shape. A buffer is held from its first to its last use, also where it is idle between:
    the buffers that one block needs are held through the next.

    Args:
        steps: The forward pass, in the order of the graph's nodes.
        results: Tensors that stay live to the end.

    """
    run = _execution_order(steps, results)
    return _peak(run, _assign_buffers(run, _last_reads(run, results), set(), reuse=True))


def _execution_order(steps: Sequence[Step], results: Sequence[Tensor]) -> list[Step]:
    """Sort steps as ONNX Runtime does: depth first from the results, the latest input first.

    Steps that no result depends on are left out.
    """
    producer = {step.written: index for index, step in enumerate(steps)}
    inputs = [
        sorted({producer[read] for read in step.reads if producer.get(read, index) < index})
        for index, step in enumerate(steps)
    ]
    pending = [(index, False) for index in sorted(producer[x] for x in results if x in producer)]
    order: list[Step] = []
    seen: set[int] = set()
    while pending:
        index, done = pending.pop()
        if done:
            order.append(steps[index])
        elif index not in seen:
            seen.add(index)
            pending.append((index, True))
            pending += [(source, False) for source in inputs[index] if source not in seen]
    return order


def _peak(steps: Sequence[Step], buffers: Sequence[_Buffer]) -> int:
    change = [0] * (len(steps) + 2)
    for index, step in enumerate(steps):
        change[index] += step.working
        change[index + 1] -= step.working
    for buffer in buffers:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    return max(accumulate(change))


def _last_reads(steps: Sequence[Step], results: Sequence[Tensor]) -> dict[Tensor, int]:
    """Return the step after which each tensor is dead; for results, a step past the end."""
    last = {step.written: index for index, step in enumerate(steps)}
    last |= {tensor: index for index, step in enumerate(steps) for tensor in step.reads}
    return last | dict.fromkeys(results, len(steps))


def _assign_buffers(
    steps: Sequence[Step], last: dict[Tensor, int], outside: Set[Tensor], *, reuse: bool
) -> list[_Buffer]:
    """Give each tensor a buffer: its own, or one that a dead tensor left.

    Tensors in ``outside`` have buffers elsewhere, which count nothing and are not shared.
    """
    written = {step.written for step in steps}
    # The inputs of the forward pass are live before its first step.
    place = {
        tensor: _Buffer(0 if tensor in outside else tensor.size, 0, last[tensor])
        for tensor in last.keys() - written
    }
    buffers = list(place.values())
    idle: defaultdict[tuple[tuple[int, ...], int], list[_Buffer]] = defaultdict(list)
    for index, step in enumerate(steps):
        dying = [tensor for tensor in dict.fromkeys(step.reads) if last.get(tensor) == index]
        overwritten = _overwritten(step, [tensor for tensor in dying if tensor not in outside])
        kind = step.written.shape, step.written.itemsize
        if step.written in outside:
            overwritten, buffer = None, _Buffer(0, index, index)
        elif overwritten is not None:
            buffer = place[overwritten]
        elif idle[kind]:
            buffer = idle[kind].pop()
        else:
            buffer = _Buffer(step.written.size, index, index)
            buffers.append(buffer)
        place[step.written] = buffer
        buffer.last = last[step.written]
        if reuse:
            for tensor in dying:
                if tensor is not overwritten:
                    idle[tensor.shape, tensor.itemsize].append(place[tensor])
    return buffers


def _overwritten(step: Step, dying: Sequence[Tensor]) -> Tensor | None:
    """Return the input whose buffer the output takes, if any."""
    if not step.in_place:
        return None
    return next((tensor for tensor in dying if tensor.size == step.written.size), None)
