"""What a camera may send, and what the node makes of it, image by image."""

import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PointStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import MarkerArray

from doubles import ros_loopback as ros
from doubles.ros_loopback import (
    SECOND,
    SENSOR,
    Camera,
    camera_info,
    image_message,
    open_peer,
    requested_cloud,
    tracker_node,
)
from vditrack.synthetic.layers.scenes import draw_scene

peer = pytest.fixture(scope="module")(open_peer)
pytestmark = pytest.mark.slow
SIZE = HEIGHT, WIDTH = 240, 320
STEP = 3
"""Pixels by which the picture moves to the left from frame to frame."""
PICTURE = draw_scene(np.random.default_rng(0), 480, 640, ()).render(0.0)


def shot(n):
    """The n-th frame [240, 320, 3] of a camera that pans."""
    left = 20 + STEP * n
    return PICTURE[100 : 100 + HEIGHT, left : left + WIDTH]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with tracker_node(tmp_path_factory.mktemp("node"), max_age=0.0, points=40) as one:
        yield one


@pytest.fixture
def camera(peer, node):
    """A camera without history."""
    one = Camera(peer)
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    one.shoot(shot(0))
    yield one
    one.close()
    assert node.alive, node.log


def by_id(rows):
    return {int(row["id"]): row for row in rows}


def moved(before, after):
    """Median displacement of the points in both."""
    before, after = by_id(before), by_id(after)
    shared = [n for n in before if n in after and before[n]["visible"] and after[n]["visible"]]
    assert len(shared) >= 10
    return np.median(
        [[after[n][axis] - before[n][axis] for axis in ("u", "v")] for n in shared], axis=0
    )


