"""Reading the images of a bag's topic in the order of their stamps."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from vditrack.arrays import Frame
from vditrack.errors import DamagedImageError, InputError
from vditrack.io.clip import Gap
from vditrack.io.rosbag.bags import Bag
from vditrack.ros_messages.brightness import BrightnessCurve, CurveMeter, LiveCurve
from vditrack.ros_messages.image_transport import RECORDED_IMAGES
from vditrack.ros_messages.stamp_order import MAX_DELAY, order_by_stamp
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_WIDE_JPEG = re.compile(r"(mono16|16UC|(rgb|bgr)a?16|bayer_....16).*jpe?g")
_MEASURED_IMAGES = 32
"""Number of images in which 16-bit values are measured."""
_MAX_OTHER_SIZES = 0.1
"""Share of the images that may have another size and are left out; if more have, it changes."""
_IMAGES_AFTER_END = 16
"""Successive images behind the end of the range after which no late image of it is expected."""


class DecodedImage(NamedTuple):
    """A decoded image of a bag."""

    frame: Frame
    """uint8 [H, W, 3] RGB."""
    time: float
    """Seconds since the topic's first stamp."""
    stamp: int
    """Nanoseconds: the header's, or the time of arrival if all stamps are zero."""
    arrival: int
    """Nanoseconds."""
    frame_id: str
    """Coordinate frame of the camera."""


