"""The images of a topic in a bag, as a clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vditrack.arrays import Frame
from vditrack.errors import InputError
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.video import DecodeProgress, GrowingClip, Video
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.images import decode_compressed, decode_image

_DECODERS: dict[str | None, Callable[[Any], Frame]] = {
    "sensor_msgs/msg/Image": decode_image,
    "sensor_msgs/msg/CompressedImage": decode_compressed,
}
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_SECOND = 10**9
_LATE = _SECOND
"""Nanoseconds by which a stamp may be older than the one before; more is a jump of the clock."""


@dataclass(frozen=True)
class Recording(Video):
    """The images of one topic, and what their messages say of them."""

    stamps: NDArray[np.int64]
    """[T] nanoseconds, rising: of the header, or of arrival where the header has none."""
    arrivals: NDArray[np.int64]
    """[T] nanoseconds: when the bag's recorder got them."""
    frame_ids: tuple[str, ...]
    """[T] coordinate frames of the camera."""
    camera: Camera | None
    remarks: tuple[str, ...]
    """What a user should know: frames left out, why there is no camera."""


def read_recording(
    path: Path,
    topic: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    decoded: DecodeProgress | None = None,
) -> Recording:
    """Decode the images of a topic, or a stretch of them.

    A frame with the stamp of the one before is the same frame, and one that is up to a second
    older came late: both are left out.

    Args:
        path: folder of a rosbag2, or an ``.mcap`` or ``.db3`` file of one.
        topic: of sensor_msgs/Image or CompressedImage; needless where there is just one.
        start: seconds after the topic's first frame, by the stamps.
        end: seconds after the first frame, itself left out; the bag's end by default.
        decoded: called with (frames decoded, frames expected or None).

    Raises:
        InputError: rosbags is not installed; there is no such bag or topic, it is damaged, the
            stretch holds no frame, or the decoded frames would not fit into memory.

    """
    if start < 0 or (end is not None and end <= start):
        raise InputError(f"from {start:g} s to {end} s is no stretch of a bag.")
    with open_bag(path) as bag:
        images = _Images(bag, _image_topic(bag, topic))
        expected = images.expected(start, end)
        clip = GrowingClip(path, expected)
        kept = []
        for image, time in images.between(start, end):
            clip.append(images.decode(image, time), time)
            kept.append(image._replace(message=None))
            if decoded is not None:
                decoded(len(kept), expected)
        if not kept:
            raise InputError(
                f"{path} has no image of {images.topic} between {start:g} s and {end or 'its end'}."
            )
        frames = clip.frames[: len(kept)]
        camera, remark = _camera(bag, images.topic, frames.shape[1:3])
    return Recording(
        frames=frames,
        times=np.array(clip.times),
        stamps=np.array([image.stamp for image in kept], np.int64),
        arrivals=np.array([image.arrival for image in kept], np.int64),
        frame_ids=tuple(image.frame_id for image in kept),
        camera=camera,
        remarks=tuple(filter(None, (images.left_out(), remark))),
    )


class _Image(NamedTuple):
    """One message with an image."""

    stamp: int
    arrival: int
    frame_id: str
    message: Any


class _Images:
    """The images of a topic in the order of the bag."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self.topic = topic
        self._bag = bag
        self._count: int = bag.topics[topic].msgcount
        self._decode = _DECODERS[bag.topics[topic].msgtype]
        self._skipped = 0

    def expected(self, start: float, end: float | None) -> int:
        """About how many frames a stretch holds."""
        whole = max(self._bag.seconds, 1e-9)
        until = whole if end is None else min(end, whole)
        return max(1, round(self._count * (until - start) / whole))

    def between(self, start: float, end: float | None) -> Iterator[tuple[_Image, float]]:
        """Yield images and their times, in seconds since the first, from start until end."""
        first = last = None
        read = 0
        for arrival, message in self._bag.messages(self.topic):
            read += 1
            image = _image(arrival, message)
            first = image.stamp if first is None else first
            if last is not None and image.stamp <= last:
                self._leave_out(last - image.stamp, last - first)
                continue
            last = image.stamp
            time = (last - first) / _SECOND
            if end is not None and time >= end:
                return
            if time >= start:
                yield image, time
        if read < self._count:
            raise InputError(
                f"{self._bag.path} is cut short: of {self._count} images of {self.topic} {read} "
                "are there. Copy it again, or give --end to use what is there."
            )

    def decode(self, image: _Image, time: float) -> Frame:
        """Give the pixels of an image."""
        try:
            return self._decode(image.message)
        except InputError as error:
            raise InputError(f"{self._bag.path}, {self.topic} at {time:.2f} s: {error}") from error

    def left_out(self) -> str | None:
        """Tell how many frames were left out, if any."""
        if not self._skipped:
            return None
        return f"{self._skipped} frames of {self.topic} with a repeated or late stamp are left out."

    def _leave_out(self, older: int, since: int) -> None:
        if older > _LATE:
            raise InputError(
                f"{self._bag.path}: the stamps of {self.topic} jump back by {older / _SECOND:.1f} "
                f"s after {since / _SECOND:.2f} s. Give --end before that."
            )
        self._skipped += 1


def _image(arrival: int, message: Any) -> _Image:  # noqa: ANN401
    header = message.header
    stamp = header.stamp.sec * _SECOND + header.stamp.nanosec
    return _Image(stamp or arrival, arrival, header.frame_id, message)


def _image_topic(bag: Bag, topic: str | None) -> str:
    """Find the topic asked for, or the only one there is."""
    images = sorted(name for name, info in bag.topics.items() if info.msgtype in _DECODERS)
    there = f"Its image topics are {', '.join(images)}." if images else "It has no image topic."
    if topic is None:
        if len(images) != 1:
            raise InputError(f"give --topic: {bag.path} has {len(images)} image topics. {there}")
        return images[0]
    if topic not in bag.topics:
        raise InputError(f"{bag.path} has no topic {topic}. {there}")
    if topic not in images:
        kind = bag.topics[topic].msgtype
        raise InputError(f"{topic} in {bag.path} is of {kind}, which is no image. {there}")
    return topic


def _camera(bag: Bag, topic: str, size: tuple[int, ...]) -> tuple[Camera | None, str | None]:
    """Find the calibration beside an image topic, or tell why there is none."""
    # As image_transport looks for it: the last part of the image's name is replaced.
    beside = topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    info = bag.topics.get(beside)
    if info is None or info.msgtype != _CAMERA_INFO:
        return None, f"x, y and z are NaN: the bag has no calibration at {beside}."
    message = next((message for _, message in bag.messages(beside)), None)
    if message is None:
        return None, f"x, y and z are NaN: {beside} is empty."
    try:
        camera = Camera.from_info(message)
    except InputError as error:
        return None, f"x, y and z are NaN: in {beside}, {error}"
    if camera is None:
        return None, f"x, y and z are NaN: {beside} is of no calibrated camera."
    if camera.size not in (None, size):
        height, width = camera.size
        told = f"{width} x {height}, not {size[1]} x {size[0]}"
        return None, f"x, y and z are NaN: {beside} describes images of {told}."
    return camera, None
