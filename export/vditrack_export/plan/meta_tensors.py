"""Operations of torch on shapes alone, on its meta device.

Weights on the meta device have shapes and no numbers. Whatever depends on them, or on a meta input,
has none either. Everything else (timesteps, a prompt, rotary tables) is computed as usual, so that
code that looks at numbers works, such as that which merges equal tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

_META = torch.device("meta")

_LARGE = 2**16
"""Elements from which a new table gets no numbers, such as noise and tables of positions."""

_ELEMENTWISE = {
    *("add", "clamp_min", "div", "gelu", "mul", "pow", "relu", "rsqrt", "sigmoid", "silu", "sub"),
}


def meta_tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor that has a shape and no numbers."""
    return torch.empty(shape, dtype=dtype, device=_META)


class MetaTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode in which operations may mix tensors on the meta device with others.

    Their results are on the meta device. Numbers that would be written from a meta tensor into
    another are not written.
    """

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Call an operator of torch; see `torch.utils._python_dispatch.TorchDispatchMode`."""
        named = dict(kwargs or {})
        tensors = tensors_among(args, named)
        if not any(x.is_meta for x in tensors):
            return _compute(func, args, named, tensors)
        if func._schema.is_mutable and not args[0].is_meta:
            return args[0]
        output = _known_output(func._overloadpacket.__name__, args, tensors)
        if output is not None:
            return output
        if named.get("device") is not None:
            named["device"] = _META
        if not all(x.is_meta for x in tensors):
            args, named = tree_map_only(Tensor, _without_numbers, (args, named))
        return func(*args, **named)


def tensors_among(args: Sequence[Any], named: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors among the arguments of an operator, those in lists included."""
    found: list[Tensor] = []
    for value in (*args, *named.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _compute(
    func: Any,  # noqa: ANN401
    args: tuple[Any, ...],
    named: Mapping[str, Any],
    tensors: Sequence[Tensor],
) -> Any:  # noqa: ANN401
    """Compute numbers, except those of a large table that is made of small ones."""
    if tensors:
        output = func(*args, **named)
        made = _is_large(output) and not any(map(_is_large, tensors))
        return _without_numbers(output) if made else output
    # A generator is of one device.
    generator = {"generator": None} if "generator" in named else {}
    output = func(*args, **{**named, "device": _META, **generator})
    return output if _is_large(output) else func(*args, **named)


def _is_large(output: object) -> bool:
    return isinstance(output, Tensor) and output.numel() > _LARGE


def _without_numbers(x: Tensor) -> Tensor:
    return x if x.is_meta else torch.empty_like(x, device=_META)


def _known_output(
    name: str, args: tuple[Any, ...], tensors: Sequence[Tensor]
) -> Tensor | tuple[Tensor, ...] | None:
    """Return the output of a frequent operator, whose shape is known without torch.

    Torch's own rules for shapes are written in Python, and take ten times as long.
    """
    if name in _ELEMENTWISE:
        largest = max(tensors, key=Tensor.numel)
        if all(x.dtype == largest.dtype and _broadcasts(x, largest) for x in tensors):
            return torch.empty_like(largest, device=_META)
    if name == "addmm":
        return meta_tensor(args[1].shape[0], args[2].shape[1], dtype=args[1].dtype)
    if name in ("native_layer_norm", "native_group_norm"):
        # With their statistics, which only training reads.
        return meta_tensor(*args[0].shape), meta_tensor(1), meta_tensor(1)
    if name == "linalg_vector_norm" and len(args) == 4:
        x, _, sides, kept = args
        return _reduced(x, sides) if kept and sides else None
    return None


def _reduced(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Return the output of a reduction that leaves sides of 1."""
    reduced = {side % x.dim() for side in sides}
    shape = [1 if side in reduced else length for side, length in enumerate(x.shape)]
    return meta_tensor(*shape, dtype=x.dtype)


def _broadcasts(x: Tensor, target: Tensor) -> bool:
    """Return whether both together have the shape of `target`."""
    sides = zip(reversed(x.shape), reversed(target.shape), strict=False)
    return x.dim() <= target.dim() and all(side in (1, to) for side, to in sides)
