"""A forward pass written down as shapes: operations, weights, traffic and peak memory follow.

Operations are counted as ``torch.utils.flop_counter`` counts them: twice the multiply-adds of
matrix products, convolutions and attention, and nothing else.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from vditrack_export.plan.memory import Step, Tensor, live_peak, planned_peak

Fusion = Literal["all", "attention", "none"]
"""What an engine computes in one kernel.

``all``: attention, and GELU with the product before it, as TensorRT builds them. ``attention``:
only the attention that a graph in FP32 has as a node, as ONNX Runtime's CPU provider runs it.
``none``: attention is two products around a softmax everywhere.
"""


@dataclass(frozen=True)
class Cost:
    """What one run costs, in operations and in elements: bytes depend on the precision."""

    operations: int
    """2 x multiply-adds."""
    weights: int
    """Elements of all weights."""
    moved: int
    """Elements of activations read and written by products, convolutions and attention.

    Everything elementwise is taken as fused into these, and each input as read once.
    """
    peak: int
    """Elements of activations that are held at the worst step."""

    def times(self, runs: int) -> "Cost":
        """Return the cost of the same run several times, one after the other."""
        return Cost(self.operations * runs, self.weights, self.moved * runs, self.peak)


class Trace:
    """Records the steps of a forward pass as they are called.

    Args:
        fusion: attention that is not in one kernel keeps tokens x tokens a head. Unless it is
            ``all``, GELU has an array of its own, and memory is planned ahead (`planned_peak`): so
            ONNX Runtime's CPU provider runs the exported graphs. Operations are the same.

    """

    def __init__(self, fusion: Fusion) -> None:
        self._fusion = fusion
        self._fused = fusion == "all"
        self._steps: list[Step] = []
        self._weights: dict[str, int] = {}

    def cost(self, *results: Tensor) -> Cost:
        """Return what was recorded; ``results`` are kept to the end."""
        counted = [step for step in self._steps if step.operations]
        return Cost(
            operations=sum(step.operations for step in counted),
            weights=sum(self._weights.values()),
            moved=sum(
                tensor.size
                for step in counted
                for tensor in (*step.reads, step.written)
                if not tensor.constant
            ),
            peak=(live_peak if self._fused else planned_peak)(self._steps, results),
        )

    def constant(self, name: str, *shape: int) -> Tensor:
        """Weights that stand beside a product. One name is one set of weights."""
        tensor = Tensor(shape, constant=True)
        self._weights[name] = tensor.size
        return tensor

    def linear(self, name: str, x: Tensor, features: int, *, bias: bool = True) -> Tensor:
        """Multiply [..., C] with a matrix [C, features]."""
        *rest, channels = x.shape
        self._weights[name] = (channels + bias) * features
        return self._product((x,), (*rest, features), channels)

    def convolve(
        self,
        name: str,
        x: Tensor,
        channels: int,
        kernel: tuple[int, ...],
        size: tuple[int, ...],
        *,
        bias: bool = True,
    ) -> Tensor:
        """Convolve [C, ...] to [channels, *size]."""
        taps = prod(kernel) * x.shape[0]
        self._weights[name] = (taps + bias) * channels
        return self._product((x,), (channels, *size), taps)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, heads: int, *, node: bool
    ) -> Tensor:
        """Attention of [B, N, W] to [B, M, W], the heads side by side in W.

        ``node`` is whether the exported graph has it as one.
        """
        reads, width = (query, key, value), value.shape[-1]
        batch, asking, every = *query.shape[:2], key.shape[1]
        attended = batch, asking, width
        if self._fused:
            return self._product(reads, attended, 2 * every)
        if node and self._fusion == "attention":
            # The kernel lays out all three head by head.
            return self._product(reads, attended, 2 * every, working=sum(x.size for x in reads))
        logits = self._product((query, key), (batch, heads, asking, every), width // heads)
        shares = self.elementwise(logits)
        return self._product((shares, value), attended, every)

    def elementwise(self, x: Tensor, *others: Tensor) -> Tensor:
        """Sum, softmax and the like: in the place of ``x`` if that is not read again."""
        return self._record(Step((x, *others), Tensor(x.shape), in_place=True))

    def gelu(self, x: Tensor) -> Tensor:
        """Activation of a transformer."""
        return self.elementwise(x) if self._fused else self.copied(x.shape, x)

    def silu(self, x: Tensor) -> Tensor:
        """Activation of an autoencoder; unless fused, ``x`` times its sigmoid."""
        return self.elementwise(x) if self._fused else self.elementwise(x, self.copied(x.shape, x))

    def copied(self, shape: tuple[int, ...], *sources: Tensor) -> Tensor:
        """Rotation, slice, padding or joining: a new array of ``shape``."""
        return self._record(Step(sources, Tensor(shape)))

    def rotated(self, x: Tensor, heads: int) -> Tensor:
        """Rotary embedding of [B, N, W].

        Unless fused, pairs are parted, all four products computed, and the pairs joined to
        [B, N, heads, W / heads].
        """
        if self._fused:
            return self.copied(x.shape, x)
        batch, count, width = x.shape
        half = (batch, count, heads, width // heads // 2)
        even, odd = self.copied((*half, 1), x), self.copied((*half, 1), x)
        a, b, c, d = (self.copied(half, part) for part in (even, odd, even, odd))
        turned = self.elementwise(a, b), self.elementwise(c, d)
        return self.copied((batch, count, heads, width // heads), *turned)

    def norm(self, name: str, x: Tensor, weights: int) -> Tensor:
        """Norm with so many weights: a new array, since statistics are taken first."""
        self._weights[name] = weights
        return self.copied(x.shape, x)

    def group_norm(self, name: str, x: Tensor) -> Tensor:
        """Norm of [C, ...] over groups of channels; unless fused, groups have an array first."""
        self._weights[name] = 2 * x.shape[0]
        grouped = x if self._fused else self.copied((x.size,), x)
        return self.copied(x.shape, grouped)

    def _product(
        self, reads: tuple[Tensor, ...], shape: tuple[int, ...], taps: int, working: int = 0
    ) -> Tensor:
        written = Tensor(shape)
        return self._record(Step(reads, written, 2 * taps * written.size, working))

    def _record(self, step: Step) -> Tensor:
        self._steps.append(step)
        return step.written
