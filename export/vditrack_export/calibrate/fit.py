"""Logistic regression of a point's visibility on the signals that the tracker measures."""

import numpy as np

from vditrack.arrays import Bools, Doubles
from vditrack.bundle.configuration import Visibility

PENALTY = 1e-5
"""Factor of half the squared weights, added to the mean loss. It keeps the weights finite if the
signals separate visible from hidden points perfectly."""
_STEPS, _HALVINGS, _SETTLED = 100, 40, 1e-10


def fit_weights(evidence: Doubles, seen: Bools, weights: Doubles) -> Visibility:
    """Return the weights of highest likelihood, with an L2 penalty on all but the bias.

    The solver is Newton's method; a step that does not lower the loss is halved.

    Args:
        evidence: the signals, float64 [R, 4], in the order of `Visibility.of_evidence`.
        seen: the labels, bool [R], of both classes.
        weights: the weights of the rows in the mean loss, float64 [R].

    """
    design = np.column_stack([np.ones(len(evidence)), evidence])
    share = weights / weights.sum()
    penalty = np.array([0.0, *[PENALTY] * evidence.shape[1]])

    def loss(parameters: Doubles) -> float:
        logits = design @ parameters
        mean = share @ (np.logaddexp(0, logits) - seen * logits)
        return float(mean + penalty @ parameters**2 / 2)

    found = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        probability = sigmoid(design @ found)
        gradient = design.T @ (share * (probability - seen)) + penalty * found
        hessian = (design.T * (share * probability * (1 - probability))) @ design
        # Least squares, because the bias is undetermined where a signal never varies.
        step = np.linalg.lstsq(hessian + np.diag(penalty), -gradient, rcond=None)[0]
        before = loss(found)
        sizes = 0.5 ** np.arange(_HALVINGS)
        size = next((size for size in sizes if loss(found + size * step) < before), 0.0)
        found = found + size * step
        if before - loss(found) < _SETTLED:
            break
    names = Visibility.__struct_fields__
    return Visibility(**dict(zip(names, found.tolist(), strict=True)))


def sigmoid(values: Doubles) -> Doubles:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -values)), np.float64)


def area_under_curve(signal: Doubles, seen: Bools, weights: Doubles) -> float:
    """Return the weighted area under the receiver operating characteristic of a signal.

    It is the probability that a seen row has a higher signal than a row that is not seen; ties
    count half.

    Args:
        signal: float64 [R].
        seen: the labels, bool [R], of both classes.
        weights: the weights of the rows, float64 [R].

    """
    _, rank = np.unique(signal, return_inverse=True)
    positive, negative = (np.bincount(rank, weights * rows) for rows in (seen, ~seen))
    below = np.cumsum(negative) - negative / 2
    return float(positive @ below / (positive.sum() * negative.sum()))
