"""Scores of every choice on every clip, and which of them are best."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import Estimate, estimate
from vditrack_export.card import Card
from vditrack_export.families.read_spec import Denoising
from vditrack_export.select.points.frequency_bands import Bands, make_bands


@dataclass(frozen=True)
class Space:
    """All choices: every noise level x block x band x reading."""

    levels: tuple[Denoising, ...]
    blocks: tuple[int, ...]
    bands: Bands
    heads: int

    @property
    def readings(self) -> tuple[tuple[int, ...], ...]:
        """Heads that are read together: each alone, and all where there is more than one."""
        alone = tuple((head,) for head in range(self.heads))
        return alone if self.heads == 1 else (*alone, tuple(range(self.heads)))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Count of each."""
        return len(self.levels), len(self.blocks), len(self.bands.ranges), len(self.readings)


@dataclass(frozen=True)
class Choice:
    """One of them."""

    place: tuple[int, int, int, int]
    """Index of level, block, band and reading."""
    denoising: Denoising
    block: int
    heads: tuple[int, ...]
    frequency_range: tuple[float, float]
    channels: int
    """Of the descriptor."""


@dataclass(frozen=True)
class Scores:
    """Position accuracy in percent (TAP-Vid's δ); NaN where a clip does not define it."""

    space: Space
    clips: tuple[str, ...]
    accuracy: Doubles
    """[clips, levels, blocks, bands, readings, gaps]"""
    chance: Doubles
    """[clips, gaps] of a random cell."""
    still: Doubles
    """[clips, gaps] of no motion."""

    @property
    def mean(self) -> Doubles:
        """[levels, blocks, bands, readings]: mean over gaps, then over clips."""
        return over(over(self.accuracy, -1), 0)

    def ranked(self) -> list[Choice]:
        """All choices, the best first; of equal ones the first in the space."""
        order = np.argsort(-self.mean, axis=None, kind="stable")
        places = np.stack(np.unravel_index(order, self.space.shape), axis=1)
        return [self.choice(place) for place in places.tolist()]

    def choice(self, place: Sequence[int]) -> Choice:
        """Return what stands at a place of the space."""
        level, block, band, reading = (int(index) for index in place)
        heads = self.space.readings[reading]
        return Choice(
            place=(level, block, band, reading),
            denoising=self.space.levels[level],
            block=self.space.blocks[block],
            heads=heads,
            frequency_range=self.space.bands.ranges[band],
            channels=len(heads) * len(self.space.bands.channels[band]),
        )

    def of_clips(self, choice: Choice) -> Doubles:
        """[clips] mean over gaps."""
        return over(self.accuracy[(slice(None), *choice.place)], -1)

    def by_gap(self, choice: Choice) -> Doubles:
        """[gaps] mean over clips."""
        return over(self.accuracy[(slice(None), *choice.place)], 0)

    def estimate(self, choice: Choice) -> Estimate:
        """Mean over clips with its interval."""
        return estimate(list(self.of_clips(choice)))

    def difference(self, choice: Choice, other: Choice) -> Estimate:
        """Mean over clips of one less the other, clip by clip."""
        return estimate(list(self.of_clips(choice) - self.of_clips(other)))

    def choice_of(self, card: Card) -> Choice | None:
        """Return a card's own choice, if it was tried."""
        feature, space = card.feature, self.space
        (kept,) = make_bands(card, [feature.frequency_range]).channels
        readings = {frozenset(heads): place for place, heads in enumerate(space.readings)}
        noises = {level.noise: place for place, level in enumerate(space.levels)}
        heads = frozenset(feature.heads)
        if (
            feature.noise_level not in noises
            or feature.block not in space.blocks
            or kept not in space.bands.channels
            or heads not in readings
        ):
            return None
        block, band = space.blocks.index(feature.block), space.bands.channels.index(kept)
        return self.choice((noises[feature.noise_level], block, band, readings[heads]))


def over(values: Doubles, axis: int) -> Doubles:
    """Mean along an axis of what is defined; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))
