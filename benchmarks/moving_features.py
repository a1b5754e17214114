"""Descriptor fields whose motion is known exactly: sums of plane waves that are carried along."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Floats


@dataclass(frozen=True)
class WaveField:
    """A smooth random field of descriptors over the plane, C channels of a few waves each."""

    frequencies: NDArray[np.float64]
    """[C, W, 2] radians a pixel"""
    phases: NDArray[np.float64]
    """[C, W]"""

    def at(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Descriptors [..., C] at points [..., 2] (x, y)."""
        angles = np.einsum("...d,cwd->...cw", points, self.frequencies) + self.phases
        return np.asarray(np.cos(angles).sum(axis=-1))


def wave_field(channels: int, seed: int, shortest: float) -> WaveField:
    """Random field with wavelengths from ``shortest`` to eight times that, in pixels."""
    rng = np.random.default_rng(seed)
    length = shortest * 8 ** rng.random((channels, 4))
    angle = rng.random((channels, 4)) * 2 * np.pi
    frequencies = (
        np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (2 * np.pi / length)[..., None]
    )
    return WaveField(frequencies, rng.random((channels, 4)) * 2 * np.pi)


def cell_centres(rows: int, columns: int, stride: int) -> NDArray[np.float64]:
    """Model pixels (x, y) of every cell's centre: [rows, columns, 2]."""
    y, x = np.mgrid[:rows, :columns]
    return (np.stack([x, y], axis=-1) + 0.5) * stride


def translated_maps(
    field: WaveField, offsets: NDArray[np.float64], rows: int, columns: int, stride: int
) -> Floats:
    """Descriptors [T, rows, columns, C] of a field carried by offsets [T, 2] (x, y)."""
    centres = cell_centres(rows, columns, stride)
    return np.stack([field.at(centres - offset) for offset in offsets]).astype(np.float32)
