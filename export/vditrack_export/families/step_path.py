"""From the newest latents to descriptors, with cached keys and values of the latents before.

A *chunk* of latents attends to itself and to the latents before it in a rolling window, never to
later ones: block-causal attention. So keys and values of a latent are the same in every window that
it is in, and are computed once. Keys are cached before the rotary embedding and rotated by their
place in the window: attention depends on differences of places alone, so the result is that of
absolute places, and the angles never grow.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vditrack_export.families.attention import CachedTokens, RotaryTables
from vditrack_export.families.feature_path import PromptedBlock, TransformerPath
from vditrack_export.families.layers import last_tokens

_MASKED = -1e9
"""What is added to the logits of an empty slot: its weight is 0 after the softmax."""


class StepPath(nn.Module):
    """A transformer up to the tensor that is read, for one chunk of latents at a time.

    It takes ``latents``, float32 [1, C, chunk, h, w], and if a block runs whole and the window is
    longer than the chunk also ``places``, int32 [slots], and keys and values of each such block,
    ``cache.0``, ``cache.1``, ..., [slots, tokens of a latent, width]. A slot holds one latent.
    Its place is counted from the oldest latent of a full window, 0; -1 is an empty slot. The chunk
    has the last places.

    It returns ``descriptors``, float32 [chunk, rows, columns, D], and the chunk's own keys and
    values, ``slot_cache.0``, ..., [chunk, tokens of a latent, width].

    Args:
        path: Path of a whole window, whose noise is that of one chunk. Its modules are shared.
        slots: Number of cached latents: those of the window less the chunk.

    """

    bias: Tensor
    cos: Tensor
    sin: Tensor
    newest_cos: Tensor
    newest_sin: Tensor

    def __init__(self, path: TransformerPath, slots: int) -> None:
        """Divide the rotary tables by places."""
        super().__init__()
        self.path, self.chunk = path, path.grid[0]
        self.tokens = path.newest // self.chunk
        self.slots = slots if path.whole else 0
        if self.slots:
            for name in ("cos", "sin"):
                table = getattr(path, name)
                older = table[0, : slots * self.tokens]
                by_place = torch.unflatten(older, 0, (slots, self.tokens))
                # Row 0 is for empty slots.
                self.register_buffer(name, torch.cat((torch.zeros_like(by_place[:1]), by_place)))
                self.register_buffer(f"newest_{name}", last_tokens(table, path.newest))
            bias = torch.zeros(slots + 1, self.tokens)
            bias[0] = _MASKED
            self.register_buffer("bias", bias)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Type of cached numbers: FP16 where products are below FP32."""
        first = next(iter(self.path.blocks)).self_attention.to_k.weight
        return torch.float32 if first.dtype == torch.float32 else torch.float16

    @property
    def examples(self) -> Mapping[str, Tensor]:
        """An example of each input, by its name in the graph."""
        channels, _, *sides = self.path.noise.shape[1:]
        found = {"latents": torch.zeros(1, channels, self.chunk, *sides)}
        if self.slots:
            found["places"] = torch.full((self.slots,), -1, dtype=torch.int32)
            shape = self.slots, self.tokens, self._width
            for index in range(2 * self.path.whole):
                found[f"cache.{index}"] = torch.zeros(1, dtype=self.cache_dtype).expand(shape)
        return found

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs in the graph."""
        caches = range(2 * self.path.whole if self.slots else 0)
        return ("descriptors", *(f"slot_cache.{index}" for index in caches))

    @property
    def _width(self) -> int:
        width: int = next(iter(self.path.blocks)).self_attention.to_k.out_features
        return width

    def forward(self, latents: Tensor, *cached: Tensor) -> tuple[Tensor, ...]:
        """Map a chunk, the places of the slots and their contents: see the class."""
        tokens = self.path.embed(self.path.noised(latents))
        caches: list[Tensor] = []
        if self.slots:
            places, *rings = cached
            tables, added = self._look_up(places)
            for index, block in enumerate(self.path.blocks):
                assert isinstance(block, PromptedBlock)
                older = CachedTokens(*rings[2 * index : 2 * index + 2])
                tokens, *own = block.step(tokens, older, tables, added)
                caches += [self._to_slots(each) for each in own]
        else:
            tokens = self.path.run_blocks(tokens)
        read: Tensor = self.path.reading(tokens)
        return (read.reshape(*self.path.grid, -1), *caches)

    def _look_up(self, places: Tensor) -> tuple[RotaryTables, Tensor]:
        """Return the rotary tables, and what is added to logits, of the slots and of the chunk."""
        rows = places + 1
        cos, sin = (
            torch.cat((older.index_select(0, rows).flatten(0, 1)[None], newest), 1)
            for older, newest in ((self.cos, self.newest_cos), (self.sin, self.newest_sin))
        )
        biases = self.bias.index_select(0, rows), self.bias[1:2].expand(self.chunk, -1)
        return RotaryTables(cos, sin), torch.cat(biases).flatten()

    def _to_slots(self, every: Tensor) -> Tensor:
        slots = torch.unflatten(every[0], 0, (self.chunk, self.tokens))
        return slots.to(self.cache_dtype)
