"""The messages that the node publishes, from arrays."""

import colorsys
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import Point, Point32
from numpy.typing import NDArray
from sensor_msgs.msg import ChannelFloat32, Image, PointCloud, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vditrack.arrays import Floats, Frame
from vditrack.coordinates import cells_from_pixels
from vditrack.io.overlay import choose_point_radius, draw_point, draw_trails, to_fixed_point
from vditrack.ros_messages.track_cloud import POINT_FIELDS, TRACK_FIELDS, track_rows
from vditrack.streams.realtime import LiveUpdate

try:
    from foxglove_msgs.msg import (
        CircleAnnotation,
        Color,
        ImageAnnotations,
        Point2,
        PointsAnnotation,
    )

    HAS_FOXGLOVE = True
except ImportError:
    HAS_FOXGLOVE = False


TRAIL = 24
"""Updates over which trails go back."""
_HUE_STEP = (5**0.5 - 1) / 2
"""Of the hues of ids: turning by the golden ratio keeps neighbours and newcomers apart."""
_HIDDEN = 0.3
"""Opacity of what is not visible."""
_APPARENT = 0.01
"""Size of a marker, as a share of the points' distance."""
_LIFETIME = 1
"""Seconds that a marker outlives the image it belongs to."""
_TRAIL_OPACITY = 0.5

_FIELDS = [
    PointField(name=name, offset=offset, datatype=datatype, count=1)
    for name, offset, datatype in POINT_FIELDS
]


def tracks_cloud(
    header: Header, update: LiveUpdate, objects: NDArray[np.uint8], xyz: Floats
) -> PointCloud2:
    """All points, one row each, of the fields in `vditrack.ros_messages.track_cloud.TRACK_FIELDS`.

    Args:
        header: of the image.
        update: where the points are in it.
        objects: [N] index of the object that each is on, 0 for none.
        xyz: [N, 3] in the camera's optical frame; NaN where unknown.

    """
    rows = track_rows(xyz, update, objects)
    return PointCloud2(
        header=header,
        height=1,
        width=len(rows),
        fields=_FIELDS,
        is_bigendian=False,
        point_step=TRACK_FIELDS.itemsize,
        row_step=rows.nbytes,
        data=array("B", rows.tobytes()),
        is_dense=bool(np.isfinite(xyz).all()),
    )


def features_cloud(
    header: Header, update: LiveUpdate, rays: Floats, velocities: Floats
) -> PointCloud:
    """The visible points as VINS-style front ends take them.

    Points are (x, y, 1) on the undistorted plane z = 1; channels are id, u, v (pixels as OpenCV
    counts them, from the first one's centre), vx and vy.

    Args:
        header: of the image.
        update: where the points are in it.
        rays: [N, 2] on the plane z = 1; a point whose ray is NaN is left out.
        velocities: [N, 2] of the rays, a second.

    """
    seen = update.visible & np.isfinite(rays).all(axis=1)
    u, v = cells_from_pixels(update.points[seen], 1).T
    vx, vy = velocities[seen].T
    channels = {"id": update.ids[seen], "u": u, "v": v, "vx": vx, "vy": vy}
    return PointCloud(
        header=header,
        points=[Point32(x=x, y=y, z=1.0) for x, y in rays[seen].tolist()],
        channels=[
            ChannelFloat32(name=name, values=array("f", values.astype(np.float32).tobytes()))
            for name, values in channels.items()
        ],
    )


def markers(header: Header, update: LiveUpdate, xyz: Floats) -> MarkerArray:
    """Spheres where points are in the camera's optical frame, fainter while invisible.

    Args:
        header: of the image.
        update: where the points are in it.
        xyz: [N, 3] in the optical frame; a point with NaN is left out.

    """
    placed = np.isfinite(xyz).all(axis=1)
    marker = Marker(header=header, ns="tracks", id=0, type=Marker.SPHERE_LIST)
    marker.pose.orientation.w = 1.0
    if not placed.any():
        marker.action = Marker.DELETE
        return MarkerArray(markers=[marker])
    size = _APPARENT * float(np.median(xyz[placed, 2]))
    marker.scale.x = marker.scale.y = marker.scale.z = size
    marker.lifetime.sec = _LIFETIME
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in xyz[placed].tolist()]
    marker.colors = [
        ColorRGBA(r=r, g=g, b=b, a=1.0 if seen else _HIDDEN)
        for (r, g, b), seen in zip(
            _colours(update.ids[placed]), update.visible[placed].tolist(), strict=True
        )
    ]
    return MarkerArray(markers=[marker])


