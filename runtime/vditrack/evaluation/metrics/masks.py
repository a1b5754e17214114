"""Region similarity and boundary accuracy of propagated masks, as defined by DAVIS-2017.

J and F are those of Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation (CVPR 2016); objects are counted as in Pont-Tuset et al., The 2017 DAVIS Challenge on
Video Object Segmentation (arXiv 1704.00675), with the choices of its published evaluation.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools, ImageSequence

_BOUND = 0.008
"""Largest distance of matching boundaries, as a share of the image diagonal."""


@dataclass(frozen=True)
class MaskScores:
    """Means over the objects and frames of a video, without the first and last frame.

    Scores are percentages, and NaN if nothing is counted.
    """

    region: float
    """J: intersection over union of the areas."""
    boundary: float
    """F: harmonic mean of precision and recall of the boundaries."""
    per_frame: NDArray[np.float64]
    """Means of J and F over objects, float64 [T]; NaN for a frame that is not counted."""
    objects: int
    """Number of objects. DAVIS-2017 weights videos by it, since it averages over all objects."""


def mask_scores(truth: ImageSequence, found: ImageSequence) -> MaskScores:
    """Compare propagated masks with true ones.

    The objects are 1 to the largest index in the first true mask; other indices in either mask are
    background. An object that is absent from both masks of a frame scores 100 there.

    Args:
        truth: True object index at each pixel, uint8 [T, H, W]; 0 is the background.
        found: Propagated object indices, uint8 [T, H, W].

    """
    length = len(truth)
    objects = int(truth[0].max(initial=0)) if length else 0
    scores = np.full((2, objects, length), np.nan)
    bound = math.ceil(_BOUND * math.hypot(*truth.shape[1:]))
    for t in range(1, length - 1):
        true, propagated = truth[t], found[t]
        for number in range(1, objects + 1):
            masks = true == number, propagated == number
            scores[:, number - 1, t] = _region(*masks), _boundary(*masks, bound)
    scores *= 100
    counted = scores[:, :, 1:-1]
    if not counted.size:
        return MaskScores(np.nan, np.nan, np.full(length, np.nan), objects)
    region, boundary = counted.mean(axis=(1, 2)).tolist()
    return MaskScores(region, boundary, scores.mean(axis=(0, 1)), objects)


def _region(truth: Bools, found: Bools) -> float:
    """Return the intersection over union; 1 for two empty masks."""
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def _boundary(truth: Bools, found: Bools, bound: int) -> float:
    """Return the F-measure of boundaries matched within ``bound`` pixels; 1 without boundaries."""
    true_edge, found_edge = _find_edge(truth), _find_edge(found)
    true_count, found_count = np.count_nonzero(true_edge), np.count_nonzero(found_edge)
    if not true_count or not found_count:
        return float(true_count == found_count)
    precision = np.count_nonzero(found_edge & _dilate(true_edge, bound)) / found_count
    recall = np.count_nonzero(true_edge & _dilate(found_edge, bound)) / true_count
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _find_edge(mask: Bools) -> Bools:
    """Return the pixels that differ from the neighbour to the right, below, or diagonally below.

    The boundary lies half a pixel up and to the left of the true one, in both masks alike.
    """
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = beyond[:-1, 1:], beyond[1:, :-1], beyond[1:, 1:]
    return np.asarray((mask != right) | (mask != below) | (mask != across), np.bool_)


def _dilate(edge: Bools, bound: int) -> Bools:
    """Return the pixels within ``bound`` pixels of an edge."""
    span = np.arange(-bound, bound + 1)
    disk = (span**2 + span[:, None] ** 2 <= bound**2).astype(np.uint8)
    return np.asarray(cv2.dilate(edge.astype(np.uint8), disk), np.bool_)
