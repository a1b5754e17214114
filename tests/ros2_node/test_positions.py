"""Positions in space over real middleware: metres, the plane z = 1, or none."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PointStamped, TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from visualization_msgs.msg import Marker, MarkerArray

from doubles import ros_loopback as ros
from doubles.ros_loopback import (
    SECOND,
    SENSOR,
    camera_info,
    image_message,
    open_peer,
    tracker_node,
)
from vditrack.synthetic.layers.scenes import draw_scene

peer = pytest.fixture(scope="module")(open_peer)
pytestmark = pytest.mark.slow
SIZE = HEIGHT, WIDTH = 120, 160
FRAME = draw_scene(np.random.default_rng(0), HEIGHT, WIDTH, ()).render(0.0)
INTERVAL = SECOND // 30
RELIABLE = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
LATCHED_MANY = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
UNKNOWN, PLANE, METRES = 0, 1, 2


class Sensor:
    """A camera with depth in the test's own process; it decides when each image is sent."""

    def __init__(self, peer, prefix="", *, compressed=False):
        self.peer, self.stamp = peer, time.time_ns()
        # Reliable, so that the node receives every image of a busy machine.
        self.images = peer.publisher(Image, f"/{prefix}image", RELIABLE)
        self.tracks = peer.collect(PointCloud2, f"/{prefix}tracker/tracks")
        self.compressed = compressed
        topic = f"/{prefix}depth"
        if compressed:
            topic = f"/{prefix}sensor/depth/compressedDepth"
        self.depth = peer.publisher(CompressedImage if compressed else Image, topic, RELIABLE)
        self.markers = peer.collect(MarkerArray, f"/{prefix}tracker/markers")
        self.told = peer.collect(DiagnosticArray, "/diagnostics")

    def advance(self):
        self.stamp += INTERVAL
        return self.stamp

    def send_depth(self, millimetres=1500, *, size=SIZE, stamp=None):
        values = np.full(size, millimetres, np.uint16)
        stamp = self.stamp if stamp is None else stamp
        if not self.compressed:
            self.depth.publish(image_message(values, stamp, encoding="16UC1"))
            return
        data = bytes(12) + cv2.imencode(".png", values)[1].tobytes()
        message = CompressedImage(format="16UC1; compressedDepth png", data=data)
        message.header.stamp = ros.to_time(stamp)
        self.depth.publish(message)

    def send_image(self):
        self.images.publish(image_message(FRAME, self.stamp))

    def begin(self):
        """Send images until there are points, since all topics are not connected at once."""
        self.peer.until(self.images.get_subscription_count, "the node listens to images")
        rows, deadline = [], time.monotonic() + ros.PATIENCE
        while len(rows) == 0:
            assert time.monotonic() < deadline, self.node.log
            self.advance()
            self.send_image()
            self.peer.listen(2, lambda: self.tracks.of(self.stamp))
            cloud = self.tracks.of(self.stamp)
            rows = [] if cloud is None else ros.rows_of(cloud)

    def wait(self):
        """Wait for the points of the newest image; the cloud, its rows and its markers."""
        stamp = self.stamp
        self.peer.until(lambda: self.tracks.of(stamp), "points", log=self.node)
        cloud = self.tracks.of(stamp)
        return cloud, ros.rows_of(cloud)

    def problems(self):
        return self.told[-1].status[-1].message if len(self.told) else ""


@pytest.fixture(scope="module")
def sensor(peer, tmp_path_factory):
    """A node before a sensor whose camera_info was published once, before the node started."""
    latched = peer.publisher(CameraInfo, "/camera_info", LATCHED)
    latched.publish(camera_info(SIZE, 200.0))
    # The time that a depth image may take is that of a machine under load.
    options = {"max_age": 0.0, "points": 30, "depth_wait": 1.0, "max_gap": 3600.0}
    with tracker_node(tmp_path_factory.mktemp("node"), **options) as node:
        one = Sensor(peer)
        one.node = node
        one.begin()
        yield one
        assert node.alive, node.log


def scales(rows):
    return set(rows["scale"].tolist())


@pytest.fixture
def metric(sensor, peer):
    """The sensor after an image with depth."""
    assert peer.set(depth_wait=1.0) == {}
    peer.until(sensor.depth.get_subscription_count, "the node listens to depth")
    rows = None
    while rows is None or scales(rows) != {METRES}:
        sensor.advance()
        sensor.send_depth()
        peer.listen(0.05)
        sensor.send_image()
        _, rows = sensor.wait()
    return sensor


def test_positions_are_unknown_until_expected_depth_arrives(sensor, peer):
    peer.until(sensor.depth.get_subscription_count, "the node listens to depth")
    sensor.advance()
    sensor.send_image()
    cloud, rows = sensor.wait()
    assert scales(rows) == {UNKNOWN} and not cloud.is_dense
    assert np.isnan([rows[axis] for axis in "xyz"]).all()


