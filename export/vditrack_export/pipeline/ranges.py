"""The ranges of numbers that the layers of a graph compute, which decide how FP16 is scaled."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_PRODUCTS = (F.linear, F.conv2d, F.conv3d)


@dataclass(frozen=True)
class Range:
    """The largest magnitudes that a layer read and computed."""

    input: float
    output: float


def measure_ranges(graph: nn.Module, run: Callable[[], object]) -> dict[str, Range]:
    """Return the ranges of a graph's linear layers and convolutions, by the names of the modules.

    Args:
        graph: a module in FP32.
        run: runs the graph on the frames to be measured.

    """
    recorder = _Recorder()
    with recorder, torch.no_grad():
        run()
    ranges = {}
    for name, module in graph.named_modules():
        if found := recorder.ranges.get(id(getattr(module, "weight", None))):
            ranges[name] = found
    return ranges


class _Recorder(TorchFunctionMode):
    """Records the ranges of all products with weights, by the identity of the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: dict[int, Range] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever torch returns
        result = func(*args, **(kwargs or {}))
        # Hashing every function of torch is slower than comparing with three.
        # On the meta device, only shapes are computed.
        if any(func is product for product in _PRODUCTS) and not result.is_meta:
            before = self.ranges.get(id(args[1]), Range(0, 0))
            self.ranges[id(args[1])] = Range(
                max(before.input, _largest(args[0])), max(before.output, _largest(result))
            )
        return result


def _largest(x: Tensor) -> float:
    low, high = x.aminmax()
    return max(-float(low), float(high))
