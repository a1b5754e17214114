"""Which image masks are requested on and propagated to, with a worker that runs by hand."""

import time
from concurrent.futures import Executor, Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from doubles.ros_loopback import (
    SECOND,
    image_message,
)
from vditrack.errors import LateMaskError
from vditrack.streams.mask_stream import MaskUpdate
from vditrack_ros.consumer import CameraContext, CameraImage
from vditrack_ros.diagnostics import CameraState
from vditrack_ros.masks.object_requests import read_objects
from vditrack_ros.masks.propagation import MaskWorkers
from vditrack_ros.masks.tracking import MaskConsumer
from vditrack_ros.overlay import OverlayPublisher
from vditrack_ros.points.object_ids import PointObjectIds
from vditrack_ros.process import choose_label_thread_count
from vditrack_ros.transforms import FrameTransforms


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
            return False
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return True


class Recorder:
    """Stands in for a tracker and its streams of masks: remembers what it is told."""

    def __init__(self):
        self.told, self.kept, self.held = [], [], []
        self.wrong = None

    def mask_stream(self, threads):
        self.threads = threads
        self.told.append("new")
        return self

    def describe(self, frame, stamp):
        if self.wrong is not None:
            raise self.wrong
        return frame, stamp

    def push_described(self, described):
        return self.push(*described)

    def push(self, frame, stamp):
        self.told.append(round(stamp, 3))
        mask = np.zeros(frame.shape[:2], np.uint8)
        count = sum(isinstance(one, str) and one != "new" for one in self.told)
        zeros = np.zeros(count)
        return MaskUpdate(stamp, mask, np.arange(1, count + 1, dtype=np.uint8), zeros, zeros)

    def add_masks(self, mask, stamp):
        self.told.append(f"mark {mask.max()} at {stamp:g}")
        return stamp

    def carry(self, update, before, after, stamp):
        self.told.append(f"carry {update.stamp:g} to {stamp:g}")
        return replace(update, stamp=stamp)

    def keep(self, frame, stamp):
        self.kept.append(round(stamp, 3))

    def hold(self, stamps):
        self.held = list(stamps)

    def frame_size(self, stamp):
        if stamp < 0.5:
            raise LateMaskError("its stamp is too old.")
        return 4, 6


@pytest.fixture
def held(peer, settings):
    """Masks of a camera by hand: images, the workers' steps, and what the stream was told."""
    tracker, worker, labels, flow = Recorder(), Held(), Held(), Held()
    site = CameraContext(
        peer.node, "held/", "held/", peer.node.get_logger(), FrameTransforms(peer.node)
    )
    overlay = OverlayPublisher(site)
    settings = replace(settings, mode="masks")
    workers = MaskWorkers(worker, labels, flow)
    masks = MaskConsumer(site, tracker, workers, settings, overlay, PointObjectIds())
    marks = peer.publisher(Image, "held/mask")
    peer.until(lambda: marks.get_subscription_count() > 0, "the topics")
    tracker.told.clear()

    def take(seconds, size=(4, 6)):
        frame = np.zeros((*size, 3), np.uint8)
        masks.process(CameraImage(Header(), frame, round(seconds * SECOND), lambda: 0.0, 0.0))

    def mark(index, seconds):
        """And wait until it has come."""
        before = waiting(), len(labels.work)
        mask = np.full((4, 6), index, np.uint8)
        marks.publish(image_message(mask, round(seconds * SECOND), "mono8"))
        peer.until(lambda: (waiting(), len(labels.work)) != before, "the mask")

    def waiting():
        return int(values()["masks waiting"])

    def values():
        return masks.report(CameraState("/held/image", 1, False, True, ""), time.monotonic()).values

    def step(one):
        """One worker does one thing, and the consumer takes note."""
        ahead, job = masks._ahead, masks._job
        if one.go_on():
            gone_on = lambda: masks._ahead is not ahead or masks._job is not job  # noqa: E731
            peer.until(gone_on, "that it goes on")

    def work():
        """The next image is described, and gets its labels and what was asked meanwhile."""
        if not labels.work:
            step(worker)
        while labels.work:
            step(labels)

    yield SimpleNamespace(**locals())
    masks.close()
    overlay.close()
    peer.node.destroy_publisher(marks)


def test_while_the_model_works_only_the_newest_image_waits(held):
    for seconds in (1.0, 1.1, 1.2, 1.3):
        held.take(seconds)
    while held.worker.work or held.labels.work:
        held.work()
    assert held.tracker.told == [1.0, 1.3]
    assert held.values()["images passed over"] == "2"
    # A mask may come for them yet.
    assert held.tracker.kept == [1.1, 1.2]
    held.take(1.4)
    held.work()
    assert held.tracker.told == [1.0, 1.3, 1.4]


def test_an_image_that_a_mask_is_of_is_not_passed_over(held):
    held.take(1.0)
    held.mark(5, 1.1)
    for seconds in (1.1, 1.2, 1.3):
        held.take(seconds)
    while held.worker.work or held.labels.work:
        held.work()
    assert held.tracker.told == [1.0, 1.1, "mark 5 at 1.1", 1.1]
    assert held.values()["images passed over"] == "2"
    assert held.tracker.kept == [1.2, 1.3]
    held.take(1.4)
    held.work()
    assert held.tracker.told[-1] == 1.4


