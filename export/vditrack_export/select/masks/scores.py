"""Scores of every trial on every clip with true masks, and which of them are best."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles
from vditrack.evaluation.report.summary import Estimate, estimate
from vditrack_export.select.masks.search_space import PartName, Setting, Trial


@dataclass(frozen=True)
class MaskClips:
    """What is scored on, set after set."""

    sets: tuple[str, ...]
    names: tuple[str, ...]
    """[clips]"""
    of_set: tuple[int, ...]
    """[clips] index of the set that each belongs to."""

    def within(self, number: int) -> NDArray[np.intp]:
        """Indices of the clips of one set."""
        return np.flatnonzero(np.array(self.of_set) == number)


@dataclass(frozen=True)
class MaskScores:
    """J&F in percent, the mean over a clip's objects and frames."""

    clips: MaskClips
    tried: Mapping[Trial, Doubles]
    """[clips] by trial."""
    still: Doubles
    """[clips] of masks that do not move."""

    @cached_property
    def ranked(self) -> tuple[Trial, ...]:
        """All trials, the best mean first; of equal ones the first tried."""
        return tuple(sorted(self.tried, key=lambda trial: -self.mean(self.tried[trial])))

    def mean(self, values: Doubles) -> float:
        """Mean over sets of the means over their clips."""
        return float(np.mean(self.by_set(values)))

    def by_set(self, values: Doubles) -> list[float]:
        """[sets] mean over clips."""
        numbers = range(len(self.clips.sets))
        return [float(np.mean(values[self.clips.within(number)])) for number in numbers]

    def estimate(self, values: Doubles, number: int) -> Estimate:
        """Mean over the clips of one set with its interval."""
        return estimate(list(values[self.clips.within(number)]))

    def alone(self, part: PartName) -> dict[float, Trial]:
        """Return the best trial of one part without the other, by its noise level, rising."""
        return _best_by_noise(
            (trial, trial.alone)
            for trial in self.ranked
            if trial.alone and trial.alone.part == part
        )

    def fused(self) -> dict[float, Trial]:
        """Return the best trial of both parts, by the noise level of motion, rising."""
        return _best_by_noise(
            (trial, trial.motion) for trial in self.ranked if trial.motion and trial.appearance
        )

    def best_alone(self, part: PartName) -> Trial:
        """Return the best trial of one part without the other."""
        return next(trial for trial in self.ranked if trial.alone and trial.alone.part == part)

    def chosen(self) -> tuple[Setting, Setting, float]:
        """Return motion, appearance and weight of the best trial.

        For a part that is left out in it stands the best one alone.
        """
        best = self.ranked[0]
        motion = best.motion or self.best_alone("motion").motion
        appearance = best.appearance or self.best_alone("appearance").appearance
        assert motion is not None and appearance is not None
        return motion, appearance, best.weight


def _best_by_noise(ranked: Iterable[tuple[Trial, Setting]]) -> dict[float, Trial]:
    """First trials of each noise level, rising by level."""
    found: dict[float, Trial] = {}
    for trial, setting in ranked:
        found.setdefault(setting.denoising.noise, trial)
    return dict(sorted(found.items()))
