"""Decoding the images of a bag's topic into a clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vditrack.arrays import Frame, Ints
from vditrack.errors import InputError
from vditrack.input_checks import check_time_range
from vditrack.io.clip import DecodeProgress, GrowingClip, Video
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.images import decode_compressed, decode_image
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_DECODERS: dict[str | None, Callable[[Any], Frame]] = {
    "sensor_msgs/msg/Image": decode_image,
    "sensor_msgs/msg/CompressedImage": decode_compressed,
}
_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
_MAX_DELAY = NANOSECONDS_PER_SECOND
"""Nanoseconds by which a late image may be older than its predecessor. An older one means that the
clock was set back."""


@dataclass(frozen=True)
class Recording(Video):
    """The decoded images of one topic, with the metadata of their messages."""

    stamps: Ints
    """Stamps [T] in nanoseconds, ascending: the header's, or if zero the time of arrival."""
    arrivals: Ints
    """Times [T] in nanoseconds at which the recorder received the messages."""
    frame_ids: tuple[str, ...]
    """Coordinate frames [T] of the camera."""
    camera: Camera | None
    """Calibration of the camera; None if the bag has none that can be used."""


def read_recording(
    path: Path,
    topic: str | None = None,
    start: float = 0.0,
    end: float | None = None,
    decoded: DecodeProgress | None = None,
) -> Recording:
    """Decode the images of a topic, or of a time range of it.

    Frames that repeat the stamp of their predecessor, or are up to a second older, are skipped.

    Args:
        path: the bag's folder, or one of its `.mcap` or `.db3` files.
        topic: a topic of sensor_msgs/Image or CompressedImage; optional if the bag has a single
            image topic.
        start: begin of the range, in seconds after the topic's first stamp.
        end: end of the range, exclusive, in seconds after the first stamp; the bag's end by
            default.
        decoded: called after each frame with (frames decoded, frames expected).

    Raises:
        InputError: rosbags is not installed, there is no such bag or topic, the bag is damaged,
            the range has no frame, or the decoded frames would not fit into memory.

    """
    check_time_range(start, end)
    with open_bag(path) as bag:
        images = _ImageReader(bag, _find_image_topic(bag, topic))
        expected = images.estimate_count(start, end)
        clip = GrowingClip(path, expected)
        decoded_images = []
        for image, time in images.read(start, end):
            clip.append(images.decode(image, time), time)
            decoded_images.append(image._replace(message=None))
            if decoded is not None:
                decoded(len(decoded_images), expected)
        if not decoded_images:
            raise InputError(
                f"{path} has no image of {images.topic} between {start:g} s and {end or 'its end'}."
            )
        frames = clip.frames[: len(decoded_images)]
        camera, remark = _read_camera(bag, images.topic, frames.shape[1:3])
    return Recording(
        frames=frames,
        times=np.array(clip.times),
        stamps=np.array([image.stamp for image in decoded_images], np.int64),
        arrivals=np.array([image.arrival for image in decoded_images], np.int64),
        frame_ids=tuple(image.frame_id for image in decoded_images),
        camera=camera,
        remarks=tuple(filter(None, (images.describe_skipped(), remark))),
    )


class _Image(NamedTuple):
    """A message with an image, and its metadata; the message is dropped after decoding."""

    stamp: int
    arrival: int
    frame_id: str
    message: Any


