"""Rendered frames of one endless surface, with descriptors, and settings to track its points."""

import cv2
import msgspec
import numpy as np

from doubles.manifest import MATCHING
from moving_features import wave_field
from vditrack.bundle.configuration import FlowTracking, Visibility
from vditrack.bundle.redetection import Recovery
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap

GRID = Grid(rows=18, columns=24, stride=8)
SIZE = GRID.height, GRID.width
WEIGHTS = Visibility(
    bias=-6.0, correlation=8.0, first_similarity=2.0, template_similarity=2.0, distance=-0.3
)
FLOW_TRACKING = FlowTracking(
    recovery=Recovery(min_similarity=0.8, min_correlation=0.8), visibility=WEIGHTS
)
SETTINGS = msgspec.structs.replace(MATCHING, template_update=0.1, flow_tracking=FLOW_TRACKING)
FIELD = wave_field(channels=3, seed=5, shortest=9)


def texture(places) -> np.ndarray:
    """Colours uint8 at places [..., 2] of one endless surface."""
    return np.clip(128 + 40 * FIELD.at(places), 0, 255).astype(np.uint8)


def places(offset) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return np.stack([x, y], axis=-1) - np.asarray(offset)


def described(frame) -> FeatureMap:
    """Colours around each cell, nine to a side, as a model of the picture would have them."""
    model = cv2.resize(frame, SIZE[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    fine = cv2.resize(model, (GRID.columns * 4, GRID.rows * 4), interpolation=cv2.INTER_AREA)
    padded = np.pad(fine - fine.mean(axis=(0, 1)), ((4, 4), (4, 4), (0, 0)), mode="edge")
    shifts = [(i, j) for i in range(0, 9, 2) for j in range(0, 9, 2)]
    cells = [padded[i : i + 4 * GRID.rows : 4, j : j + 4 * GRID.columns : 4] for i, j in shifts]
    return FeatureMap(GRID, np.concatenate(cells, axis=-1))
