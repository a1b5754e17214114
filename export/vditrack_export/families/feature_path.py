"""From latents to descriptors: what the paths of all families share."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from vditrack_export.families.attention import CachedTokens, RotaryTables, SelfAttention
from vditrack_export.families.layers import last_tokens, rotate_halves, rotate_pairs
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape


class NoisedPath(nn.Module):
    """A module that mixes latents with constant noise first.

    Args:
        latent_shape: Channels, frames, rows and columns of the latents.
        denoising: The denoising step.

    """

    noise: Tensor

    def __init__(self, latent_shape: LatentShape, denoising: Denoising) -> None:
        """Draw the noise."""
        super().__init__()
        self.signal = denoising.signal
        self.register_buffer("noise", denoising.draw_noise(latent_shape))

    def noised(self, latents: Tensor) -> Tensor:
        """Return latents [1, C, T, h, w] with their noise."""
        return self.signal * latents + self.noise


class TransformerPath(NoisedPath):
    """A transformer up to the tensor that is read.

    A subclass sets ``patch_embedding``, ``blocks`` by `build_blocks`, ``reading``, and the rotary
    tables by `set_rotary`. Frames earlier than those described only lend their keys and values to
    the last whole block, and cost nothing after it.

    Args:
        latent_shape: Channels, frames, rows and columns of the latents.
        side: Rows and columns of latents in one token.
        cut: What is read.
        denoising: The denoising step.

    """

    cos: Tensor | None
    sin: Tensor | None
    blocks: Iterable[Any]
    patch_embedding: nn.Module
    reading: nn.Module

    def __init__(
        self, latent_shape: LatentShape, side: int, cut: Cut, denoising: Denoising
    ) -> None:
        """Draw the noise, and count the tokens that are read and the blocks that run."""
        super().__init__(latent_shape, denoising)
        _, frames, rows, columns = latent_shape
        self.grid = (cut.described, rows // side, columns // side)
        self.newest = math.prod(self.grid)
        self.every = frames * self.newest // cut.described
        # Hidden states are what the chosen block puts out, so it runs whole too.
        self.whole = cut.block + (cut.tensor == "hidden")

    def build_blocks(
        self, sources: Sequence[Any], build: Callable[[Any, int], nn.Module]
    ) -> nn.ModuleList:
        """Return the blocks that run whole.

        Args:
            sources: Blocks of the unmodified model.
            build: Makes a block from one of these, and the number of video tokens that it puts out.

        """
        return nn.ModuleList(
            build(source, self.newest if index == self.whole - 1 else self.every)
            for index, source in enumerate(sources[: self.whole])
        )

    def set_rotary(self, tables: RotaryTables | None, *, halves: bool = False) -> None:
        """Keep the rotary tables that all blocks use; see `SelfAttention` for ``halves``."""
        self.rotate = rotate_halves if halves else rotate_pairs
        self.register_buffer("cos", None if tables is None else tables.cos)
        self.register_buffer("sin", None if tables is None else tables.sin)

    @property
    def is_cacheable(self) -> bool:
        """Whether keys and values of the video's tokens can be cached: see `step_path`."""
        prompted = all(isinstance(block, PromptedBlock) for block in self.blocks)
        return prompted and self.cos is not None

    def rotate_newest(self, chunks: Tensor) -> Tensor:
        """Rotate keys or queries [B, newest tokens, heads, channels] as the newest of a window."""
        assert self.cos is not None
        assert self.sin is not None
        cos, sin = (last_tokens(table, self.newest) for table in (self.cos, self.sin))
        return self.rotate(chunks, cos, sin)

    def embed(self, noised: Tensor) -> Tensor:
        """Map noised latents [1, C, T, h, w] to tokens [1, N, width]."""
        embedded: Tensor = self.patch_embedding(noised)
        return embedded.flatten(2).transpose(1, 2)

    def run_blocks(self, tokens: Tensor) -> Tensor:
        """Run the blocks on tokens [1, N, width]; the newest tokens come last."""
        for block in self.blocks:
            tokens = block(tokens, self.cos, self.sin)
        return tokens

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        tokens = self.run_blocks(self.embed(self.noised(latents)))
        read: Tensor = self.reading(last_tokens(tokens, self.newest))
        return read.reshape(*self.grid, -1)


class PromptedBlock(nn.Module):
    """A whole block of self-attention, attention to the prompt, and feed-forward network.

    Args:
        self_attention: Maps normalised tokens, rotary tables and the number of newest tokens.
        cross_attention: Attention to the prompt.
        feed_forward: Feed-forward network.
        norms: Norm before each of the three, with its modulation.
        gates: Factor of the output of each of the three; None for 1.
        newest: Number of tokens that it puts out.

    """

    attention_gate: Tensor
    prompt_gate: Tensor | None
    feed_forward_gate: Tensor

    def __init__(
        self,
        self_attention: nn.Module,
        cross_attention: nn.Module,
        feed_forward: nn.Module,
        norms: tuple[nn.Module, nn.Module, nn.Module],
        gates: tuple[Tensor, Tensor | None, Tensor],
        newest: int,
    ) -> None:
        """Put the parts together; gates become buffers."""
        super().__init__()
        self.newest = newest
        attention_gate, prompt_gate, feed_forward_gate = gates
        self.norm1, self.self_attention = norms[0], self_attention
        self.register_buffer("attention_gate", attention_gate)
        self.norm2, self.cross_attention = norms[1], cross_attention
        self.register_buffer("prompt_gate", prompt_gate)
        self.norm3, self.feed_forward = norms[2], feed_forward
        self.register_buffer("feed_forward_gate", feed_forward_gate)

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Map tokens [1, N, width] to the newest of them after the block."""
        attended = self.self_attention(self.norm1(tokens), cos, sin, self.newest)
        return self._advance(last_tokens(tokens, self.newest), attended)

    def step(
        self, tokens: Tensor, cached: CachedTokens, tables: RotaryTables, added: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the block on the newest tokens alone.

        Arguments are those of `SelfAttention.step`.

        Returns:
            The tokens after the block, and their keys and values for the cache.

        """
        assert isinstance(self.self_attention, SelfAttention)
        attended, key, value = self.self_attention.step(self.norm1(tokens), cached, tables, added)
        return self._advance(tokens, attended), key, value

    def _advance(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + attended * self.attention_gate
        prompted: Tensor = self.cross_attention(self.norm2(tokens))
        tokens = tokens + (prompted if self.prompt_gate is None else prompted * self.prompt_gate)
        advanced: Tensor = self.feed_forward(self.norm3(tokens))
        return tokens + advanced * self.feed_forward_gate
