"""A robot that talks to the node in the types of vditrack_msgs and vision_msgs; a script.

It runs in a process of its own, because the packages were built after that of the test began. It
prints what it saw as JSON.
"""

import json
import sys
import time
from array import array

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from vditrack_msgs.msg import TrackArray
from vditrack_msgs.srv import AddObjects, Remove
from vision_msgs.msg import Detection2DArray

SIZE = HEIGHT, WIDTH = 96, 128
PATIENCE = 60


def square(value):
    picture = np.zeros(SIZE, np.uint8)
    picture[24:64, 40:80] = value
    return picture


def image(pixels, stamp, encoding):
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, step=pixels.strides[0])
    message.data = array("B", pixels.tobytes())
    message.header.stamp = Time(sec=stamp // 10**9, nanosec=stamp % 10**9)
    message.header.frame_id = "camera"
    return message


def main():
    rclpy.init()
    node = rclpy.create_node("robot")
    frame = np.random.default_rng(0).integers(60, 140, (*SIZE, 3)).astype(np.uint8)
    # Red, because the bundle of the test tells objects apart by their colour.
    frame[square(1) > 0] = frame[square(1) > 0] // 2 + np.array([150, 0, 0], np.uint8)
    arrays, detections, masks = [], [], []
    node.create_subscription(TrackArray, "/tracker/track_array", arrays.append, 5)
    node.create_subscription(Detection2DArray, "/tracker/detections", detections.append, 5)
    node.create_subscription(Image, "/tracker/masks", masks.append, 5)
    sensor = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    camera = node.create_publisher(Image, "/image", sensor)
    deadline = time.monotonic() + PATIENCE

    def shoot_until(condition):
        while not condition():
            assert time.monotonic() < deadline, "nothing came"
            camera.publish(image(frame, time.time_ns(), "rgb8"))
            for _ in range(10):
                rclpy.spin_once(node, timeout_sec=0.05)

    def call(kind, name, request):
        client = node.create_client(kind, f"/tracker/{name}")
        assert client.wait_for_service(PATIENCE)
        future = client.call_async(request)
        rclpy.spin_until_future_complete(node, future, timeout_sec=PATIENCE)
        return future.result()

    shoot_until(lambda: arrays and arrays[-1].tracks and masks)
    request = AddObjects.Request(mask=image(square(5), 0, "mono8"), boxes=[4.0, 4.0, 4.0, 9.0])
    request.stamp = masks[-1].header.stamp
    added = call(AddObjects, "add_objects", request)
    shoot_until(lambda: detections and detections[-1].detections)
    newest, detection = arrays[-1], detections[-1].detections[0]
    removals = [
        call(Remove, "remove", Remove.Request(kind=Remove.Request.OBJECT, id=5)) for _ in range(2)
    ]
    shoot_until(lambda: not detections[-1].detections)
    point = newest.tracks[0]
    box = detection.bbox
    told = {
        "points": len(newest.tracks),
        "frame": newest.header.frame_id,
        "point": [0 <= point.u <= WIDTH, 0 <= point.v <= HEIGHT, point.scale, point.requested],
        "position": str(point.position.z),
        "ids": list(added.ids),
        "reasons": added.reasons,
        "success": added.success,
        "id": detection.id,
        "class": detection.results[0].hypothesis.class_id,
        "score": detection.results[0].hypothesis.score,
        "box": [box.center.position.x, box.center.position.y, box.size_x, box.size_y],
        "removed": [one.success for one in removals],
    }
    sys.stdout.write(json.dumps(told))
    rclpy.shutdown()


main()
