"""Subscriptions and publishers over the middleware as it comes, without a profile."""

from contextlib import contextmanager

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2

from doubles.ros_loopback import (
    RELIABLE,
    SENSOR,
    camera_process,
    nanoseconds,
    published,
    tracker_node,
)
from vditrack.errors import InputError
from vditrack.synthetic.layers.scenes import draw_scene
from vditrack_ros.transport.fastdds import PROFILE, PROFILE_VARIABLE
from vditrack_ros.transport.sensor_subscription import SensorSubscription
from vditrack_ros.transport.topics import create_publisher, resolve_transport_topic

pytestmark = pytest.mark.slow
AS_IT_COMES = {PROFILE_VARIABLE: None}
COUNT = 90
"""Images that a camera sends: 3 seconds."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def clip(height, width):
    rng = np.random.default_rng(3)
    scene = draw_scene(rng, height + 40, width + 40, ())
    picture = scene.render(0.0)
    return np.stack([picture[:height, n : n + width] for n in range(0, 40, 4)])


def test_images_of_640_x_480_arrive_as_the_middleware_comes(peer, tmp_path):
    """With best effort, 16 of 150 images gave tracks; now they do of a reliable camera."""
    frames = clip(480, 640)
    tracks = peer.collect(PointCloud2, "/tracker/tracks", QoSProfile(depth=COUNT))
    # Subscribed to last: nodes learn of subscriptions in their order.
    told = peer.collect(DiagnosticArray, "/diagnostics")

    def camera(folder, reliability):
        (tmp_path / folder).mkdir()
        return camera_process(
            tmp_path / folder,
            frames,
            30,
            reliability=reliability,
            count=COUNT,
            environment=AS_IT_COMES,
        )

    # The count decides and not the time, so that a busy machine is no failure: images wait, and
    # so do tracks.
    waiting = {
        "qos_overrides./image.subscription.depth": 2 * COUNT,
        "qos_overrides./tracker/tracks.publisher.depth": 2 * COUNT,
        "max_age": 0.0,
    }
    with tracker_node(tmp_path, environment=AS_IT_COMES, **waiting) as node:
        peer.until(lambda: "Listening on /image" in node.log, "the node")
        # The node publishes no tracks until it knows of the subscription to them.
        peer.until(lambda: told, "that the node knows of this test's subscriptions", log=node)
        with camera(folder := "reliable", "reliable"):

            def describe():
                """Return which images have tracks, and what the node counted, for a failure."""
                came = {nanoseconds(cloud.header.stamp) for cloud in tracks}
                without = [n for n, s in enumerate(published(tmp_path / folder)) if s not in came]
                values = {value.key: value.value for value in told[-1].status[-1].values}
                return f"95% of the images: {len(came)} have tracks, not {without}; {values}"

            peer.until(lambda: len(tracks) >= 0.95 * COUNT, describe, log=node)
            stamps = {nanoseconds(cloud.header.stamp) for cloud in tracks}
            assert len(stamps & published(tmp_path / folder).keys()) >= 0.95 * COUNT
        assert "/image is received reliable, as all of its publishers are" in node.log
        assert "were lost on the way" not in node.log
        # One of best effort is received in its turn, and its losses are explained.
        with camera("best_effort", "best_effort"):
            peer.until(
                lambda: "/image is received best effort, as not all" in node.log, "the change"
            )
            peer.until(lambda: "were lost on the way" in node.log, "a warning", log=node)
            assert f"{PROFILE_VARIABLE}={PROFILE}" in node.log
            peer.until(lambda: len(published(tmp_path / "best_effort")) == COUNT, "all images")
            seen = len(told)
            peer.until(lambda: len(told) > seen + 1, "diagnostics")
        missing = {
            value.key: int(value.value)
            for value in told[-1].status[-1].values
            if value.key in ("dropped, lost", "dropped, overtaken")
        }
        # Once each: it was 131 lost and 27 overtaken, of 134 images.
        came = {nanoseconds(cloud.header.stamp) for cloud in tracks}
        came &= published(tmp_path / "best_effort").keys()
        assert missing["dropped, lost"] > 0.1 * COUNT
        assert sum(missing.values()) + len(came) <= COUNT


@contextmanager
def listening(node, **options):
    """Messages of a subscription, and the subscription."""
    got = []
    one = SensorSubscription(node, Image, "image", got.append, **options)
    yield got, one
    one.close()


def send_until(peer, publisher, got):
    def arrived():
        publisher.publish(Image())
        return got

    got.clear()
    peer.until(arrived, "a message")


def test_the_reliability_follows_publishers_that_come_and_go(peer):
    with listening(peer.node, reliability="auto") as (got, subscription):
        assert subscription.is_reliable, "until a publisher is known"
        poor = peer.publisher(Image, "image", SENSOR)
        send_until(peer, poor, got)
        assert not subscription.is_reliable
        good = peer.publisher(Image, "image", RELIABLE)
        send_until(peer, good, got)
        assert not subscription.is_reliable, "as one of two is not"
        peer.node.destroy_publisher(poor)
        peer.until(lambda: subscription.is_reliable, "the change")
        send_until(peer, good, got)
        peer.node.destroy_publisher(good)
        peer.until(lambda: subscription.publisher_count == 0, "that it is gone")
        peer.listen(0.5)
        assert subscription.is_reliable, "as it was"


@pytest.mark.parametrize("reliability", ["reliable", "best_effort"])
def test_a_given_reliability_stays(peer, reliability):
    with listening(peer.node, reliability=reliability) as (got, subscription):
        publisher = peer.publisher(Image, "image", RELIABLE)
        send_until(peer, publisher, got)
        assert subscription.is_reliable == (reliability == "reliable")
        peer.node.destroy_publisher(publisher)


def test_a_latched_message_is_received(peer):
    publisher = peer.publisher(Image, "image", LATCHED)
    publisher.publish(Image(width=7))
    with listening(peer.node, reliability="auto", latched=True) as (got, _):
        peer.until(lambda: got, "what was published before")
        assert got[0].width == 7
        # One that is not latched does not reach a subscription that asks for what was before.
        other = peer.publisher(Image, "image", RELIABLE)
        send_until(peer, other, got)
    for one in (publisher, other):
        peer.node.destroy_publisher(one)


@contextmanager
def node_with(peer, *arguments):
    node = rclpy.create_node(
        "one",
        context=peer.node.context,
        cli_args=["--ros-args", *arguments],
        automatically_declare_parameters_from_overrides=True,
    )
    yield node
    node.destroy_node()


@pytest.mark.parametrize(
    ("remapped", "topic"),
    [
        ([], "/image/compressed"),
        (["-r", "image:=/cam/color/image_raw"], "/cam/color/image_raw/compressed"),
        (["-r", "image/compressed:=/jpeg"], "/jpeg"),
        (["-r", "image:=/raw", "-r", "image/compressed:=/jpeg"], "/jpeg"),
        (["-r", "__ns:=/front", "-r", "image:=color"], "/front/color/compressed"),
    ],
)
def test_a_remapping_of_the_images_applies_to_their_transports(peer, remapped, topic):
    with node_with(peer, *remapped) as node:
        name = resolve_transport_topic(node, "image", "compressed")
        assert node.resolve_topic_name(name) == topic
        assert resolve_transport_topic(node, "image", "raw") == "image"


def test_parameters_override_the_quality_of_service(peer):
    given = ("-r", "image:=/cam", "-p", "qos_overrides./cam.subscription.reliability:=best_effort")
    given += ("-p", "qos_overrides./one/tracks.publisher.reliability:=best_effort")
    with node_with(peer, *given) as node, listening(node, reliability="auto") as (_, subscription):
        assert not subscription.is_reliable and subscription.topic == "/cam"
        create_publisher(node, PointCloud2, "~/tracks", RELIABLE)
        (used,) = node.get_publishers_info_by_topic("/one/tracks")
        assert used.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        create_publisher(node, PointCloud2, "~/others", RELIABLE)
        (used,) = node.get_publishers_info_by_topic("/one/others")
        assert used.qos_profile.reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize(
    ("policy", "value", "told"),
    [("reliability", "good", "reliable, best_effort"), ("depth", "0", "an integer from 1")],
)
def test_an_override_that_makes_no_sense(peer, policy, value, told):
    name = f"qos_overrides./one/tracks.publisher.{policy}"
    with node_with(peer, "-p", f"{name}:={value}") as node, pytest.raises(InputError) as raised:
        create_publisher(node, PointCloud2, "~/tracks", RELIABLE)
    assert name in str(raised.value) and told in str(raised.value)
