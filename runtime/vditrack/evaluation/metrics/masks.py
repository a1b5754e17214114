"""Region and boundary of propagated masks against the truth, as DAVIS-2017 measures them.

J and F are those of Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object
Segmentation (CVPR 2016); objects are counted as in Pont-Tuset et al., The 2017 DAVIS Challenge on
Video Object Segmentation (arXiv 1704.00675), with the choices of its published evaluation.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Bools

_REACH = 0.008
"""Of the image diagonal: how far from each other boundaries still match."""


@dataclass(frozen=True)
class MaskScores:
    """Means over the objects of a video and its frames, the first and last not counted.

    In percent; NaN where nothing is counted.
    """

    region: float
    """J: intersection over union of the areas."""
    boundary: float
    """F: harmonic mean of precision and recall of the boundaries."""
    per_frame: NDArray[np.float64]
    """[T] mean of J and F over objects; NaN where a frame is not counted."""
    objects: int
    """DAVIS-2017 means over all objects of all videos, so a video weighs as many."""


def mask_scores(truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> MaskScores:
    """Compare masks of object indices, 0 the background.

    The objects are 1 to the greatest index in the first true mask; other indices in either mask
    are background. An object that is rightly absent from a frame scores 100 there.

    Args:
        truth: [T, H, W] true index of the object at each pixel.
        found: [T, H, W] the same, as it was propagated.

    """
    length = len(truth)
    objects = int(truth[:1].max(initial=0))
    scores = np.full((2, objects, length), np.nan)
    reach = math.ceil(_REACH * math.hypot(*truth.shape[1:]))
    for t in range(1, length - 1):
        for number in range(1, objects + 1):
            masks = truth[t] == number, found[t] == number
            scores[:, number - 1, t] = _region(*masks), _boundary(*masks, reach)
    scores *= 100
    counted = scores[:, :, 1:-1]
    if not counted.size:
        return MaskScores(np.nan, np.nan, np.full(length, np.nan), objects)
    region, boundary = counted.mean(axis=(1, 2)).tolist()
    return MaskScores(region, boundary, scores.mean(axis=(0, 1)), objects)


def _region(truth: Bools, found: Bools) -> float:
    """Intersection over union; 1 of two empty masks."""
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def _boundary(truth: Bools, found: Bools, reach: int) -> float:
    """F-measure of boundaries [H, W], matched within ``reach`` pixels; 1 where both have none."""
    true_edge, found_edge = _edge(truth), _edge(found)
    true_count, found_count = np.count_nonzero(true_edge), np.count_nonzero(found_edge)
    if not true_count or not found_count:
        return float(true_count == found_count)
    precision = np.count_nonzero(found_edge & _grown(true_edge, reach)) / found_count
    recall = np.count_nonzero(true_edge & _grown(found_edge, reach)) / true_count
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _edge(mask: Bools) -> Bools:
    """Pixels that differ from a neighbour to the right, below, or both.

    A boundary so lies half a pixel up and to the left of where it is; so it does in both masks.
    """
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, across = beyond[:-1, 1:], beyond[1:, :-1], beyond[1:, 1:]
    return np.asarray((mask != right) | (mask != below) | (mask != across), np.bool_)


def _grown(edge: Bools, reach: int) -> Bools:
    """Pixels no farther than ``reach`` from an edge."""
    span = np.arange(-reach, reach + 1)
    disk = (span**2 + span[:, None] ** 2 <= reach**2).astype(np.uint8)
    return np.asarray(cv2.dilate(edge.astype(np.uint8), disk), np.bool_)
