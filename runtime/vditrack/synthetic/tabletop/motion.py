"""The motions of pusher and camera, in metres and radians."""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Doubles


@dataclass(frozen=True)
class Push:
    """A straight push with a smooth start and end, facing along it."""

    start: Doubles
    """Start (x, y), [2]."""
    end: Doubles
    """End (x, y), [2]."""
    height: float
    """Height above the table."""

    @property
    def heading(self) -> float:
        """Direction of the push, as an angle around the vertical in radians."""
        across, along = self.end - self.start
        return float(np.arctan2(along, across))

    def at(self, share: float) -> Doubles:
        """Return the position, [3], at a ``share`` of the clip, 0 to 1."""
        done = share * share * (3 - 2 * share)
        return np.append(self.start + done * (self.end - self.start), self.height)


@dataclass(frozen=True)
class Orbit:
    """A camera that looks at the table's centre and sways around it."""

    azimuth: float
    """Mean angle around the vertical, in radians."""
    elevation: float
    """Mean angle above the table, in radians."""
    distance: float
    """Mean distance from the table's centre, in metres."""
    sway: Doubles
    """Amplitude, rate in radians per clip and phase for each of the three, [3, 3]."""

    def at(self, share: float) -> tuple[Doubles, Doubles]:
        """Return position, [3], and rotation, [3, 3], at a ``share`` of the clip, 0 to 1."""
        extent, rate, phase = self.sway.T
        middle = np.array([self.azimuth, self.elevation, self.distance])
        azimuth, elevation, distance = middle + extent * np.sin(rate * share + phase)
        back = np.array(
            [
                np.cos(elevation) * np.cos(azimuth),
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
            ]
        )
        right = np.array([-np.sin(azimuth), np.cos(azimuth), 0.0])
        return distance * back, np.stack([right, np.cross(back, right), back], axis=1)
