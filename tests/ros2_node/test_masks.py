"""Masks of objects through a running node."""

import json
import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger

from doubles.propagating import write_propagating
from doubles.ros_loopback import (
    PATIENCE,
    SECOND,
    SENSOR,
    camera_process,
    image_message,
    nanoseconds,
    open_peer,
    published,
    rows_of,
    tracker_node,
)
from vditrack_ros.counters import MASK_REFUSAL_REASONS

pytestmark = pytest.mark.slow
peer = pytest.fixture(scope="module")(open_peer)
SIZE = HEIGHT, WIDTH = 96, 128
SIDE, STEP = 40, 4
GREEN = np.zeros(SIZE, np.uint8)
GREEN[72:96, 96:120] = 1
# A busy machine is no gap between images, and no fault of the node.
PATIENT = {
    "max_age": 0.0,
    "max_gap": 3000.0,
    "warn_latency": 3000.0,
    "error_latency": 3000.0,
    "stale_after": 3000.0,
}


def square(n, index=1):
    """Where the square is in frame n, uint8 [96, 128] of its index."""
    mask = np.zeros(SIZE, np.uint8)
    left = 8 + STEP * n
    mask[24 : 24 + SIDE, left : left + SIDE] = index
    return mask


def shot(n):
    """The n-th frame [96, 128, 3]: on bluish grey a red square goes to the right, a green rests."""
    frame = np.random.default_rng(n).integers(80, 100, (*SIZE, 3)).astype(np.uint8)
    frame[..., 2] += 40
    frame[square(n) > 0] = (210, 40, 30)
    frame[GREEN > 0] = (20, 200, 20)
    return frame


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


@pytest.fixture(scope="module")
def node(mask_bundle, tmp_path_factory):
    with tracker_node(
        tmp_path_factory.mktemp("node"), bundle=mask_bundle, mode="masks", **PATIENT
    ) as one:
        yield one


