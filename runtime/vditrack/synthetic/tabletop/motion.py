"""How the pusher and the camera of a tabletop move, in metres and radians."""

from dataclasses import dataclass

import numpy as np

from vditrack.arrays import Doubles


@dataclass(frozen=True)
class Push:
    """A straight push with a gentle start and end, facing along it."""

    start: Doubles
    """[2]"""
    end: Doubles
    """[2]"""
    height: float

    @property
    def heading(self) -> float:
        """In radians, about the vertical."""
        across, along = self.end - self.start
        return float(np.arctan2(along, across))

    def at(self, share: float) -> Doubles:
        """Return the place ``[3]`` after a ``share`` of the time, 0 to 1."""
        done = share * share * (3 - 2 * share)
        return np.append(self.start + done * (self.end - self.start), self.height)


@dataclass(frozen=True)
class Orbit:
    """A camera that sways about the table's middle, which it looks at."""

    azimuth: float
    elevation: float
    distance: float
    sway: Doubles
    """[3, 3]: for each of the above its extent, its rate in radians a clip, and its phase."""

    def at(self, share: float) -> tuple[Doubles, Doubles]:
        """Return place ``[3]`` and turn ``[3, 3]`` after a ``share`` of the time, 0 to 1."""
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
