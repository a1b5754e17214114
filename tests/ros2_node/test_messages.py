"""Published messages, read back as subscribers read them."""

import importlib
import importlib.util
import sys
from array import array
from types import ModuleType

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import Marker

from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.positions import Positions, Scale, place_on_plane
from vditrack.streams.realtime import LiveUpdate
from vditrack_ros import messages
from vditrack_ros.features import Features

K = (500.0, 0.0, 321.5, 0.0, 480.0, 236.25, 0.0, 0.0, 1.0)
HEADER = Header(stamp=Time(sec=12, nanosec=345), frame_id="camera_optical_frame")


def camera_info(model="plumb_bob", d=(), k=K, **others) -> CameraInfo:
    # As a driver fills it: arrays, of doubles.
    return CameraInfo(k=np.array(k), d=array("d", d), distortion_model=model, **others)


def update(points, visible=True, ids=None, stamp=0.0, **others) -> LiveUpdate:
    points = np.asarray(points, np.float32).reshape(-1, 2)
    count = len(points)
    given = {
        "stamp": stamp,
        "ids": np.arange(count) if ids is None else np.asarray(ids, np.int64),
        "points": points,
        "visible": np.broadcast_to(np.asarray(visible, np.bool_), count),
        "confidence": np.full(count, 0.75, np.float32),
        "forward_backward_error": np.full(count, 0.25, np.float32),
        "age": np.zeros(count, np.int64),
        "seconds_since_model": np.zeros(count, np.float32),
        "bridged": False,
    }
    return LiveUpdate(**given | others)


def nowhere(count: int, width: int = 3) -> np.ndarray:
    return np.full((count, width), np.nan, np.float32)


KINDS = {2: "u1", 5: "<i4", 7: "<f4"}


def rows(cloud: PointCloud2) -> np.ndarray:
    """A cloud's rows, by what the message itself says of its fields."""
    assert not cloud.is_bigendian
    assert (cloud.height, cloud.row_step) == (1, cloud.width * cloud.point_step)
    fields = [field for field in cloud.fields if field.count == 1]
    dtype = np.dtype(
        {
            "names": [field.name for field in fields],
            "formats": [KINDS[field.datatype] for field in fields],
            "offsets": [field.offset for field in fields],
            "itemsize": cloud.point_step,
        }
    )
    return np.frombuffer(cloud.data, dtype)


def test_tracks_say_all_that_is_known_of_each_point():
    now = update(
        [[10.5, 20.5], [300.25, 1.0]],
        visible=[True, False],
        ids=[7, 2**31 - 1],
        confidence=np.float32([0.9, 0.2]),
        forward_backward_error=np.float32([0.5, np.inf]),
        seconds_since_model=np.float32([0, 0.125]),
    )
    xyz = np.float32([[0.1, -0.2, 1.5], [np.nan] * 3])
    placed = Positions.with_scale(xyz, Scale.METRES)
    sent = messages.build_track_cloud(HEADER, now, np.uint8([3, 0]), placed)
    assert isinstance(sent.data, array)
    cloud = deserialize_message(serialize_message(sent), PointCloud2)
    assert cloud == sent
    assert cloud.header == HEADER
    assert not cloud.is_dense
    at = {field.name: field.offset for field in cloud.fields}
    names = [
        "x",
        "y",
        "z",
        "u",
        "v",
        "id",
        "visible",
        "object_id",
        "requested",
        "scale",
        "confidence",
        "forward_backward_error",
        "seconds_since_model",
    ]
    assert list(at) == names
    # As a C compiler lays them out.
    assert at["object_id"] == at["visible"] + 1
    assert at["scale"] == at["visible"] + 3
    flags = {"object_id", "requested", "scale"}
    assert all(offset % 4 == 0 for name, offset in at.items() if name not in flags)
    first, second = (row.tolist() for row in rows(cloud))
    assert first == pytest.approx((0.1, -0.2, 1.5, 10.5, 20.5, 7, 1, 3, 0, 2, 0.9, 0.5, 0))
    assert second[3:] == pytest.approx((300.25, 1, 2**31 - 1, 0, 0, 0, 0, 0.2, np.inf, 0.125))
    assert np.isnan(second[:3]).all()


def test_tracks_without_points_are_an_empty_cloud():
    cloud = messages.build_track_cloud(
        HEADER, update([]), np.zeros(0, np.uint8), Positions.unknown(0)
    )
    assert len(rows(cloud)) == 0
    serialize_message(cloud)


def test_pixels_count_from_the_corner_in_tracks_and_from_the_centre_in_features():
    """The centre of the pixel in column 10 and row 20."""
    camera = Camera.from_info(camera_info())
    now = update([[10.5, 20.5]])
    rays = camera.unproject(now.points)
    placed = place_on_plane(now.points, camera)
    track = rows(messages.build_track_cloud(HEADER, now, np.uint8([0]), placed))[0]
    assert (track["u"], track["v"]) == (10.5, 20.5)
    chosen = Features(now.ids, rays, now.points, np.zeros_like(rays))
    feature = messages.build_feature_cloud(HEADER, chosen, "vins_mono")
    u, v = feature.channels[1:3]
    assert (list(u.values), list(v.values)) == ([10.0], [20.0])
    # A front end that knows K alone comes to the same ray.
    assert feature.points[0].x == pytest.approx((10 - 321.5) / 500)
    assert feature.points[0].y == pytest.approx((20 - 236.25) / 480)
    assert (track["x"], track["y"]) == (
        pytest.approx(feature.points[0].x),
        pytest.approx(feature.points[0].y),
    )


