"""Selection of the point tracker that a bundle's configuration asks for."""

from vditrack.bundle.configuration import LiveTracking, Matching
from vditrack.coordinates import Grid
from vditrack.points.base import PointTracker
from vditrack.points.flow_tracker import FlowTracker
from vditrack.points.match_tracker import MatchTracker


def create_point_tracker(grid: Grid, settings: Matching, bridging: LiveTracking) -> PointTracker:
    """Return the point tracker that the bundle's configuration asks for, without points.

    Args:
        grid: the bundle's feature grid.
        settings: points are tracked by optical flow if it has `flow_tracking`, else by matching.
        bridging: of optical flow through frames without a feature map.

    """
    if settings.flow_tracking is None:
        return MatchTracker(grid, settings, bridging)
    return FlowTracker(grid, settings, settings.flow_tracking)
