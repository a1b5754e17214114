"""The likeliest path of a point through a block of frames, among candidate places.

In each frame a point is at one of S candidate places, or hidden. Evidence at each place, and how
well optical flow leads from each place to those of the next frame, give the log-odds of every path,
linear in weights that are fitted to clips with known tracks. The forward-backward algorithm sums
over all paths (Rabiner, A tutorial on hidden Markov models, Proc. IEEE 1989, section III; with
weights in the place of probabilities, it is a linear-chain conditional random field). So a place
counts if what comes before and after leads there, and whichever evidence is surer decides.
"""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Bools, Doubles, Floats, Indices
from vditrack.bundle.path_choice import PathChoice

_NEVER = -60.0
"""Log-odds of what is impossible."""
_SAME = 1.5
"""Pixels at a width of 256 up to which places are averaged."""
_BESIDE = 8.0
"""Pixels at a width of 256 up to which the probabilities of places add up."""


@dataclass(frozen=True)
class PathEvidence:
    """The S candidate places of N points in T frames, in the order in which they are tracked."""

    places: Floats
    """[N, T, S, 2] (x, y) in pixels at a width of 256. In the frame of a query that is in the
    block, the first place is the query's."""
    usable: Bools
    """[N, T, S]"""
    of_places: Floats
    """[N, T, S, K] what `PathChoice.of_place` weights, in its order."""
    of_steps: Floats
    """[N, T - 1, S, S, L] of steps to the next frame, what `PathChoice.of_step` weights."""
    first: Indices
    """[N] the first frame in which each point has a place."""
    queried: Bools
    """[N] whether that is the frame of its query."""


@dataclass(frozen=True)
class Potentials:
    """Log-odds of N points in T frames with S places and, as the last state, hidden."""

    states: Doubles
    """[N, T, S + 1]"""
    steps: Doubles
    """[N, T - 1, S + 1, S + 1] from a state to one of the next frame."""
    first: Indices
    """[N] the first frame of each point."""


@dataclass(frozen=True)
class Posterior:
    """Probabilities given all evidence."""

    states: Doubles
    """[N, T, S + 1]; before the first frame all are 0."""
    steps: Doubles
    """[N, T - 1, S + 1, S + 1]; before the first frame all are 0."""
    log_sum: Doubles
    """[N] logarithm of the sum over all paths."""


@dataclass(frozen=True)
class Choice:
    """Where N points are in T frames."""

    points: Floats
    """[N, T, 2] (x, y) in pixels at a width of 256."""
    confidence: Floats
    """[N, T] probability that the point is visible within 8 such pixels."""
    place: Indices
    """[N, T] the candidate that the position is nearest to."""


def weigh(evidence: PathEvidence, choice: PathChoice) -> Potentials:
    """Return the log-odds that weights give to evidence."""
    count, frames, places = evidence.usable.shape
    states = np.zeros((count, frames, places + 1))
    visible = choice.bias + evidence.of_places @ np.array(choice.of_place)
    states[:, :, :places] = np.where(evidence.usable, visible, _NEVER)
    steps = np.empty((count, max(0, frames - 1), places + 1, places + 1))
    steps[:, :, :places, :places] = choice.step + evidence.of_steps @ np.array(choice.of_step)
    steps[:, :, :places, places] = choice.lost
    steps[:, :, places, :places] = choice.found
    steps[:, :, places, places] = choice.hidden
    rows = np.flatnonzero(evidence.queried)
    states[rows, evidence.first[rows]] = _NEVER
    states[rows, evidence.first[rows], 0] = 0
    return Potentials(states, steps, evidence.first)


def sum_paths(potentials: Potentials) -> Posterior:
    """Return the probabilities of all states and steps, by the forward-backward algorithm."""
    states, steps, first = potentials.states, potentials.steps, potentials.first
    count, frames, number = states.shape
    forward = np.zeros((count, frames, number))
    backward = np.zeros((count, frames, number))
    for frame in range(frames):
        begins = (first >= frame)[:, None]
        into = states[:, frame]
        if frame:
            led = _log_sum(forward[:, frame - 1, :, None] + steps[:, frame - 1], axis=1)
            into = into + np.where(begins, 0, led)
        forward[:, frame] = into
    for frame in range(frames - 2, -1, -1):
        after = states[:, frame + 1] + backward[:, frame + 1]
        backward[:, frame] = _log_sum(steps[:, frame] + after[:, None], axis=2)
    log_sum = _log_sum(forward[:, -1], axis=1)
    begun = np.arange(frames) >= first[:, None]
    of_states = np.exp(np.minimum(0, forward + backward - log_sum[:, None, None]))
    after = (states + backward)[:, 1:, None]
    of_steps = forward[:, :-1, :, None] + steps + after - log_sum[:, None, None, None]
    return Posterior(
        of_states * begun[:, :, None],
        np.exp(np.minimum(0, of_steps)) * begun[:, :-1, None, None],
        log_sum,
    )


def choose(evidence: PathEvidence, choice: PathChoice) -> Choice:
    """Choose where points are, and how likely they are visible there."""
    places = evidence.places.astype(np.float64)
    usable = evidence.usable
    probability = sum_paths(weigh(evidence, choice)).states[:, :, :-1] * usable
    apart = np.linalg.norm(places[:, :, :, None] - places[:, :, None], axis=4)
    around = (probability[:, :, None] * (apart < 2 * _SAME)).sum(axis=3)
    best = np.where(usable, around, -1).argmax(axis=2)
    from_best = np.take_along_axis(apart, best[:, :, None, None], axis=2)[:, :, 0]
    weights = probability * (from_best < _SAME) + 1e-12 * (
        np.arange(usable.shape[2]) == best[..., None]
    )
    points = (weights[..., None] * places).sum(axis=2) / weights.sum(axis=2)[..., None]
    confidence = (probability * (from_best < _BESIDE)).sum(axis=2)
    return Choice(
        np.asarray(points, np.float32), np.asarray(np.minimum(confidence, 1), np.float32), best
    )


def _log_sum(values: Doubles, axis: int) -> Doubles:
    """Return the logarithm of the sum of exponentials along an axis."""
    highest = values.max(axis=axis, keepdims=True)
    total = np.exp(values - highest).sum(axis=axis, keepdims=True)
    return np.asarray((highest + np.log(total)).squeeze(axis), np.float64)
