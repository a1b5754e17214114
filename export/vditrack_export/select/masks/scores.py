"""Scores of every trial on every clip with true masks, and the ranking of the trials."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vditrack.arrays import Doubles, Indices
from vditrack.evaluation.report.summary import Estimate, estimate
from vditrack_export.select.masks.search_space import PartName, Setting, Trial


@dataclass(frozen=True)
class MaskClips:
    """The clips that are scored, data set by data set."""

    sets: tuple[str, ...]
    """The names of the data sets, [sets]."""
    names: tuple[str, ...]
    """The names of the clips, [clips]."""
    of_set: tuple[int, ...]
    """The index of each clip's data set, [clips]."""

    def indices_of(self, number: int) -> Indices:
        """Return the indices of the clips of one data set."""
        return np.flatnonzero(np.array(self.of_set) == number)


@dataclass(frozen=True)
class MaskScores:
    """J&F in percent, averaged over a clip's objects and frames."""

    clips: MaskClips
    by_trial: Mapping[Trial, Doubles]
    """The scores of each trial, [clips]."""
    still: Doubles
    """The scores of masks that do not move, [clips]."""

    @cached_property
    def ranked(self) -> tuple[Trial, ...]:
        """All trials, the best mean first; equal ones in the order in which they were tried."""
        return tuple(sorted(self.by_trial, key=lambda trial: -self.mean(self.by_trial[trial])))

    def mean(self, values: Doubles) -> float:
        """Return the mean over data sets of the means over their clips."""
        return float(np.mean(self.by_set(values)))

    def by_set(self, values: Doubles) -> list[float]:
        """Return the mean over the clips of each data set."""
        numbers = range(len(self.clips.sets))
        return [float(np.mean(values[self.clips.indices_of(number)])) for number in numbers]

    def estimate(self, values: Doubles, number: int) -> Estimate:
        """Return the mean over the clips of one data set with its interval."""
        return estimate(list(values[self.clips.indices_of(number)]))

    def alone_by_noise(self, part: PartName) -> dict[float, Trial]:
        """Return the best trial of one part alone at each noise level, rising."""
        return _best_by_noise(
            (trial, trial.alone)
            for trial in self.ranked
            if trial.alone and trial.alone.part == part
        )

    def fused_by_noise(self) -> dict[float, Trial]:
        """Return the best trial of both parts at each noise level of motion, rising."""
        return _best_by_noise(
            (trial, trial.motion) for trial in self.ranked if trial.motion and trial.appearance
        )

    def best_alone(self, part: PartName) -> Trial:
        """Return the best trial of one part alone."""
        return next(trial for trial in self.ranked if trial.alone and trial.alone.part == part)

    @property
    def warning(self) -> str | None:
        """Why the best trial is worse than doing nothing; None if it is better."""
        best, nothing = self.mean(self.by_trial[self.ranked[0]]), self.mean(self.still)
        if best >= nothing:
            return None
        return (
            f"the best trial (J&F {best:.1f}) is worse than masks that do not move "
            f"({nothing:.1f}), so it has no meaning. Give clips with more motion, or check the "
            "card and its weights."
        )

    def chosen(self) -> tuple[Setting, Setting, float]:
        """Return the settings of motion and appearance and the weight of the best trial.

        If the best trial has one part alone, the other part has its own best setting.
        """
        best = self.ranked[0]
        motion = best.motion or self.best_alone("motion").motion
        appearance = best.appearance or self.best_alone("appearance").appearance
        assert motion is not None and appearance is not None
        return motion, appearance, best.weight


def _best_by_noise(ranked: Iterable[tuple[Trial, Setting]]) -> dict[float, Trial]:
    """Return the first trial of each noise level, rising."""
    found: dict[float, Trial] = {}
    for trial, setting in ranked:
        found.setdefault(setting.denoising.noise, trial)
    return dict(sorted(found.items()))