class _ImageReader:
    """Reads the images of a topic in the bag's order, and counts the ones it skips."""

    def __init__(self, bag: Bag, topic: str) -> None:
        self.topic = topic
        self._bag = bag
        self._count: int = bag.topics[topic].msgcount
        self._decode = _DECODERS[bag.topics[topic].msgtype]
        self._skipped = 0

    def estimate_count(self, start: float, end: float | None) -> int:
        """Estimate how many frames a time range has."""
        duration = max(self._bag.seconds, 1e-9)
        until = duration if end is None else min(end, duration)
        return max(1, round(self._count * (until - start) / duration))

    def read(self, start: float, end: float | None) -> Iterator[tuple[_Image, float]]:
        """Yield (image, seconds since the first image) from start to end, in seconds."""
        first = last = None
        count = 0
        for arrival, message in self._bag.messages(self.topic):
            count += 1
            image = _to_image(arrival, message)
            first = image.stamp if first is None else first
            if last is not None and image.stamp <= last:
                self._skip(last - image.stamp, last - first)
                continue
            last = image.stamp
            time = (last - first) / NANOSECONDS_PER_SECOND
            if end is not None and time >= end:
                return
            if time >= start:
                yield image, time
        if count < self._count:
            raise InputError(
                f"{self._bag.path} is truncated: it has {count} of {self._count} images of "
                f"{self.topic}. Copy it again, or give --end to use the images it has."
            )

    def decode(self, image: _Image, time: float) -> Frame:
        """Decode an image, uint8 [H, W, 3] RGB; name the bag, topic and time in errors."""
        try:
            return self._decode(image.message)
        except InputError as error:
            raise InputError(f"{self._bag.path}, {self.topic} at {time:.2f} s: {error}") from error

    def describe_skipped(self) -> str | None:
        """Say how many frames were skipped; return None if none were."""
        if not self._skipped:
            return None
        return f"{self._skipped} frames of {self.topic} with a repeated or late stamp were skipped."

    def _skip(self, older: int, since: int) -> None:
        if older > _MAX_DELAY:
            jump, time = older / NANOSECONDS_PER_SECOND, since / NANOSECONDS_PER_SECOND
            raise InputError(
                f"{self._bag.path}: the stamps of {self.topic} jump back by {jump:.1f} s after "
                f"{time:.2f} s. Give an --end before that time."
            )
        self._skipped += 1


def _to_image(arrival: int, message: Any) -> _Image:  # noqa: ANN401
    header = message.header
    return _Image(to_nanoseconds(header.stamp) or arrival, arrival, header.frame_id, message)


def _find_image_topic(bag: Bag, topic: str | None) -> str:
    """Return the given topic if it has images, or by default the only image topic."""
    images = sorted(name for name, info in bag.topics.items() if info.msgtype in _DECODERS)
    available = f"Its image topics are {', '.join(images)}." if images else "It has no image topic."
    if topic is None:
        if len(images) != 1:
            raise InputError(
                f"give --topic: {bag.path} has {len(images)} image topics. {available}"
            )
        return images[0]
    if topic not in bag.topics:
        raise InputError(f"{bag.path} has no topic {topic}. {available}")
    if topic not in images:
        kind = bag.topics[topic].msgtype
        raise InputError(f"{topic} in {bag.path} has type {kind}, not an image type. {available}")
    return topic


def _read_camera(bag: Bag, topic: str, size: tuple[int, ...]) -> tuple[Camera | None, str | None]:
    """Read the calibration of an image topic; without one, return the reason as a remark."""
    # By the convention of image_transport: replace the last part of the image topic's name.
    info_topic = topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
    info = bag.topics.get(info_topic)
    if info is None or info.msgtype != _CAMERA_INFO:
        return None, f"x, y and z are NaN: the bag has no calibration at {info_topic}."
    message = next((message for _, message in bag.messages(info_topic)), None)
    if message is None:
        return None, f"x, y and z are NaN: {info_topic} is empty."
    try:
        camera = Camera.from_info(message)
    except InputError as error:
        return None, f"x, y and z are NaN: in {info_topic}, {error}"
    if camera is None:
        return None, f"x, y and z are NaN: {info_topic} is of a camera that is not calibrated."
    if camera.size not in (None, size):
        height, width = camera.size
        sizes = f"{width} x {height}, not {size[1]} x {size[0]}"
        return None, f"x, y and z are NaN: {info_topic} describes images of {sizes}."
    return camera, None
