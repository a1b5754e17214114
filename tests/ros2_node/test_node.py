"""The node as a process of its own, before a camera of its own process, over real middleware."""

import signal
import time
from contextlib import ExitStack
from itertools import count, pairwise

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import PointCloud2

from doubles.ros_loopback import (
    SECOND,
    Camera,
    camera_process,
    image_message,
    nanoseconds,
    published,
    rows_of,
    tracker_node,
)
from vditrack.synthetic.layers.camera_effects import PERFECT
from vditrack.synthetic.layers.scenes import draw_scene

pytestmark = pytest.mark.slow
LENGTH = 40
"""Frames of the clip."""


@pytest.fixture(scope="module")
def scene():
    return draw_scene(np.random.default_rng(3), 480, 640, ())


def clip(scene):
    """Frames [T, H, W, 3] of a scene."""
    rng = np.random.default_rng(1)
    return np.stack([PERFECT.shoot(scene, float(t), rng) for t in range(LENGTH)])


@pytest.fixture(scope="module")
def frames(scene):
    return clip(scene)


def status(told):
    """The newest diagnostics of the camera."""
    return told[-1].status[-1]


def values(told):
    return {value.key: value.value for value in status(told).values} if len(told) else {}


def clouds_by_frame(clouds, folder):
    """(frame index, rows) of each cloud; each must belong to an image that was published."""
    shown = published(folder)
    return [(shown[nanoseconds(cloud.header.stamp)], rows_of(cloud)) for cloud in clouds]


def errors(scene, told):
    """Distances from where the scene says that points are, from when each is first told of."""
    first, found = {}, []
    for frame, rows in told:
        for row in rows[rows["visible"] == 1]:
            place = np.array([row["u"], row["v"]], np.float64)
            anchor = first.setdefault(int(row["id"]), scene.anchor(place[None], float(frame)))
            truth, visible = scene.track(anchor, [float(frame)])
            if visible[0, 0]:
                found.append(np.linalg.norm(truth[0, 0] - place))
    return np.array(found)


def test_points_follow_a_camera_at_30_hz(peer, scene, frames, tmp_path):
    clouds = peer.collect(PointCloud2, "/tracker/tracks")
    with tracker_node(tmp_path, max_age=2.0) as node, camera_process(tmp_path, frames, 30):
        peer.until(lambda: len(clouds) >= 120, "120 clouds", log=node)
        assert node.stop(signal.SIGTERM) == 0
    clouds = clouds[:]
    stamps = [nanoseconds(cloud.header.stamp) for cloud in clouds]
    assert all(a < b for a, b in pairwise(stamps)), "out of order"
    assert {cloud.header.frame_id for cloud in clouds} == {"camera_optical"}
    told = clouds_by_frame(clouds, tmp_path)
    # A grid of 64 was kept alive, but for the points that left the picture since the model's last
    # image, of which a busy machine has few; ids ascend, and new points have new ids.
    counts = [len(rows) for _, rows in told[10:]]
    assert np.median(counts) >= 60 and max(counts) == 64
    seen = set()
    for _, rows in told:
        ids = rows["id"].tolist()
        assert ids == sorted(set(ids))
        fresh = set(ids) - seen
        assert not fresh or not seen or min(fresh) > max(seen)
        seen |= fresh
    assert np.median([rows["visible"].mean() for _, rows in told[10:]]) > 0.3
    found = errors(scene, told)
    assert len(found) > 2000
    assert np.median(found) < 2, np.percentile(found, [50, 75, 90])


