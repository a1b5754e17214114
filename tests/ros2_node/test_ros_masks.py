"""Masks of objects through the node: marked, followed, refused, and never in arrears."""

import re
import time
from array import array
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from doubles.ros_loopback import (
    PATIENCE,
    SECOND,
    SENSOR,
    Peer,
    camera_process,
    image_message,
    nanoseconds,
    published,
    rows_of,
    tracker_node,
)
from vditrack import Tracker
from vditrack.bundle.folder import load_bundle
from vditrack.errors import BackendError, InputError
from vditrack.streams.mask_stream import MaskUpdate
from vditrack_ros.consumer import CameraContext, CameraImage
from vditrack_ros.counters import MASK_REFUSAL_REASONS
from vditrack_ros.diagnostics import CameraState
from vditrack_ros.masks.requests import MaskRequest, MaskRequestError, MaskRequestQueue, decode_mask
from vditrack_ros.masks.tracking import MaskConsumer
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.parameters import PARAMETERS, build_settings
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.self_test import run_self_test

pytestmark = pytest.mark.slow

SIZE = HEIGHT, WIDTH = 96, 128
SIDE, STEP = 40, 4
GREEN = np.zeros(SIZE, np.uint8)
GREEN[72:96, 96:120] = 1
SETTINGS = build_settings({parameter.name: parameter.default for parameter in PARAMETERS})
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
def bundle(tmp_path_factory) -> Path:
    """The bundled model for points; mean colours for masks, which are fast and exact."""
    folder = tmp_path_factory.mktemp("parts")
    motion = write_passthrough(folder / "motion", rows=12, columns=16)
    single = write_passthrough(folder / "appearance", frames=1, rows=12, columns=16)
    write_propagating(folder / "whole", motion=motion.root, appearance=single.root)
    return folder / "whole"


@pytest.fixture(scope="module")
def peer():
    one = Peer()
    yield one
    one.close()


