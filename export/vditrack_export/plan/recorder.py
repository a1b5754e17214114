"""Run a network on shapes alone and record every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vditrack_export.families.layers import Attend
from vditrack_export.plan.meta_tensors import MetaTensors, meta_tensor, tensors_among

Kind = Literal[
    "input", "constant", "view", "elementwise", "copy", "reduction", "product", "attention", "other"
]

_COPIES = {
    "cat",
    "clone",
    "constant_pad_nd",
    "embedding",
    "index",
    "index_select",
    "pixel_shuffle",
    "reflection_pad2d",
    "repeat",
    "replication_pad2d",
    "replication_pad3d",
    "stack",
    "upsample_nearest2d",
    "upsample_nearest3d",
}
_REDUCTIONS = {"amax", "linalg_vector_norm", "max", "mean", "sum", "var_mean"}


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of a run, and the operation that computed it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    kind: Kind
    operator: str = ""
    """Name of torch's operator."""
    reads: tuple[Value, ...] = ()
    operations: int = 0
    """Twice the multiply-adds."""
    has_node: bool = False
    """Whether this is attention that the exported graph has as one node."""
    is_weight: bool = False
    """Whether this is a constant that existed before the run."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class StateBytes:
    """Sizes of the state that a run takes and gives, in bytes."""

    taken: int = 0
    """Inputs that are state."""
    replaced: int = 0
    """Outputs that replace state."""
    slots: int = 0
    """Outputs that are written into rings."""

    @property
    def rings(self) -> int:
        """Size of the rings: the state that is taken and not replaced."""
        return self.taken - self.replaced if self.slots else 0


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a network."""

    values: tuple[Value, ...]
    """Everything that was computed or read, in order."""
    results: tuple[Value, ...]
    state: StateBytes = StateBytes()

    @property
    def operations(self) -> int:
        """Twice the multiply-adds of matrix products, convolutions and attention.

        They are counted by torch's own rules (``torch.utils.flop_counter``).
        """
        return sum(value.operations for value in self.values)

    def operations_in(self, dtype: torch.dtype) -> int:
        """Return the operations whose factors have a dtype."""
        return sum(value.operations for value in self.values if value.dtype == dtype)

    @property
    def weights(self) -> int:
        """Elements of the weights and of other floating-point constants that were read."""
        return sum(value.size for value in self.values if value.is_weight)

    @property
    def weight_bytes(self) -> int:
        """Size of these in bytes."""
        return sum(value.nbytes for value in self.values if value.is_weight)

    @property
    def input_bytes(self) -> int:
        """Size of the inputs in bytes."""
        return sum(value.nbytes for value in self.values if value.kind == "input")

    @property
    def output_bytes(self) -> int:
        """Size of the results in bytes."""
        return sum(value.nbytes for value in self.results)


def record(
    run: Callable[[], object], inputs: Sequence[Tensor], graph: nn.Module | None = None
) -> Recording:
    """Run a network once without gradients and record its operations.

    Args:
        run: The call of the network.
        inputs: Tensors that `run` passes to it; all other tensors that it reads are constants.
        graph: The module that is exported as a graph; None for a model that is not exported.

    """
    recorder = _Recorder(inputs)
    with ExitStack() as stack:
        for module in () if graph is None else graph.modules():
            if isinstance(module, Attend):
                stack.enter_context(recorder.watch(module))
        stack.enter_context(torch.no_grad())
        stack.enter_context(recorder)
        stack.enter_context(_AttentionCalls(recorder))
        outputs = run()
    results = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    # All results are looked up first: one may be a constant that nothing read.
    found = tuple(recorder.value_of(x) for x in results)
    return Recording(tuple(recorder.values), found)


