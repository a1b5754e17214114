"""From latents to descriptors through a CogVideoX transformer.

A diffusers ``CogVideoXTransformer3DModel`` is cut inside or after one block (HeFT, arXiv
2512.04619). Everything that does not depend on the latents is computed once, here, in FP32: noise,
timestep modulation, the prompt's first tokens, tables of positions. Unlike Wan's, CogVideoX's text
tokens go through every block together with the video's, so all but the first depend on the latents.
"""

from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_sincos_pos_embed
from diffusers.models.normalization import CogVideoXLayerNormZero
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from vditrack_export.families.attention import RotaryTables, SelfAttention
from vditrack_export.families.feature_path import TransformerPath
from vditrack_export.families.layers import fold_modulation, last_tokens
from vditrack_export.families.read_out import read_out
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape
from vditrack_export.families.rotary import RotaryAxes


def cogvideox_rotary_axes(head_dim: int) -> RotaryAxes:
    """Return the channels of a CogVideoX head that rotate with time, height and width.

    Channels 2i and 2i + 1 of an axis rotate together, the more slowly the higher i. CogVideoX-2B
    has no rotary embedding: there the axes only name channels.
    """
    side = 3 * (head_dim // 8)
    return head_dim // 4, side, side


class CogVideoXPath(TransformerPath):
    """Keys, queries or hidden states of chosen heads and channels after one denoising step.

    Args:
        model: The whole transformer of CogVideoX-2B (absolute positions) or CogVideoX-5B (rotary
            positions) in FP32; its submodules are shared. The caller refuses CogVideoX 1.5, whose
            configuration sets ``patch_size_t`` or ``ofs_embed_dim``, and transformers that continue
            an image, whose configuration has ``use_learned_positional_embeddings`` or twice the
            latents' ``in_channels``.
        latent_shape: Channels, frames, rows and columns of the latents.
        cut: What is read; whole rotary pairs if it is rotated.
        denoising: The denoising step.
        prompt: Output of the text encoder with its padding, float32 [tokens, text_dim].

    """

    text: Tensor

    def __init__(
        self,
        model: CogVideoXTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        """Compute all constants, and share the model's other submodules."""
        super().__init__(latent_shape, model.config.patch_size, cut, denoising)
        grid = (latent_shape[1], *self.grid[1:])
        before = _Tokens(text=len(prompt), video=self.every)
        self.patch_embedding = model.patch_embed.proj
        with torch.no_grad():
            embedding = model.time_embedding(model.time_proj(torch.tensor([denoising.timestep])))
            self.register_buffer("text", model.patch_embed.text_proj(prompt[None]))
            rotary = None
            self.place: nn.Module = nn.Identity()
            if model.config.use_rotary_positional_embeddings:
                rotary = _rotary_tables(model, grid, before.text)
            else:
                self.place = _Place(_absolute_positions(model, grid))
            last = model.transformer_blocks[self.whole - 1]
            self.blocks = self.build_blocks(
                model.transformer_blocks,
                # Nothing reads the text after the last block.
                lambda source, newest: _Block(
                    source, embedding, before, _Tokens(0, newest) if source is last else before
                ),
            )
            chosen = model.transformer_blocks[cut.block]
            shift, scale, *_ = _modulation_of(chosen.norm1, embedding)
            norm1 = fold_modulation(chosen.norm1.norm, scale, shift)
            tables = None if rotary is None else rotary.newest(self.newest)
            self.reading = read_out(norm1, chosen.attn1, cut, tables, head_norms=True)
        self.set_rotary(rotary)

    def embed(self, noised: Tensor) -> Tensor:
        """Map noised latents [1, C, T, h, w] to tokens [1, N, width], the text's first."""
        patches = self.patch_embedding(noised[0].transpose(0, 1))
        video = self.place(patches.flatten(2).transpose(1, 2)).flatten(0, 1)
        return torch.cat((self.text, video[None]), dim=1)


@dataclass(frozen=True)
class _Tokens:
    """Lengths of the parts of a sequence: first the text, then the video, frame by frame."""

    text: int
    video: int

    @property
    def total(self) -> int:
        return self.text + self.video


class _Block(nn.Module):
    """A whole transformer block: the tokens before, [1, N, width], to those wanted after."""

    def __init__(
        self, block: CogVideoXBlock, embedding: Tensor, before: _Tokens, after: _Tokens
    ) -> None:
        super().__init__()
        self.after = after
        self.norm1 = _fold_by_kind(block.norm1, embedding, before)
        self.attention = SelfAttention(block.attn1, head_norms=True)
        self.attention_gate = _gate_by_kind(block.norm1, embedding, after)
        self.norm2 = _fold_by_kind(block.norm2, embedding, after)
        self.feed_forward = block.ff
        self.feed_forward_gate = _gate_by_kind(block.norm2, embedding, after)

    def forward(self, tokens: Tensor, cos: Tensor | None, sin: Tensor | None) -> Tensor:
        attended = self.attention(self.norm1(tokens), cos, sin, self.after.total)
        tokens = last_tokens(tokens, self.after.total) + self.attention_gate(attended)
        advanced: Tensor = self.feed_forward_gate(self.feed_forward(self.norm2(tokens)))
        return tokens + advanced


class _ByKind(nn.Module):
    """Applies one module to text tokens and another to video tokens."""

    def __init__(self, text: nn.Module, video: nn.Module, tokens: _Tokens) -> None:
        super().__init__()
        self.text, self.video = text, video
        self.counts = [tokens.text, tokens.video]

    def forward(self, tokens: Tensor) -> Tensor:
        text, video = torch.split(tokens, self.counts, dim=1)
        return torch.cat((self.text(text), self.video(video)), dim=1)


class _Gate(nn.Module):
    gate: Tensor

    def __init__(self, gate: Tensor) -> None:
        super().__init__()
        self.register_buffer("gate", gate)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.gate * tokens


class _Place(nn.Module):
    """Adds absolute positions to [T, rows * columns, width].

    They are a part in time plus a part in space: two small tables instead of one for all tokens.
    """

    in_time: Tensor
    in_space: Tensor

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.register_buffer("in_time", positions[:, :1] - positions[:1, :1])
        self.register_buffer("in_space", positions[:1])

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.in_time + self.in_space


def _absolute_positions(model: CogVideoXTransformer3DModel, grid: tuple[int, int, int]) -> Tensor:
    """Return the sinusoids that are added to video tokens, [T, rows * columns, width]."""
    frames, rows, columns = grid
    positions: Tensor = get_3d_sincos_pos_embed(
        model.patch_embed.embed_dim,
        (columns, rows),
        frames,
        model.config.spatial_interpolation_scale,
        model.config.temporal_interpolation_scale,
    )
    return positions.float()


def _rotary_tables(
    model: CogVideoXTransformer3DModel, grid: tuple[int, int, int], text: int
) -> RotaryTables:
    """Return the tables of all tokens; the text, which comes first, is not rotated."""
    frames, rows, columns = grid
    side = model.config.patch_size
    trained = (model.config.sample_height // side, model.config.sample_width // side)
    cos, sin = get_3d_rotary_pos_embed(
        model.config.attention_head_dim,
        _fit_region((rows, columns), trained),
        (rows, columns),
        frames,
    )
    still = torch.ones(text, cos.shape[1] // 2)
    cos = torch.cat((still, cos[:, ::2]))
    sin = torch.cat((0 * still, sin[:, ::2]))
    return RotaryTables(cos[None, :, None], sin[None, :, None])


def _fit_region(
    grid: tuple[int, int], trained: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return first and end (row, column) of a grid scaled into the middle of the one trained on.

    These are the positions that ``CogVideoXPipeline`` gives to pictures of other sizes.
    """
    scale = min(trained[0] / grid[0], trained[1] / grid[1])
    height, width = round(scale * grid[0]), round(scale * grid[1])
    top, left = round((trained[0] - height) / 2), round((trained[1] - width) / 2)
    return (top, left), (top + height, left + width)


def _modulation_of(norm: CogVideoXLayerNormZero, embedding: Tensor) -> tuple[Tensor, ...]:
    """Return shift, scale and gate [1, width] of the video tokens, then of the text tokens."""
    modulation: Tensor = norm.linear(norm.silu(embedding))
    return modulation.chunk(6, dim=1)


def _fold_by_kind(norm: CogVideoXLayerNormZero, embedding: Tensor, tokens: _Tokens) -> nn.Module:
    shift, scale, _, text_shift, text_scale, _ = _modulation_of(norm, embedding)
    video = fold_modulation(norm.norm, scale, shift)
    return _by_kind(fold_modulation(norm.norm, text_scale, text_shift), video, tokens)


def _gate_by_kind(norm: CogVideoXLayerNormZero, embedding: Tensor, tokens: _Tokens) -> nn.Module:
    _, _, gate, _, _, text_gate = _modulation_of(norm, embedding)
    return _by_kind(_Gate(text_gate), _Gate(gate), tokens)


def _by_kind(text: nn.Module, video: nn.Module, tokens: _Tokens) -> nn.Module:
    return _ByKind(text, video, tokens) if tokens.text else video
