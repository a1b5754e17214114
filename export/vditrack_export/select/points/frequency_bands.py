"""Bands of rotary frequencies, cut into pieces so that no dot product is computed twice."""

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
    """Frequency ranges as sets of channels of a head.

    Ranges overlap. A piece is the set of channels that belong to the same ranges. The dot product
    of a band is the sum of the dot products of its pieces, and so is its squared length.
    """

    ranges: tuple[Range, ...]
    channels: tuple[tuple[int, ...], ...]
    """The channels of each range, as a bundle has them."""
    pieces: tuple[tuple[int, ...], ...]
    """The channels of each piece; pieces are disjoint."""
    members: tuple[tuple[int, ...], ...]
    """The indices of the pieces of each range."""


def make_bands(card: Card, ranges: Iterable[Range]) -> Bands:
    """Return the bands of frequency ranges, rising, in the rotary layout of the card's family.

    Ranges that select the same channels become one band, with the first of these ranges.

    Raises:
        InputError: a range selects no channel.

    """
    head_dim = card.require_transformer().head_dim
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


def iterate_band_cosines(templates: Tensor, cells: Tensor, bands: Bands) -> Iterator[Tensor]:
    """Yield the cosine similarities of templates with cells for each band.

    Args:
        templates: float32 [N, heads, head_dim].
        cells: float32 [M, heads, head_dim].
        bands: the bands of a head.

    Yields:
        float32 [readings, N, M]: each head alone, and if there is more than one also all heads
        concatenated to one descriptor.

    """
    wanted, seen = (x.transpose(0, 1) for x in (templates, cells))
    dots, wanted_squares, seen_squares = [], [], []
    for piece in bands.pieces:
        a, b = wanted[..., list(piece)], seen[..., list(piece)]
        dots.append(a @ b.transpose(1, 2))
        wanted_squares.append((a**2).sum(-1))
        seen_squares.append((b**2).sum(-1))
    for members in bands.members:
        dot, own, other = (
            _append_sum(torch.stack([pieces[i] for i in members]).sum(0))
            for pieces in (dots, wanted_squares, seen_squares)
        )
        lengths = (own[:, :, None] * other[:, None]).clamp_min(_TINY**2).sqrt()
        yield dot / lengths


def _append_sum(by_head: Tensor) -> Tensor:
    """Append the sum over heads to [heads, ...], if there is more than one head."""
    return by_head if len(by_head) == 1 else torch.cat((by_head, by_head.sum(0, keepdim=True)))
