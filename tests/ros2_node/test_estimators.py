"""~/features over real middleware, read as the front ends of VINS-Mono and VINS-Fusion do."""

import cv2
import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, PointCloud
from std_srvs.srv import Trigger

from doubles import ros_loopback as ros
from doubles.ros_loopback import SECOND, SENSOR, Camera, camera_info, open_peer, tracker_node
from vditrack.synthetic.layers.scenes import draw_scene

peer = pytest.fixture(scope="module")(open_peer)
pytestmark = pytest.mark.slow
SIZE = HEIGHT, WIDTH = 240, 320
FOCAL = 200.0
PICTURE = draw_scene(np.random.default_rng(0), 480, 640, ()).render(0.0)
NEAR, FAR = 2.0, 4.0
"""Distances of a wall on the left and of one on the right, in metres."""
STEP = 0.02
"""Metres by which the camera moves to the right from image to image."""
EDGE = 200
"""Column of the near wall's edge in the first image."""
INTERVAL = SECOND // 30
IMAGES = 75


def shoot_walls(n):
    """The n-th image [240, 320, 3]."""

    def wall(metres, left):
        shift = n * STEP * FOCAL / metres
        matrix = np.float64([[1, 0, -left - shift], [0, 1, -100]])
        return shift, cv2.warpAffine(PICTURE, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)

    _, frame = wall(FAR, 40)
    shift, near = wall(NEAR, 60)
    edge = max(0, round(EDGE - shift))
    frame[:, :edge] = near[:, :edge]
    return frame


class Reader:
    """Does with the messages what the feature managers do."""

    def __init__(self, layout):
        self.layout, self.frames, self.tracks = layout, [], {}

    def take(self, cloud):
        """Store the observations of a message, as `feature_callback` reads them."""
        values = [np.array(channel.values) for channel in cloud.channels]
        if self.layout == "vins_mono":
            ids, cameras = np.divmod((values[0] + 0.5).astype(int), 1)
            columns = values[1:5]
        else:
            ids, cameras = values[0].astype(int), values[1].astype(int)
            columns = values[2:6]
            # Read if there are more than five channels.
            assert all(len(values[n]) == len(ids) for n in (6, 7, 8))
        assert (cameras == 0).all() and len(set(ids.tolist())) == len(ids)
        assert np.isfinite(columns).all()
        assert all(point.z == 1 for point in cloud.points)
        stamp = ros.nanoseconds(cloud.header.stamp)
        assert not self.frames or stamp > self.frames[-1]
        frame = len(self.frames)
        self.frames.append(stamp)
        for n, one in enumerate(ids.tolist()):
            point = cloud.points[n]
            observation = np.array([point.x, point.y, *(column[n] for column in columns)])
            start, observations = self.tracks.setdefault(one, (frame, []))
            # A track is its first frame and a list: its observations must be consecutive.
            assert start + len(observations) == frame, "an id has a gap"
            observations.append(observation)


def triangulate(first, observations, positions):
    """The depth of a point in its first image, by the linear method of both estimators."""
    rows = []
    origin = positions[first]
    for n, (x, y, *_) in enumerate(observations):
        pose = np.hstack([np.eye(3), [[-(positions[first + n] - origin)], [0], [0]]])
        ray = np.array([x, y, 1]) / np.linalg.norm([x, y, 1])
        rows += [ray[0] * pose[2] - ray[2] * pose[0], ray[1] * pose[2] - ray[2] * pose[1]]
    solution = np.linalg.svd(np.array(rows))[2][3]
    return solution[2] / solution[3]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    options = {"max_age": 0.0, "points": 60, "population": "features"}
    with tracker_node(tmp_path_factory.mktemp("node"), **options) as one:
        yield one


@pytest.mark.parametrize("layout", ["vins_mono", "vins_fusion"])
def test_a_scene_is_reconstructed(peer, node, layout):
    camera = Camera(peer)
    info = peer.publisher(CameraInfo, "/camera_info", SENSOR)
    clouds = peer.collect(PointCloud, "/tracker/features")
    peer.until(info.get_subscription_count, "the node listens to camera_info")
    assert peer.set(features_layout=layout) == {}
    camera.shoot(shoot_walls(0))
    while len(clouds) == 0:
        info.publish(camera_info(SIZE, FOCAL))
        peer.listen(0.1)
        camera.shoot(shoot_walls(0))
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    peer.listen(0.1)
    clouds.clear()
    start, image_of = camera.stamp + INTERVAL, {}
    for n in range(IMAGES):
        frame = shoot_walls(n)
        if n in range(30, 36):
            # Something passes before the wall: its points are found again, with a gap.
            frame[60:180, 60:140] = 30
        stamp = start + n * INTERVAL
        image_of[stamp] = n
        camera.shoot(frame, stamp=stamp)
    peer.until(lambda: len(clouds) >= IMAGES // 3 - 1, "features")
    reader = Reader(layout)
    for cloud in clouds:
        reader.take(cloud)
    # Ten messages a second.
    assert IMAGES // 3 - 1 <= len(reader.frames) <= IMAGES // 3 + 1
    positions = [STEP * image_of[stamp] for stamp in reader.frames]
    errors, speeds = [], []
    for first, observations in reader.tracks.values():
        for _, _, _, _, vx, vy in observations:
            # Both walls move to the left, at the camera's speed over their distance.
            speeds.append(min(abs(vx + STEP * 30 / z) for z in (NEAR, FAR)) + abs(vy))
        if len(observations) >= 5:
            depth = triangulate(first, observations, positions)
            errors.append(min(abs(depth / z - 1) for z in (NEAR, FAR)))
    assert len(errors) >= 30
    assert np.median(errors) < 0.03 and np.percentile(errors, 90) < 0.15, np.percentile(
        errors, [50, 90]
    )
    # 0.15 on the plane z = 1 a second is a pixel from image to image.
    assert np.median(speeds) < 0.03 and max(speeds) < 0.4, np.percentile(speeds, [50, 99, 100])
    camera.close()
    peer.forget(clouds)
    assert node.alive, node.log
