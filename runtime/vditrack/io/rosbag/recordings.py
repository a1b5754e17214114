"""Decoding the images of a bag's topic into a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vditrack.arrays import Ints
from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_time_range
from vditrack.io.clip import DecodeProgress, GrowingClip, Video
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.rosbag.image_reader import ImageReader
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.image_transport import RECORDED_IMAGES, is_depth_topic, remove_suffix

_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class Recording(Video):
    """The decoded images of one topic, with the metadata of their messages."""

    stamps: Ints
    """Stamps [T] in nanoseconds, ascending: the header's, or times of arrival if all are zero."""
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
    """Decode the images of a topic, or of a time range of it, in the order of their stamps.

    Images with a repeated, missing or wrong stamp and damaged images are left out; the remarks say
    how many.

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
        reader = ImageReader(bag, _find_image_topic(bag, topic), start, end)
        clip = GrowingClip(path, reader.count)
        images = []
        for image in reader.read():
            clip.append(image.frame, image.time)
            images.append(image._replace(frame=clip.frames[:0]))
            if decoded is not None:
                decoded(len(images), reader.count)
        frames = clip.frames[: len(images)]
        camera, remark = _read_camera(bag, reader.topic, frames.shape[1:3])
    return Recording(
        frames=frames,
        times=np.array(clip.times),
        stamps=np.array([image.stamp for image in images], np.int64),
        arrivals=np.array([image.arrival for image in images], np.int64),
        frame_ids=tuple(image.frame_id for image in images),
        camera=camera,
        gaps=tuple(reader.list_gaps()),
        remarks=tuple(filter(None, (*reader.describe(), remark))),
    )


def _find_image_topic(bag: Bag, topic: str | None) -> str:
    """Return the given topic if it has images, or by default the only image topic."""
    images = sorted(
        name
        for name, info in bag.topics.items()
        if info.msgtype in RECORDED_IMAGES and not is_depth_topic(name)
    )
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
    info_topic = remove_suffix(topic).rpartition("/")[0] + "/camera_info"
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
