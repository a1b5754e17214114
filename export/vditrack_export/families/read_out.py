"""From the tokens before or after the chosen block to the descriptors that are read of them."""

from typing import Any

import torch
from torch import Tensor, nn

from vditrack_export.families.attention import RotaryTables
from vditrack_export.families.layers import rotate_halves, rotate_pairs, split_heads
from vditrack_export.families.read_spec import Cut


def read_out(
    norm1: nn.Module,
    attention: Any,  # noqa: ANN401
    cut: Cut,
    rotary: RotaryTables | None,
    *,
    head_norms: bool,
    halves: bool = False,
) -> nn.Module:
    """Return the module that maps tokens [1, N, width] to descriptors [1, N, D].

    Hidden states are read after the block, keys and queries before it.

    Args:
        norm1: Norm before the self-attention, with its modulation.
        attention: Self-attention of the block.
        cut: What is read.
        rotary: Tables of the tokens that are read; None without rotary embedding.
        head_norms: Whether keys and queries are normalised head by head; otherwise over all heads.
        halves: Whether the rotary embedding pairs channels (i, i + head_dim / 2).

    """
    project, norm = _projection(attention, cut)
    columns = _chosen_columns(project.out_features // attention.heads, cut)
    if cut.tensor == "hidden":
        return _Columns(columns)
    if rotary is None or not cut.rotated:
        tables = None
    elif halves:
        # Whole heads are rotated before channels are chosen, which may part pairs.
        tables = rotary
    else:
        tables = _chosen_tables(rotary, cut)
    if head_norms:
        chosen = _chosen_heads(project, attention.heads, cut.heads)
        return _HeadProjection(norm1, chosen, norm, cut, tables, halves=halves)
    # All heads are projected even for one: the norm takes its mean square over all of them.
    projected = _WidthProjection(norm1, project, norm, columns)
    if tables is None:
        return projected
    return nn.Sequential(projected, _Rotated(len(cut.heads), *tables))


def _chosen_tables(rotary: RotaryTables, cut: Cut) -> RotaryTables:
    """Return the tables of the chosen pairs of channels, and heads where angles differ by head."""
    pairs, heads = torch.tensor(cut.channels[::2]) // 2, list(cut.heads)
    cos, sin = (
        (table if table.shape[2] == 1 else table[:, :, heads])[..., pairs] for table in rotary
    )
    return RotaryTables(cos, sin)


def _projection(attention: Any, cut: Cut) -> tuple[nn.Linear, nn.Module]:  # noqa: ANN401
    if cut.tensor == "keys":
        return attention.to_k, attention.norm_k
    return attention.to_q, attention.norm_q


def _chosen_columns(head_dim: int, cut: Cut) -> Tensor:
    first = head_dim * torch.tensor(cut.heads)[:, None]
    return (first + torch.tensor(cut.channels)).flatten()


def _chosen_heads(projection: nn.Linear, heads: int, wanted: tuple[int, ...]) -> nn.Linear:
    """Return a projection to the wanted heads alone."""
    rows = torch.unflatten(projection.weight, 0, (heads, -1))[list(wanted)].flatten(0, 1)
    biased = projection.bias is not None
    part = nn.Linear(projection.in_features, len(rows), bias=biased)
    part.weight.copy_(rows)
    if biased:
        bias = torch.unflatten(projection.bias, 0, (heads, -1))[list(wanted)]
        part.bias.copy_(bias.flatten())
    return part


class _Columns(nn.Module):
    """Chosen columns of the tokens, [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.index_select(-1, self.columns)


class _WidthProjection(nn.Module):
    """Keys or queries normalised over all heads: tokens [1, N, width] to [1, N, D]."""

    columns: Tensor

    def __init__(
        self, norm1: nn.Module, project: nn.Linear, norm: nn.Module, columns: Tensor
    ) -> None:
        super().__init__()
        self.norm1, self.project, self.norm = norm1, project, norm
        self.register_buffer("columns", columns)

    def forward(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.project(self.norm1(tokens)))
        return normed.index_select(-1, self.columns)


class _Rotated(nn.Module):
    """The rotary embedding of chosen channels, [1, N, D], head by head."""

    cos: Tensor
    sin: Tensor

    def __init__(self, heads: int, cos: Tensor, sin: Tensor) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("cos", cos)
        self.register_buffer("sin", sin)

    def forward(self, projected: Tensor) -> Tensor:
        return rotate_pairs(split_heads(projected, self.heads), self.cos, self.sin).flatten(-2)


class _HeadProjection(nn.Module):
    """Keys or queries normalised head by head: tokens [1, N, width] to [1, N, D]."""

    channels: Tensor
    cos: Tensor | None
    sin: Tensor | None

    def __init__(
        self,
        norm1: nn.Module,
        project: nn.Linear,
        norm: nn.Module,
        cut: Cut,
        rotary: RotaryTables | None,
        *,
        halves: bool,
    ) -> None:
        super().__init__()
        self.norm1, self.norm, self.project = norm1, norm, project
        self.heads, self.halves = len(cut.heads), halves
        self.register_buffer("channels", torch.tensor(cut.channels))
        self.register_buffer("cos", None if rotary is None else rotary.cos)
        self.register_buffer("sin", None if rotary is None else rotary.sin)

    def forward(self, tokens: Tensor) -> Tensor:
        heads: Tensor = self.norm(split_heads(self.project(self.norm1(tokens)), self.heads))
        if self.halves and self.cos is not None and self.sin is not None:
            heads = rotate_halves(heads, self.cos, self.sin)
        chosen = heads.index_select(-1, self.channels)
        if not self.halves and self.cos is not None and self.sin is not None:
            chosen = rotate_pairs(chosen, self.cos, self.sin)
        return chosen.flatten(-2)
