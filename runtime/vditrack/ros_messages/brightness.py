"""Reduction of 16-bit brightness to 8 bits, by a curve that is stable over time.

Cameras store 10, 12 or 14 bits in 16, thermal cameras use a small part of them, and a dark scene
with a lamp in it uses a small part of its range, so the high byte may hold only a few levels. A
curve that depends on the values seen uses most levels. Optical flow compares the brightness of
successive images, so the curve must not change from image to image either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Doubles

Values = NDArray[np.uint16]
"""Brightness of an image, [H, W] or [H, W, C], in the machine's byte order."""
Reduction = Callable[[Values], NDArray[np.uint8]]
"""Reduces brightness to 8 bits."""

_COUNT = 65_536
"""Number of values."""
_MAX_SLOPE = 4.0
"""Maximum number of levels a value, so that noise on a plain wall is not stretched to contrast."""
_MIN_CONTRAST = 64.0
"""Levels of 256 for the middle 90% of the values, if their slope allows it."""
_SAMPLES = 16_384
"""Number of pixels that are looked at in an image."""


class BrightnessCurve:
    """Maps values to levels from 0 to 255, in ascending order."""

    def __init__(self, levels: Doubles, low: float, high: float) -> None:
        """Take the levels of all values.

        Args:
            levels: [65536] from 0 to 256, ascending.
            low: the value below which levels are 0.
            high: the value above which levels are 255.

        """
        self.levels, self.low, self.high = levels, low, high

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Return the levels of values, uint8 of the same shape."""
        return self._table[values]

    def measure_contrast(self, samples: Values) -> float:
        """Return the levels between the 5th and the 95th percentile of values [N]."""
        dark, bright = np.quantile(self.levels[samples], [0.05, 0.95])
        return float(bright - dark)

    def __str__(self) -> str:
        """Return the range of values for messages."""
        return f"{self.low:.0f} to {self.high:.0f}"

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        return np.asarray(np.minimum(self.levels, 255), np.uint8)


HIGH_BYTE = BrightnessCurve(np.arange(_COUNT) / 256, 0, _COUNT - 1)
"""Maps a value to its high byte."""


class CurveMeter:
    """Measures the values of a recording in some of its images, for one curve for all of them."""

    OUTSIDE = 0.001
    """Share of the values that may lie below, and above, the range of the curve."""
    MARGIN = 0.05
    """Share of its width by which the range is widened on each side, for the other images."""

    def __init__(self) -> None:
        """Start without images."""
        self._counts = np.zeros(_COUNT, np.int64)

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Add an image to the measurement; return its high bytes."""
        self._counts += _count(_sample(values))
        return HIGH_BYTE.reduce(values)

    def fit(self) -> BrightnessCurve | None:
        """Return the curve for all images so far; None without images of 16 bits."""
        return _fit_curve(self._counts, self.OUTSIDE, self.MARGIN) if self._counts.any() else None


class LiveCurve:
    """The curve of a live camera, which is kept as long as it suits the images.

    It is taken from the first image, with a wide margin, and taken anew when an image has left its
    range or has too little contrast with it. Such a step is like a change of exposure, which
    trackers survive. To move the curve a little in every image would disturb optical flow more.
    """

    MARGIN = 0.5
    """Share of its width by which the range is widened on each side."""
    RARE = 0.005
    """Share of the values of an image that may lie below, and above, a range that is taken."""
    OUTSIDE = 0.05
    """Share of the values below, or above, the range above which the curve is taken anew."""
    FLAT = 48
    """Levels of 256 between the 5th and the 95th percentile of an image below which its contrast is
    low. The curve is then taken anew if that raises the contrast by half."""

    def __init__(self) -> None:
        """Start without a curve."""
        self.curve: BrightnessCurve | None = None
        """The curve of the newest image; None before the first image of 16 bits."""
        self.times_taken = 0
        """How often a curve was taken."""

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Reduce the next image, uint8 of the same shape; take its curve if it needs another."""
        samples = _sample(values)
        if len(samples) and not self._suits(samples):
            self.curve = _fit_curve(_count(samples), self.RARE, self.MARGIN)
            self.times_taken += 1
        return (self.curve or HIGH_BYTE).reduce(values)

    def _suits(self, samples: Values) -> bool:
        curve = self.curve
        if curve is None:
            return False
        if max(np.mean(samples < curve.low), np.mean(samples > curve.high)) > self.OUTSIDE:
            return False
        contrast = curve.measure_contrast(samples)
        if contrast >= self.FLAT:
            return True
        other = _fit_curve(_count(samples), self.RARE, self.MARGIN)
        return other.measure_contrast(samples) <= 1.5 * contrast


def _fit_curve(counts: NDArray[np.int64], outside: float, margin: float) -> BrightnessCurve:
    """Return the curve for values that occur so often.

    It is a straight line, so that changes of exposure stay changes of contrast. If a straight line
    would give the middle 90% of the values less than `_MIN_CONTRAST` levels, for a lamp in a dark
    scene, it has a steeper part for these.

    Args:
        counts: [65536] how often each value occurs; not all are 0.
        outside: share of the values that may lie below, and above, the range of the curve.
        margin: share of its width by which the range is widened on each side.

    """
    below = np.cumsum(counts)
    shares = np.array([outside, 0.05, 0.95, 1 - outside])
    low, dark, bright, high = np.searchsorted(below, shares * below[-1]).tolist()
    # A range that is too narrow would exceed the maximum slope.
    margin = max(margin * (high - low), (256 / _MAX_SLOPE - (high - low)) / 2)
    first, last = max(0, math.floor(low - margin)), min(_COUNT - 1, math.ceil(high + margin))
    corners = np.array([first, dark, bright + 1, last + 1])
    levels = 256 * (corners - first) / (last + 1 - first)
    contrast = levels[2] - levels[1]
    if contrast < _MIN_CONTRAST:
        given = max(contrast, min(_MIN_CONTRAST, _MAX_SLOPE * (bright + 1 - dark)))
        outer = (256 - given) / (256 - contrast)
        levels = np.array([0, outer * levels[1], outer * levels[1] + given, 256])
    return BrightnessCurve(np.interp(np.arange(_COUNT), corners, levels), first, last)


def _count(samples: Values) -> NDArray[np.int64]:
    """Return how often each value occurs [65536]."""
    return np.bincount(samples, minlength=_COUNT)


def _sample(values: Values) -> Values:
    """Return evenly spaced values [N] of an image, without 0 and 65535: these mark invalid pixels.

    Args:
        values: [H, W] or [H, W, C].

    """
    height, width = values.shape[:2]
    # An odd step meets all colours of a Bayer pattern.
    step = math.isqrt(height * width // _SAMPLES) | 1
    samples = values[::step, ::step].reshape(-1)
    return samples[(samples > 0) & (samples < _COUNT - 1)]
