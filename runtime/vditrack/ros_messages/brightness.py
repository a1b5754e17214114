"""Reduction of 16-bit brightness to 8 bits, by a range of values that is stable over time.

Cameras store 10, 12 or 14 bits in 16, and thermal cameras use a small part of them, so the high
byte may hold only a few levels. Optical flow compares the brightness of successive images, so the
scale must not change from image to image either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.uint16]
"""Brightness of an image, [H, W] or [H, W, C], in the machine's byte order."""
Reduction = Callable[[Values], NDArray[np.uint8]]
"""Reduces brightness to 8 bits."""

_LAST = 65_535
_MIN_SPAN = 64.0
"""Minimum width of a range, so that noise of a few levels on a plain wall is not stretched to
contrast."""
_SAMPLES = 16_384
"""Number of values that are looked at in an image."""


@dataclass(frozen=True)
class ValueRange:
    """The values that are scaled to 0 to 255; values outside are clipped."""

    low: float
    """The value that becomes 0."""
    high: float
    """The value that becomes 255."""

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Return the values, uint8 of the same shape."""
        return self._levels[values]

    def widen(self, share: float) -> ValueRange:
        """Return the range with a share of its width added on each side, within 16 bits."""
        margin = share * (self.high - self.low)
        margin = max(margin, (_MIN_SPAN - (self.high - self.low)) / 2)
        low, high = max(0.0, self.low - margin), min(float(_LAST), self.high + margin)
        return ValueRange(low, high)

    def __str__(self) -> str:
        """Return the range for messages."""
        return f"{self.low:.0f} to {self.high:.0f}"

    @cached_property
    def _levels(self) -> NDArray[np.uint8]:
        """The level of each value, uint8 [65536]."""
        scaled = (np.arange(_LAST + 1) - self.low) * (256 / (self.high - self.low + 1))
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)


FULL_RANGE = ValueRange(0, _LAST)
"""Reduces a value to its high byte."""


class RangeMeter:
    """Measures the range of values of a recording, from some of its images."""

    OUTSIDE = 0.001
    """Share of the values that may lie below, and above, the measured range: hot pixels, glints."""
    MARGIN = 0.05
    """Share of its width by which the range is widened, for images that were not measured."""

    def __init__(self) -> None:
        """Start without images."""
        self._counts = np.zeros(_LAST + 1, np.int64)

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Add an image to the measurement; return its high bytes."""
        self._counts += np.bincount(_sample(values), minlength=_LAST + 1)
        return FULL_RANGE.reduce(values)

    @property
    def range(self) -> ValueRange | None:
        """The range of all images so far; None without images of 16 bits."""
        total = int(self._counts.sum())
        if not total:
            return None
        below = np.cumsum(self._counts)
        low, high = np.searchsorted(below, [self.OUTSIDE * total, (1 - self.OUTSIDE) * total])
        return ValueRange(float(low), float(min(high, _LAST))).widen(self.MARGIN)


class RangeFollower:
    """Follows the range of values of a live camera so slowly that optical flow is not disturbed.

    The range of the first image is kept with headroom as long as the images fit into it. When the
    scene becomes brighter, darker or flatter, each bound moves by at most `STEP` of the range an
    image. Only when most of an image lies outside, so that nothing could be tracked in it anyway,
    is the range taken anew.
    """

    HEADROOM = 0.25
    """Share of its width by which a range is widened on each side when it is taken."""
    STEP = 0.01
    """Share of the range by which a bound moves in an image: 2.5 levels of 255."""
    OUTSIDE = 0.005
    """Share of the values that may lie below, and above, the range."""
    LOST = 0.5
    """Share of the values outside the range above which the range is taken anew."""
    FLAT = 0.25
    """Share of the range below which an image is flat, so that the range shrinks."""

    def __init__(self) -> None:
        """Start without a range."""
        self.range: ValueRange | None = None
        """The range of the newest image; None before the first image of 16 bits."""
        self.times_taken = 0
        """How often the range was taken from an image: at first, and anew."""

    def reduce(self, values: Values) -> NDArray[np.uint8]:
        """Reduce the next image, uint8 of the same shape, and follow its range."""
        self.range = self._follow(_sample(values))
        return self.range.reduce(values)

    def _follow(self, samples: Values) -> ValueRange:
        current = self.range
        if not len(samples):
            return current or FULL_RANGE
        low, high = np.quantile(samples, [self.OUTSIDE, 1 - self.OUTSIDE])
        wanted = ValueRange(float(low), float(high)).widen(self.HEADROOM)
        if current is None or _share_outside(samples, current) > self.LOST:
            self.times_taken += 1
            return wanted
        span = current.high - current.low
        if high - low > self.FLAT * span:
            # Only widen, and only as far as needed.
            wanted = ValueRange(min(low, current.low), max(high, current.high))
        step = self.STEP * span
        return ValueRange(
            current.low + float(np.clip(wanted.low - current.low, -step, step)),
            current.high + float(np.clip(wanted.high - current.high, -step, step)),
        )


def _share_outside(samples: Values, bounds: ValueRange) -> float:
    return float(np.mean((samples < bounds.low) | (samples > bounds.high)))


def _sample(values: Values) -> Values:
    """Return evenly spaced values [N] of an image, without 0 and 65535: these mark invalid pixels.

    Args:
        values: [H, W] or [H, W, C].

    """
    height, width = values.shape[:2]
    # An odd step meets all colours of a Bayer pattern.
    step = math.isqrt(height * width // _SAMPLES) | 1
    samples = values[::step, ::step].reshape(-1)
    return samples[(samples > 0) & (samples < _LAST)]