def features(count=2):
    rays = np.float32([[0.25, 0.5], [-0.5, 1]])[:count]
    pixels = np.float32([[1, 2], [5, 6]])[:count]
    return Features(
        np.array([3, 70_001])[:count], rays, pixels, np.float32([[-1, 2], [0, 0]])[:count]
    )


def test_features_in_the_layout_of_vins_mono():
    """As its estimator reads them: z is 1, and id is feature id times the number of cameras, 1."""
    sent = messages.build_feature_cloud(HEADER, features(), "vins_mono")
    cloud = deserialize_message(serialize_message(sent), type(sent))
    assert cloud == sent
    assert cloud.header == HEADER
    assert [(point.x, point.y, point.z) for point in cloud.points] == [
        (0.25, 0.5, 1.0),
        (-0.5, 1.0, 1.0),
    ]
    assert [(channel.name, list(channel.values)) for channel in cloud.channels] == [
        ("id", [3, 70_001]),
        ("u", [0.5, 4.5]),
        ("v", [1.5, 5.5]),
        ("vx", [-1, 0]),
        ("vy", [2, 0]),
    ]


def test_features_in_the_layout_of_vins_fusion():
    """It reads channels 6 to 8 if there are more than five."""
    cloud = messages.build_feature_cloud(HEADER, features(), "vins_fusion")
    expected = [[3, 70_001], [0, 0], [0.5, 4.5], [1.5, 5.5], [-1, 0], [2, 0]]
    assert [list(channel.values) for channel in cloud.channels[:6]] == expected
    assert len(cloud.channels) == 9
    assert all(np.isnan(channel.values).all() for channel in cloud.channels[6:])


@pytest.mark.parametrize(("layout", "count"), [("vins_mono", 5), ("vins_fusion", 9)])
def test_features_without_points_keep_their_channels(layout, count):
    cloud = messages.build_feature_cloud(HEADER, features(0), layout)
    assert [list(channel.values) for channel in cloud.channels] == [[]] * count
    serialize_message(cloud)


def test_markers_stand_where_points_are_known_to_be():
    now = update([[1, 2], [3, 4], [5, 6]], visible=[True, True, False], ids=[4, 8, 9])
    xyz = np.float32([[0.5, 0.25, 2], [np.nan] * 3, [1, -1, 4]])
    sent = messages.build_markers(HEADER, now, xyz)
    (marker,) = deserialize_message(serialize_message(sent), type(sent)).markers
    assert marker.header == HEADER
    assert (marker.type, marker.action) == (Marker.SPHERE_LIST, Marker.ADD)
    assert [(point.x, point.y, point.z) for point in marker.points] == [(0.5, 0.25, 2), (1, -1, 4)]
    # A hundredth of the median distance, of sqrt(4.3125) and sqrt(18).
    assert marker.scale.x == pytest.approx(0.0316, abs=1e-4)
    seen, hidden = (colour.a for colour in marker.colors)
    assert 0 < hidden < seen == 1
    (later,) = messages.build_markers(HEADER, update([[9, 9]], ids=[9]), xyz[2:]).markers
    assert later.colors[0].r == pytest.approx(marker.colors[1].r)
    assert later.colors[0].g == pytest.approx(marker.colors[1].g)


def test_markers_go_when_nothing_is_placed():
    (marker,) = messages.build_markers(HEADER, update([[1, 2]]), nowhere(1)).markers
    assert marker.action == Marker.DELETE
    assert not marker.points
    serialize_message(marker)


FRAME = np.zeros((120, 160, 3), np.uint8)


def overlaid(*updates: LiveUpdate, frame=FRAME) -> np.ndarray:
    image = messages.build_overlay_image(HEADER, frame, updates)
    assert (image.encoding, image.step, image.header) == ("rgb8", 3 * image.width, HEADER)
    assert isinstance(image.data, array)
    assert len(serialize_message(image)) > frame.size
    assert FRAME.max() == 0, "the caller's frame was drawn on"
    return np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)


def test_the_overlay_shows_a_visible_point_as_a_disc_where_it_is():
    picture = overlaid(update([[40.5, 30.5]]))
    assert picture[30, 40].any()
    drawn = np.nonzero(picture.any(axis=-1))
    assert (drawn[0].mean(), drawn[1].mean()) == pytest.approx((30, 40), abs=0.1)


def test_the_overlay_shows_an_invisible_point_as_a_ring():
    picture = overlaid(update([[40.5, 30.5]], visible=False))
    assert not picture[30, 40].any()
    assert picture[26:35, 36:45].any()


