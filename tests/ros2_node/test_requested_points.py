"""Requests of points by stamp, over topics and services, with a node of its own."""

import json
import time

import cv2
import numpy as np
import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger

from doubles.ros_loopback import (
    SECOND,
    Camera,
    image_message,
    open_peer,
    requested_cloud,
    tracker_node,
)
from vditrack.synthetic.layers.scenes import draw_scene

peer = pytest.fixture(scope="module")(open_peer)
pytestmark = pytest.mark.slow
HEIGHT, WIDTH = 240, 320
RATE, SPEED, LATE = 30, 60.0, 9
"""Images a second, pixels a second, and images that a detector needs: 300 ms."""
PICTURE = draw_scene(np.random.default_rng(3), 480, 640, ()).render(0.0)
MARKED = np.random.default_rng(5).uniform((80, 20), (300, 220), (20, 2))


def shot(n):
    """The n-th image of a camera that pans."""
    shift = np.float32([[1, 0, -20 - SPEED * n / RATE], [0, 1, -100]])
    return cv2.warpAffine(PICTURE, shift, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    with tracker_node(folder, max_age=0.0, population="none") as one:
        yield one


class Sequence:
    """Images of a pan, with the stamps of a camera."""

    def __init__(self, camera):
        self.camera, self.start = camera, time.time_ns()

    def stamp(self, n):
        return self.start + round(n * SECOND / RATE)

    def shoot(self, *numbers):
        for n in numbers:
            rows = self.camera.shoot(shot(n), stamp=self.stamp(n))
        return rows


@pytest.fixture
def images(peer, node):
    camera = Camera(peer)
    # What was tracked before is of no concern.
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    yield Sequence(camera)
    camera.close()
    assert node.alive, node.log


def call(peer, service, wait=True, **fields):
    """Call a service by a type that every installation has; the answer, or its future."""
    parameters = []
    for name, value in fields.items():
        message = Parameter(name, value=value).to_parameter_msg()
        assert isinstance(message, ParameterMessage)
        parameters.append(message)
    request = SetParametersAtomically.Request(parameters=parameters)
    client = peer.node.create_client(SetParametersAtomically, f"/tracker/{service}")
    peer.until(client.service_is_ready, service)
    future = client.call_async(request)
    if not wait:
        return future
    peer.until(future.done, f"an answer of {service}")
    return read_answer(future)


def read_answer(future):
    result = future.result().result
    return {"success": result.successful} | json.loads(result.reason)


def add(peer, points, stamp, wait=True):
    x, y = np.transpose(points).tolist()
    return call(peer, "add_points", wait, x=x, y=y, stamp=stamp)


def errors(rows, images, answer=None):
    """Distances of the visible points from where they are, given images since they were marked."""
    ids = answer["ids"] if answer else sorted(rows["id"])
    places = {row["id"]: (row["u"], row["v"]) for row in rows if row["visible"]}
    truth = dict(zip(ids, MARKED - (SPEED * images / RATE, 0), strict=True))
    return [np.hypot(*(np.array(places[n]) - truth[n])) for n in ids if n in places]


def test_late_points_are_placed_on_their_image(images, peer):
    """300 ms late, they were 18 pixels off: on the newest image."""
    images.shoot(*range(LATE + 2))
    answer = add(peer, MARKED, images.stamp(1))
    assert answer["success"] and answer["reasons"] == [""] * 20
    rows = images.shoot(LATE + 2)
    assert sorted(rows["id"]) == answer["ids"] and (rows["requested"] == 1).all()
    assert rows["visible"].sum() >= 16 and np.median(errors(rows, LATE + 1, answer)) < 0.5
    # A cloud on the topic does the same.
    clouds = peer.publisher(PointCloud2, "/tracker/add_points")
    peer.until(lambda: clouds.get_subscription_count() > 0, "the node listens")
    clouds.publish(requested_cloud(MARKED, images.stamp(1)))
    n = LATE + 3
    while len(rows) < 40:
        rows = images.shoot(n)
        n += 1
    late = rows[~np.isin(rows["id"], answer["ids"])]
    assert np.median(errors(late, n - 2)) < 0.5


def test_requests_before_the_first_image_wait_for_it(images, peer, node):
    """They were refused."""
    clouds = peer.publisher(PointCloud2, "/tracker/add_points")
    peer.until(lambda: clouds.get_subscription_count() > 0, "the node listens")
    clouds.publish(requested_cloud(MARKED, 0))
    peer.until(lambda: "wait for their image" in node.log, "the request waits")
    # And those of an image to come; the service answers when it has come.
    future = add(peer, MARKED, images.stamp(2), wait=False)
    peer.listen(0.3)
    images.shoot(0)
    assert not future.done()
    rows = images.shoot(1)
    assert np.median(errors(rows, 1)) < 0.5
    # Image 2 is lost: the first later one is taken, and the points are where they were marked.
    images.shoot(3)
    peer.until(future.done, "the answer")
    answer = read_answer(future)
    rows = images.shoot(4)
    assert len(rows) == 40 and np.median(errors(rows, 2, answer)) < 0.5


def test_what_is_refused_says_why(images, peer, node):
    images.shoot(0, 70, 71)
    answer = add(peer, MARKED, images.stamp(0))
    assert not answer["success"] and answer["ids"] == [-1] * 20
    assert "2.37 s before the newest" in answer["message"]
    answer = add(peer, MARKED, images.stamp(171))
    assert "3.33 s ahead of the images" in answer["message"]
    answer = add(peer, [[100, 100], [WIDTH, 5], [float("nan"), 5]], 0)
    assert not answer["success"] and answer["message"] == "1 point added, 2 refused."
    assert answer["ids"][0] >= 0 and answer["ids"][1:] == [-1, -1]
    assert [bool(reason) for reason in answer["reasons"]] == [False, True, True]
    assert "values of x" in call(peer, "add_points", x=[1.0])["message"]
    assert "no field 'u'" in call(peer, "add_points", u=[1.0])["message"]
    # One is removed, once.
    (one,) = [identifier for identifier in answer["ids"] if identifier >= 0]
    assert call(peer, "remove", kind=0, id=one)["success"]
    assert "no point" in call(peer, "remove", kind=0, id=one)["message"]
    assert len(images.shoot(72)) == 0
    # Nothing comes: the service answers all the same.
    answer = add(peer, MARKED, images.stamp(75))
    assert "no image came" in answer["message"]
    # A reset answers those who wait.
    before = node.log.count("wait for their image")
    future = add(peer, MARKED, images.stamp(75), wait=False)
    peer.until(lambda: node.log.count("wait for their image") > before, "the request waits")
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    peer.until(future.done, "the answer")
    assert "was reset" in read_answer(future)["message"]


def test_who_waits_is_answered_while_the_node_is_inactive(images, peer, node):
    images.shoot(0)
    before = node.log.count("wait for their image")
    future = add(peer, MARKED, images.stamp(5), wait=False)
    peer.until(lambda: node.log.count("wait for their image") > before, "the request waits")
    assert peer.transition("deactivate")
    peer.until(future.done, "the answer")
    assert "no image came" in read_answer(future)["message"]
    before = node.log.count("wait for their image")
    future = add(peer, MARKED, images.stamp(5), wait=False)
    peer.until(lambda: node.log.count("wait for their image") > before, "the request waits")
    assert peer.transition("cleanup")
    peer.until(future.done, "the answer")
    assert "does not track" in read_answer(future)["message"]
    assert peer.transition("configure") and peer.transition("activate")
    images.shoot(6)
    images.camera.publisher.publish(image_message(shot(7), images.stamp(7)))
    assert add(peer, MARKED, 0)["success"]
