"""Label propagation by nearest neighbours of grid cells in context frames, strip by strip."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vditrack.arrays import Floats
from vditrack.bundle.configuration import Propagation
from vditrack.inference.blas_threads import limit_blas_threads
from vditrack.inference.cpu import count_cores
from vditrack.masks import motion_matching, window_matching
from vditrack.masks.context_frames import ContextFrame, MotionPrior
from vditrack.masks.motion_matching import MotionMatching
from vditrack.masks.nearest_cells import NearestCells, Span
from vditrack.masks.window_matching import WindowMatching

BLOCK_BYTES = 16 << 20
"""Memory for the dot products that exist at a time, in bytes, in all threads together. A call
needs, beside features and labels, less than three times that, on grids of up to a million cells. It
divides the work and changes results by rounding alone."""


def propagate_labels(
    features: Floats,
    context: Sequence[ContextFrame],
    settings: Propagation,
    prior: MotionPrior | None,
    threads: int | None = None,
) -> Floats:
    """Return the soft labels of a frame, float32 [rows, columns, K].

    Each cell gets the mean of the labels of its ``top_k`` nearest neighbours in all context frames
    together, weighted by the softmax of dot products. A cell without neighbours is background.

    Args:
        features: Features of the frame, float32 [rows, columns, D].
        context: Frames with labels.
        settings: Settings of label propagation.
        prior: Where objects are expected; None to search within ``settings.radius`` of each cell.
        threads: Most threads that search; None for one on each core.

    """
    rows, columns = features.shape[:2]
    count = max((frame.labels.shape[2] for frame in context), default=0)
    labels = np.zeros((rows, columns, count), np.float32)
    if not context:
        return labels
    form = window_matching if prior is None else motion_matching
    strips = _strips(rows, form.STRIP_ROWS)
    threads = max(min(threads or count_cores(), len(strips)), 1)
    memory = BLOCK_BYTES // threads
    matching = (
        WindowMatching(features, context, settings, memory)
        if prior is None
        else MotionMatching(features, context, prior, memory)
    )

    def fill(strip: Span) -> None:
        block = labels[slice(*strip)]
        nearest = NearestCells(block.shape[0] * columns, settings.top_k)
        matching.add_neighbours(strip, nearest)
        means = nearest.mean_labels(context, count, settings.temperature)
        block[:] = means.reshape(block.shape)

    with limit_blas_threads(), ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, strips))
    return labels


def _strips(rows: int, height: int) -> list[Span]:
    return [(top, min(top + height, rows)) for top in range(0, rows, height)]
