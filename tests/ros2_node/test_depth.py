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
        self.warnings = []

    def warning(self, text, **_):
        self.warnings.append(text)


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


def test_depth_belongs_to_images_of_its_time_and_size(settings):
    log = Log()
    depth = source(log)
    at = 10 * NANOSECONDS_PER_SECOND

    def found(stamp=at, size=SIZE):
        image = depth.find(round(stamp), size, settings)
        return None if image is None else image.metres[0, 0]

    assert found() is None and "no depth image arrives" in log.warnings[-1]
    # Not the newest, but the nearest, in whichever order they came.
    for offset, metres in ((-40, 1.0), (10, 2.0), (-30, 3.0), (60, 4.0)):
        depth.update(depth_message(at + offset * MILLISECOND, metres))
    assert found() == 2 and found(at - 32 * MILLISECOND) == 3
    assert found(at + 200 * MILLISECOND) is None and "0.14 s older" in log.warnings[-1]
    assert found(at - 200 * MILLISECOND) is None and "differs by 0.16 s" in log.warnings[-1]
    assert found(size=(240, 320)) is None and "aligned" in log.warnings[-1]
    broken = depth_message(at)
    broken.encoding = "rgb8"
    depth.update(broken)
    assert found() is None and "rgb8" in log.warnings[-1]
    values, [(_, problem)] = depth.describe(0.0)
    counts = {name.partition(", ")[2]: count for name, count in values.items()}
    causes = ("missing", "late", "stamp", "size", "malformed")
    assert [counts[cause] for cause in causes] == ["1"] * 5
    assert "5 of 7 images have no depth" in problem and "1 late" in problem


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
