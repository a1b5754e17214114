"""Selection of the point tracker that a bundle's configuration asks for."""

from vditrack.bundle.manifest import Matching
from vditrack.coordinates import Grid
from vditrack.points.base import PointTracker
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.match_tracker import MatchTracker


def create_point_tracker(grid: Grid, settings: Matching) -> PointTracker:
    """Return the point tracker that the bundle's configuration asks for, without points.

    Args:
        grid: the bundle's feature grid.
        settings: with `holding`, points are tracked by optical flow; without, by matching alone.

    """
    if settings.holding is None:
        return MatchTracker(grid, settings)
    return FlowTracker(grid, settings, settings.holding)