def test_twice_the_rate_that_the_model_holds(peer, tmp_path):
    # Images small enough that the middleware brings them faster than the model describes them,
    # however little of the processor is left to the test.
    scene = draw_scene(np.random.default_rng(3), 240, 320, ())
    clouds = peer.collect(PointCloud2, "/tracker/tracks")
    told = peer.collect(DiagnosticArray, "/diagnostics")

    def rates():
        shown = values(told)
        keys = ("rate described by the model (Hz)", "rate out (Hz)")
        return [float(shown.get(key, "nan")) for key in keys]

    def outpaced():
        described, out = rates()
        return 0 < described < 0.8 * out

    with tracker_node(tmp_path, max_age=2.0) as node, camera_process(tmp_path, clip(scene), 60):
        peer.until(lambda: "The model encodes" in node.log, "the model's rate")
        # Points come for more images than the model describes, and say so by their age.
        peer.until(outpaced, "more points than descriptions", log=node)
        since = len(clouds)
        peer.until(lambda: len(clouds) >= since + 100, "100 clouds more", log=node)
        described, out = rates()
    assert 0 < described < 55, (described, out)
    clouds = clouds_by_frame(clouds[since:], tmp_path)
    ages = np.concatenate([rows["seconds_since_model"] for _, rows in clouds])
    assert (ages > 0).mean() > 0.2 and np.median(ages) < 1
    found = errors(scene, clouds)
    assert np.median(found) < 2, np.percentile(found, [50, 75, 90])


def test_late_listeners_killed_nodes_and_cameras_that_return(peer, frames, tmp_path):
    told = peer.collect(DiagnosticArray, "/diagnostics")
    with ExitStack() as running:
        camera = running.enter_context(camera_process(tmp_path, frames, 15))
        node = running.enter_context(tracker_node(tmp_path, stale_after=0.5, max_age=2.0))
        peer.until(lambda: values(told).get("points alive") == "64", "points nobody listens to")
        # Who comes late gets points from then on.
        clouds = peer.collect(PointCloud2, "/tracker/tracks")
        peer.until(lambda: len(clouds) >= 5, "points for a late listener")
        camera.end()
        peer.until(lambda: "No image" in status(told).message, "that the camera is gone")
        assert status(told).level == DiagnosticStatus.ERROR
        clouds.clear()
        running.enter_context(camera_process(tmp_path, frames, 15))
        peer.until(lambda: len(clouds) >= 5, "points of a camera that returned")
        peer.until(lambda: "No image" not in status(told).message, "that the camera is back")
        assert node.stop(signal.SIGKILL) == -signal.SIGKILL
        clouds.clear()
        ended = time.time_ns()
        second = running.enter_context(tracker_node(tmp_path, log="second.log", max_age=2.0))
        peer.until(
            lambda: len(clouds) and nanoseconds(clouds[-1].header.stamp) > ended,
            "points of the node's successor",
        )
        assert second.stop(signal.SIGINT) == 0
        assert "Traceback" not in second.log


@pytest.mark.parametrize("storage", [StoragePlugin.SQLITE3, StoragePlugin.MCAP])
def test_a_bag_is_replayed(peer, scene, frames, tmp_path, storage):
    """The messages of a recording, byte by byte, with the stamps of its own day."""
    began = 1_600_000_000 * SECOND
    with Writer(tmp_path / "bag", version=8, storage_plugin=storage) as writer:
        store = get_typestore(Stores.LATEST)
        topic = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        for t, frame in enumerate(frames[:12]):
            stamp = began + t * SECOND // 30
            writer.write(topic, stamp, serialize_message(image_message(frame, stamp)))
    camera = Camera(peer)
    # Until all topics are connected, what is published is lost.
    with tracker_node(tmp_path, max_age=0.0) as node, Reader(tmp_path / "bag") as bag:
        earlier = count(began - SECOND // 20, 1000)
        while not len(camera.tracks):
            camera.publisher.publish(image_message(frames[0], next(earlier)))
            peer.listen(0.2, lambda: len(camera.tracks))
            assert node.alive, node.log
        told = []
        for t, (_, stamp, data) in enumerate(bag.messages()):
            camera.publisher.publish(data)
            peer.until(lambda: camera.tracks.of(stamp), f"points of image {t}\n{node.log}")  # noqa: B023
            told.append((t, rows_of(camera.tracks.of(stamp))))
    found = errors(scene, told)
    assert len(found) > 200
    assert np.median(found) < 2
