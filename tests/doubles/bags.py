"""Rosbag2 recordings written by rosbags, with a clip of moving blocks."""

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

SECOND = 10**9
BEGAN = 1_700_000_000 * SECOND + 123
"""Nanoseconds; more than a float of 64 bits tells apart."""
DELAY = 7_000_000
"""Nanoseconds from a picture's stamp to its arrival."""
STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, JPEG, INFO, TEXT = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
    "std_msgs/msg/String",
)


def new(kind, **fields):
    return STORE.types[kind](**fields)


def header(stamp, frame_id="camera_optical"):
    sec, nanosec = divmod(stamp, SECOND)
    time = new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return new("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def clip(count=6, height=96, width=128) -> list[np.ndarray]:
    """Blocks of colour that move by (2, 0) pixels a frame."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return [np.roll(picture, 2 * t, axis=1) for t in range(count)]


def stamps(count=6) -> list[int]:
    return [BEGAN + t * SECOND // 10 for t in range(count)]


def bgr8(picture, stamp, padding=5):
    height, width = picture.shape[:2]
    rows = np.pad(picture[..., ::-1].reshape(height, -1), ((0, 0), (0, padding)))
    return new(
        IMAGE,
        header=header(stamp),
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width + padding,
        data=rows.ravel(),
    )


def png(picture, stamp):
    data = cv2.imencode(".png", picture[..., ::-1])[1].ravel()
    return new(JPEG, header=header(stamp), format="rgb8; png compressed bgr8", data=data)


def jpeg(picture, stamp):
    data = cv2.imencode(".jpg", picture[..., ::-1])[1].ravel()
    return new(JPEG, header=header(stamp), format="rgb8; jpeg compressed bgr8", data=data)


def images(topic="/cam/image_raw", kind=IMAGE, make=bgr8, count=6):
    messages = map(make, clip(count), stamps(count))
    return topic, kind, [(s + DELAY, m) for s, m in zip(stamps(count), messages, strict=True)]


def camera_info(topic="/cam/camera_info", size=(96, 128), focal=100.0, model="plumb_bob", d=()):
    height, width = size
    region = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    message = new(
        INFO,
        header=header(BEGAN),
        height=height,
        width=width,
        distortion_model=model,
        d=np.array(d, float),
        k=np.array([focal, 0, 63.5, 0, focal, 47.5, 0, 0, 1], float),
        r=np.eye(3).ravel(),
        p=np.eye(3, 4).ravel(),
        binning_x=0,
        binning_y=0,
        roi=new("sensor_msgs/msg/RegionOfInterest", **region),
    )
    return topic, INFO, [(BEGAN, message)]


def text(topic="/chatter"):
    return topic, TEXT, [(BEGAN, new(TEXT, data="hello"))]


def write_bag(path: Path, *topics, storage=StoragePlugin.MCAP, mode=CompressionMode.NONE) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer as bag:
        for topic, kind, messages in topics:
            connection = bag.add_connection(topic, kind, typestore=STORE)
            for arrival, message in messages:
                bag.write(connection, arrival, STORE.serialize_cdr(message, kind))
    return path


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))
