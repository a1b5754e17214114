"""Which depth image belongs to an image, and what is said where none does."""

from types import SimpleNamespace

import numpy as np
import pytest

from vditrack.ros_messages.depth_images import read_depth
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND
from vditrack_ros.calibration.depth import DepthSource
from vditrack_ros.calibration.depth_buffer import DepthBuffer

SIZE = (120, 160)
MILLISECOND = NANOSECONDS_PER_SECOND // 1000
FRAME = NANOSECONDS_PER_SECOND / 30


class Log:
    def __init__(self):
        self.warnings, self.infos = [], []

    def warning(self, text, **_):
        self.warnings.append(text)

    def info(self, text):
        self.infos.append(text)


class Clock:
    """A monotonic clock that the test sets, in seconds."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        return round(self.now * NANOSECONDS_PER_SECOND)


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr("vditrack_ros.calibration.depth.time", one)
    return one


def depth_message(stamp, metres=2.0, size=SIZE):
    """Depth of a stamp in nanoseconds."""
    seconds, nanoseconds = divmod(round(stamp), NANOSECONDS_PER_SECOND)
    return SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds)),
        height=size[0],
        width=size[1],
        encoding="32FC1",
        is_bigendian=0,
        step=4 * size[1],
        data=np.full(size, metres, "<f4").tobytes(),
    )


def source(log, publishers=0):
    return DepthSource(log, "/depth", read_depth, lambda: publishers)


def test_depth_belongs_to_images_of_its_time_and_size(settings, clock):
    log = Log()
    depth = source(log)
    at = 10 * NANOSECONDS_PER_SECOND

    def found(stamp=at, size=SIZE):
        image = depth.find(round(stamp), size, settings)
        return None if image is None else image.metres[0, 0]

    # The first depth image may be on its way.
    assert found() is None and not log.warnings and not depth.describe(clock.now)[1]
    clock.now += 1.5
    assert found() is None and "no depth image has arrived for 1.5 s" in log.warnings[-1]
    assert "configure the node with depth none" in log.warnings[-1]
    # Not the newest, but the nearest, in whichever order they came.
    for offset, metres in ((-40, 1.0), (10, 2.0), (-30, 3.0), (60, 4.0)):
        depth.update(depth_message(at + offset * MILLISECOND, metres))
    assert found() == 2 and found(at - 32 * MILLISECOND) == 3
    before = len(log.warnings)
    assert found(at - 200 * MILLISECOND) is None and "differed by 0.16 s" in log.warnings[-1]
    assert found(at + 200 * MILLISECOND) is None and len(log.warnings) == before + 1
    # Only the next depth image shows that depth is late.
    clock.now += 0.3
    depth.update(depth_message(at + 200 * MILLISECOND, 5.0))
    assert "arrived 0.3 s after its points were published. Raise depth_wait" in log.warnings[-1]
    assert found(size=(240, 320)) is None and "aligned" in log.warnings[-1]
    broken = depth_message(at)
    broken.encoding = "rgb8"
    depth.update(broken)
    assert found() is None and "rgb8" in log.warnings[-1]
    values, [(_, problem)] = depth.describe(clock.now)
    counts = {name.partition(", ")[2]: count for name, count in values.items()}
    causes = ("missing", "late", "stamp", "size", "malformed")
    assert [counts[cause] for cause in causes] == ["2", "1", "1", "1", "1"]
    assert "5 of 7 images had no depth" in problem and "1 late" in problem
    assert problem.startswith("/depth: depth images arrive. In the last 10 s") and "rgb8" in problem
    # Said once, when images have had depth for a while.
    good = at + 9 * MILLISECOND
    assert found(good) == 2 and not log.infos
    clock.now += 2
    assert (
        found(good) == 2 and found(good) == 2 and log.infos == ["/depth: images have depth again."]
    )


def test_depth_that_ceases_is_not_called_late(settings, clock):
    """The first warning was that depth is late, with the advice to raise depth_wait."""
    log = Log()
    depth = source(log)
    for n in range(90):
        if n < 30:
            depth.update(depth_message((300 + n) * FRAME))
        depth.find(round((300 + n) * FRAME), SIZE, settings)
        clock.now += 1 / 30
    (warning,) = log.warnings
    assert "no depth image has arrived for 1.0 s. Check the depth camera" in warning
    _, [(_, problem)] = depth.describe(clock.now)
    assert problem.startswith("/depth: no depth image has arrived for 2.0 s.")
    assert "59 of 90 images had no depth" in problem


def test_depth_that_is_rare_is_not_called_late(settings, clock):
    log = Log()
    depth = source(log)
    for n in range(60):
        if n % 5 == 0:
            depth.update(depth_message((300 + n) * FRAME))
        depth.find(round((300 + n) * FRAME), SIZE, settings)
        clock.now += 1 / 30
    assert log.warnings and all("depth_tolerance" in warning for warning in log.warnings)


def test_depth_that_is_steadily_late_is_called_late(settings, clock):
    log = Log()
    depth = source(log)
    for n in range(60):
        if n >= 4:
            depth.update(depth_message((300 + n - 4) * FRAME))
        depth.find(round((300 + n) * FRAME), SIZE, settings)
        clock.now += 1 / 30
    (warning,) = log.warnings
    assert "Raise depth_wait" in warning


@pytest.mark.parametrize(
    ("depth", "publishers", "before", "after"),
    [
        ("auto", 0, False, True),
        ("auto", 1, True, True),
        ("required", 0, True, True),
    ],
)
def test_depth_is_expected_once_it_was_there(settings, depth, publishers, before, after):
    chosen = SimpleNamespace(**{**vars(settings), "depth": depth})
    one = source(Log(), publishers)
    assert one.is_expected(chosen) == before
    one.update(depth_message(FRAME))
    assert one.is_expected(chosen) == after


def test_an_image_waits_for_a_depth_image_that_will_be_nearer():
    """At 30 Hz for its own; at 15 Hz only where its own is to come."""
    buffer = DepthBuffer()
    now = 100 * NANOSECONDS_PER_SECOND
    assert not buffer.is_nearer_expected(round(FRAME), 0.05, now)
    for n in range(6):
        buffer.add(depth_message((10 + n) * FRAME), now)
    newest = 15
    assert not buffer.is_nearer_expected(round(newest * FRAME), 0.05, now)
    assert buffer.is_nearer_expected(round((newest + 1) * FRAME), 0.05, now)
    assert buffer.is_nearer_expected(round((newest + 3) * FRAME), 0.05, now)
    # It has ceased to arrive.
    assert not buffer.is_nearer_expected(round((newest + 1) * FRAME), 0.05, now + 10**9)
    half = DepthBuffer()
    for n in range(6):
        half.add(depth_message((10 + 2 * n) * FRAME), now)
    newest = 20
    assert not half.is_nearer_expected(round((newest + 1) * FRAME), 0.05, now)
    assert half.is_nearer_expected(round((newest + 2) * FRAME), 0.05, now)
