"""Logistic regression: how likely a point is seen, by the evidence for it."""

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools
from vditrack.bundle.configuration import Visibility

Counts = NDArray[np.float64]

PENALTY = 1e-5
"""Of half the squared weights, beside the mean loss: keeps evidence that decides all finite."""
_STEPS, _HALVINGS, _SETTLED = 100, 40, 1e-10


def fitted(evidence: Counts, seen: Bools, weights: Counts) -> Visibility:
    """Fit by maximum likelihood, with a penalty on all weights but the bias.

    Newton's method; a step that does not lower the loss is halved.

    Args:
        evidence: [R, 4], in the order of `Visibility.of_evidence`.
        seen: [R] with some True and some False.
        weights: [R] of the rows in the mean loss.

    """
    design = np.column_stack([np.ones(len(evidence)), evidence])
    share = weights / weights.sum()
    penalty = np.array([0.0, *[PENALTY] * evidence.shape[1]])

    def loss(of: Counts) -> float:
        likely = design @ of
        return float(share @ (np.logaddexp(0, likely) - seen * likely) + penalty @ of**2 / 2)

    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = sigmoid(design @ found)
        slope = design.T @ (share * (chance - seen)) + penalty * found
        curvature = (design.T * (share * chance * (1 - chance))) @ design + np.diag(penalty)
        # Least squares, since evidence that never varies leaves the bias free.
        step = np.linalg.lstsq(curvature, -slope, rcond=None)[0]
        before = loss(found)
        sizes = 0.5 ** np.arange(_HALVINGS)
        size = next((size for size in sizes if loss(found + size * step) < before), 0.0)
        found = found + size * step
        if before - loss(found) < _SETTLED:
            break
    names = Visibility.__struct_fields__
    return Visibility(**dict(zip(names, found.tolist(), strict=True)))


def sigmoid(values: Counts) -> Counts:
    """1 / (1 + exp(-x)), for any x."""
    return np.asarray(np.exp(-np.logaddexp(0, -values)), np.float64)


def area_under_curve(signal: Counts, seen: Bools, weights: Counts) -> float:
    """How often a seen row has more of a signal [R] than one that is not; a tie counts half.

    The area under the receiver operating characteristic, rows weighted by [R].
    """
    _, rank = np.unique(signal, return_inverse=True)
    yes, no = (np.bincount(rank, weights * rows) for rows in (seen, ~seen))
    below = np.cumsum(no) - no / 2
    return float(yes @ below / (yes.sum() * no.sum()))
