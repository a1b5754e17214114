"""The depth images of a bag that belong to the images of a topic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vditrack.errors import DamagedImageError, InputError
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.rosbag.recordings import ImageMessages, list_image_topics
from vditrack.ros_messages.depth_images import DepthImage, read_compressed_depth, read_depth
from vditrack.ros_messages.image_transport import DepthDecoder, remove_suffix
from vditrack.ros_messages.stamps import NANOSECONDS_PER_SECOND, to_nanoseconds

_DECODERS: Mapping[str, DepthDecoder] = {
    "sensor_msgs/msg/Image": read_depth,
    "sensor_msgs/msg/CompressedImage": read_compressed_depth,
}
"""The decoders of a bag's depth images, by message type."""


class DepthOfFrames(NamedTuple):
    """A depth image and the images that it belongs to."""

    frames: list[int]
    """Numbers of the images."""
    depth: DepthImage


class DepthReader:
    """Reads the depth images that are aligned to the images of a topic."""

    def __init__(
        self, path: Path, messages: ImageMessages, size: tuple[int, int], topic: str | None
    ) -> None:
        """Find the topic of depth.

        Args:
            path: of the bag.
            messages: metadata of the images.
            size: (height, width) of the images.
            topic: of depth images of that size. By default the one whose images have that size and
                the coordinate frame of the images, as aligned depth has.

        Raises:
            InputError: The bag has no such topic, or several.

        """
        self._path, self._messages, self._size = path, messages, size
        with open_bag(path) as bag:
            self._topic = _find_topic(bag, messages.frame_ids[0], size, topic)
        self.damaged = 0
        """Number of depth images that were left out because they are damaged."""

    def read(self, tolerance: float) -> Iterator[DepthOfFrames]:
        """Yield the depth images that are the nearest ones of images.

        Args:
            tolerance: Maximum difference of the stamps of an image and of its depth, in seconds.

        """
        with open_bag(self._path) as bag:
            stamps = np.array(
                [_read_stamp(arrival, message) for arrival, message in bag.messages(self._topic)]
            )
        order = np.argsort(stamps, kind="stable")
        ends = np.searchsorted(stamps[order], self._messages.stamps).clip(1, len(stamps) - 1)
        frames_of: dict[int, list[int]] = defaultdict(list)
        for frame, (stamp, end) in enumerate(zip(self._messages.stamps, ends, strict=True)):
            near = order[max(0, end - 1) : end + 1]
            nearest = near[np.abs(stamps[near] - stamp).argmin()]
            if abs(stamps[nearest] - stamp) <= tolerance * NANOSECONDS_PER_SECOND:
                frames_of[int(nearest)].append(frame)
        with open_bag(self._path) as bag:
            decode = _DECODERS[bag.topics[self._topic].msgtype or ""]
            for number, (_, message) in enumerate(bag.messages(self._topic)):
                if number not in frames_of:
                    continue
                try:
                    depth = decode(message)
                except DamagedImageError:
                    self.damaged += 1
                    continue
                if depth.size == self._size:
                    yield DepthOfFrames(frames_of[number], depth)


def list_topics_without_depth(bag: Bag) -> list[str]:
    """Return the names of the topics with images, sorted, but those of depth.

    Depth is of 16UC1 or 32FC1, on a topic whose name says so: other cameras use these too.
    """
    return [
        name
        for name in list_image_topics(bag)
        if "depth" not in name.lower() or _decode_first(bag, name) is None
    ]


def _decode_first(bag: Bag, topic: str) -> tuple[Any, DepthImage] | None:
    """Return the first message of a topic and its depth; None if it has no depth."""
    decode = _DECODERS.get(bag.topics[topic].msgtype or "") if topic in bag.topics else None
    if decode is None:
        return None
    message = next((message for _, message in bag.messages(topic)), None)
    try:
        return None if message is None else (message, decode(message))
    except InputError:
        return None


def _find_topic(bag: Bag, frame_id: str, size: tuple[int, int], topic: str | None) -> str:
    """Return the topic of the depth that is aligned to images."""
    candidates: dict[str, str] = {}
    for name in sorted(bag.topics, key=len) if topic is None else [topic]:
        found = _decode_first(bag, name)
        if found is None:
            continue
        message, depth = found
        if depth.size == size and (topic or message.header.frame_id == frame_id):
            # One depth may be recorded by several transports.
            candidates.setdefault(remove_suffix(name), name)
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    height, width = size
    if topic is not None:
        raise InputError(f"{topic} has no depth images of {width} x {height} pixels.")
    if not candidates:
        raise InputError(
            f"the bag has no depth images of {width} x {height} pixels in the coordinate frame "
            f"{frame_id!r} of the images."
        )
    raise InputError(f"the bag has depth on {', '.join(candidates.values())}; name one.")


def _read_stamp(arrival: int, message: Any) -> int:  # noqa: ANN401
    """Return the stamp of a message in nanoseconds, or the time of arrival if it has none."""
    return to_nanoseconds(message.header.stamp) or arrival