class ImageReader:
    """Reads the images of a topic and a time range, and notes which ones it leaves out."""

    def __init__(self, bag: Bag, topic: str, start: float, end: float | None) -> None:
        """Read the stamps of the topic and find the order of its images.

        Args:
            bag: an open bag.
            topic: a topic of one of the `RECORDED_IMAGES`.
            start: begin of the range, in seconds after the topic's first stamp.
            end: end of the range, exclusive; the bag's end by default.

        Raises:
            InputError: the bag is damaged, its clock was set within the range, or the range has no
                image.

        """
        self.topic = topic
        self._bag = bag
        self._decode = RECORDED_IMAGES[bag.topics[topic].msgtype or ""]
        self._order = order_by_stamp(*self._read_stamps(end))
        self._first = self._order.stamps[0] if self._order.stamps else 0
        self._places = [
            place
            for place, stamp in enumerate(self._order.stamps)
            if start <= self._seconds(stamp) < (math.inf if end is None else end)
        ]
        self._check_jump(end)
        if not self._places:
            raise InputError(
                f"{bag.path} has no image of {topic} between {start:g} s and {end or 'its end'}."
            )
        self._damaged: dict[int, InputError] = {}
        """The errors of the images that cannot be decoded, by their places."""
        self._encoding = ""
        self._live = LiveCurve()
        self._curve = self._measure_curve()

    @property
    def count(self) -> int:
        """Number of images in the range, including damaged ones."""
        return len(self._places)

    def read(self) -> Iterator[DecodedImage]:
        """Yield the images in the order of their stamps; leave out damaged ones.

        Raises:
            InputError: an encoding is not supported, or no image could be decoded.

        """
        # The measured images may have had 8 bits, or invalid pixels only.
        self._live = LiveCurve()
        reduce = self._live.reduce if self._curve is None else self._curve.reduce
        size, others = None, []
        for place, arrival, message in self._read_messages(self._places):
            stamp, time = self._order.stamps[place], self._time(place)
            try:
                frame = self._decode(message, reduce)
            except DamagedImageError as error:
                self._damaged[place] = error
                continue
            except InputError as error:
                raise self._locate(time, error) from error
            size = size or frame.shape[1::-1]
            if frame.shape[1::-1] != size:
                others.append((time, frame.shape[1::-1]))
                text = f"it has the size {others[-1][1]}, the first image {size}."
                self._damaged[place] = DamagedImageError(text)
                continue
            yield DecodedImage(frame, time, stamp, arrival, message.header.frame_id)
        if len(self._damaged) == self.count:
            raise self._locate(*self._first_damage())
        if len(others) > max(1, _MAX_OTHER_SIZES * self.count):
            time, other = others[0]
            raise InputError(
                f"{self._bag.path}: {self.topic} changes size at {time:.2f} s, from {size} to "
                f"{other}. Give --end before it."
            )

    def read_again(self, bag: Bag, first: int) -> Iterator[DecodedImage]:
        """Yield the images of `read` from number ``first`` on, from a newly opened bag."""
        self._bag = bag
        reduce = LiveCurve().reduce if self._curve is None else self._curve.reduce
        intact = [place for place in self._places if place not in self._damaged]
        # A live curve depends on all images before.
        skipped = 0 if self._live.times_taken else first
        for n, (place, arrival, message) in enumerate(self._read_messages(intact[skipped:])):
            frame = self._decode(message, reduce)
            stamp, time = self._order.stamps[place], self._time(place)
            if skipped + n >= first:
                yield DecodedImage(frame, time, stamp, arrival, message.header.frame_id)

    def list_gaps(self) -> Iterator[Gap]:
        """Yield where images are missing that were left out, after all others were read."""
        start, missing = None, 0
        for place in self._places:
            if start is not None:
                missing += self._order.lost_before[place]
            if place in self._damaged:
                start = self._time(place) if start is None else start
                missing += 1
                continue
            if missing:
                yield Gap(start or 0.0, self._time(place), missing)
            start, missing = self._time(place), 0
        if missing and start is not None:
            yield Gap(start, self._time(self._places[-1]) + self._usual_interval(), missing)

    def _usual_interval(self) -> float:
        stamps = self._order.stamps
        intervals = [after - before for before, after in pairwise(stamps)]
        return median(intervals or [0]) / NANOSECONDS_PER_SECOND

    def describe(self) -> Iterator[str]:
        """Yield sentences about images that were left out or moved, and about 16-bit values."""
        order, topic = self._order, self.topic
        if order.by_arrival:
            yield f"the images of {topic} have no stamps; times are those of arrival in the bag."
        reasons = {
            "with the stamp zero": order.unstamped,
            "with the stamp of another image": order.repeated,
            "with a stamp far off those of the others": order.stray,
            "recorded after the clock was set back a little": order.overlapping,
        }
        for reason, count in reasons.items():
            if count:
                yield f"left out of {topic}: {_count_images(count)} {reason}."
        if order.moved:
            yield f"put in the order of their stamps: {_count_images(order.moved)} of {topic}."
        if self._damaged:
            time, error = self._first_damage()
            yield (
                f"left out of {topic}: {_count_images(len(self._damaged))} of {self.count} that "
                f"cannot be used, the first at {time:.2f} s: {error}"
            )
        if self._curve is None and _WIDE_JPEG.match(self._encoding):
            yield (
                f"the images of {topic} had 16 bits and are stored with 8 ({self._encoding}): "
                "brighter values were cut off or rounded. Record them as PNG or uncompressed."
            )
        if self._curve is not None:
            yield (
                f"the images of {topic} have 16 bits ({self._encoding}); their values from "
                f"{self._curve} are reduced to 8 bits, in all images alike."
            )

    def _read_stamps(self, end: float | None) -> tuple[list[int], list[int]]:
        """Return the stamps and times of arrival in nanoseconds, until well behind the end."""
        stamps: list[int] = []
        arrivals: list[int] = []
        first, behind = None, 0
        for arrival, message in self._bag.messages(self.topic):
            stamps.append(to_nanoseconds(message.header.stamp))
            arrivals.append(arrival)
            stamp = stamps[-1] or first
            first = stamp if first is None or stamp is None else min(first, stamp)
            # Both clocks, because single stamps may be wrong.
            elapsed = min(arrival - arrivals[0], (stamp or arrival) - (first or arrivals[0]))
            behind = behind + 1 if self._is_behind(elapsed, end) else 0
            if behind == _IMAGES_AFTER_END:
                return stamps, arrivals
        count = self._bag.topics[self.topic].msgcount
        if len(stamps) < count:
            raise InputError(
                f"{self._bag.path} is truncated: it has {len(stamps)} of {count} images of "
                f"{self.topic}. Copy it again, or give an end (--end, or end in a manifest) to use "
                "the images it has."
            )
        return stamps, arrivals

    @staticmethod
    def _is_behind(elapsed: int, end: float | None) -> bool:
        return end is not None and elapsed > end * NANOSECONDS_PER_SECOND + MAX_DELAY

    def _seconds(self, stamp: int) -> float:
        """Return the seconds since the first stamp."""
        return (stamp - self._first) / NANOSECONDS_PER_SECOND

    def _time(self, place: int) -> float:
        """Return the seconds from the first stamp to that of an image."""
        return self._seconds(self._order.stamps[place])

    def _check_jump(self, end: float | None) -> None:
        if self._order.jump is None:
            return
        before, after = self._order.jump
        time, jump = self._seconds(before), (after - before) / NANOSECONDS_PER_SECOND
        if end is None or end > time + MAX_DELAY / NANOSECONDS_PER_SECOND:
            direction = "back" if jump < 0 else "ahead"
            raise InputError(
                f"{self._bag.path}: the stamps of {self.topic} jump {direction} by {abs(jump):.1f} "
                f"s after {time:.2f} s. Give an --end before that time."
            )

    def _measure_curve(self) -> BrightnessCurve | None:
        """Return the curve that reduces images with 16 bits; None if they have 8."""
        meter, curve = CurveMeter(), None
        step = max(1, len(self._places) // _MEASURED_IMAGES)
        for _, _, message in self._read_messages(self._places[::step]):
            try:
                self._decode(message, meter.reduce)
            except InputError:
                # It is reported when the image is read.
                continue
            self._encoding = getattr(message, "encoding", None) or message.format
            if (curve := meter.fit()) is None:
                break
        return curve

    def _first_damage(self) -> tuple[float, InputError]:
        """Return the time of the first image that cannot be decoded, and its error."""
        place, error = next(iter(self._damaged.items()))
        return self._time(place), error

    def _locate(self, time: float, error: InputError) -> InputError:
        """Return an error that names the bag, the topic and the time."""
        return InputError(f"{self._bag.path}, {self.topic} at {time:.2f} s: {error}")

    def _read_messages(self, places: Iterable[int]) -> Iterator[tuple[int, int, Any]]:
        """Yield (place in the order, time of arrival, message) in the order of the stamps."""
        wanted = list(places)
        place_of = {self._order.indices[place]: place for place in wanted}
        waiting: dict[int, tuple[int, Any]] = {}
        upcoming = iter(wanted)
        following = next(upcoming, None)
        for n, (arrival, message) in enumerate(self._bag.messages(self.topic)):
            if n in place_of:
                waiting[place_of[n]] = arrival, message
            while following is not None and following in waiting:
                yield following, *waiting.pop(following)
                following = next(upcoming, None)
            if following is None:
                return


def _count_images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
