"""The way from latents to descriptors through a CogVideoX transformer, and nothing else of it.

A diffusers ``CogVideoXTransformer3DModel`` is cut inside or after one block (HeFT, arXiv
2512.04619). Everything that does not depend on the latents is computed once, here, in FP32: noise,
timestep modulation, the prompt's first tokens, tables of positions. Unlike Wan's, CogVideoX's text
tokens go through every block together with the video's, so all but the first of them do depend on
the latents.
"""

import math
from dataclasses import dataclass

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.attention import Attention
from diffusers.models.embeddings import get_3d_rotary_pos_embed, get_3d_sincos_pos_embed
from diffusers.models.normalization import CogVideoXLayerNormZero
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn

from vditrack_export.families.layers import Attend, by_head, last_tokens, modulated, rotate_pairs
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.rotary import RotaryAxes


def cogvideox_rotary_axes(head_dim: int) -> RotaryAxes:
    """Channels of a CogVideoX head that rotate with time, height and width, in that order.

    Channels 2i and 2i + 1 of an axis turn together, the more slowly the higher i. CogVideoX-2B
    has no rotary embedding: there the axes are names of channels only.
    """
    side = 3 * (head_dim // 8)
    return head_dim // 4, side, side


class CogVideoXPath(nn.Module):
    """Descriptors read of one block after one denoising step.

    Args:
        model: the whole transformer of CogVideoX-2B (absolute positions) or CogVideoX-5B (rotary
            ones), in FP32; its submodules are shared, not copied. The caller refuses CogVideoX 1.5,
            whose config sets ``patch_size_t`` or ``ofs_embed_dim``, and transformers that continue
            an image, whose config has ``use_learned_positional_embeddings`` or twice the latents'
            ``in_channels``.
        latent_shape: channels, frames, rows, columns of the latents.
        cut: what is read; whole rotary pairs where it is rotated. Frames earlier than those
            described only lend keys and values to the last whole block, as does the text.
        denoising: the step.
        prompt: text encoder's output with its padding, float32 [tokens, text_dim].

    """

    noise: Tensor
    text: Tensor

    def __init__(
        self,
        model: CogVideoXTransformer3DModel,
        latent_shape: LatentShape,
        cut: Cut,
        denoising: Denoising,
        prompt: Tensor,
    ) -> None:
        super().__init__()
        _, frames, rows, columns = latent_shape
        side = model.config.patch_size
        grid = (frames, rows // side, columns // side)
        self.grid = (cut.described, *grid[1:])
        every = _Tokens(text=len(prompt), video=math.prod(grid))
        self.newest = _Tokens(text=0, video=math.prod(self.grid))
        self.signal = denoising.signal
        noise = seeded_noise((1, *latent_shape), denoising.seed)
        self.register_buffer("noise", denoising.noise * noise)
        self.patch_embedding = model.patch_embed.proj
        # Hidden states are what the chosen block puts out, so it runs whole too.
        whole = cut.block + (cut.tensor == "hidden")
        with torch.no_grad():
            embedding = _timestep_embedding(model, denoising.timestep)
            self.register_buffer("text", model.patch_embed.text_proj(prompt[None]))
            self.place, self.rotate = _positions(model, grid, every.text)
            self.blocks = nn.ModuleList(
                _Block(source, embedding, every, self.newest if index == whole - 1 else every)
                for index, source in enumerate(model.transformer_blocks[:whole])
            )
            self.reading = (
                _Hidden(model.config.attention_head_dim, cut)
                if cut.tensor == "hidden"
                else _Projected(
                    model.transformer_blocks[cut.block],
                    embedding,
                    cut,
                    _rotation_read(self.rotate, cut, self.newest),
                )
            )

    def forward(self, latents: Tensor) -> Tensor:
        """Map float32 [1, C, T, h, w] to descriptors, float32 [described, rows, columns, D]."""
        noised = self.signal * latents + self.noise
        patches = self.patch_embedding(noised[0].transpose(0, 1))
        video = self.place(patches.flatten(2).transpose(1, 2)).flatten(0, 1)
        tokens = torch.cat((self.text, video[None]), dim=1)
        for block in self.blocks:
            tokens = block(tokens, self.rotate)
        descriptors: Tensor = self.reading(last_tokens(tokens, self.newest.total))
        return descriptors.reshape(*self.grid, -1)


@dataclass(frozen=True)
class _Tokens:
    """What a sequence is made of: first the text, then the video, frame by frame."""

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
        self.norm1 = _modulated_by_kind(block.norm1, embedding, before)
        self.attention = _Attention(block.attn1)
        self.attention_gate = _gate_by_kind(block.norm1, embedding, after)
        self.norm2 = _modulated_by_kind(block.norm2, embedding, after)
        self.feed_forward = block.ff
        self.feed_forward_gate = _gate_by_kind(block.norm2, embedding, after)

    def forward(self, tokens: Tensor, rotate: nn.Module) -> Tensor:
        attended = self.attention(self.norm1(tokens), rotate, self.after.total)
        tokens = last_tokens(tokens, self.after.total) + self.attention_gate(attended)
        advanced: Tensor = self.feed_forward_gate(self.feed_forward(self.norm2(tokens)))
        return tokens + advanced


class _Attention(nn.Module):
    """Of all tokens to all; only the last ``asking`` tokens ask."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attend = Attend()
        self.heads = attention.heads
        self.to_q, self.to_k, self.to_v = attention.to_q, attention.to_k, attention.to_v
        self.norm_q, self.norm_k = attention.norm_q, attention.norm_k
        self.to_out = attention.to_out[0]

    def forward(self, tokens: Tensor, rotate: nn.Module, asking: int) -> Tensor:
        query = self.norm_q(by_head(self.to_q(last_tokens(tokens, asking)), self.heads))
        key = self.norm_k(by_head(self.to_k(tokens), self.heads))
        value = by_head(self.to_v(tokens), self.heads)
        out: Tensor = self.to_out(self.attend(rotate(query), rotate(key), value))
        return out


class _Projected(nn.Module):
    """The part of a block that its keys or queries need: tokens [1, N, width] to [1, N, D]."""

    channels: Tensor

    def __init__(
        self, block: CogVideoXBlock, embedding: Tensor, cut: Cut, rotate: nn.Module
    ) -> None:
        super().__init__()
        attention = block.attn1
        shift, scale, *_ = _modulation_of(block.norm1, embedding)
        self.norm1 = _modulated(block.norm1.norm, scale, shift)
        projection, self.norm = (
            (attention.to_k, attention.norm_k)
            if cut.tensor == "keys"
            else (attention.to_q, attention.norm_q)
        )
        self.heads = len(cut.heads)
        # Heads are normalised each on its own: the others need not be projected.
        head_dim = attention.inner_dim // attention.heads
        self.projection = _of_heads(projection, head_dim, cut.heads)
        self.register_buffer("channels", torch.tensor(cut.channels))
        self.rotate = rotate

    def forward(self, tokens: Tensor) -> Tensor:
        whole = self.norm(by_head(self.projection(self.norm1(tokens)), self.heads))
        chosen: Tensor = self.rotate(whole.index_select(-1, self.channels))
        return chosen.flatten(-2)


class _Hidden(nn.Module):
    """Chosen columns of hidden states [1, N, width]."""

    columns: Tensor

    def __init__(self, head_dim: int, cut: Cut) -> None:
        super().__init__()
        kept = torch.tensor(cut.channels)
        self.register_buffer("columns", torch.cat([head * head_dim + kept for head in cut.heads]))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


class _ByKind(nn.Module):
    """One way for text tokens and another for video tokens."""

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

    They are a part in time beside a part in space: two small tables instead of one for every token.
    """

    in_time: Tensor
    in_space: Tensor

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.register_buffer("in_time", positions[:, :1] - positions[:1, :1])
        self.register_buffer("in_space", positions[:1])

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.in_time + self.in_space


class _Rotate(nn.Module):
    """Rotary positions of the last tokens: cosines and sines [1, N, 1, pairs of channels]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        return rotate_pairs(x, last_tokens(self.cos, count), last_tokens(self.sin, count))


def _timestep_embedding(model: CogVideoXTransformer3DModel, timestep: float) -> Tensor:
    embedding: Tensor = model.time_embedding(model.time_proj(torch.tensor([timestep])))
    return embedding


def _positions(
    model: CogVideoXTransformer3DModel, grid: tuple[int, int, int], text: int
) -> tuple[nn.Module, nn.Module]:
    """How video tokens are placed at the start, and how heads of all tokens are rotated."""
    if model.config.use_rotary_positional_embeddings:
        return nn.Identity(), _Rotate(*_rotary_tables(model, grid, text))
    frames, rows, columns = grid
    positions = get_3d_sincos_pos_embed(
        model.patch_embed.embed_dim,
        (columns, rows),
        frames,
        model.config.spatial_interpolation_scale,
        model.config.temporal_interpolation_scale,
    )
    return _Place(positions.float()), nn.Identity()


def _rotary_tables(
    model: CogVideoXTransformer3DModel, grid: tuple[int, int, int], text: int
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every token's angles, one a pair of channels: [1, N, 1, pairs]."""
    frames, rows, columns = grid
    side = model.config.patch_size
    trained = (model.config.sample_height // side, model.config.sample_width // side)
    cos, sin = get_3d_rotary_pos_embed(
        model.config.attention_head_dim, _fitted((rows, columns), trained), (rows, columns), frames
    )
    # The text is not rotated: all its angles are 0.
    still = torch.ones(text, cos.shape[1] // 2)
    cos = torch.cat((still, cos[:, ::2]))
    sin = torch.cat((0 * still, sin[:, ::2]))
    return cos[None, :, None], sin[None, :, None]


def _fitted(
    grid: tuple[int, int], trained: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and end (row, column) of a grid scaled into the middle of the one trained on.

    The positions that ``CogVideoXPipeline`` gives to a picture of another size or shape.
    """
    scale = min(trained[0] / grid[0], trained[1] / grid[1])
    height, width = round(scale * grid[0]), round(scale * grid[1])
    top, left = round((trained[0] - height) / 2), round((trained[1] - width) / 2)
    return (top, left), (top + height, left + width)


def _rotation_read(rotate: nn.Module, cut: Cut, tokens: _Tokens) -> nn.Module:
    """The rotation of what is read: its tokens and channels only."""
    if not (cut.rotated and isinstance(rotate, _Rotate)):
        return nn.Identity()
    pairs = torch.tensor(cut.channels[::2]) // 2
    cos, sin = (last_tokens(table, tokens.total)[..., pairs] for table in (rotate.cos, rotate.sin))
    return _Rotate(cos, sin)


def _modulation_of(norm: CogVideoXLayerNormZero, embedding: Tensor) -> tuple[Tensor, ...]:
    """Shift, scale and gate [1, width] of the video tokens, then of the text tokens."""
    modulation: Tensor = norm.linear(norm.silu(embedding))
    return modulation.chunk(6, dim=1)


def _modulated_by_kind(
    norm: CogVideoXLayerNormZero, embedding: Tensor, tokens: _Tokens
) -> nn.Module:
    shift, scale, _, text_shift, text_scale, _ = _modulation_of(norm, embedding)
    video = _modulated(norm.norm, scale, shift)
    return _by_kind(_modulated(norm.norm, text_scale, text_shift), video, tokens)


def _gate_by_kind(norm: CogVideoXLayerNormZero, embedding: Tensor, tokens: _Tokens) -> nn.Module:
    _, _, gate, _, _, text_gate = _modulation_of(norm, embedding)
    return _by_kind(_Gate(text_gate), _Gate(gate), tokens)


def _by_kind(text: nn.Module, video: nn.Module, tokens: _Tokens) -> nn.Module:
    return _ByKind(text, video, tokens) if tokens.text else video


def _modulated(norm: nn.LayerNorm, scale: Tensor, shift: Tensor) -> nn.LayerNorm:
    """Fold a constant modulation into a norm that has weights of its own."""
    folded = modulated(norm, scale, shift)
    folded.bias.addcmul_(folded.weight, norm.bias)
    folded.weight.mul_(norm.weight)
    return folded


def _of_heads(projection: nn.Linear, head_dim: int, heads: tuple[int, ...]) -> nn.Linear:
    """Leave out the heads that are not wanted."""
    rows = torch.cat([head * head_dim + torch.arange(head_dim) for head in heads])
    part = nn.Linear(projection.in_features, len(rows))
    part.weight.copy_(projection.weight[rows])
    part.bias.copy_(projection.bias[rows])
    return part
