"""Cells of context frames that may give their labels to a strip of the newest frame."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats, Indices
from vditrack.masks.context_frames import ContextFrame, MotionPrior

_CANDIDATE_BYTES = 48
"""Upper bound of the memory of one candidate, with what is computed to choose it, in bytes."""


@dataclass(frozen=True)
class Search:
    """Where the cells of one context frame are searched in the newest frame."""

    owners: Indices
    """The label with the largest share in each cell, intp [rows, columns]."""
    translation: Floats
    """Translations of the labels since the context frame, float32 [K, 2] (x, y) in cells."""
    reach: Floats
    """Radii in cells around the predicted place in which labels are searched, float32 [K]."""
    radius: float
    """Radius in cells around the predicted place in which labels are expected."""
    velocity: Floats
    """Velocities expected of the cells, float32 [rows, columns, 2] (x, y) in cells a frame."""


@dataclass(frozen=True)
class Candidates:
    """Cells of context frames whose predicted places are near a part of the newest frame."""

    frames: NDArray[np.int32]
    """Indices into the context, int32 [m], in ascending order."""
    cells: NDArray[np.int32]
    """Row-major indices into the grid, int32 [m]."""
    terms: Floats
    """Predicted places (x, y), expected velocities (x, y), and the radii in which the cells are
    searched and expected, in cells, float32 [6, m]."""

    def select(self, chosen: Indices) -> "Candidates":
        """Return the candidates with these indices."""
        terms = self.terms.take(chosen, axis=1)
        return Candidates(self.frames.take(chosen), self.cells.take(chosen), terms)


def plan_searches(context: Sequence[ContextFrame], prior: MotionPrior) -> list[Search]:
    """Return where the cells of each context frame are searched."""
    return [_plan_search(frame, prior) for frame in context]


def _plan_search(frame: ContextFrame, prior: MotionPrior) -> Search:
    labels, owners = range(frame.labels.shape[2]), frame.owners
    velocity = prior.objects.velocity[owners]
    if frame.velocity is not None:
        # A limb keeps a share of its velocity relative to the body, whatever the body does.
        relative = frame.velocity - frame.motion.velocity[owners]
        velocity = velocity + np.float32(prior.displacement.deviation) * relative
    return Search(
        owners,
        np.stack([prior.translation_since(frame, label) for label in labels]),
        np.array([prior.search_radius(frame, label) for label in labels], np.float32),
        prior.radius(frame),
        velocity,
    )


def candidates_near_strip(
    searches: Sequence[Search], strip: tuple[int, int], memory: int
) -> Iterator[Candidates]:
    """Yield the candidates whose predicted places are within reach of rows, some frames at a time.

    Args:
        searches: Where the cells of each context frame are searched.
        strip: First row, and one past the last.
        memory: Memory for the candidates at a time, in bytes. At least one frame is taken.

    """
    grid = searches[0].owners
    count = max(memory // (_CANDIDATE_BYTES * grid.size), 1)
    for first in range(0, len(searches), count):
        numbers = range(first, min(first + count, len(searches)))
        parts = [_candidates_of_frame(searches[number], number, strip) for number in numbers]
        yield Candidates(
            np.concatenate([part.frames for part in parts]),
            np.concatenate([part.cells for part in parts]),
            np.concatenate([part.terms for part in parts], axis=1),
        )


def _candidates_of_frame(search: Search, number: int, strip: tuple[int, int]) -> Candidates:
    rows, columns = search.owners.shape
    down = search.translation[:, 1]
    # Rows from which some label may reach the strip.
    top = np.clip(np.floor((strip[0] - down - search.reach).min()), 0, rows)
    bottom = np.clip(np.ceil((strip[1] - down + search.reach).max()), top, rows)
    across = np.arange(columns, dtype=np.float32)
    owners = search.owners[int(top) : int(bottom)]
    y = search.translation[:, 1][owners] + np.arange(top, bottom, dtype=np.float32)[:, None]
    reach = search.reach[owners]
    beyond = np.maximum(np.maximum(strip[0] - y, y - (strip[1] - 1)), 0)
    chosen = np.flatnonzero(beyond <= reach)
    x = search.translation[:, 0][owners] + across
    terms = np.empty((6, len(chosen)), np.float32)
    terms[0], terms[1] = x.ravel()[chosen], y.ravel()[chosen]
    cells = chosen + int(top) * columns
    terms[2:4] = search.velocity.reshape(-1, 2)[cells].T
    terms[4], terms[5] = reach.ravel()[chosen], search.radius
    frames = np.full(len(chosen), number, np.int32)
    return Candidates(frames, cells.astype(np.int32), terms)
