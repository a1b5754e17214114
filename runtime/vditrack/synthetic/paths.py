"""Paths laid out on purpose: where a layer is, and how it sways, as waves that add up."""

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.scenes import Waves

# In the order in which a motion reads them.
_PARAMETERS = (
    "x",
    "y",
    "log_scale",
    "angle",
    "shear",
    "tilt_x",
    "tilt_y",
    "ripple_x",
    "ripple_y",
)


def resting(x: float, y: float) -> Waves:
    """Stay at (x, y) in pixels, upright and at the picture's own size."""
    base = np.zeros(len(_PARAMETERS))
    base[:2] = x, y
    return Waves(base, *np.zeros((3, len(_PARAMETERS), 1)))


def swing(rate: float, phase: float, **extents: float) -> Waves:
    """Add ``extent · sin(rate · t + phase)`` to the parameters named; ``rate`` in radians a frame.

    Parameters are ``x`` and ``y`` in pixels, ``log_scale``, ``angle`` in radians, ``shear``,
    ``tilt_x`` and ``tilt_y`` (perspective, 1/pixel), and ``ripple_x`` and ``ripple_y`` in pixels.
    """
    amplitude = _filled(extents)
    shape = amplitude.shape
    return Waves(np.zeros(shape[0]), amplitude, np.full(shape, rate), np.full(shape, phase))


def sway(rng: np.random.Generator, period: tuple[float, float], **extents: float) -> Waves:
    """Swing each parameter named on its own: at half its extent or more, at a random period.

    ``period`` is the shortest and the longest, in frames.
    """
    largest = _filled(extents)
    shape = largest.shape
    return Waves(
        base=np.zeros(shape[0]),
        amplitude=largest * rng.uniform(0.5, 1.0, shape),
        rate=2 * np.pi / rng.uniform(*period, shape),
        phase=rng.uniform(0, 2 * np.pi, shape),
    )


def crossing(
    middle: tuple[float, float], moment: float, heading: float, speed: float, reach: float
) -> Waves:
    """Pass through ``middle`` at ``moment`` (frames) along ``heading`` (radians), facing along it.

    ``speed`` (pixels a frame) is that in the middle; the path turns back ``reach`` pixels from it.
    """
    facing = resting(*middle)
    facing.base[_PARAMETERS.index("angle")] = heading
    rate = speed / reach
    along = {"x": reach * np.cos(heading), "y": reach * np.sin(heading)}
    return facing + swing(rate, -rate * moment, **along)


def _filled(extents: dict[str, float]) -> NDArray[np.float64]:
    amplitude = np.zeros((len(_PARAMETERS), 1))
    for name, extent in extents.items():
        amplitude[_PARAMETERS.index(name)] = extent
    return amplitude