class _Recorder(MetaTensors):  # type: ignore[no-untyped-call]
    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[Value] = []
        self.attention: torch.dtype | None = None
        """Precision of attention that is computed now, if an exported module computes it."""
        # Tensors are kept, so that no other gets the identity of one that is gone.
        self._known: dict[int, tuple[Tensor, Value]] = {}
        for x in inputs:
            self.add(x, Value(tuple(x.shape), x.dtype, "input"))

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        named = kwargs or {}
        output = super().__torch_dispatch__(func, types, args, named)
        reads = tuple(self.value_of(x) for x in tensors_among(args, named))
        kind, operations = _kind_of(func, reads), 0
        packet = func._overloadpacket
        if packet in flop_registry:
            kind, operations = "product", int(flop_registry[packet](*args, **named, out_val=output))
        outputs = output if isinstance(output, (list, tuple)) else [output]
        for index, x in enumerate(outputs):
            if isinstance(x, Tensor):
                # Further outputs are views too, or the statistics of a norm.
                own = kind if index == 0 or kind == "view" else "constant"
                name = packet.__name__
                self.add(x, Value(tuple(x.shape), x.dtype, own, name, reads, operations))
                operations = 0
        return output

    def add(self, x: Tensor, value: Value) -> None:
        self.values.append(value)
        self.name(x, value)

    def value_of(self, x: Tensor) -> Value:
        """Return the value of a tensor; one that was not recorded is a constant."""
        if id(x) not in self._known:
            weight = x.is_floating_point()
            self.add(x, Value(tuple(x.shape), x.dtype, "constant", is_weight=weight))
        return self._known[id(x)][1]

    @contextmanager
    def watch(self, module: Attend) -> Iterator[None]:
        """Record the attention of a module as one operation, in whatever precision it computes."""
        precision = module.precision

        def begin(*_: object) -> None:
            self.attention = precision

        def end(*_: object) -> None:
            self.attention = None

        before, after = module.register_forward_pre_hook(begin), module.register_forward_hook(end)
        # In FP32 it calls torch's attention, which `_AttentionCalls` records; else two products.
        module.precision = torch.float32
        yield
        module.precision = precision
        before.remove()
        after.remove()

    def round_to(self, value: Value, dtype: torch.dtype) -> Value:
        """Return a value in a dtype: itself, or a new value that is recorded."""
        if value.dtype == dtype:
            return value
        kind: Kind = "constant" if value.kind == "constant" else "elementwise"
        self.values.append(Value(value.shape, dtype, kind, "_to_copy", (value,)))
        return self.values[-1]

    def name(self, x: Tensor, value: Value) -> None:
        """Let a tensor stand for a value that is recorded already."""
        self._known[id(x)] = x, value


class _AttentionCalls(TorchFunctionMode):
    """A mode that records attention as one operation, whichever way torch would compute it."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        **_: object,
    ) -> Tensor:
        recorder = self._recorder
        *batch, heads, asking, _channels = query.shape
        # Heads lie beside each other in memory, as attention kernels leave them.
        output = meta_tensor(*batch, asking, heads, value.shape[-1]).transpose(-2, -3)
        products = prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        dtype = recorder.attention or query.dtype
        factors = [recorder.round_to(recorder.value_of(x), dtype) for x in (query, key, value)]
        attended = Value(
            tuple(output.shape),
            dtype,
            "attention",
            reads=tuple(factors),
            operations=2 * products,
            # Export writes a node in FP32 and without a bias; otherwise products and a softmax.
            has_node=recorder.attention == torch.float32 and attn_mask is None,
        )
        recorder.values.append(attended)
        recorder.name(output, recorder.round_to(attended, query.dtype))
        return output


def _kind_of(func: Any, reads: Sequence[Value]) -> Kind:  # noqa: ANN401
    name = func._overloadpacket.__name__
    if all(value.kind == "constant" for value in reads):
        return "constant"
    # The schema of _unsafe_view does not say that its result aliases its input.
    if name == "_unsafe_view" or any(
        result.alias_info and not result.alias_info.is_write for result in func._schema.returns
    ):
        return "view"
    if name in _COPIES:
        return "copy"
    if torch.Tag.pointwise in func.tags or func._schema.is_mutable or name == "_to_copy":
        return "elementwise"
    return "reduction" if name in _REDUCTIONS else "other"
