"""Which way points are followed by a bundle's settings."""

from vditrack.bundle import Matching
from vditrack.grid import Grid
from vditrack.held import HeldPoints
from vditrack.matched import MatchedPoints
from vditrack.points import TrackedPoints


def no_points(grid: Grid, settings: Matching) -> TrackedPoints:
    """Points to come, held to their pixels where the settings say so, else matched as in HeFT."""
    if settings.holding is None:
        return MatchedPoints(grid, settings)
    return HeldPoints(grid, settings, settings.holding)
