"""Colours of grid cells beside their descriptors, so that masks keep the edges of objects.

A backbone describes a cell by what is around it, so descriptors on both sides of an edge are alike.
Colours are not. What TED fuses for masks (arXiv 2512.02339) has no colours: they are an addition.
"""

from collections import deque
from collections.abc import Iterator

import cv2
import numpy as np

from vditrack.arrays import Floats, Frame
from vditrack.bundle.configuration import CellColour
from vditrack.coordinates import Grid
from vditrack.features.clip_frames import ClipFrames
from vditrack.features.extractor import FeatureExtractor, resize_frame
from vditrack.features.feature_map import FeatureMap, normalise
from vditrack.features.restarting import features_from, first_frame_read


def describe_colours(frame: Frame, grid: Grid, settings: CellColour) -> Floats:
    """Return the mean colour of each cell as a vector, float32 [rows, columns, 6].

    The dot product of two of them is w times the mean of cos(f x difference) over L, a and b of CIE
    L*a*b*, each in hundredths, with the weight w and the frequency f.

    Args:
        frame: RGB, uint8 [H, W, 3].
        grid: covers the frame.
        settings: weight and frequency.

    """
    cells = cv2.resize(
        resize_frame(frame, grid), (grid.columns, grid.rows), interpolation=cv2.INTER_AREA
    )
    hundredths = cv2.cvtColor(cells.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) / 100
    phases = settings.frequency * hundredths
    waves = np.concatenate([np.cos(phases), np.sin(phases)], axis=2)
    return np.asarray(np.sqrt(settings.weight / 3) * waves, np.float32)


def add_colours(appearance: FeatureMap, colours: Floats) -> FeatureMap:
    """Return a map whose cells are compared by their colours too.

    The cosine of two of its descriptors is (c + k) / (1 + w): c is the cosine of those of
    ``appearance``, k the dot product of the colours, and w their weight.

    Args:
        appearance: a map of a frame.
        colours: of the frame, of `describe_colours`.

    """
    parts = [normalise(appearance.descriptors), colours]
    return FeatureMap(appearance.grid, np.concatenate(parts, axis=2))


def colour_map(appearance: FeatureMap, frame: Frame, settings: CellColour | None) -> FeatureMap:
    """Return a map of a frame whose cells are compared by their colours too, if settings say so.

    Args:
        appearance: a map of the frame. One without channels has no weight, and gets no colours.
        frame: RGB, uint8 [H, W, 3].
        settings: weight and frequency; None for no colours.

    """
    if settings is None or not appearance.descriptors.size:
        return appearance
    return add_colours(appearance, describe_colours(frame, appearance.grid, settings))


def read_coloured_features(
    extractor: FeatureExtractor, clip: ClipFrames, first: int, settings: CellColour
) -> Iterator[FeatureMap]:
    """Yield what `read_clip_features` does, with colours.

    Args:
        extractor: of appearance.
        clip: its frames, which are read once.
        first: number of the first frame whose map is yielded.
        settings: weight and frequency of the colours.

    """
    begin = first_frame_read(extractor, first, causal=False)
    colours: deque[Floats] = deque()

    def watch() -> Iterator[Frame]:
        for number, timed in enumerate(clip.read(begin), begin):
            resized = extractor.resize(timed.frame)
            if number >= first:
                colours.append(describe_colours(resized, extractor.grid, settings))
            yield resized

    for features in features_from(extractor, watch(), len(clip), first, causal=False):
        # Windows that look ahead describe every frame.
        if features is not None:
            yield add_colours(features, colours.popleft())