class MaskCamera:
    """A camera in the test's own process, in step with the node: each image awaits its masks."""

    def __init__(self, peer):
        self._peer = peer
        self.publisher = peer.publisher(Image, "/image", SENSOR)
        self.marks = peer.publisher(Image, "/tracker/mask")
        self.masks = peer.collect(Image, "/tracker/masks")
        self.stamp = time.time_ns()

    def close(self):
        self._peer.forget(self.masks)
        for publisher in (self.publisher, self.marks):
            self._peer.node.destroy_publisher(publisher)

    def shoot(self, frame, stamp=None):
        """Publish a frame and wait for its masks; again if it gets lost."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.stamp = max(self.stamp + 1, time.time_ns()) if stamp is None else stamp
            message = image_message(frame, self.stamp)
            self.publisher.publish(message)
            self._peer.listen(2, lambda: self.masks.of(self.stamp) is not None)
            if (answer := self.masks.of(self.stamp)) is not None:
                assert answer.header == message.header
                return indices(answer)
        pytest.fail("no masks came")

    def mark(self, mask, stamp=0, **options):
        encoding = options.pop("encoding", "mono8")
        self._peer.until(lambda: self.marks.get_subscription_count() > 0, "the node listens")
        self.marks.publish(image_message(mask, stamp, encoding, **options))

    def newest(self, stamp):
        """The masks that were published last of an image."""
        return indices([one for one in self.masks if nanoseconds(one.header.stamp) == stamp][-1])


def indices(message):
    assert (message.encoding, message.step) == ("mono8", message.width)
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width)


@pytest.fixture
def camera(peer, node):
    """A camera without history."""
    one = MaskCamera(peer)
    one.shoot(shot(0))
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    yield one
    one.close()
    assert node.alive, node.log


def test_a_square_that_was_marked_is_followed(camera, peer):
    assert not camera.shoot(shot(0)).any()
    first = camera.stamp
    camera.mark(square(0, 7), first)
    # The frame is published again, as it was marked.
    peer.until(lambda: camera.newest(first).any(), "the mark")
    np.testing.assert_array_equal(camera.newest(first), square(0, 7))
    for n in range(1, 13):
        found = camera.shoot(shot(n))
        assert np.unique(found).tolist() == [0, 7]
        assert iou(found == 7, square(n) > 0) > 0.75
    # Not a point is followed.
    for topic in ("tracks", "features", "markers"):
        assert peer.node.count_publishers(f"/tracker/{topic}") == 0
    assert peer.node.count_subscribers("/tracker/add_point") == 0


def test_a_mask_waits_for_the_image_of_its_stamp(camera):
    camera.shoot(shot(0))
    later = camera.stamp + 1000 * SECOND
    camera.mark(square(2), later)
    assert not camera.shoot(shot(1)).any()
    # Marked before it was published, once.
    np.testing.assert_array_equal(camera.shoot(shot(2), later), square(2))
    stamps = [nanoseconds(one.header.stamp) for one in camera.masks]
    assert stamps.count(later) == 1


def test_a_mask_without_a_stamp_is_of_the_newest_image(camera, peer):
    camera.shoot(shot(1))
    camera.shoot(shot(2))
    stamp = camera.stamp
    camera.mark(square(2))
    peer.until(lambda: camera.newest(stamp).any(), "the mark")
    np.testing.assert_array_equal(camera.newest(stamp), square(2))


@pytest.mark.parametrize("model", ["colours", "bundled"])
def test_a_late_mask_is_propagated_from_its_own_image(request, peer, tmp_path, model):
    """A mask of five images ago, 0.3 s, on an object that has moved by half of its width since.

    On the newest image it would have an IoU of 0.33 with the object. It is within 0.05 of that of a
    mask which came in time.
    """
    bundle = request.getfixturevalue("mask_bundle") if model == "colours" else '""'
    masks = peer.collect(Image, "/late/tracker/masks")
    images = peer.publisher(Image, "/late/image", SENSOR)
    marks = peer.publisher(Image, "/late/tracker/mask")
    space = ("-r", "__ns:=/late")

    def shoot(n, stamp):
        deadline = time.monotonic() + 3 * PATIENCE
        while masks.of(stamp) is None:
            assert time.monotonic() < deadline
            images.publish(image_message(shot(n), stamp))
            peer.listen(2, lambda: masks.of(stamp) is not None)

    def play(start, late):
        """Mark the first image when `late` others have come; the IoU in the last one."""
        stamps = [start + n * SECOND * 6 // 100 for n in range(7)]
        for n, stamp in enumerate(stamps):
            shoot(n, stamp)
            if n == late:
                before = len(masks)
                peer.until(lambda: marks.get_subscription_count() > 0, "the node listens")
                marks.publish(image_message(square(0), stamps[0], "mono8"))
                peer.until(lambda: len(masks) > before, "masks of the newest image again")  # noqa: B023
                assert iou(indices(masks[-1]) == 1, square(n) > 0) > 0.6
        return iou(indices(masks.of(stamps[6])) == 1, square(6) > 0)

    with tracker_node(tmp_path, *space, bundle=bundle, mode="masks", **PATIENT) as node:
        in_time = play(time.time_ns(), 0)
        peer.call(Trigger, "/late/tracker/reset", Trigger.Request())
        after = play(time.time_ns() + SECOND, 5)
        assert "indices 1, from an image 0.3 s before the newest." in node.log
    assert after > in_time - 0.05 and after > 0.6
    peer.forget(masks)


def test_objects_are_marked_one_by_one_and_anew(camera, peer):
    camera.shoot(shot(0))
    stamp = camera.stamp
    other = GREEN.astype(np.uint16) * 255
    camera.mark(square(0), stamp)
    camera.mark(other, stamp, encoding="mono16")
    peer.until(lambda: len(np.unique(camera.newest(stamp))) == 3, "both marks")
    np.testing.assert_array_equal(camera.newest(stamp), square(0) + other.astype(np.uint8))
    found = camera.shoot(shot(1))
    assert iou(found == 1, square(1) > 0) > 0.75 and iou(found == 255, other > 0) > 0.75
    # Of both only the second is elsewhere from now on.
    moved = np.roll(other, -60, axis=0).astype(np.uint8)
    camera.mark(moved, camera.stamp)
    stamp = camera.stamp
    peer.until(lambda: camera.newest(stamp)[90, 110] != 255, "the new mark")
    found = camera.newest(stamp)
    assert (found[moved > 0] == 255).all()
    assert not (found[other > 0] == 255).any() and iou(found == 1, square(1) > 0) > 0.7


def diagnostics(told):
    """Level, message and values of the newest status of masks."""
    statuses = told[-1].status if len(told) else []
    for status in statuses:
        if status.name == "tracker: camera masks":
            values = {pair.key: pair.value for pair in status.values}
            return status.level, status.message, values
    return b"", "", {}


def test_refused_masks_are_reported(camera, peer, node):
    told = peer.collect(DiagnosticArray, "/diagnostics")
    camera.shoot(shot(0))
    camera.mark(square(0), camera.stamp)
    peer.until(lambda: camera.newest(camera.stamp).any(), "the mark")
    cut = image_message(square(0), 0, "mono8")
    cut.data = cut.data[:-1]
    camera.marks.publish(cut)
    camera.mark(shot(0), encoding="rgb8")
    camera.mark(np.full(SIZE, 256, np.uint16), encoding="mono16")
    camera.mark(np.zeros(SIZE, np.uint8))
    camera.mark(square(0)[:-1])
    camera.mark(square(0), camera.stamp - 5 * SECOND)
    camera.mark(square(0), camera.stamp + 4000 * SECOND)
    peer.until(lambda: diagnostics(told)[2].get("masks waiting") == "1", "the last mask")
    found = camera.shoot(shot(1))
    assert iou(found == 1, square(1) > 0) > 0.75
    reasons = [f"masks refused, {reason}" for reason in MASK_REFUSAL_REASONS]
    peer.until(lambda: diagnostics(told)[2].get("masks refused, ahead") == "1", "all refused")
    level, message, values = diagnostics(told)
    assert [values[reason] for reason in reasons] == ["1"] * 7 + ["0", "0"]
    assert level == DiagnosticStatus.WARN
    assert "7 masks refused: ~/mask is" in message and "s ahead of the images" in message
    assert (values["objects"], values["objects present"]) == ("1", "1")
    assert values["masks waiting"] == "0" and int(values["masks taken"]) >= 1
    assert values["images since an object was marked, at most"] == "1"
    assert float(values["latency p50 (ms)"]) > 0 and float(values["tracking (ms)"]) > 0
    for line in (
        "it has 12287 bytes of data; with a step of 128 it needs 12288",
        "~/mask has the encoding 'rgb8'. Publish object indices as mono8",
        "~/mask has the index 256; the maximum is 255",
        "~/mask marks no object",
        "~/mask is refused: the mask is 128 x 95, the frame 128 x 96",
        "~/mask is refused: its stamp is 5 s older than the newest frame",
    ):
        assert line in node.log
    peer.forget(told)


def test_reset_forgets_objects(camera, peer):
    camera.shoot(shot(0))
    camera.mark(square(0))
    peer.until(lambda: camera.newest(camera.stamp).any(), "the mark")
    answer = peer.call(Trigger, "/tracker/reset", Trigger.Request())
    assert answer.success and answer.message == "1 objects discarded"
    assert not camera.shoot(shot(1)).any()


def test_a_clock_that_goes_back_forgets_objects(camera, peer, node):
    camera.shoot(shot(0))
    camera.mark(square(0))
    peer.until(lambda: camera.newest(camera.stamp).any(), "the mark")
    # One stray stamp changes nothing; the next one confirms it.
    back = camera.stamp - SECOND
    camera.publisher.publish(image_message(shot(1), back - SECOND // 30))
    assert not camera.shoot(shot(1), back).any()
    assert "1 objects are discarded. Publish their masks again." in node.log


def test_the_overlay_shows_objects(camera, peer):
    overlays = peer.collect(Image, "/tracker/overlay")
    camera.shoot(shot(0))
    camera.mark(square(0))
    n = 0
    while not (len(overlays) and camera.newest(camera.stamp).any()):
        assert (n := n + 1) < 20
        camera.shoot(shot(1))
        peer.listen(0.2)
    stamp, mask = camera.stamp, camera.newest(camera.stamp) > 0
    peer.until(lambda: overlays.of(stamp) is not None, "its overlay")
    drawn = np.frombuffer(overlays.of(stamp).data, np.uint8).reshape(*SIZE, 3)
    changed = (drawn != shot(1)).any(axis=2)
    assert changed[mask].mean() > 0.95 and not changed[~mask].any()
    peer.forget(overlays)


def test_the_page_shows_how_to_mark(camera, peer):
    """The lines of the page, as they stand."""
    page = (Path(__file__).parents[2] / "docs" / "ros-masks.md").read_text()
    (lines,) = re.findall(r"```python\n(from array .*?)```", page, re.DOTALL)
    camera.shoot(shot(0))
    peer.until(lambda: camera.marks.get_subscription_count() > 0, "the node listens")
    exec(lines, {"publisher": camera.marks, "image": image_message(shot(0), camera.stamp)})
    peer.until(lambda: camera.newest(camera.stamp).any(), "the mark")
    found = camera.newest(camera.stamp) == 1
    assert iou(found, square(0) > 0) > 0.5


def test_transitions_make_and_free(camera, peer):
    topics = lambda: (  # noqa: E731
        peer.node.count_publishers("/tracker/masks"),
        peer.node.count_subscribers("/tracker/mask"),
    )
    camera.shoot(shot(0))
    camera.mark(square(0))
    peer.until(lambda: camera.newest(camera.stamp).any(), "the mark")
    camera.publisher.publish(image_message(shot(1), time.time_ns()))
    assert peer.transition("deactivate") and peer.transition("cleanup")
    peer.until(lambda: topics() == (0, 0), "that topics are freed")
    assert peer.transition("configure") and peer.transition("activate")
    assert not camera.shoot(shot(1)).any()
    assert topics() == (1, 1)


def objects_of(cloud, mask):
    """Index of the mask below each visible point of a cloud, by the point's id."""
    rows = rows_of(cloud)
    inside = (rows["v"] >= 0) & (rows["v"] < HEIGHT) & (rows["u"] >= 0) & (rows["u"] < WIDTH)
    seen = rows[(rows["visible"] == 1) & inside]
    return {row["id"].item(): int(mask[int(row["v"]), int(row["u"])]) for row in seen}


