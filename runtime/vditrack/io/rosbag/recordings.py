"""Decoding the images of a bag's topic into a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vditrack.arrays import Ints
from vditrack.errors import InputError
from vditrack.input_checks.arrays import check_time_range
from vditrack.io.clip import (
    ArrayPicture,
    DecodeProgress,
    MakeSink,
    Picture,
    Selection,
    Sink,
    Video,
    collect,
)
from vditrack.io.rosbag.bags import Bag, open_bag
from vditrack.io.rosbag.image_reader import ImageReader
from vditrack.ros_messages.camera_info import Camera
from vditrack.ros_messages.image_transport import RECORDED_IMAGES, is_depth_topic, remove_suffix

_CAMERA_INFO = "sensor_msgs/msg/CameraInfo"


@dataclass(frozen=True)
class ImageMessages:
    """The metadata of the image messages of a topic."""

    stamps: Ints
    """Stamps [T] in nanoseconds, ascending: the header's, or times of arrival if all are zero."""
    arrivals: Ints
    """Times [T] in nanoseconds at which the recorder received the messages."""
    frame_ids: tuple[str, ...]
    """Coordinate frames [T] of the camera."""
    camera: Camera | None
    """Calibration of the camera; None if the bag has none that can be used."""
    camera_remark: str | None
    """Why the bag has no calibration that can be used; None if it has one."""


@dataclass(frozen=True)
class Recording(Video, ImageMessages):
    """The decoded images of one topic, with the metadata of their messages."""


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
    reader = BagReader(path, topic, start, end)
    video = collect(reader, decoded)
    messages = reader.messages
    return Recording(
        frames=video.frames,
        times=video.times,
        gaps=video.gaps,
        remarks=video.remarks,
        stamps=messages.stamps,
        arrivals=messages.arrivals,
        frame_ids=messages.frame_ids,
        camera=messages.camera,
        camera_remark=messages.camera_remark,
    )


class BagReader:
    """Decodes the images of a topic, or of a time range of it, in the order of their stamps."""

    def __init__(self, path: Path, topic: str | None, start: float, end: float | None) -> None:
        """Take a range; see `read_recording`.

        Raises:
            InputError: The range is no range of time.

        """
        check_time_range(start, end)
        self.path, self._topic, self._range = path, topic, (start, end)
        self._reader: ImageReader | None = None
        self._messages: ImageMessages | None = None

    @property
    def messages(self) -> ImageMessages:
        """The metadata of the messages, after `decode`."""
        if self._messages is None:
            raise ValueError("the bag was not decoded yet")
        return self._messages

    def decode(
        self, make_sink: MakeSink[Sink], progress: DecodeProgress | None
    ) -> tuple[Sink, Selection]:
        """See `ClipReader`."""
        with open_bag(self.path) as bag:
            reader = ImageReader(bag, _find_image_topic(bag, self._topic), *self._range)
            sink, images, size = make_sink(self.path, reader.count), [], (0, 0)
            for image in reader.read():
                picture = ArrayPicture(image.frame)
                sink.append(picture, image.time)
                size = picture.size
                images.append(image._replace(frame=image.frame[:0, :0].copy()))
                if progress is not None:
                    progress(len(images), reader.count)
            camera, camera_remark = _read_camera(bag, reader.topic, size)
        self._reader = reader
        self._messages = ImageMessages(
            stamps=np.array([image.stamp for image in images], np.int64),
            arrivals=np.array([image.arrival for image in images], np.int64),
            frame_ids=tuple(image.frame_id for image in images),
            camera=camera,
            camera_remark=camera_remark,
        )
        remarks = tuple(reader.describe())
        times, gaps = np.array(sink.times), tuple(reader.list_gaps())
        return sink, Selection(times, range(len(images)), gaps, remarks)

    def pictures(self, selection: Selection, first: int) -> Iterator[Picture]:
        """See `ClipReader`."""
        if self._reader is None:
            raise ValueError("the bag was not decoded yet")
        with open_bag(self.path) as bag:
            for image in self._reader.read_again(bag, first):
                yield ArrayPicture(image.frame)


def list_image_topics(bag: Bag) -> list[str]:
    """Return the names of the topics with images, sorted; those of depth are left out."""
    return sorted(
        name
        for name, info in bag.topics.items()
        if info.msgtype in RECORDED_IMAGES and not is_depth_topic(name)
    )


def _find_image_topic(bag: Bag, topic: str | None) -> str:
    """Return the given topic if it has images, or by default the only image topic."""
    images = list_image_topics(bag)
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