def test_an_image_is_described_while_labels_go_into_the_one_before(held):
    """One image is described ahead, no more: the next one is as new as can be."""
    assert held.tracker.threads == choose_label_thread_count()
    held.take(1.0)
    held.step(held.worker)
    for seconds in (1.1, 1.2, 1.3):
        held.take(seconds)
    assert len(held.worker.work) == len(held.labels.work) == 1
    held.worker.go_on()
    held.peer.listen(0.2)
    assert held.worker.work == [] and len(held.labels.work) == 1 and held.tracker.told == []
    held.take(1.4)
    held.step(held.labels)
    assert len(held.worker.work) == len(held.labels.work) == 1 and held.tracker.told == [1.0]
    while held.worker.work or held.labels.work:
        held.work()
    assert held.tracker.told == [1.0, 1.1, 1.4]
    assert held.values()["images passed over"] == "2" and held.tracker.kept == [1.2, 1.3]


def test_masks_that_come_while_labels_are_propagated(held):
    held.take(1.0)
    held.step(held.worker)
    held.mark(5, 1.0)
    held.mark(6, 0.0)
    # All of the image in work, since no other follows.
    held.work()
    assert held.tracker.told == [1.0, "mark 5 at 1", "mark 6 at 1", 1.0]
    held.tracker.told.clear()
    held.take(2.0)
    held.step(held.worker)
    held.mark(7, 2.0)
    held.mark(8, 1.5)
    held.take(2.1)
    # One is of the image in work, the other of an earlier one.
    while held.worker.work or held.labels.work:
        held.work()
    assert held.tracker.told == [2.0, "mark 7 at 2", 2.0, 2.1, "mark 8 at 1.5", 2.1]


def test_newer_images_get_masks_by_flow_at_a_rate(held):
    """In the order of stamps: the model's masks of an older image are carried, not published."""
    published = []
    held.overlay.publish = lambda image, *_: published.append(image.stamp / SECOND)
    held.masks.settings = replace(held.settings, masks_rate=10.0)

    def take(seconds):
        held.take(seconds)
        if held.flow.work:
            held.flow.go_on()
            held.peer.until(lambda: held.masks._carrier._carried is None, "the masks")

    take(1.0)
    held.work()
    for seconds in (1.05, 1.1, 1.2):
        take(seconds)
    held.work()
    take(1.3)
    assert published == [1.0, 1.05, 1.2, 1.3]
    carried = [one for one in held.tracker.told if str(one).startswith("carry")]
    assert carried == ["carry 1 to 1.05", "carry 1 to 1.2", "carry 1.05 to 1.3"]
    assert held.values()["images with carried masks"] == "3"
    # What is in work at a reset is not published after it.
    held.take(1.4)
    held.masks.reset()
    held.flow.go_on()
    held.work()
    held.take(1.5)
    held.work()
    assert published == [1.0, 1.05, 1.2, 1.3, 1.5] and held.values()["dropped, failed"] == "0"


def test_masks_before_the_first_image_are_of_it(held):
    held.mark(3, 0.0)
    held.mark(4, 0.9)
    held.take(1.0)
    held.work()
    assert held.tracker.told == [1.0, "mark 3 at 1", "mark 4 at 0.9", 1.0]


def test_images_are_kept_for_as_long_as_the_model_needs(held):
    """Whether a mask is too late is decided when it comes, not when the model has time for it."""
    held.take(1.0)
    held.work()
    held.take(2.0)
    held.mark(5, 1.5)
    held.mark(6, 9.0)
    assert held.tracker.held == [1.5, 9.0]
    held.step(held.worker)
    # Labels are propagated from it.
    assert held.waiting() == 1 and held.tracker.held == [9.0, 1.5]
    held.step(held.labels)
    assert held.tracker.told[-3:] == [2.0, "mark 5 at 1.5", 2.0] and held.tracker.held == [9.0]
    held.take(9.0)
    held.work()
    assert held.tracker.held == []


def test_a_mask_that_comes_too_late_is_refused_at_once(held):
    held.take(1.0)
    held.work()
    held.take(2.0)
    held.marks.publish(image_message(np.full((4, 6), 5, np.uint8), round(0.1 * SECOND), "mono8"))
    held.peer.until(lambda: held.values()["masks refused, late"] == "1", "the refusal")
    assert held.waiting() == 0 and len(held.worker.work) == 1
    request = read_objects({"stamp": round(0.1 * SECOND), "boxes": [0, 0, 2, 2, 1, 1, 4, 4]})
    answer = held.masks._add_objects(request)
    assert (answer.success, answer.ids) == (False, [0, 0])
    assert answer.reasons == ["~/add_objects is refused: its stamp is too old."] * 2
    assert answer.message == "0 of 2 objects are accepted."
    ahead = read_objects({"stamp": 4000 * SECOND, "boxes": [0, 0, 2, 2]})
    assert "~/add_objects is 3998.0 s ahead" in held.masks._add_objects(ahead).reasons[0]


def test_what_the_model_works_on_is_forgotten_with_the_rest(held):
    held.take(1.0)
    held.mark(3, 1.5)
    assert held.masks.reset_on_request() == "0 objects"
    held.take(1.5)
    while held.worker.work or held.labels.work:
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
    assert held.tracker.told == ["new", 9.0, "mark 3 at 9", 9.0]


def test_a_model_that_fails_is_told_of_and_tried_again(held):
    held.take(1.0)
    held.tracker.wrong = RuntimeError("out of memory")
    held.work()
    report = held.masks.report(CameraState("/held/image", 1, False, True, ""), time.monotonic())
    assert "RuntimeError: out of memory" in report.message
    assert report.values["dropped, failed"] == "1"
    held.tracker.wrong = None
    held.take(1.1)
    held.work()
    assert held.tracker.told == ["new", 1.1]
