"""How much memory the activations of a forward pass hold at its worst step, in elements."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod


@dataclass(frozen=True, eq=False)
class Tensor:
    """One array of a forward pass; two of the same shape are still two."""

    shape: tuple[int, ...]
    constant: bool = False
    """Whether it is a weight: no activation's memory or traffic."""

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Step:
    """One operation: what it reads and what it makes of that."""

    reads: tuple[Tensor, ...]
    written: Tensor
    operations: int = 0
    working: int = 0
    """Elements that are held for this step alone."""
    in_place: bool = False
    """Whether the output may take the place of the first input, if that is not read again."""


@dataclass
class _Buffer:
    size: int
    first: int
    last: int


def live_peak(steps: Sequence[Step], results: Sequence[Tensor]) -> int:
    """Peak if memory serves anything else as soon as a tensor is read for the last time."""
    return _peak(steps, results, reuse=False)


def planned_peak(steps: Sequence[Step], results: Sequence[Tensor]) -> int:
    """Peak as ONNX Runtime plans it.

    A tensor takes over the buffer of a dead one of just its shape. A buffer is held from its first
    to its last use, also where it is idle between: what one block needs is held through the next.
    """
    return _peak(steps, results, reuse=True)


def _peak(steps: Sequence[Step], results: Sequence[Tensor], *, reuse: bool) -> int:
    buffers = _buffers(steps, _last_reads(steps, results), reuse=reuse)
    change = [0] * (len(steps) + 2)
    for index, step in enumerate(steps):
        change[index] += step.working
        change[index + 1] -= step.working
    for buffer in buffers:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    return max(accumulate(change))


def _last_reads(steps: Sequence[Step], results: Sequence[Tensor]) -> dict[Tensor, int]:
    """Step after which each tensor is dead; for results, past the end."""
    last = {step.written: index for index, step in enumerate(steps)}
    last |= {
        tensor: index
        for index, step in enumerate(steps)
        for tensor in step.reads
        if not tensor.constant
    }
    return last | dict.fromkeys(results, len(steps))


def _buffers(steps: Sequence[Step], last: dict[Tensor, int], *, reuse: bool) -> list[_Buffer]:
    """Where each tensor lies: in its own buffer, or in one that a dead tensor left."""
    written = {step.written for step in steps}
    # The inputs of the whole pass are there before its first step.
    place = {tensor: _Buffer(tensor.size, 0, last[tensor]) for tensor in last.keys() - written}
    buffers = list(place.values())
    idle: defaultdict[tuple[int, ...], list[_Buffer]] = defaultdict(list)
    for index, step in enumerate(steps):
        dying = [tensor for tensor in dict.fromkeys(step.reads) if last.get(tensor) == index]
        taken = step.reads[0] if step.in_place and step.reads[0] in dying else None
        if taken is not None:
            buffer = place[taken]
        elif idle[step.written.shape]:
            buffer = idle[step.written.shape].pop()
        else:
            buffer = _Buffer(step.written.size, index, index)
            buffers.append(buffer)
        place[step.written] = buffer
        buffer.last = last[step.written]
        if reuse:
            for tensor in dying:
                if tensor is not taken:
                    idle[tensor.shape].append(place[tensor])
    return buffers
