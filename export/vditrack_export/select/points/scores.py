"""Scores of every choice on every clip, and the ranking of the choices."""

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
    """The search space: every noise level x block x band x reading."""

    levels: tuple[Denoising, ...]
    blocks: tuple[int, ...]
    bands: Bands
    heads: int

    @property
    def readings(self) -> tuple[tuple[int, ...], ...]:
        """The heads that are read together: each alone, and all if there is more than one."""
        alone = tuple((head,) for head in range(self.heads))
        return alone if self.heads == 1 else (*alone, tuple(range(self.heads)))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The numbers of noise levels, blocks, bands and readings."""
        return len(self.levels), len(self.blocks), len(self.bands.ranges), len(self.readings)


@dataclass(frozen=True)
class Choice:
    """One point of the search space."""

    place: tuple[int, int, int, int]
    """The indices of noise level, block, band and reading."""
    denoising: Denoising
    block: int
    heads: tuple[int, ...]
    frequency_range: tuple[float, float]
    channels: int
    """The number of channels of the descriptor."""


@dataclass(frozen=True)
class Scores:
    """Position accuracy in percent (TAP-Vid's δ); NaN where a clip does not define it."""

    space: Space
    clips: tuple[str, ...]
    accuracy: Doubles
    """The accuracy, [clips, levels, blocks, bands, readings, gaps]."""
    chance: Doubles
    """The expected accuracy of a random cell, [clips, gaps]."""
    still: Doubles
    """The accuracy of predicting no motion, [clips, gaps]."""

    @property
    def mean(self) -> Doubles:
        """The mean over gaps, then over clips, [levels, blocks, bands, readings]."""
        return average(average(self.accuracy, -1), 0)

    def ranked(self) -> list[Choice]:
        """Return all choices, the best first; equal ones in the order of the space."""
        order = np.argsort(-self.mean, axis=None, kind="stable")
        places = np.stack(np.unravel_index(order, self.space.shape), axis=1)
        return [self.choice(place) for place in places.tolist()]

    def choice(self, place: Sequence[int]) -> Choice:
        """Return the choice at a place of the space."""
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

    def by_clip(self, choice: Choice) -> Doubles:
        """Return the mean over gaps of each clip, [clips]."""
        return average(self.accuracy[(slice(None), *choice.place)], -1)

    def by_gap(self, choice: Choice) -> Doubles:
        """Return the mean over clips of each gap, [gaps]."""
        return average(self.accuracy[(slice(None), *choice.place)], 0)

    def estimate(self, choice: Choice) -> Estimate:
        """Return the mean over clips with its interval."""
        return estimate(list(self.by_clip(choice)))

    def difference(self, choice: Choice, other: Choice) -> Estimate:
        """Return the paired difference of two choices over clips, with its interval."""
        return estimate(list(self.by_clip(choice) - self.by_clip(other)))

    @property
    def warning(self) -> str | None:
        """Why the best choice is worse than doing nothing; None if it is better."""
        best = float(average(self.by_clip(self.ranked()[0]), 0))
        for name, by_gap in (("points that do not move", self.still), ("chance", self.chance)):
            nothing = float(average(average(by_gap, -1), 0))
            if best < nothing:
                return (
                    f"the best choice finds fewer points (δ {best:.1f}) than {name} "
                    f"({nothing:.1f}), so it has no meaning. Give clips with more motion, or check "
                    "the card and its weights."
                )
        return None

    def choice_of(self, card: Card) -> Choice | None:
        """Return a card's own choice, or None if it is not in the space."""
        feature, space = card.feature, self.space
        (channels,) = make_bands(card, [feature.frequency_range]).channels
        readings = {frozenset(heads): place for place, heads in enumerate(space.readings)}
        noises = {level.noise: place for place, level in enumerate(space.levels)}
        heads = frozenset(feature.heads)
        if (
            feature.noise_level not in noises
            or feature.block not in space.blocks
            or channels not in space.bands.channels
            or heads not in readings
        ):
            return None
        block, band = space.blocks.index(feature.block), space.bands.channels.index(channels)
        return self.choice((noises[feature.noise_level], block, band, readings[heads]))


def average(values: Doubles, axis: int) -> Doubles:
    """Return the mean of the defined values along an axis; NaN if none is defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis))