@pytest.fixture(scope="module")
def node(bundle, tmp_path_factory):
    with tracker_node(
        tmp_path_factory.mktemp("node"), bundle=bundle, mode="masks", **PATIENT
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


@pytest.mark.parametrize("late", [0.5, None], ids=["passed", "none"])
def test_a_mask_whose_image_has_passed_is_of_the_newest(camera, peer, node, late):
    camera.shoot(shot(1))
    camera.shoot(shot(2))
    stamp = camera.stamp
    camera.mark(square(2), 0 if late is None else stamp - round(late * SECOND))
    peer.until(lambda: camera.newest(stamp).any(), "the mark")
    np.testing.assert_array_equal(camera.newest(stamp), square(2))
    told = "on an image 0.5 s later than the mask's"
    peer.until(lambda: (told in node.log) or late is None, "that it is late")


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
        if status.name == "/tracker: /image: masks":
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
    camera.mark(square(0), camera.stamp + 4000 * SECOND)
    peer.until(lambda: diagnostics(told)[2].get("masks waiting") == "1", "the last mask")
    found = camera.shoot(shot(1))
    assert iou(found == 1, square(1) > 0) > 0.75
    reasons = [f"masks refused, {reason}" for reason in MASK_REFUSAL_REASONS]
    peer.until(lambda: diagnostics(told)[2].get("masks refused, ahead") == "1", "all refused")
    level, message, values = diagnostics(told)
    assert [values[reason] for reason in reasons] == ["1"] * 6 + ["0"]
    assert level == DiagnosticStatus.WARN
    assert "6 masks refused: ~/mask is" in message and "s ahead of the images" in message
    assert (values["objects"], values["objects present"]) == ("1", "1")
    assert values["masks waiting"] == "0" and int(values["masks taken"]) >= 1
    assert values["images since an object was marked, at most"] == "1"
    assert float(values["latency p50 (ms)"]) > 0 and float(values["tracking (ms)"]) > 0
    for line in (
        "it has 12287 bytes of data; with a step of 128 it needs 12288",
        "~/mask has the encoding 'rgb8'. Publish object indices as mono8",
        "~/mask has the index 256; the maximum is 255",
        "~/mask marks no object",
        "~/mask is 128 x 95, the frame 128 x 96",
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
    assert not camera.shoot(shot(1), camera.stamp - SECOND).any()
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
    page = (Path(__file__).parents[2] / "docs" / "ros.md").read_text()
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
    assert peer.transition("deactivate")
    peer.until(lambda: topics() == (0, 0), "that topics are freed")
    assert peer.transition("cleanup") and peer.transition("configure")
    assert peer.transition("activate")
    assert not camera.shoot(shot(1)).any()
    assert topics() == (1, 1)


def objects_of(cloud, mask):
    """Index of the mask below each visible point of a cloud, by the point's id."""
    rows = rows_of(cloud)
    inside = (rows["v"] >= 0) & (rows["v"] < HEIGHT) & (rows["u"] >= 0) & (rows["u"] < WIDTH)
    seen = rows[(rows["visible"] == 1) & inside]
    return {row["id"].item(): int(mask[int(row["v"]), int(row["u"])]) for row in seen}


def test_points_and_masks_at_once(peer, bundle, tmp_path):
    space = ("-r", "__ns:=/arm")
    clouds = peer.collect(PointCloud2, "/arm/tracker/tracks")
    masks = peer.collect(Image, "/arm/tracker/masks")
    overlays = peer.collect(Image, "/arm/tracker/overlay")
    told = peer.collect(DiagnosticArray, "/diagnostics")
    images = peer.publisher(Image, "/arm/image", SENSOR)
    marks = peer.publisher(Image, "/arm/tracker/mask")
    of = lambda kind, stamp: kind.of(stamp) is not None  # noqa: E731
    with tracker_node(tmp_path, *space, bundle=bundle, mode="both", points=20, **PATIENT) as node:
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
        assert clouds.of(stamp).width == 20
        assert set(on_objects) == {0, 1}
        # Points on the picture with the object.
        peer.until(lambda: of(overlays, stamp), "the overlay")
        drawn = np.frombuffer(overlays.of(stamp).data, np.uint8).reshape(*SIZE, 3)
        changed = (drawn != shot(11)).any(axis=2)
        mask = indices(masks.of(stamp)) > 0
        assert changed[mask].mean() > 0.95 and 0.01 < changed[~mask].mean() < 0.9
        peer.until(lambda: len(told) and "/arm" in told[-1].status[0].name, "diagnostics")
        names = [status.name for status in told[-1].status]
        image = "/arm/tracker: /arm/image"
        assert names == ["/arm/tracker: model", image, f"{image}: masks"]
        answer = peer.call(Trigger, "/arm/tracker/reset", Trigger.Request())
        assert answer.message == "20 points and 1 objects discarded"
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
        peer.until(lambda: "Tracking objects 1" in node.log, "the mark")
        masks.clear()
        peer.until(lambda: len(masks) >= 6, "masks of the object", 3 * PATIENCE)
        assert node.stop() == 0
    stamps = [nanoseconds(one.header.stamp) for one in masks]
    assert stamps == sorted(stamps) and set(stamps) <= published(tmp_path).keys()
    assert {one.header.frame_id for one in masks} == {"camera_optical"}
    truth = GREEN.repeat(2, 0).repeat(2, 1) > 0
    assert min(iou(indices(one) == 1, truth) for one in masks) > 0.6


class Held(Executor):
    """A worker that does its work when told."""

    def __init__(self):
        self.work = []

    def submit(self, work, *arguments):
        future = Future()
        self.work.append((future, work, arguments))
        return future

    def go_on(self):
        future, work, arguments = self.work.pop(0)
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)


class Recorder:
    """Stands in for a tracker and its streams of masks: remembers what it is told."""

    def __init__(self):
        self.told = []
        self.wrong = None

    def mask_stream(self):
        self.told.append("new")
        return self

    def push(self, frame, stamp):
        if self.wrong is not None:
            raise self.wrong
        self.told.append(round(stamp, 3))
        mask = np.zeros(frame.shape[:2], np.uint8)
        count = sum(isinstance(one, str) and one != "new" for one in self.told)
        return MaskUpdate(stamp, mask, np.arange(1, count + 1, dtype=np.uint8), np.zeros(count))

    def add_masks(self, mask):
        self.told.append(f"mark {mask.max()}")


@pytest.fixture
def held(peer):
    """Masks of a camera by hand: images, the worker's steps, and what the stream was told."""
    tracker, worker = Recorder(), Held()
    site = CameraContext(peer.node, "held/", "held/", peer.node.get_logger())
    overlay = OverlayPublisher(site)
    settings = replace(SETTINGS, mode="masks")
    masks = MaskConsumer(site, tracker, worker, settings, overlay, PointObjectIds())
    marks = peer.publisher(Image, "held/mask")
    peer.until(lambda: marks.get_subscription_count() > 0, "the topics")
    tracker.told.clear()

    def take(seconds, size=(4, 6)):
        frame = np.zeros((*size, 3), np.uint8)
        masks.process(CameraImage(Header(), frame, round(seconds * SECOND), lambda: 0.0, 0.0))

    def mark(index, seconds):
        """And wait until it has come."""
        before = waiting(), len(worker.work)
        mask = np.full((4, 6), index, np.uint8)
        marks.publish(image_message(mask, round(seconds * SECOND), "mono8"))
        peer.until(lambda: (waiting(), len(worker.work)) != before, "the mask")

    def waiting():
        return int(values()["masks waiting"])

    def values():
        return masks.report(CameraState("/held/image", 1, False), time.monotonic()).values

    def work():
        worker.go_on()
        peer.until(lambda: worker.work or masks._job is None, "that it goes on")

    yield SimpleNamespace(**locals())
    masks.close()
    overlay.close()
    peer.node.destroy_publisher(marks)


def test_while_the_model_works_only_the_newest_image_waits(held):
    for seconds in (1.0, 1.1, 1.2, 1.3):
        held.take(seconds)
    while held.worker.work:
        held.work()
    assert held.tracker.told == [1.0, 1.3]
    assert held.values()["images passed over"] == "2"
    held.take(1.4)
    held.work()
    assert held.tracker.told == [1.0, 1.3, 1.4]


def test_an_image_that_a_mask_is_of_is_not_passed_over(held):
    held.take(1.0)
    held.mark(5, 1.1)
    for seconds in (1.1, 1.2, 1.3):
        held.take(seconds)
    while held.worker.work:
        held.work()
    assert held.tracker.told == [1.0, 1.1, "mark 5", 1.1]
    assert held.values()["images passed over"] == "2"
    held.take(1.4)
    held.work()
    assert held.tracker.told[-1] == 1.4


def test_masks_that_come_while_the_model_works(held):
    held.take(1.0)
    held.mark(5, 1.0)
    held.mark(6, 0.0)
    # All of the image in work, since no other waits.
    while held.worker.work:
        held.work()
    assert held.tracker.told == [1.0, 1.0, "mark 5", "mark 6", 1.0]
    held.tracker.told.clear()
    held.take(2.0)
    held.mark(7, 2.0)
    held.mark(8, 1.5)
    held.take(2.1)
    # One is of that image, the other of the newest.
    while held.worker.work:
        held.work()
    assert held.tracker.told == [2.0, 2.0, "mark 7", 2.0, 2.1, "mark 8", 2.1]


def test_masks_before_the_first_image_are_of_it(held):
    held.mark(3, 0.0)
    held.mark(4, 0.9)
    held.take(1.0)
    held.work()
    assert held.tracker.told == [1.0, "mark 3", "mark 4", 1.0]
    assert held.values()["images remembered for their marks"] == "1"


def test_what_the_model_works_on_is_forgotten_with_the_rest(held):
    held.take(1.0)
    held.mark(3, 1.5)
    assert held.masks.reset_on_request() == "0 objects"
    held.take(1.5)
    while held.worker.work:
        held.work()
    # Its stream is a new one; the mask that waited is gone, and the image in work cancelled.
    assert held.tracker.told == ["new", 1.5]


def test_an_image_that_is_described_after_all_was_forgotten_says_nothing(held, peer):
    held.take(1.0)
    future = held.worker.work.pop(0)[0]
    future.set_running_or_notify_cancel()
    held.masks.reset()
    future.set_result((held.tracker.push(np.zeros((4, 6, 3), np.uint8), 1.0), 0.0))
    held.take(1.1)
    held.work()
    values = held.values()
    assert held.tracker.told == ["new", 1.0, 1.1] and values["dropped, failed"] == "0"


def test_masks_that_wait_outlive_a_gap_between_images(held):
    held.mark(3, 9.0)
    held.masks.reset()
    held.take(9.0)
    held.work()
    assert held.tracker.told == ["new", 9.0, "mark 3", 9.0]


def test_a_model_that_fails_is_told_of_and_tried_again(held):
    held.take(1.0)
    held.tracker.wrong = RuntimeError("out of memory")
    held.work()
    report = held.masks.report(CameraState("/held/image", 1, False), time.monotonic())
    assert "RuntimeError: out of memory" in report.message
    assert report.values["dropped, failed"] == "1"
    held.tracker.wrong = None
    held.take(1.1)
    held.work()
    assert held.tracker.told == ["new", 1.1]


def test_a_mask_waits_no_longer_than_there_is_room():
    waiting = MaskRequestQueue()
    mask = np.ones(SIZE, np.uint8)
    given_up = [waiting.add(MaskRequest(n, mask)) for n in range(12)]
    assert given_up[:10] == [None] * 10 and [one.stamp for one in given_up[10:]] == [0, 1]
    assert [one.stamp for one in waiting.take_between(0, 5)] == [2, 3, 4, 5]
    assert [one.stamp for one in waiting.take_after(9)] == [10, 11]
    assert len(waiting) == 4 and waiting.has(6) and not waiting.has(5)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1", "mono16", "16UC1"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("padding", [0, 6])
def test_masks_as_they_may_be_laid_out(encoding, big, padding):
    mask = np.random.default_rng(0).integers(0, 256, (5, 7))
    wide = encoding.endswith(("16", "16UC1"))
    rows = mask.astype((">u2" if big else "<u2") if wide else "u1")
    data = b"".join(row.tobytes() + bytes(padding) for row in rows)
    message = Image(height=5, width=7, encoding=encoding, is_bigendian=big)
    message.step = rows.strides[0] + padding
    message.data = array("B", data)
    read = decode_mask(message)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("encoding", {"encoding": "32SC1"}),
        ("encoding", {"encoding": ""}),
        ("malformed", {"step": 6}),
        ("malformed", {"height": 6}),
        ("empty", {"height": 0}),
        ("empty", {"height": 0, "width": 0, "step": 0, "data": array("B")}),
        ("empty", {"data": array("B", bytes(35))}),
        ("indices", {"encoding": "mono16", "width": 3}),
    ],
)
def test_what_is_no_mask(reason, changes):
    message = Image(height=5, width=7, encoding="mono8", step=7, data=array("B", [1] * 35))
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(MaskRequestError, match=r"^~/mask .*\.$") as refused:
        decode_mask(message)
    assert refused.value.reason == reason


class Wrong:
    """Stands in for a tracker whose masks come out wrong."""

    def __init__(self, tracker, wrong):
        self._tracker, self._wrong = tracker, wrong
        self.backend, self.bundle = tracker.backend, tracker.bundle

    def mask_stream(self):
        stream = self._tracker.mask_stream()
        push = stream.push
        stream.push = lambda frame, stamp: self._wrong(push(frame, stamp))
        return stream


def out_of_memory(update):
    raise RuntimeError("out of memory")


def nothing(update):
    return replace(update, mask=np.zeros_like(update.mask))


@pytest.mark.parametrize(
    ("wrong", "told"), [(out_of_memory, "out of memory"), (nothing, "not found again")]
)
def test_a_model_that_carries_no_masks_is_not_taken(bundle, wrong, told):
    tracker = Tracker(load_bundle(bundle))
    run_self_test(tracker, "masks")
    with pytest.raises(BackendError, match=told):
        run_self_test(Wrong(tracker, wrong), "masks")


def test_a_mode_is_proved_by_what_it_needs(tmp_path):
    alone = Tracker(write_propagating(tmp_path, None))
    run_self_test(alone, "points")
    with pytest.raises(InputError, match="tracks points alone"):
        run_self_test(alone, "both")