def test_depth_before_its_image(metric):
    metric.advance()
    metric.send_depth()
    metric.peer.listen(0.05)
    metric.send_image()
    cloud, rows = metric.wait()
    assert cloud.is_dense and (rows["z"] == 1.5).all() and scales(rows) == {METRES}
    np.testing.assert_allclose(rows["x"], (rows["u"] - WIDTH / 2) / 200 * 1.5, atol=1e-4)


def test_depth_some_milliseconds_after_its_image(metric):
    """As a RealSense sends them; without waiting, each image had the depth of the one before."""
    found = 0
    for n in range(20):
        metric.advance()
        metric.send_image()
        metric.peer.listen(0.02)
        metric.send_depth(1500 + n)
        _, rows = metric.wait()
        # On a busy machine, one may come after the time that the node waits for it.
        found += scales(rows) == {METRES} and (rows["z"] == np.float32((1500 + n) / 1000)).all()
    assert found >= 18


def test_depth_at_half_the_rate(metric):
    found = 0
    for n in range(20):
        metric.advance()
        if n % 2 == 0:
            metric.send_depth()
            metric.peer.listen(0.03)
        metric.send_image()
        _, rows = metric.wait()
        found += scales(rows) == {METRES}
    assert found >= 18


def test_depth_of_another_size(metric):
    metric.advance()
    metric.send_depth(size=(60, 80))
    metric.peer.listen(0.05)
    metric.send_image()
    cloud, rows = metric.wait()
    assert scales(rows) == {UNKNOWN} and not cloud.is_dense
    assert "80 x 60 pixels and the image 160 x 120" in metric.node.log


def test_depth_that_drops_out(metric, peer):
    """Metres were the plane z = 1 after that, with is_dense true."""
    assert peer.set(depth_wait=0.0) == {}
    seen = set()
    for n in range(5):
        metric.advance()
        metric.send_image()
        cloud, rows = metric.wait()
        seen |= scales(rows)
        # The last depth image is within depth_tolerance of the first of them.
        assert n == 0 or (scales(rows) == {UNKNOWN} and not cloud.is_dense)
    assert PLANE not in seen
    stamp = metric.stamp
    peer.until(
        lambda: any(m.markers[0].header.stamp == ros.to_time(stamp) for m in metric.markers),
        "markers",
    )
    assert metric.markers[-1].markers[0].action == Marker.DELETE
    peer.until(lambda: "images had no depth" in metric.problems(), "diagnostics")
    assert metric.told[-1].status[-1].level != DiagnosticStatus.OK


def test_camera_info_of_a_best_effort_publisher_and_with_nan(metric, peer):
    """The first camera_info was latched, and published before the node started."""
    info = peer.publisher(CameraInfo, "/camera_info", SENSOR)
    peer.until(info.get_subscription_count, "the node listens to camera_info")
    broken = camera_info(SIZE, 200.0)
    broken.k[4] = float("nan")
    info.publish(broken)
    text = "/camera_info: camera_info has NaN or infinity in K"
    peer.until(lambda: text in metric.node.log and text in metric.problems(), "a complaint")
    metric.advance()
    metric.send_depth()
    metric.send_image()
    cloud, rows = metric.wait()
    assert scales(rows) == {UNKNOWN} and not cloud.is_dense
    info.publish(camera_info(SIZE, 100.0))
    peer.until(lambda: text not in metric.problems(), "that it is mended")
    metric.advance()
    metric.send_depth()
    metric.send_image()
    _, rows = metric.wait()
    np.testing.assert_allclose(rows["x"], (rows["u"] - WIDTH / 2) / 100 * 1.5, atol=1e-4)


