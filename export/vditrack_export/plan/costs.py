"""What one run of a network costs, in numbers that do not depend on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PrecisionName = Literal["fp16", "bf16", "fp32"]
PRECISIONS: tuple[PrecisionName, ...] = ("fp16", "bf16", "fp32")

Fusion = Literal["all", "attention", "none"]
"""What an engine computes in one kernel.

``all``: attention, and elementwise operations with what reads them, as TensorRT builds them.
``attention``: only attention that has a node of its own in the exported graph, as ONNX Runtime's
CPU provider runs it. ``none``: attention is two products around a softmax everywhere.
"""


@dataclass(frozen=True)
class Cost:
    """Operations and memory of one run.

    Operations are twice the multiply-adds of matrix products, convolutions and attention, and
    nothing else, by the precision of the factors.
    """

    fp16: int
    """Operations in FP16."""
    bf16: int
    """Operations in BF16."""
    fp32: int
    """Operations in FP32."""
    weight_bytes: int
    """Size of all weights and constants."""
    moved_bytes: int
    """Activations that products, convolutions and attention read and write.

    Elementwise operations are taken as fused into these, and each input as read once.
    """
    peak_bytes: int
    """Activations that are live at the worst step. Where all is fused (TensorRT), without the
    inputs, outputs and state of the run, whose buffers are not the engine's."""
    input_bytes: int
    """Size of the run's inputs, without its state."""
    output_bytes: int
    """Size of the run's outputs, without those that update its state."""
    replaced_bytes: int = 0
    """Size of the state that a run replaces, such as an encoder's caches."""
    ring_bytes: int = 0
    """Size of the rings that a run reads, such as cached keys and values."""
    slot_bytes: int = 0
    """Size of the outputs that are written into rings."""

    @property
    def operations(self) -> int:
        """Operations in all precisions."""
        return self.fp16 + self.bf16 + self.fp32

    def operations_in(self, precision: PrecisionName) -> int:
        """Return the operations in a precision."""
        return {"fp16": self.fp16, "bf16": self.bf16, "fp32": self.fp32}[precision]