def test_encodings_and_sizes_change_in_mid_stream(camera):
    first = camera.shoot(shot(1))
    np.testing.assert_allclose(moved(first, camera.shoot(shot(2))), [-STEP, 0], atol=0.3)
    bgr = camera.shoot(shot(3)[..., ::-1], encoding="bgr8")
    np.testing.assert_allclose(moved(first, bgr), [-2 * STEP, 0], atol=0.4)
    grey = cv2.cvtColor(shot(4), cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(
        moved(first, camera.shoot(grey, encoding="mono8")), [-3 * STEP, 0], atol=0.5
    )
    small = cv2.resize(shot(4), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    small = by_id(camera.shoot(small))
    # The same points, at half of their coordinates.
    known = {n: row for n, row in by_id(first).items() if n in small and small[n]["visible"]}
    assert len(known) >= 10
    expected = [(row["u"] - 3 * STEP) / 2 for row in known.values()]
    assert np.median(np.abs([small[n]["u"] for n in known] - np.array(expected))) < 1


def test_a_broken_image_is_dropped_and_the_next_is_not(camera, peer, node):
    before = camera.shoot(shot(1))
    broken = image_message(shot(2), time.time_ns())
    broken.data = broken.data[:-5000]
    camera.publisher.publish(broken)
    unknown = image_message(shot(2), time.time_ns(), encoding="8UC7")
    camera.publisher.publish(unknown)
    peer.until(lambda: "Dropped: an image" in node.log, "a complaint")
    after = camera.shoot(shot(2))
    np.testing.assert_allclose(moved(before, after), [-STEP, 0], atol=0.3)


def test_repeated_stamps_are_one_image(camera, peer):
    camera.shoot(shot(1))
    stamp = camera.stamp
    # The same stamp again, with other content: ignored.
    camera.publisher.publish(image_message(shot(9), stamp))
    camera.shoot(shot(2))
    stamps = [ros.nanoseconds(cloud.header.stamp) for cloud in camera.tracks]
    assert stamps.count(stamp) == 1


def send(camera, n, stamp):
    """Publish a frame from which no points come."""
    camera.publisher.publish(image_message(shot(n), stamp))


def test_clocks_that_jump(camera, peer, node):
    before = camera.shoot(shot(1))
    now = camera.stamp
    assert len(before) >= 40
    # One stray stamp changes nothing, far ahead or far back.
    for n, jump in ((2, 3600), (3, -3600)):
        send(camera, 9, now + jump * SECOND)
        after = camera.shoot(shot(n))
        np.testing.assert_allclose(moved(before, after), [-STEP, 0], atol=0.3)
        before = after
    assert "The clock of the images was set" not in node.log, node.log
    # An hour back, as the next image confirms: nothing that was known counts.
    now = camera.stamp
    send(camera, 9, now - 3600 * SECOND)
    fresh = camera.shoot(shot(2), stamp=now - 3600 * SECOND + SECOND // 30)
    assert len(fresh) == 0 and "The clock of the images was set" in node.log
    back = camera.shoot(shot(3), stamp=now - 3600 * SECOND + 2 * SECOND // 30)
    assert len(back) >= 40 and back["id"].min() > before["id"].max()
    told = peer.collect(DiagnosticArray, "/diagnostics")
    peer.until(lambda: len(told) and dropped(told, "stray") == 3, "what was left out")
    peer.forget(told)


def dropped(told, reason):
    """The number of images that were left out, of the newest diagnostics."""
    found = [one.value for one in told[-1].status[-1].values if one.key == f"dropped, {reason}"]
    return int(found[0])


def test_a_camera_that_pauses(camera, peer, node):
    """Points are found again where the picture is the same; before, all were new."""
    # A busy machine describes few images.
    assert peer.set(max_gap=0.5, lost_after=60.0) == {}
    for n in (1, 2, 3):
        rows = camera.shoot(shot(n))
    before = by_id(rows[rows["visible"] == 1])
    first, jumps = camera.stamp, node.log.count("The clock of the images was set")
    peer.listen(0.6)
    found, deadline = [], time.monotonic() + ros.PATIENCE
    while len(found) < 10 and time.monotonic() < deadline:
        rows = by_id(camera.shoot(shot(3)))
        assert "No image came for longer than max_gap" in node.log
        found = [rows[n] for n in rows if n in before and rows[n]["visible"]]
    assert len(found) >= 10
    assert camera.stamp > first + SECOND // 2
    places = [[row[axis] - before[int(row["id"])][axis] for axis in "uv"] for row in found]
    np.testing.assert_allclose(np.median(places, axis=0), [0, 0], atol=0.5)
    assert node.log.count("The clock of the images was set") == jumps
    assert peer.set(max_gap=2.0, lost_after=1.0) == {}


def test_points_that_were_asked_for_are_found_again_after_a_jump(peer, tmp_path):
    """Before, a jump of the clock discarded them."""
    picture = draw_scene(np.random.default_rng(1), 480, 640, ()).render(0.0)

    def view(n):
        left = 20 + STEP * n
        return picture[100 : 100 + HEIGHT, left : left + WIDTH]

    space = ("-r", "__ns:=/jump")
    with tracker_node(tmp_path, *space, max_age=0.0, population="none") as node:
        camera = Camera(peer, "jump/", "/jump/tracker/tracks")
        camera.shoot(view(0))
        clouds = peer.publisher(PointCloud2, "/jump/tracker/add_points")
        peer.until(lambda: clouds.get_subscription_count() > 0, "the node listens")
        places = np.array([[130, 100], [150, 170], [250, 120]])
        clouds.publish(requested_cloud(places))
        peer.until(lambda: "3 requested points added" in node.log, "the points")
        for n in (1, 2, 3):
            rows = camera.shoot(view(n))
        asked = sorted(rows["id"])
        # An hour back, in the middle of the same picture.
        stamp = camera.stamp - 3600 * SECOND
        camera.publisher.publish(image_message(view(2), stamp - SECOND // 30))
        rows = camera.shoot(view(2), stamp=stamp)
        assert sorted(rows["id"]) == asked and not rows["visible"].any()
        assert "The 3 requested points are invisible until they are found" in node.log
        found, shots, deadline = {}, 0, time.monotonic() + ros.PATIENCE
        # A few images that the model describes are enough; others come meanwhile.
        while len(found) < 3:
            assert time.monotonic() < deadline, "not found"
            shots += 1
            n = min(2 + shots, 30)
            rows = by_id(camera.shoot(view(n), stamp=stamp + shots * SECOND // 30))
            found |= {one: (n, rows[one]) for one in asked if rows[one]["visible"]}
        for place, (n, row) in zip(places, (found[one] for one in asked), strict=True):
            np.testing.assert_allclose((row["u"], row["v"]), place - (STEP * n, 0), atol=1)
        # ~/reset discards them.
        answer = peer.call(Trigger, "/jump/tracker/reset", Trigger.Request())
        assert answer.message == "3 points discarded"
        camera.close()


def test_late_images_and_zero_stamps_are_dropped(camera, peer, node):
    before = camera.shoot(shot(1))
    # Other content: if it were tracked, the points would move.
    camera.publisher.publish(image_message(shot(9), camera.stamp - SECOND // 20))
    peer.until(lambda: "after one with a later stamp" in node.log, "a complaint")
    camera.publisher.publish(image_message(shot(9), 0))
    peer.until(lambda: "has the stamp zero" in node.log, "a complaint")
    after = camera.shoot(shot(2))
    np.testing.assert_allclose(moved(before, after), [-STEP, 0], atol=0.3)


@pytest.mark.parametrize(("low", "high"), [(0, 4095), (7000, 8400)])
def test_16_bits_of_low_range(camera, peer, node, low, high):
    """Their high byte has 16 or 6 levels, of which no corner remains where it is."""
    peer.call(Trigger, "/tracker/reset", Trigger.Request())

    def dim(n):
        grey = cv2.cvtColor(shot(n), cv2.COLOR_RGB2GRAY) / 255
        return np.round(low + grey * (high - low)).astype("<u2")

    camera.shoot(dim(0), encoding="mono16")
    first = camera.shoot(dim(1), encoding="mono16")
    for n in (2, 3, 4):
        last = camera.shoot(dim(n), encoding="16UC1" if n % 2 else "mono16")
    np.testing.assert_allclose(moved(first, last), [-3 * STEP, 0], atol=0.1)
    assert "are reduced to 8 bits" in node.log


def test_images_without_a_stamp(camera, peer):
    """They keep their empty header; time is that of their arrival, once no others come."""
    clouds = []
    peer.listen(2.1)
    camera.publisher.publish(image_message(shot(0), 0))
    for n in range(1, 4):
        camera.tracks.clear()
        clouds.append(camera.shoot(shot(n), stamp=0))
    # The first came after a jump of the clock.
    np.testing.assert_allclose(moved(clouds[1], clouds[2]), [-STEP, 0], atol=0.3)


def test_old_images_are_dropped(camera, peer, node):
    assert peer.set(max_age=0.5) == {}
    late = time.time_ns() - 10 * SECOND
    camera.publisher.publish(image_message(shot(1), late))
    peer.until(lambda: "s old and was dropped" in node.log, "a complaint")
    camera.shoot(shot(2))
    assert camera.tracks.of(late) is None
    assert peer.set(max_age=0.0) == {}


def test_places_in_space(camera, peer):
    focal = 200.0
    info = peer.publisher(CameraInfo, "/camera_info", SENSOR)
    rows = camera.shoot(shot(1))
    assert np.isnan([rows[axis] for axis in "xyz"]).all()

    def shoot_until(holds, n, *others):
        """The messages beside the image may come later than it does."""
        deadline = time.monotonic() + ros.PATIENCE
        while time.monotonic() < deadline:
            stamp = max(camera.stamp + 1, time.time_ns())
            for publisher, message in others:
                message.header.stamp = ros.to_time(stamp)
                publisher.publish(message)
            peer.listen(0.05)
            rows = camera.shoot(shot(n), stamp=stamp)
            if len(rows) and holds(rows):
                return rows
        pytest.fail("not placed")

    def expected(rows, z):
        # By the definition of a pinhole camera; u, v count from the picture's corner.
        return (rows["u"] - WIDTH / 2) / focal * z, (rows["v"] - HEIGHT / 2) / focal * z

    known = info, camera_info(SIZE, focal)
    rows = shoot_until(lambda rows: np.isfinite(rows["x"]).all(), 2, known)
    assert (rows["z"] == 1).all() and (rows["scale"] == 1).all()
    for axis, values in zip("xy", expected(rows, 1.0), strict=True):
        np.testing.assert_allclose(rows[axis], values, atol=1e-4)
    depth = peer.publisher(Image, "/depth", SENSOR)
    # 1.5 m on the left, 3 m on the right, nothing known at the top.
    metres = np.full(SIZE, 1500, np.uint16)
    metres[:, WIDTH // 2 :] = 3000
    metres[:40] = 0
    sensed = depth, image_message(metres, 0, encoding="16UC1")
    rows = shoot_until(lambda rows: (rows["z"] == 3).any(), 3, known, sensed)
    inside = (rows["u"] >= 0) & (rows["u"] < WIDTH) & (rows["v"] >= 0) & (rows["v"] < HEIGHT)
    rows = rows[inside]
    truth = np.where(rows["u"] < WIDTH / 2, 1.5, 3.0)
    truth[rows["v"] < 40] = np.nan
    np.testing.assert_allclose(rows["z"], truth)
    for axis, values in zip("xy", expected(rows, truth), strict=True):
        np.testing.assert_allclose(rows[axis], values, atol=1e-3)
    assert (rows["scale"] == np.where(np.isnan(truth), 0, 2)).all()
    # Depth of another time is none, and none is not the plane.
    rows = camera.shoot(shot(4), stamp=camera.stamp + SECOND)
    assert np.isnan(rows["z"]).all() and (rows["scale"] == 0).all()
    shoot_until(lambda rows: np.isnan(rows["x"]).all(), 5, (info, camera_info(SIZE, 0.0)))


def test_features_as_front_ends_take_them(camera, peer):
    focal = 200.0
    info = peer.publisher(CameraInfo, "/camera_info", SENSOR)
    features = peer.collect(PointCloud, "/tracker/features")
    markers = peer.collect(MarkerArray, "/tracker/markers")
    n, stamp = 1, time.time_ns()
    while len(features) < 6 or len(features[-1].points) < 10:
        stamp += SECOND // 30
        info.publish(camera_info(SIZE, focal, stamp))
        peer.listen(0.05)
        camera.shoot(shot(n), stamp=stamp)
        n += 1
        assert n < 40
    cloud = features[-1]
    channels = {channel.name: np.array(channel.values) for channel in cloud.channels}
    points = np.array([(point.x, point.y, point.z) for point in cloud.points])
    rows = by_id(ros.rows_of(camera.tracks.of(ros.nanoseconds(cloud.header.stamp))))
    seen = {(row["u"], row["v"]) for row in rows.values() if row["visible"]}
    # OpenCV counts pixels from the first one's centre.
    found = zip(channels["u"] + np.float32(0.5), channels["v"] + np.float32(0.5), strict=True)
    assert all(np.abs(np.array(list(seen)) - place).max(axis=1).min() < 1e-3 for place in found)
    assert len(channels["u"]) > 0.5 * len(seen)
    np.testing.assert_allclose(points[:, 0], (channels["u"] + 0.5 - WIDTH / 2) / focal, atol=1e-5)
    np.testing.assert_array_equal(points[:, 2], 1)
    # The picture moves by STEP pixels in a thirtieth of a second.
    np.testing.assert_allclose(np.median(channels["vx"]), -STEP * 30 / focal, atol=0.03)
    np.testing.assert_allclose(np.median(channels["vy"]), 0, atol=0.03)
    assert peer.set(min_confidence=1.0, features_rate=0.0) == {}
    stamp += SECOND // 30
    camera.shoot(shot(n), stamp=stamp)
    peer.until(lambda: features.of(stamp) is not None, "features")
    assert len(features.of(stamp).points) < len(points)
    assert peer.set(features_rate=10.0) == {}
    assert peer.set(min_confidence=0.5) == {}
    assert len(markers) and markers[-1].markers[0].header.frame_id == "camera"
    info.publish(camera_info(SIZE, 0.0))
    for one in (features, markers):
        peer.forget(one)


def test_points_that_are_asked_for(camera, peer, node):
    assert peer.set(population="none") == {}
    camera.shoot(shot(1))
    assert len(camera.shoot(shot(2))) == 0
    clouds = peer.publisher(PointCloud2, "/tracker/add_points")
    clicks = peer.publisher(PointStamped, "/tracker/add_point")
    for publisher in (clouds, clicks):
        peer.until(lambda one=publisher: one.get_subscription_count() > 0, "the node listens")
    clouds.publish(requested_cloud([[100, 100], [200, 150], [999, 0]]))
    peer.until(lambda: "2 requested points added" in node.log, "the points")
    outside = "Not added: 1 requested point. It is outside"
    peer.until(lambda: outside in node.log, "why one was left out")
    click = PointStamped()
    click.point.x, click.point.y = 60.0, 200.0
    clicks.publish(click)
    peer.until(lambda: "1 requested point added" in node.log, "the click")
    rows = camera.shoot(shot(3))
    places = np.array([[100, 100], [200, 150], [60, 200]]) - (STEP, 0)
    found = np.stack([rows["u"], rows["v"]], axis=1)
    seen = rows["visible"] == 1
    assert len(rows) == 3 and seen.any()
    np.testing.assert_allclose(found[seen], places[seen], atol=1)
    answer = peer.call(Trigger, "/tracker/reset", Trigger.Request())
    assert answer.success and answer.message == "3 points discarded"
    assert peer.set(population="grid") == {}
    later = camera.shoot(shot(4))
    later = camera.shoot(shot(5))
    assert len(later) == 40 and later["id"].min() > rows["id"].max()


def test_pause(camera, peer):
    assert peer.call(SetBool, "/tracker/pause", SetBool.Request(data=True)).success
    count = len(camera.tracks)
    stamp = time.time_ns()
    for n in range(3):
        camera.publisher.publish(image_message(shot(n), stamp + n))
    # While the node handles a call, it takes one of the images that wait.
    for _ in range(4):
        assert peer.call(SetBool, "/tracker/pause", SetBool.Request(data=True)).success
    assert peer.call(SetBool, "/tracker/pause", SetBool.Request(data=False)).success
    camera.shoot(shot(4))
    assert len(camera.tracks) == count + 1


def test_points_are_put_in_the_region_and_the_mask(peer, tmp_path):
    """The mask is published before the node starts, as a latched topic."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = peer.publisher(Image, "/body/tracker/population_mask", latched)
    mask = np.zeros(SIZE, np.uint8)
    mask[: HEIGHT // 2] = 255
    publisher.publish(image_message(mask, time.time_ns(), "mono8"))
    space = ("-r", "__ns:=/body")
    with tracker_node(tmp_path, *space, max_age=0.0, region="[160.0, 0.0, 160.0, 240.0]") as node:
        camera = Camera(peer, "body/", "/body/tracker/tracks")
        peer.until(lambda: "points are put in 50%" in node.log, "the mask")
        deadline = time.monotonic() + ros.PATIENCE
        while len(rows := camera.shoot(shot(0))) != 64:
            assert time.monotonic() < deadline
        assert (rows["u"] > WIDTH / 2).all() and (rows["v"] < HEIGHT / 2).all()
        assert peer.set("/body/tracker", region=[0.0, 0.0, 0.5, 1.0]) == {}
        while len(rows := camera.shoot(shot(0))) != 64 or rows["u"].max() >= WIDTH / 2:
            assert time.monotonic() < deadline
        assert "reaches beyond the image" not in node.log
        assert peer.set("/body/tracker", region=[0.0, 0.0, 900.0, 240.0]) == {}
        camera.shoot(shot(0))
        assert "region [0, 0, 900, 240] reaches beyond the image, 320 x 240 pixels" in node.log
        publisher.publish(image_message(shot(0), time.time_ns()))
        peer.until(lambda: "encoding 'rgb8'" in node.log, "a complaint")
        camera.close()
        assert node.alive, node.log


def test_images_above_the_rate_are_left_out(camera, peer):
    reports = peer.collect(DiagnosticArray, "/diagnostics")
    assert peer.set(max_rate=10.0) == {}
    count, begin = len(camera.tracks), camera.stamp + SECOND
    for n in range(13):
        stamp = begin + n * SECOND // 30
        if n % 3 == 0:
            camera.shoot(shot(n), stamp=stamp)
        else:
            camera.publisher.publish(image_message(shot(n), stamp))
    assert len(camera.tracks) == count + 5
    assert peer.set(max_rate=0.0) == {}

    def values():
        return {
            pair.key: pair.value
            for one in reports
            for status in one.status
            for pair in status.values
        }

    # The middleware may lose one of two that are published at once.
    peer.until(lambda: int(values().get("left out by max_rate", 0)) >= 4, "the count of images")
    peer.forget(reports)


def test_overlay_is_for_those_who_look(camera, peer, node):
    camera.shoot(shot(1))
    overlays = peer.collect(Image, "/tracker/overlay")
    while not len(overlays):
        camera.shoot(shot(2))
        peer.listen(0.1)
    drawn = overlays[-1]
    assert (drawn.height, drawn.width, drawn.encoding) == (*SIZE, "rgb8")
    picture = np.frombuffer(bytes(drawn.data), np.uint8).reshape(*SIZE, 3)
    assert (picture != shot(2)).any()
    assert drawn.header.frame_id == "camera"
    assert peer.set(overlay=False) == {}
    count = len(overlays)
    camera.shoot(shot(3))
    camera.shoot(shot(4))
    assert len(overlays) <= count + 1
    assert peer.set(overlay=True) == {}
    peer.forget(overlays)


def test_number_of_points_changes_live(camera, peer):
    for count in (12, 40):
        assert peer.set(points=count) == {}
        deadline = time.monotonic() + ros.PATIENCE
        while len(camera.shoot(shot(1))) != count:
            assert time.monotonic() < deadline


def test_two_cameras_share_a_process_and_nodes_share_a_name(peer, node, tmp_path):
    space = ("-r", "__ns:=/arm")
    with tracker_node(tmp_path, *space, cameras="[left, wrist/right]", points=20, max_age=0.0):
        left = Camera(peer, "arm/left/", "/arm/tracker/left/tracks")
        right = Camera(peer, "arm/wrist/right/", "/arm/tracker/wrist/right/tracks")
        for n in range(4):
            rows = {"left": left.shoot(shot(n)), "right": right.shoot(shot(3 - n))}
            if n == 2:
                before = rows
        np.testing.assert_allclose(moved(before["left"], rows["left"]), [-STEP, 0], atol=0.3)
        np.testing.assert_allclose(moved(before["right"], rows["right"]), [STEP, 0], atol=0.3)
        # One is reset, the other goes on.
        peer.call(Trigger, "/arm/tracker/left/reset", Trigger.Request())
        assert len(left.shoot(shot(4))) == 0 and len(right.shoot(shot(0))) == 20
        # A node of the same name beside it has its own.
        plain = Camera(peer)
        plain.shoot(shot(0))
        assert plain.tracks[-1].header.stamp != left.tracks[-1].header.stamp
        for one in (left, right, plain):
            one.close()


def test_compressed_images_in_simulated_time(peer, tmp_path):
    clock = peer.publisher(Clock, "/clock")
    options = {"use_sim_time": True, "image_transport": "compressed", "max_age": 0.5}
    # The name of the images is enough.
    names = ("-r", "__ns:=/sim", "-r", "image:=color")
    with tracker_node(tmp_path, *names, **options) as node:
        camera = Camera(
            peer, "sim/", "/sim/tracker/tracks", kind=CompressedImage, topic="color/compressed"
        )

        def send(n, seconds, kind=".jpg"):
            """At a time of the simulation, whose clock may be later than the image."""
            data = cv2.imencode(kind, cv2.cvtColor(shot(n), cv2.COLOR_RGB2BGR))[1].tobytes()
            stamp = round(seconds * SECOND)
            clock.publish(Clock(clock=ros.to_time(stamp)))
            return camera.shoot(CompressedImage(format=kind[1:], data=data), stamp=stamp)

        peer.until(lambda: clock.get_subscription_count() > 0, "the node follows the clock")
        send(0, 100.0)
        first = send(1, 100.04)
        second = send(2, 100.08, ".png")
        np.testing.assert_allclose(moved(first, second), [-STEP, 0], atol=0.5)
        # A Bayer pattern, as image_transport's plug-in compresses it.
        i, j = np.mgrid[:HEIGHT, :WIDTH]
        frame, channel = shot(3), np.array([0, 1, 1, 2])[2 * (i % 2) + j % 2]
        pattern = np.take_along_axis(frame, channel[..., None], axis=2)[..., 0]
        data = cv2.imencode(".png", pattern)[1].tobytes()
        clock.publish(Clock(clock=ros.to_time(round(100.12 * SECOND))))
        image = CompressedImage(format="bayer_rggb8; png compressed ", data=data)
        third = camera.shoot(image, stamp=round(100.12 * SECOND))
        np.testing.assert_allclose(moved(second, third), [-STEP, 0], atol=0.3)
        # The simulation starts over.
        clock.publish(Clock(clock=ros.to_time(5 * SECOND)))
        camera.publisher.publish(CompressedImage(format="png", data=data, header=header(4.96)))
        assert len(send(4, 5.0)) == 0 and "The clock of the images was set" in node.log
        assert send(5, 5.04)["id"].min() > second["id"].max()
        # Old is what is old in the simulation.
        clock.publish(Clock(clock=ros.to_time(60 * SECOND)))
        data = cv2.imencode(".png", shot(5))[1].tobytes()
        late = CompressedImage(format="png", data=data)
        late.header.stamp = ros.to_time(6 * SECOND)
        peer.until(lambda: _published(camera, late) and "was dropped" in node.log, "a complaint")
        camera.close()


def header(seconds):
    return Header(stamp=ros.to_time(round(seconds * SECOND)))


def _published(camera, message):
    camera.publisher.publish(message)
    return True
