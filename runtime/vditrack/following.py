"""Which way points are followed by a bundle's settings."""

from vditrack.bundle.folder import Matching
from vditrack.coordinates import Grid
from vditrack.points.base import TrackedPoints
from vditrack.points.flow_tracker import HeldPoints
from vditrack.points.match_tracker import MatchedPoints


def no_points(grid: Grid, settings: Matching) -> TrackedPoints:
    """Points to come, held to their pixels where the settings say so, else matched as in HeFT."""
    if settings.holding is None:
        return MatchedPoints(grid, settings)
    return HeldPoints(grid, settings, settings.holding)
