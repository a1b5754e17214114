"""Construction of the published messages from arrays."""

import colorsys
from array import array
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point, Point32
from numpy.typing import NDArray
from sensor_msgs.msg import ChannelFloat32, Image, PointCloud, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from vditrack.arrays import Bools, Floats, Frame, Ints, Mask
from vditrack.coordinates import cells_from_pixels
from vditrack.io.overlay import choose_point_radius, draw_point, draw_trails, to_fixed_point
from vditrack.ros_messages.positions import Positions
from vditrack.ros_messages.track_cloud import (
    POINT_FIELDS,
    TRACK_FIELDS,
    build_track_rows,
    describe_track_rows,
)
from vditrack.streams.mask_stream import MaskUpdate
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros.features import Features

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

try:
    from vditrack_msgs.msg import Track, TrackArray

    HAS_VDITRACK_MSGS = True
except ImportError:
    HAS_VDITRACK_MSGS = False

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, ObjectHypothesisWithPose

    HAS_VISION_MSGS = True
except ImportError:
    HAS_VISION_MSGS = False


TRAIL_LENGTH = 24
"""Number of updates in a trail."""
_HUE_STEP = (5**0.5 - 1) / 2
"""Difference of the hues of successive ids. The golden ratio keeps all of them distinct."""
_INVISIBLE_OPACITY = 0.3
"""Opacity of the marker of an invisible point."""
_RELATIVE_MARKER_SIZE = 0.01
"""Size of a marker, as a share of the points' median distance."""
_MARKER_LIFETIME = 1
"""Seconds after which a marker that is not renewed disappears."""
_TRAIL_OPACITY = 0.5

_FIELDS = [
    PointField(name=name, offset=offset, datatype=datatype, count=1)
    for name, offset, datatype in POINT_FIELDS
]


def build_track_cloud(
    header: Header,
    update: LiveUpdate,
    objects: NDArray[np.uint8],
    positions: Positions,
    requested: Bools | None = None,
) -> PointCloud2:
    """Return all points as a cloud with one row per point.

    The fields are `vditrack.ros_messages.track_cloud.TRACK_FIELDS`.

    Args:
        header: of the image.
        update: the points in the image.
        objects: uint8 [N] index of the object of each point, 0 for none.
        positions: of the points, in the frame of the header.
        requested: [N] which points were asked for; None for none.

    """
    rows = build_track_rows(positions, update, objects, requested)
    return PointCloud2(
        header=header,
        fields=_FIELDS,
        data=array("B", rows.tobytes()),
        **describe_track_rows(rows),
    )


def build_track_array(
    header: Header,
    update: LiveUpdate,
    objects: NDArray[np.uint8],
    positions: Positions,
    requested: Bools | None = None,
) -> Any:  # noqa: ANN401
    """Return all points as a vditrack_msgs/TrackArray.

    It requires `HAS_VDITRACK_MSGS`.

    Args:
        header: of the image.
        update: the points in the image.
        objects: uint8 [N] index of the object of each point, 0 for none.
        positions: of the points, in the frame of the header.
        requested: [N] which points were asked for; None for none.

    """
    rows = build_track_rows(positions, update, objects, requested)
    columns = [rows[name].tolist() for name in TRACK_FIELDS.names or ()]
    tracks = []
    for row in zip(*columns, strict=True):
        fields = dict(zip(TRACK_FIELDS.names or (), row, strict=True))
        position = Point(**{axis: fields.pop(axis) for axis in "xyz"})
        flags = {name: bool(fields.pop(name)) for name in ("visible", "requested")}
        tracks.append(Track(position=position, **flags, **fields))
    return TrackArray(header=header, tracks=tracks)


def build_detections(header: Header, update: MaskUpdate) -> Any:  # noqa: ANN401
    """Return the boxes around objects as a vision_msgs/Detection2DArray, version 4.

    An object without a pixel has no detection. It requires `HAS_VISION_MSGS`.

    Args:
        header: of the image.
        update: the objects in the image.

    """
    detections = []
    for index, score in zip(update.indices.tolist(), update.agreement.tolist(), strict=True):
        left, top, width, height = cv2.boundingRect((update.mask == index).astype(np.uint8))
        if not width:
            continue
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = "object", score
        detection = Detection2D(header=header, id=str(index), results=[hypothesis])
        detection.bbox.center.position.x = left + width / 2
        detection.bbox.center.position.y = top + height / 2
        detection.bbox.size_x, detection.bbox.size_y = float(width), float(height)
        detections.append(detection)
    return Detection2DArray(header=header, detections=detections)