def test_points_and_masks_at_once(peer, mask_bundle, tmp_path):
    space = ("-r", "__ns:=/arm")
    clouds = peer.collect(PointCloud2, "/arm/tracker/tracks")
    masks = peer.collect(Image, "/arm/tracker/masks")
    overlays = peer.collect(Image, "/arm/tracker/overlay")
    told = peer.collect(DiagnosticArray, "/diagnostics")
    images = peer.publisher(Image, "/arm/image", SENSOR)
    marks = peer.publisher(Image, "/arm/tracker/mask")
    of = lambda kind, stamp: kind.of(stamp) is not None  # noqa: E731
    with tracker_node(
        tmp_path, *space, bundle=mask_bundle, mode="both", points=20, **PATIENT
    ) as node:
        stamp, n, told_before, on_objects = time.time_ns(), 0, None, []
        while n < 12:
            stamp += SECOND // 30
            images.publish(image_message(shot(n), stamp))
            peer.listen(2, lambda: all(of(kind, stamp) for kind in (clouds, masks)))  # noqa: B023
            if not of(clouds, stamp) or not of(masks, stamp):
                assert node.alive
                told_before = None
                continue
            if told_before is not None:
                # Points come at once: they know of masks of the image before.
                rows = rows_of(clouds.of(stamp))
                expected = [told_before.get(one, 0) for one in rows["id"].tolist()]
                assert rows["object_id"].tolist() == expected
                on_objects += expected
            if n == 0:
                marks.publish(image_message(square(0), stamp, "mono8"))
                peer.until(lambda: indices(masks[-1]).any(), "the mark")
            told_before = objects_of(clouds.of(stamp), indices(masks[-1]))
            n += 1
        assert iou(indices(masks.of(stamp)) == 1, square(11) > 0) > 0.75
        # The picture is noise, which may carry a point across its border, where it is removed.
        assert 17 <= clouds.of(stamp).width <= 20
        assert set(on_objects) == {0, 1}
        # Points on the picture with the object.
        peer.until(lambda: of(overlays, stamp), "the overlay")
        drawn = np.frombuffer(overlays.of(stamp).data, np.uint8).reshape(*SIZE, 3)
        changed = (drawn != shot(11)).any(axis=2)
        mask = indices(masks.of(stamp)) > 0
        assert changed[mask].mean() > 0.95 and 0.01 < changed[~mask].mean() < 0.9
        # The model may remove a point after the cloud of the last image, and no cloud follows.
        heard = len(told)
        peer.until(
            lambda: len(told) > heard + 1 and "arm" in told[-1].status[0].name, "diagnostics"
        )
        values = {pair.key: pair.value for pair in told[-1].status[1].values}
        count = int(values["points alive"])
        assert 17 <= count <= 20
        names = [status.name for status in told[-1].status]
        camera = "arm/tracker: camera"
        assert names == ["arm/tracker: model", camera, f"{camera} masks"]
        answer = peer.call(Trigger, "/arm/tracker/reset", Trigger.Request())
        assert answer.message == f"{count} points and 1 objects discarded"
        assert node.stop() == 0
        assert "Traceback" not in node.log
    for one in (clouds, masks, overlays, told):
        peer.forget(one)


