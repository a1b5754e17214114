"""Block-causal attention in a rolling window, forced on an unmodified diffusers transformer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Band:
    """Which latents of a clip attend to which: those of a chunk to the window that ends with it."""

    latents: int
    """Latents of the clip."""
    chunk: int
    window: int
    """Latents of a window; what is more than whole chunks does not count."""

    def mask(self, tokens: int) -> Tensor:
        """Return which of the clip's tokens each attends to, bool [tokens, tokens]."""
        chunks = torch.arange(tokens) // (tokens // self.latents * self.chunk)
        back = chunks[:, None] - chunks
        return (back >= 0) & (back < self.window // self.chunk)


@contextmanager
def limit_attention(attentions: Iterable[nn.Module], band: Band) -> Iterator[None]:
    """Limit self-attention to a band while the context is open.

    Args:
        attentions: Self-attentions of the model, to the video's tokens alone.
        band: The band.

    """
    limiter = _Limiter(band)
    with ExitStack() as hooks, limiter:
        for attention in attentions:
            hooks.callback(attention.register_forward_pre_hook(limiter.begin).remove)
            hooks.callback(attention.register_forward_hook(limiter.end).remove)
        yield


class _Limiter(TorchFunctionMode):
    """Gives scaled_dot_product_attention a mask between `begin` and `end`."""

    def __init__(self, band: Band) -> None:
        super().__init__()
        self._band, self._limiting = band, False

    def begin(self, *_: object) -> None:
        self._limiting = True

    def end(self, *_: object) -> None:
        self._limiting = False

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        named = kwargs or {}
        if self._limiting and function is F.scaled_dot_product_attention:
            names = ("query", "key", "value", "attn_mask")
            named = dict(zip(names, args, strict=False)) | named
            args = args[len(names) :]
            named["attn_mask"] = self._band.mask(named["query"].shape[-2])
        return function(*args, **named)