def build_feature_cloud(header: Header, features: Features, layout: str) -> PointCloud:
    """Return the points of an image as VINS-Mono or VINS-Fusion reads them.

    Points are (x, y, 1) on the undistorted plane z = 1. Both read channels by their order. u and v
    are pixels in OpenCV's convention, with (0, 0) at the centre of the upper-left pixel. The camera
    id is 0, because each camera has a topic of its own.

    Args:
        header: of the image.
        features: the points.
        layout: "vins_mono" or "vins_fusion".

    """
    u, v = cells_from_pixels(features.pixels, 1).T
    vx, vy = features.velocities.T
    zeros = np.zeros(len(features.ids))
    channels = {"id": features.ids, "u": u, "v": v, "vx": vx, "vy": vy}
    if layout == "vins_fusion":
        # It reads the last three, a ground truth for its own tests, if there are more than five.
        unknown = dict.fromkeys(("gx", "gy", "gz"), zeros + np.nan)
        channels = {"id": features.ids, "camera_id": zeros, **channels, **unknown}
    return PointCloud(
        header=header,
        points=[Point32(x=x, y=y, z=1.0) for x, y in features.rays.tolist()],
        channels=[
            ChannelFloat32(name=name, values=array("f", values.astype(np.float32).tobytes()))
            for name, values in channels.items()
        ],
    )


def build_markers(header: Header, update: LiveUpdate, xyz: Floats) -> MarkerArray:
    """Return spheres at the positions of the points, fainter for invisible points.

    Args:
        header: stamp of the image, and the frame of the positions.
        update: the points in the image.
        xyz: positions [N, 3] in the frame of the header; a point with NaN is omitted.

    """
    placed = np.isfinite(xyz).all(axis=1)
    marker = Marker(header=header, ns="tracks", id=0, type=Marker.SPHERE_LIST)
    marker.pose.orientation.w = 1.0
    if not placed.any():
        marker.action = Marker.DELETE
        return MarkerArray(markers=[marker])
    size = _RELATIVE_MARKER_SIZE * float(np.median(np.linalg.norm(xyz[placed], axis=1)))
    marker.scale.x = marker.scale.y = marker.scale.z = size
    marker.lifetime.sec = _MARKER_LIFETIME
    marker.points = [Point(x=x, y=y, z=z) for x, y, z in xyz[placed].tolist()]
    marker.colors = [
        ColorRGBA(r=r, g=g, b=b, a=1.0 if visible else _INVISIBLE_OPACITY)
        for (r, g, b), visible in zip(
            _id_colours(update.ids[placed]), update.visible[placed].tolist(), strict=True
        )
    ]
    return MarkerArray(markers=[marker])


def build_annotations(header: Header, update: LiveUpdate) -> Any:  # noqa: ANN401
    """Return a foxglove_msgs/ImageAnnotations: dots for visible points, rings for invisible ones.

    It requires `HAS_FOXGLOVE`.

    Args:
        header: of the image.
        update: the points in the image.

    """
    points = [Point2(x=x, y=y) for x, y in update.points.tolist()]
    colours = [Color(r=r, g=g, b=b, a=1.0) for r, g, b in _id_colours(update.ids)]
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


def build_overlay_image(header: Header, frame: Frame, updates: Sequence[LiveUpdate]) -> Image:
    """Return the image with the points and their trails drawn on it.

    A visible point is a disc and an invisible one a ring; trails connect updates in which the
    point was visible.

    Args:
        header: of the image.
        frame: uint8 [H, W, 3] RGB; it is not changed.
        updates: the latest updates, at least one; the last one belongs to this frame.

    """
    newest = updates[-1]
    colours = [tuple(round(255 * part) for part in rgb) for rgb in _id_colours(newest.ids)]
    radius = choose_point_radius(frame.shape[:2])
    places, seen = _collect_history(updates)
    linked = seen[:, 1:] & seen[:, :-1]
    canvas = np.array(frame, np.uint8, order="C")
    thickness = max(1, round(radius / 2))
    draw_trails(canvas, to_fixed_point(places), linked, colours, thickness, (_TRAIL_OPACITY,))
    shown = zip(to_fixed_point(newest.points), newest.visible.tolist(), colours, strict=True)
    for place, visible, colour in shown:
        draw_point(canvas, place, visible, colour, radius)
    return build_rgb_image(header, canvas)


def build_rgb_image(header: Header, frame: Frame) -> Image:
    """Return a picture, uint8 [H, W, 3] RGB, as an image with the encoding rgb8."""
    return _build_image(header, frame, "rgb8")


def build_mask_image(header: Header, mask: Mask) -> Image:
    """Return object indices, uint8 [H, W], as an image with the encoding mono8."""
    return _build_image(header, mask, "mono8")


def _build_image(header: Header, pixels: NDArray[np.uint8], encoding: str) -> Image:
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


def _collect_history(updates: Sequence[LiveUpdate]) -> tuple[Floats, Bools]:
    """Return positions [N, T, 2] and visibility [N, T] of the newest update's points over time."""
    ids = updates[-1].ids
    places = np.zeros((len(ids), len(updates), 2), np.float32)
    seen = np.zeros((len(ids), len(updates)), np.bool_)
    for t, update in enumerate(updates):
        _, rows, update_rows = np.intersect1d(ids, update.ids, True, return_indices=True)
        places[rows, t] = update.points[update_rows]
        seen[rows, t] = update.visible[update_rows]
    return places, seen


def _id_colours(ids: Ints) -> list[tuple[float, float, float]]:
    """Return RGB colours in [0, 1], the same for the same id."""
    return [colorsys.hsv_to_rgb(n * _HUE_STEP % 1, 0.85, 1.0) for n in ids.tolist()]
