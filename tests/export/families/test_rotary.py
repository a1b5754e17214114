"""Cosmos stores the halves of its rotary pairs apart; which channels are kept follows from that."""

import pytest
import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_cosmos import CosmosRotaryPosEmbed
from torch import Tensor

from vditrack.errors import InputError
from vditrack_export.families.rotary import cosmos_channels, wan_rotary_axes

HEAD_DIMS = [24, 32, 64, 128]


def rotary_tables(head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [2, 2, 2, head_dim] of the cells of a small grid, from the model itself."""
    rope = CosmosRotaryPosEmbed(head_dim, patch_size=(1, 1, 1), rope_scale=(1.0, 3.0, 3.0))
    cos, sin = rope(torch.empty(1, 1, 2, 2, 2), fps=24)
    return cos.reshape(2, 2, 2, -1), sin.reshape(2, 2, 2, -1)


def frequencies(head_dim: int) -> Tensor:
    """Radians a step [3, head_dim] along time, height and width."""
    cos, sin = rotary_tables(head_dim)
    angles = torch.atan2(sin, cos)
    return torch.stack((angles[1, 0, 0], angles[0, 1, 0], angles[0, 0, 1]))


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_the_axes_are_those_of_wan(head_dim: int) -> None:
    turning = (frequencies(head_dim) > 0).sum(1)
    assert tuple(turning.tolist()) == wan_rotary_axes(head_dim)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("low", [0.0, 0.1, 0.4, 0.7])
def test_rotary_keeps_the_lowest_frequencies_of_each_axis(head_dim: int, low: float) -> None:
    kept = set(cosmos_channels(head_dim, (low, 1.0), "rotary"))
    for axis in frequencies(head_dim):
        channels = axis.nonzero().flatten().tolist()
        inside = [float(axis[c]) for c in channels if c in kept]
        outside = [float(axis[c]) for c in channels if c not in kept]
        assert 0 <= low * len(channels) - len(outside) < 2
        assert not outside or max(inside) < min(outside)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("low", [0.0, 0.3, 0.6])
def test_rotary_keeps_whole_pairs(head_dim: int, low: float) -> None:
    """Vectors that are zero outside the kept channels stay so when the model turns them."""
    kept = cosmos_channels(head_dim, (low, 1.0), "rotary")
    assert kept == sorted(set(kept))
    assert not turned_out_of(kept, head_dim).any()


def turned_out_of(kept: list[int], head_dim: int) -> Tensor:
    """What the rotation of kept channels, all ones, puts into others."""
    cos, sin = rotary_tables(head_dim)
    tables = cos.flatten(0, 2), sin.flatten(0, 2)
    heads = torch.zeros(1, 1, 8, head_dim)
    heads[..., kept] = 1
    turned = apply_rotary_emb(heads, tables, use_real_unbind_dim=-2)
    return turned[..., [c for c in range(head_dim) if c not in kept]]


def test_channels_of_cosmos() -> None:
    # HeFT, Cosmos-Predict2-2B: 0.1 to 1 of 44, 42 and 42 channels.
    reference = cosmos_channels(128, (0.1, 1.0), "reference")
    assert reference == [*range(4, 44), *range(48, 86), *range(90, 128)]
    rotary = cosmos_channels(128, (0.1, 1.0), "rotary")
    assert rotary == [
        *(*range(2, 22), *range(24, 43), *range(45, 64)),
        *(*range(66, 86), *range(88, 107), *range(109, 128)),
    ]


def test_reference_parts_pairs_and_misses_frequencies() -> None:
    """Why there are two layouts."""
    reference = cosmos_channels(128, (0.1, 1.0), "reference")
    dropped = set(range(128)) - set(reference)
    assert {(channel + 64) % 128 for channel in dropped} <= set(reference)
    assert turned_out_of(reference, 128).any()
    _, _, width = frequencies(128)
    assert int(width.argmax()) in reference


def test_without_a_range_the_layouts_agree() -> None:
    everything = list(range(128))
    assert cosmos_channels(128, (0.0, 1.0), "reference") == everything
    assert cosmos_channels(128, (0.0, 1.0), "rotary") == everything


def test_empty_range_is_refused() -> None:
    with pytest.raises(InputError, match="keeps no channel"):
        cosmos_channels(32, (0.0, 0.1), "rotary")
