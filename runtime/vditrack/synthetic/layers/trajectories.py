"""Builds the paths of layers as sums of sine waves."""

import numpy as np

from vditrack.arrays import Doubles
from vditrack.synthetic.layers.scenes import Waves

# In the order of the rows of `Waves`.
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


def stay_at(x: float, y: float) -> Waves:
    """Return a path that stays at (x, y) in pixels, without rotation or scaling."""
    base = np.zeros(len(_PARAMETERS))
    base[:2] = x, y
    return Waves(base, *np.zeros((3, len(_PARAMETERS), 1)))


def swing(rate: float, phase: float, **extents: float) -> Waves:
    """Return the waves ``extent · sin(rate · t + phase)`` of the named parameters.

    Args:
        rate: Angular frequency, in radians per frame.
        phase: Phase, in radians.
        extents: Amplitudes: ``x`` and ``y`` in pixels, ``log_scale``, ``angle`` in radians,
            ``shear``, ``tilt_x`` and ``tilt_y`` (perspective, 1/pixel), ``ripple_x`` and
            ``ripple_y`` in pixels.
    """
    amplitude = _fill_parameters(extents)
    shape = amplitude.shape
    return Waves(np.zeros(shape[0]), amplitude, np.full(shape, rate), np.full(shape, phase))


def sway(rng: np.random.Generator, period: tuple[float, float], **extents: float) -> Waves:
    """Return waves of the named parameters with random amplitude, period and phase.

    Args:
        rng: Random generator.
        period: Shortest and longest period, in frames.
        extents: Largest amplitudes, as in `swing`; the smallest are half of them.
    """
    largest = _fill_parameters(extents)
    shape = largest.shape
    return Waves(
        base=np.zeros(shape[0]),
        amplitude=largest * rng.uniform(0.5, 1.0, shape),
        rate=2 * np.pi / rng.uniform(*period, shape),
        phase=rng.uniform(0, 2 * np.pi, shape),
    )


def pass_through(
    middle: tuple[float, float], moment: float, heading: float, speed: float, reach: float
) -> Waves:
    """Return a straight path of a layer that is rotated to its heading.

    Args:
        middle: Point that the path passes through, (x, y) in pixels.
        moment: Time at which it passes, in frames.
        heading: Direction of motion there, in radians.
        speed: Speed there, in pixels per frame.
        reach: Distance from ``middle`` at which the path turns back, in pixels.
    """
    facing = stay_at(0.0, 0.0)
    facing.base[_PARAMETERS.index("angle")] = heading
    return facing + swing_through(middle, moment, heading, speed, reach)


def swing_through(
    middle: tuple[float, float], moment: float, heading: float, speed: float, reach: float
) -> Waves:
    """Return a straight path as in `pass_through`, of a layer that is not rotated.

    It passes ``middle`` every π · ``reach`` / ``speed`` frames, in alternating directions.
    """
    rate = speed / reach
    along = {"x": reach * np.cos(heading), "y": reach * np.sin(heading)}
    return stay_at(*middle) + swing(rate, -rate * moment, **along)


def follow_arc(
    middle: tuple[float, float], moment: float, heading: float, speed: float, rate: float
) -> Waves:
    """Return a circular path of a layer that is not rotated.

    Args:
        middle: Point that the path passes through, (x, y) in pixels.
        moment: Time at which it passes, in frames.
        heading: Direction of motion there, in radians.
        speed: Speed, in pixels per frame.
        rate: Change of the heading, in radians per frame, not 0.
    """
    radius = speed / rate
    aside = {"x": -radius * np.sin(heading), "y": radius * np.cos(heading)}
    along = {"x": radius * np.cos(heading), "y": radius * np.sin(heading)}
    centre = stay_at(middle[0] + aside["x"], middle[1] + aside["y"])
    outward = swing(rate, -rate * moment - np.pi / 2, **aside)
    return centre + swing(rate, -rate * moment, **along) + outward


def _fill_parameters(extents: dict[str, float]) -> Doubles:
    amplitude = np.zeros((len(_PARAMETERS), 1))
    for name, extent in extents.items():
        amplitude[_PARAMETERS.index(name)] = extent
    return amplitude
