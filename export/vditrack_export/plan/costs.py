"""What one run of a network costs, in numbers that do not depend on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fusion = Literal["all", "attention", "none"]
"""What an engine computes in one kernel.

``all``: attention, and elementwise operations with what reads them, as TensorRT builds them.
``attention``: only attention that has a node of its own in the exported graph, as ONNX Runtime's
CPU provider runs it. ``none``: attention is two products around a softmax everywhere.
"""


@dataclass(frozen=True)
class Cost:
    """Operations and memory of one run, in elements: bytes depend on the precision."""

    operations: int
    """Twice the multiply-adds of matrix products, convolutions and attention; nothing else."""
    weights: int
    """Elements of all weights and constants."""
    moved: int
    """Elements of activations that products, convolutions and attention read and write.

    Elementwise operations are taken as fused into these, and each input as read once.
    """
    peak: int
    """Elements of activations that are live at the worst step."""

    def repeat(self, runs: int) -> Cost:
        """Return the cost of ``runs`` runs of the same graph, one after the other."""
        return Cost(self.operations * runs, self.weights, self.moved * runs, self.peak)

    def __add__(self, other: Cost) -> Cost:
        """Add a run of another graph, which shares its weights with this one."""
        return Cost(
            self.operations + other.operations,
            max(self.weights, other.weights),
            self.moved + other.moved,
            max(self.peak, other.peak),
        )