def test_points_alone_need_no_masks(peer, tmp_path):
    """A bundle that propagates none, asked for masks, and then for points."""
    name = "/alone/tracker"
    space = ("-r", "__ns:=/alone")
    write_propagating(tmp_path / "bundle", None)
    options = {"bundle": tmp_path / "bundle", "points": 20, **PATIENT}
    with tracker_node(tmp_path, *space, mode="masks", **options) as node:
        peer.until(lambda: "Not started" in node.log, "what to do")
        assert "Cannot configure: bundle tiny" in node.log
        assert "tracks points alone: it has no motion and appearance features" in node.log
        assert peer.set(name, mode="points") == {}
        assert peer.transition("configure", name) and peer.transition("activate", name)
        peer.until(lambda: peer.node.count_publishers(f"{name}/tracks"), "the topics")
        assert peer.node.count_publishers(f"{name}/masks") == 0
        assert peer.node.count_subscribers(f"{name}/mask") == 0
        assert "deactivate and clean up first" in peer.set(name, mode="both")["mode"]
        assert peer.set(name, mode="points") == {}
        assert node.stop() == 0
        assert "Traceback" not in node.log


def test_masks_follow_a_camera_at_30_hz(peer, tmp_path):
    """With real graphs: the bundled model as motion and as appearance."""
    write_propagating(tmp_path / "bundle")
    frames = np.stack([shot(n) for n in range(13)]).repeat(2, 1).repeat(2, 2)
    masks = peer.collect(Image, "/hz/tracker/masks")
    marks = peer.publisher(Image, "/hz/tracker/mask")
    # A node of another test may be listening to the same camera.
    names = ("-r", "__ns:=/hz", "-r", "image:=/image")
    options = {"bundle": tmp_path / "bundle", "mode": "masks", "max_gap": 60.0, "max_age": 20.0}
    with tracker_node(tmp_path, *names, **options) as node, camera_process(tmp_path, frames, 30):
        listening = lambda: len(masks) >= 3 and marks.get_subscription_count()  # noqa: E731
        peer.until(listening, "masks", 3 * PATIENCE)
        # What rests is at the same place in whichever image this comes to.
        marks.publish(image_message(GREEN.repeat(2, 0).repeat(2, 1), 0, "mono8"))
        peer.until(lambda: "Tracking the objects with the indices 1, from" in node.log, "the mark")
        masks.clear()
        peer.until(lambda: len(masks) >= 6, "masks of the object", 3 * PATIENCE)
        assert node.stop() == 0
    stamps = [nanoseconds(one.header.stamp) for one in masks]
    assert stamps == sorted(stamps) and set(stamps) <= published(tmp_path).keys()
    assert {one.header.frame_id for one in masks} == {"camera_optical"}
    truth = GREEN.repeat(2, 0).repeat(2, 1) > 0
    assert min(iou(indices(one) == 1, truth) for one in masks) > 0.6