def test_trails_follow_ids_and_skip_what_was_invisible():
    """Point 5 moves to the right and is hidden once; point 2 goes, point 9 comes, neither moves."""
    picture = overlaid(
        update([[80.5, 20.5], [20.5, 60.5]], ids=[2, 5]),
        update([[80.5, 20.5], [50.5, 60.5]], ids=[2, 5]),
        update([[80.5, 60.5]], visible=False, ids=[5]),
        update([[110.5, 60.5], [80.5, 100.5]], ids=[5, 9]),
        update([[140.5, 60.5], [80.5, 100.5]], ids=[5, 9]),
    )
    assert picture[60, 35].any(), "seen in both"
    assert picture[60, 125].any(), "seen in both"
    assert not picture[60, 65].any()
    assert not picture[60, 95].any()
    assert not picture[15:26, 75:86].any(), "gone"
    assert picture[100, 80].any(), "new"
    assert not picture[65:95].any(), "no line between two points"


def test_the_overlay_leaves_the_rest_of_the_image_alone():
    frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    np.testing.assert_array_equal(overlaid(update([]), frame=frame), frame)
    far = overlaid(update([[1e9, -1e9]]), update([[1e9, -1e9]]), frame=frame)
    np.testing.assert_array_equal(far, frame)
    beside = overlaid(update([[20.5, 20.5]]), frame=frame)
    np.testing.assert_array_equal(beside[40:], frame[40:])


# What of foxglove_msgs concerns us, in ROS's own notation.
FOXGLOVE = {
    "Point2": "float64 x\nfloat64 y",
    "Color": "float64 r\nfloat64 g\nfloat64 b\nfloat64 a",
    "CircleAnnotation": """
        builtin_interfaces/Time timestamp
        foxglove_msgs/Point2 position
        float64 diameter
        float64 thickness
        foxglove_msgs/Color fill_color
        foxglove_msgs/Color outline_color""",
    "PointsAnnotation": """
        uint8 POINTS=1
        builtin_interfaces/Time timestamp
        uint8 type
        foxglove_msgs/Point2[] points
        foxglove_msgs/Color outline_color
        foxglove_msgs/Color[] outline_colors
        foxglove_msgs/Color fill_color
        float64 thickness""",
    "ImageAnnotations": """
        foxglove_msgs/CircleAnnotation[] circles
        foxglove_msgs/PointsAnnotation[] points""",
}


@pytest.fixture
def foxglove_double(monkeypatch):
    """Outputs with a stand-in for foxglove_msgs, which PyPI has not; yields its type store."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    definitions = {}
    for name, text in FOXGLOVE.items():
        lines = "\n".join(line.strip() for line in text.splitlines())
        definitions |= get_types_from_msg(lines, f"foxglove_msgs/msg/{name}")
    store.register(definitions)
    double = ModuleType("foxglove_msgs.msg")
    for name in FOXGLOVE:
        setattr(double, name, with_defaults(store, f"foxglove_msgs/msg/{name}"))
    monkeypatch.setitem(sys.modules, "foxglove_msgs", ModuleType("foxglove_msgs"))
    monkeypatch.setitem(sys.modules, "foxglove_msgs.msg", double)
    importlib.reload(messages)
    yield store
    monkeypatch.undo()
    importlib.reload(messages)


def with_defaults(store, name: str) -> type:
    """A message's class that leaves out what is not given, as rclpy's classes do."""

    def fill(self, **given):
        defaults = {field: default(store, kind) for field, kind in store.fielddefs[name][1]}
        assert given.keys() <= defaults.keys()
        store.types[name].__init__(self, **defaults | given)

    return type(name.rsplit("/", 1)[-1], (store.types[name],), {"__init__": fill})


def default(store, kind):
    node, what = kind
    if node == Nodetype.BASE:
        return 0
    if node == Nodetype.NAME:
        return with_defaults(store, what)()
    return []


def test_annotations_are_of_the_image_and_in_its_pixels(foxglove_double):
    assert messages.HAS_FOXGLOVE
    now = update([[10.5, 20.5], [3, 4], [5, 6]], visible=[True, False, True], ids=[1, 2, 3])
    sent = messages.build_annotations(HEADER, now)
    name = "foxglove_msgs/msg/ImageAnnotations"
    read = foxglove_double.deserialize_cdr(foxglove_double.serialize_cdr(sent, name), name)
    (dots,), (ring,) = read.points, read.circles
    assert dots.type == dots.POINTS
    assert [(point.x, point.y) for point in dots.points] == [(10.5, 20.5), (5, 6)]
    assert len({(colour.r, colour.g, colour.b) for colour in dots.outline_colors}) == 2
    assert (ring.position.x, ring.position.y) == (3, 4)
    for stamp in (dots.timestamp, ring.timestamp):
        assert (stamp.sec, stamp.nanosec) == (12, 345)


def test_without_foxglove_messages_the_module_says_so():
    installed = importlib.util.find_spec("foxglove_msgs") is not None
    assert installed == messages.HAS_FOXGLOVE
