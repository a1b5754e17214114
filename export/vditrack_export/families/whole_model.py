"""Hooks that read keys, queries or hidden states of an unmodified diffusers transformer."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vditrack_export.families.read_spec import TensorName


@dataclass(frozen=True)
class Reading:
    """Which internal tensor of which blocks is read, with all its heads and channels."""

    blocks: tuple[int, ...]
    tensor: TensorName
    rotated: bool
    """Whether keys and queries are read after the rotary embedding."""


def catch_tensor(
    block: nn.Module, attention: nn.Module, reading: Reading, hooks: ExitStack, *, heads_first: bool
) -> list[Tensor]:
    """Listen for a tensor of a block, float32 [tokens, heads, head_dim].

    Args:
        block: Transformer block.
        attention: Its self-attention.
        reading: Which tensor is read.
        hooks: Gets what removes the hooks.
        heads_first: Whether a norm that takes single heads puts heads before tokens.

    Returns:
        A list, which has the tensor after the model has run.

    """
    caught: list[Tensor] = []
    heads = int(attention.heads)  # type: ignore[arg-type]
    if reading.tensor == "hidden":

        def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            hidden = output if isinstance(output, Tensor) else output[0]
            caught.append(torch.unflatten(hidden[0], -1, (heads, -1)))

        hooks.callback(block.register_forward_hook(keep).remove)
    elif not reading.rotated:
        norm = attention.norm_k if reading.tensor == "keys" else attention.norm_q
        assert isinstance(norm, nn.Module)

        def keep_normed(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            # [1, N, width], or with heads normalised one by one [1, heads, N, head_dim]. A copy:
            # CogVideoX's attention overwrites it with the rotated numbers.
            every = output[0].clone()
            if every.ndim == 2:
                every = torch.unflatten(every, -1, (heads, -1))
            elif heads_first:
                every = every.transpose(0, 1)
            caught.append(every)

        hooks.callback(norm.register_forward_hook(keep_normed).remove)
    else:
        catcher = _AttentionCatcher(reading.tensor, caught)
        listening = hooks.enter_context(ExitStack())

        def listen(*_: object) -> None:
            listening.enter_context(catcher)

        def stop(*_: object) -> None:
            listening.close()

        hooks.callback(attention.register_forward_pre_hook(listen).remove)
        hooks.callback(attention.register_forward_hook(stop).remove)
    return caught


class _AttentionCatcher(TorchFunctionMode):
    """Keeps the keys or queries that are passed to scaled_dot_product_attention."""

    def __init__(self, tensor: TensorName, caught: list[Tensor]) -> None:
        super().__init__()
        self._name = "query" if tensor == "queries" else "key"
        self._caught = caught

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            handed = dict(zip(("query", "key"), args, strict=False)) | kwargs
            tensor = handed[self._name]
            assert isinstance(tensor, Tensor)
            self._caught.append(tensor[0].transpose(0, 1))
        return function(*args, **kwargs)
