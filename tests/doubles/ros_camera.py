"""A camera as a process of its own: plays a clip there and back at a rate, until it is ended.

A reliable camera has the default quality of service of ROS, but keeps all images of a play with
an end: what it drops on a busy machine, no subscription can receive. One of best effort keeps one.
"""

import sys
import time
from array import array
from itertools import count, cycle
from pathlib import Path

import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image


def main(folder, rate, reliability, length_of_play):
    frames = np.load(folder / "frames.npy")
    length, height, width, _ = frames.shape
    rclpy.init()
    node = rclpy.create_node("camera")
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    qos = max(10, length_of_play) if reliability == "reliable" else best_effort
    publisher = node.create_publisher(Image, "image", qos)
    own = ReliabilityPolicy.RELIABLE if reliability == "reliable" else best_effort.reliability
    # Made beforehand, so that the rate holds.
    messages = []
    for frame in frames:
        data = array("B")
        data.frombytes(frame.tobytes())
        message = Image(height=height, width=width, step=3 * width, encoding="rgb8", data=data)
        message.header.frame_id = "camera_optical"
        messages.append(message)

    def is_heard():
        # A node that changes its subscription to the camera's quality loses what comes before.
        heard = node.get_subscriptions_info_by_topic(publisher.topic_name)
        same = any(one.qos_profile.reliability == own for one in heard)
        return same and publisher.get_subscription_count()

    while length_of_play and not is_heard():
        time.sleep(0.05)
    there_and_back = cycle([*range(length), *range(length - 2, 0, -1)])
    with (folder / "published.txt").open("w", buffering=1) as log:
        began = time.monotonic()
        for n, index in zip(count(1), there_and_back, strict=False):
            now = node.get_clock().now()
            messages[index].header.stamp = now.to_msg()
            log.write(f"{now.nanoseconds} {index}\n")
            publisher.publish(messages[index])
            if n == length_of_play:
                break
            time.sleep(max(0.0, began + n / rate - time.monotonic()))
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