def ask(peer, name, **fields):
    """Call a service by parameters, as where vditrack_msgs is not installed."""
    request = SetParametersAtomically.Request()
    for field, value in fields.items():
        typed = [bytes([byte]) for byte in value] if isinstance(value, bytes) else value
        request.parameters.append(Parameter(field, value=typed).to_parameter_msg())
    result = peer.call(SetParametersAtomically, f"/tracker/{name}", request).result
    return result.successful, json.loads(result.reason)


def test_objects_are_added_and_removed_by_services(camera, peer, node):
    png = lambda mask: cv2.imencode(".png", mask)[1].tobytes()  # noqa: E731
    stamps = []
    for n in range(3):
        camera.shoot(shot(n))
        stamps.append(camera.stamp)
    # A mask and a box on the image before the last but one; another box is none.
    left = 8 + STEP
    box = [left - 3.0, 20.0, left + SIDE + 2.5, 26.0 + SIDE]
    success, answer = ask(
        peer,
        "add_objects",
        stamp=stamps[1],
        mask=png(GREEN * 7),
        boxes=[*box, 9.0, 9.0, 9.0, 9.0],
    )
    assert not success and answer["message"] == "2 of 3 objects are accepted."
    assert answer["ids"][0] == 7 and answer["ids"][2] == 0
    assert answer["reasons"][:2] == ["", ""] and "is no box" in answer["reasons"][2]
    index = answer["ids"][1]
    peer.until(lambda: index in camera.newest(stamps[2]), "the objects")
    found = camera.newest(stamps[2])
    assert iou(found == index, square(2) > 0) > 0.75 and iou(found == 7, GREEN > 0) > 0.75
    # The known object is moved; without box_ids it would be a new one.
    success, answer = ask(peer, "add_objects", boxes=box, box_ids=[index])
    assert success and answer["ids"] == [index]
    success, answer = ask(peer, "remove", kind=1, id=7)
    assert success and answer["message"] == "Object 7 is removed."
    found = camera.shoot(shot(3))
    assert set(np.unique(found).tolist()) == {0, index}
    assert ask(peer, "remove", kind=1, id=7)[1]["message"] == "There is no object with the index 7."
    assert ask(peer, "remove", kind=0, id=7)[1]["message"] == "The mode masks tracks no points."
    assert "kind 3" in ask(peer, "remove", kind=3, id=7)[1]["message"]
    assert "needs the fields" in ask(peer, "remove", id=7)[1]["message"]
    assert "no field 'box'" in ask(peer, "add_objects", box=[1.0])[1]["message"]
    assert "3 numbers as boxes" in ask(peer, "add_objects", boxes=box[:3])[1]["message"]
    assert "give float or int" in ask(peer, "add_objects", boxes=["a"])[1]["message"]
    success, answer = ask(peer, "add_objects", stamp=stamps[0] - 9 * SECOND, boxes=box)
    assert not success and answer["ids"] == [0]
    assert "~/add_objects is refused: its stamp is" in answer["reasons"][0]
    success, answer = ask(peer, "add_objects", stamp=stamps[0] + 4000 * SECOND, boxes=box * 2)
    assert not success and answer["ids"] == [0, 0]
    assert "s ahead of the images" in answer["reasons"][1]
    assert (
        "~/add_objects marks no object"
        in ask(peer, "add_objects", mask=png(GREEN * 0))[1]["message"]
    )
    assert node.alive


def test_objects_wait_for_the_first_image(camera, peer):
    peer.call(Trigger, "/tracker/reset", Trigger.Request())
    success, answer = ask(peer, "add_objects", boxes=[5.0, 20.0, 12.0 + SIDE, 28.0 + SIDE])
    assert success and answer["message"] == "1 of 1 objects are accepted and wait for their image."
    assert iou(camera.shoot(shot(0)) == answer["ids"][0], square(0) > 0) > 0.8
