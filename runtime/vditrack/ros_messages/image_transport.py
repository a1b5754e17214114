"""The transports of images: how a topic's name, its message type and its decoder belong together.

The names and suffixes are those of image_transport's plug-ins. The node and the bag reader use the
same tables, so a transport is added here only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from vditrack.arrays import Frame
from vditrack.ros_messages.brightness import Reduction
from vditrack.ros_messages.depth_images import DepthImage, read_compressed_depth, read_depth
from vditrack.ros_messages.images import decode_compressed, decode_image

Decode = TypeVar("Decode")

ImageDecoder = Callable[[Any, Reduction], Frame]
"""Decodes a message to RGB, and reduces channels of 16 bits to 8."""
DepthDecoder = Callable[[Any], DepthImage]
"""Reads a message's depth."""


@dataclass(frozen=True)
class Transport(Generic[Decode]):
    """A transport of images."""

    suffix: str
    """What is appended to the name of the image topic."""
    message_type: str
    """Name of the message in sensor_msgs."""
    decode: Decode
    """Decodes a message as it arrives."""


IMAGE_TRANSPORTS: dict[str, Transport[ImageDecoder]] = {
    "raw": Transport("", "Image", decode_image),
    "compressed": Transport("/compressed", "CompressedImage", decode_compressed),
}
"""The transports of colour and grey images, by name."""

RECORDED_IMAGES: dict[str, ImageDecoder] = {
    "sensor_msgs/msg/Image": decode_image,
    # There is time to search the files of a recording for damage.
    "sensor_msgs/msg/CompressedImage": partial(decode_compressed, check_scans=True),
}
"""The decoders of a bag's images, by message type."""

DEPTH_TRANSPORTS: dict[str, Transport[DepthDecoder]] = {
    "raw": Transport("", "Image", read_depth),
    "compressed": Transport("/compressed", "CompressedImage", read_compressed_depth),
    "compressedDepth": Transport("/compressedDepth", "CompressedImage", read_compressed_depth),
}
"""The transports of depth images, by name."""


def remove_suffix(topic: str) -> str:
    """Return the image topic that a topic of any transport belongs to."""
    suffixes = {one.suffix for one in IMAGE_TRANSPORTS.values()}
    suffixes |= {one.suffix for one in DEPTH_TRANSPORTS.values()}
    return next((topic.removesuffix(one) for one in suffixes if one and topic.endswith(one)), topic)


def is_depth_topic(topic: str) -> bool:
    """Return whether a topic's name says that its messages are depth in a form of their own."""
    return topic.endswith(DEPTH_TRANSPORTS["compressedDepth"].suffix)