def annotations(header: Header, update: LiveUpdate) -> Any:  # noqa: ANN401
    """A foxglove_msgs/ImageAnnotations: dots where points are visible, rings where they are not.

    To be called only where `HAS_FOXGLOVE` is true.

    Args:
        header: of the image.
        update: where the points are in it.

    """
    points = [Point2(x=x, y=y) for x, y in update.points.tolist()]
    colours = [Color(r=r, g=g, b=b, a=1.0) for r, g, b in _colours(update.ids)]
    visible = np.flatnonzero(update.visible).tolist()
    dots = PointsAnnotation(
        timestamp=header.stamp,
        type=PointsAnnotation.POINTS,
        points=[points[n] for n in visible],
        outline_colors=[colours[n] for n in visible],
        thickness=6.0,
    )
    rings = [
        CircleAnnotation(
            timestamp=header.stamp,
            position=points[n],
            diameter=8.0,
            thickness=1.0,
            outline_color=colours[n],
        )
        for n in np.flatnonzero(~update.visible).tolist()
    ]
    return ImageAnnotations(points=[dots], circles=rings)


def overlay_image(header: Header, frame: Frame, updates: Sequence[LiveUpdate]) -> Image:
    """The image with the points on it, and the trails that led there.

    A point is a disc where it is visible and a ring where it is not; trails show only stretches
    in which the point was visible.

    Args:
        header: of the image.
        frame: uint8 [H, W, 3] RGB; it is not drawn on.
        updates: the last of them in time, `TRAIL` or fewer, ending with this frame's.

    """
    newest = updates[-1]
    colours = [tuple(round(255 * part) for part in rgb) for rgb in _colours(newest.ids)]
    radius = choose_point_radius(frame.shape[:2])
    places, seen = _history(updates)
    linked = seen[:, 1:] & seen[:, :-1]
    canvas = np.array(frame, np.uint8, order="C")
    thickness = max(1, round(radius / 2))
    draw_trails(canvas, to_fixed_point(places), linked, colours, thickness, (_TRAIL_OPACITY,))
    shown = zip(to_fixed_point(newest.points), newest.visible.tolist(), colours, strict=True)
    for place, visible, colour in shown:
        draw_point(canvas, place, visible, colour, radius)
    return rgb_image(header, canvas)


def rgb_image(header: Header, frame: Frame) -> Image:
    """A picture, uint8 [H, W, 3] RGB, as rgb8."""
    return _image(header, frame, "rgb8")


def masks_image(header: Header, mask: NDArray[np.uint8]) -> Image:
    """Indices of objects, uint8 [H, W], as mono8."""
    return _image(header, mask, "mono8")


def _image(header: Header, pixels: NDArray[np.uint8], encoding: str) -> Image:
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    data = array("B")
    data.frombytes(pixels.data)
    return Image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        step=pixels.strides[0],
        data=data,
    )


def _history(updates: Sequence[LiveUpdate]) -> tuple[Floats, NDArray[np.bool_]]:
    """Where the points of the newest update were [N, T, 2], and whether they were seen [N, T]."""
    ids = updates[-1].ids
    places = np.zeros((len(ids), len(updates), 2), np.float32)
    seen = np.zeros((len(ids), len(updates)), np.bool_)
    for t, update in enumerate(updates):
        _, there, here = np.intersect1d(ids, update.ids, True, return_indices=True)
        places[there, t] = update.points[here]
        seen[there, t] = update.visible[here]
    return places, seen


def _colours(ids: NDArray[np.int64]) -> list[tuple[float, float, float]]:
    """RGB of each id, always the same."""
    return [colorsys.hsv_to_rgb(n * _HUE_STEP % 1, 0.85, 1.0) for n in ids.tolist()]
