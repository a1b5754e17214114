"""Bands of rotary frequencies, cut into pieces so that no product is worked out twice."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor

from vditrack_export.card import Card

Range = tuple[float, float]

_TINY = 1e-12


@dataclass(frozen=True)
class Bands:
    """Ranges of frequencies as sets of channels of a head.

    Ranges overlap. The channels that belong to the same of them are a piece: the dot product of a
    band is the sum of those of its pieces, and so are squared lengths.
    """

    ranges: tuple[Range, ...]
    channels: tuple[tuple[int, ...], ...]
    """By range, as export keeps them."""
    pieces: tuple[tuple[int, ...], ...]
    """Channels of each, disjoint."""
    members: tuple[tuple[int, ...], ...]
    """By range, which pieces it is made of."""


def make_bands(card: Card, ranges: Iterable[Range]) -> Bands:
    """Return the bands of a card's family, rising, its layout of frequencies the card's.

    Of ranges that keep the same channels, as whole pairs are kept, the first stands for the others.

    Raises:
        InputError: a range keeps no channel.

    """
    head_dim = card.transformer.require_transformer().head_dim
    different: dict[tuple[int, ...], Range] = {}
    for kept in ranges:
        feature = msgspec.structs.replace(card.feature, frequency_range=kept)
        different.setdefault(card.family.denoiser.channels(feature), kept)
    channels, rising = zip(*sorted(different.items(), key=lambda item: item[1]), strict=True)
    by_owners: dict[tuple[int, ...], list[int]] = {}
    for channel in range(head_dim):
        owners = tuple(i for i, kept in enumerate(channels) if channel in kept)
        if owners:
            by_owners.setdefault(owners, []).append(channel)
    members = (
        tuple(piece for piece, owners in enumerate(by_owners) if band in owners)
        for band in range(len(channels))
    )
    pieces = tuple(tuple(piece) for piece in by_owners.values())
    return Bands(rising, channels, pieces, tuple(members))


def cosines_by_band(templates: Tensor, cells: Tensor, bands: Bands) -> Iterator[Tensor]:
    """Cosine similarities of templates with cells, band after band.

    Args:
        templates: float32 [N, heads, head_dim].
        cells: float32 [M, heads, head_dim].
        bands: of the head.

    Yields:
        float32 [readings, N, M]: each head alone, and all of them joined to one descriptor where
        there is more than one.

    """
    asked, seen = (x.transpose(0, 1) for x in (templates, cells))
    dots, asked_squares, seen_squares = [], [], []
    for piece in bands.pieces:
        a, b = asked[..., list(piece)], seen[..., list(piece)]
        dots.append(a @ b.transpose(1, 2))
        asked_squares.append((a**2).sum(-1))
        seen_squares.append((b**2).sum(-1))
    for members in bands.members:
        dot, own, other = (
            _with_all(torch.stack([pieces[i] for i in members]).sum(0))
            for pieces in (dots, asked_squares, seen_squares)
        )
        lengths = (own[:, :, None] * other[:, None]).clamp_min(_TINY**2).sqrt()
        yield dot / lengths


def _with_all(by_head: Tensor) -> Tensor:
    """Put after the heads [heads, ...] their sum, where it is more than one."""
    return by_head if len(by_head) == 1 else torch.cat((by_head, by_head.sum(0, keepdim=True)))
