"""Tensors without numbers that remember how they are computed from tensors of a file.

diffusers converts original checkpoints by functions from a whole state dict to another, which
rename tensors, split them and join them. Given deferred tensors, they work without any weight in
memory; afterwards each result is computed on its own, from just the tensors that it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

ReadTensor = Callable[[str], Tensor]
"""Reads a tensor of a file, by its name."""


class DeferredTensor(Tensor):
    """A tensor on the meta device that remembers its origin."""

    _compute: Callable[[ReadTensor], Any]
    _origins: tuple[str, ...]

    @property
    def origins(self) -> tuple[str, ...]:
        """Names of the tensors of the file that it is computed from."""
        return self._origins

    def compute(self, read: ReadTensor) -> Tensor:
        """Compute the tensor.

        Args:
            read: Reads the tensors of the file.

        """
        computed: Tensor = self._compute(read)
        return computed

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation on the meta device, and remember it in its results."""
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]

        def compute(read: ReadTensor) -> Any:  # noqa: ANN401
            return func(*_replace(args, read), **kwargs)

        origins = tuple(dict.fromkeys(name for part in _find(args) for name in part.origins))
        if isinstance(result, DeferredTensor):
            result._compute, result._origins = compute, origins
        elif isinstance(result, tuple | list):
            for index, part in enumerate(result):
                if isinstance(part, DeferredTensor):
                    part._compute, part._origins = partial(_compute_part, compute, index), origins
        return result


def defer(name: str, shape: Sequence[int]) -> DeferredTensor:
    """Return a deferred tensor that stands for a tensor of a file."""
    tensor: DeferredTensor = torch.empty(tuple(shape), device="meta").as_subclass(DeferredTensor)
    tensor._compute, tensor._origins = (lambda read: read(name)), (name,)
    return tensor


def _replace(value: Any, read: ReadTensor) -> Any:  # noqa: ANN401
    if isinstance(value, DeferredTensor):
        return value.compute(read)
    if isinstance(value, tuple | list):
        return type(value)(_replace(part, read) for part in value)
    return value


def _find(value: Any) -> Iterator[DeferredTensor]:  # noqa: ANN401
    if isinstance(value, DeferredTensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _find(part)


def _compute_part(compute: Callable[[ReadTensor], Any], index: int, read: ReadTensor) -> Tensor:
    part: Tensor = compute(read)[index]
    return part
