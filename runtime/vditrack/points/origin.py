"""The earlier image on which points were marked."""

from dataclasses import dataclass

from vditrack.arrays import Floats, Grey


@dataclass(frozen=True)
class Origin:
    """Where N points are in the image that they were marked on."""

    image: Grey
    """Grey levels of the image, of any size."""
    points: Floats
    """[N, 2] (x, y) in pixels of that image."""