@pytest.fixture(scope="module")
def mounted(peer, tmp_path_factory):
    """A node that gives positions in base_link, by a double of tf2; its depth is compressed."""
    info = peer.publisher(CameraInfo, "/arm/camera_info", LATCHED)
    info.publish(camera_info(SIZE, 200.0))
    options = {"max_age": 0.0, "max_gap": 3600.0, "target_frame": "base_link"}
    options |= {"points": 30, "depth_wait": 1.0, "transform_wait": 1.0, "depth": "required"}
    options |= {"depth_transport": "compressedDepth"}
    remapped = ("-r", "__ns:=/arm", "-r", "depth:=sensor/depth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "doubles" / "tf2"))
        with tracker_node(tmp_path_factory.mktemp("mounted"), *remapped, **options) as node:
            patch.undo()
            one = Sensor(peer, "arm/", compressed=True)
            one.node = node
            one.transforms = peer.publisher(TransformStamped, "/tf_double", LATCHED_MANY)
            peer.until(one.depth.get_subscription_count, "the node listens to depth")
            one.begin()
            yield one
            assert node.alive, node.log


def transform(parent, child, stamp, translation, rotation):
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id, message.header.stamp = parent, ros.to_time(stamp)
    shift, turn = message.transform.translation, message.transform.rotation
    shift.x, shift.y, shift.z = translation
    turn.x, turn.y, turn.z, turn.w = rotation
    return message


def shoot_with_depth(sensor):
    """Send images with depth until one has points; its cloud and its rows."""
    rows = []
    while len(rows) == 0:
        sensor.advance()
        sensor.send_depth()
        sensor.send_image()
        sensor.peer.listen(2, lambda: sensor.tracks.of(sensor.stamp))
        cloud = sensor.tracks.of(sensor.stamp)
        rows = [] if cloud is None else ros.rows_of(cloud)
    return cloud, rows


FORWARD = (-0.5, 0.5, -0.5, 0.5)
"""The rotation of a camera that looks along the x axis of base_link."""


def test_positions_in_another_frame(mounted, peer):
    cloud, rows = shoot_with_depth(mounted)
    # There is no transform: neither a position in the camera's frame nor the robot's centre.
    assert cloud.header.frame_id == "base_link" and not cloud.is_dense
    assert scales(rows) == {UNKNOWN} and np.isnan(rows["x"]).all()
    text = "no transform from 'camera' to 'base_link'"
    assert text in mounted.node.log
    peer.until(lambda: text in mounted.problems(), "diagnostics")
    # The camera moves by a metre a second: the place of each image is that at its stamp.
    start = mounted.stamp
    for seconds in (0, 60):
        shift = (float(seconds), 0.0, 0.5)
        mounted.transforms.publish(
            transform("base_link", "camera", start + seconds * SECOND, shift, FORWARD)
        )
    rows = None
    while rows is None or scales(rows) != {METRES}:
        cloud, rows = shoot_with_depth(mounted)
    assert cloud.header.frame_id == "base_link" and cloud.is_dense
    moved = (mounted.stamp - start) / SECOND
    assert moved > 0
    np.testing.assert_allclose(rows["x"], moved + 1.5, atol=1e-3)
    np.testing.assert_allclose(rows["y"], -(rows["u"] - WIDTH / 2) / 200 * 1.5, atol=1e-3)
    np.testing.assert_allclose(rows["z"], 0.5 - (rows["v"] - HEIGHT / 2) / 200 * 1.5, atol=1e-3)
    stamp = mounted.stamp
    peer.until(lambda: mounted.markers[-1].markers[0].header.stamp == ros.to_time(stamp), "markers")
    assert mounted.markers[-1].markers[0].header.frame_id == "base_link"


def test_transforms_that_always_arrive_after_their_image(mounted, peer):
    """Their images wait, from the first one on."""
    mounted.stamp += 120 * SECOND
    # Once the interval of the images is known, the first image after a jump is dropped as stray.
    shoot_with_depth(mounted)
    mounted.transforms.publish(
        transform("base_link", "camera", mounted.stamp, (0.0, 0.0, 0.5), FORWARD)
    )
    peer.listen(0.1)
    for n in range(5):
        mounted.advance()
        mounted.send_depth()
        mounted.send_image()
        peer.listen(0.05)
        mounted.transforms.publish(
            transform("base_link", "camera", mounted.stamp, (float(n), 0.0, 0.5), FORWARD)
        )
        _, rows = mounted.wait()
        assert scales(rows) == {METRES}
        np.testing.assert_allclose(rows["x"], n + 1.5, atol=1e-3)
    # They cease: an image does not wait for ever, and is not placed by an older one.
    mounted.advance()
    mounted.send_depth()
    mounted.send_image()
    _, rows = mounted.wait()
    assert scales(rows) == {UNKNOWN}


def test_points_that_are_clicked_in_another_frame(mounted, peer):
    clicks = peer.publisher(PointStamped, "/arm/tracker/add_point", RELIABLE)
    peer.until(clicks.get_subscription_count, "the node listens to clicks")
    shoot_with_depth(mounted)
    point = PointStamped()
    point.header.frame_id = "map"
    point.point.x, point.point.y, point.point.z = 3.0, 0.25, 0.0
    clicks.publish(point)
    # The camera at a height of 0.25 m looks along the x axis of the map.
    for ahead in (-SECOND, 3600 * SECOND):
        mounted.transforms.publish(
            transform(
                "camera", "map", mounted.stamp + ahead, (0.0, 0.25, 0.0), (0.5, -0.5, 0.5, 0.5)
            )
        )
    deadline = time.monotonic() + ros.PATIENCE
    while "1 requested point added" not in mounted.node.log:
        assert time.monotonic() < deadline, mounted.node.log
        _, rows = shoot_with_depth(mounted)
    _, rows = shoot_with_depth(mounted)
    # (-0.25, 0.25, 3) in the camera's frame.
    places = np.stack([rows["u"], rows["v"]], axis=1)
    expected = [WIDTH / 2 - 0.25 / 3 * 200, HEIGHT / 2 + 0.25 / 3 * 200]
    assert np.linalg.norm(places - expected, axis=1).min() < 1


def test_without_tf2_a_target_frame_is_refused(tmp_path, peer):
    with tracker_node(tmp_path, "-r", "__ns:=/leg", target_frame="base_link") as node:
        text = "target_frame 'base_link' needs tf2, and tf2_ros cannot be imported"
        peer.until(lambda: text in node.log and "Not started" in node.log, "a refusal")
        assert node.alive
