"""Paths laid out on purpose: where a layer is, and how it sways, as waves that add up."""

import numpy as np
from numpy.typing import NDArray

from vditrack.synthetic.layers.scenes import Waves

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
    facing = resting(0.0, 0.0)
    facing.base[_PARAMETERS.index("angle")] = heading
    return facing + there_and_back(middle, moment, heading, speed, reach)


def there_and_back(
    middle: tuple[float, float], moment: float, heading: float, speed: float, reach: float
) -> Waves:
    """Pass through ``middle`` as in `crossing`, but upright.

    It is passed again every π x ``reach`` / ``speed`` frames, to and fro.
    """
    rate = speed / reach
    along = {"x": reach * np.cos(heading), "y": reach * np.sin(heading)}
    return resting(*middle) + swing(rate, -rate * moment, **along)


def arc(
    middle: tuple[float, float], moment: float, heading: float, speed: float, rate: float
) -> Waves:
    """Pass through ``middle`` at ``moment`` (frames) on a circle, at ``heading`` (radians) there.

    ``speed`` is in pixels a frame; the heading turns by ``rate`` (radians a frame, not 0). The
    picture stays upright.
    """
    radius = speed / rate
    aside = {"x": -radius * np.sin(heading), "y": radius * np.cos(heading)}
    along = {"x": radius * np.cos(heading), "y": radius * np.sin(heading)}
    centre = resting(middle[0] + aside["x"], middle[1] + aside["y"])
    outward = swing(rate, -rate * moment - np.pi / 2, **aside)
    return centre + swing(rate, -rate * moment, **along) + outward


def _filled(extents: dict[str, float]) -> NDArray[np.float64]:
    amplitude = np.zeros((len(_PARAMETERS), 1))
    for name, extent in extents.items():
        amplitude[_PARAMETERS.index(name)] = extent
    return amplitude
