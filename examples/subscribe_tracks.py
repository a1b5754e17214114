"""Subscribe to the tracked points of the ROS 2 node and print them.

vditrack-node --ros-args -r image:=/camera/image_raw     # in another terminal
python examples/subscribe_tracks.py /tracker/tracks
"""

import sys

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from vditrack.ros_messages.track_cloud import TRACK_FIELDS


class TrackPrinter(Node):
    """Prints how many points are visible in each image, and where the first one is."""

    def __init__(self, topic: str) -> None:
        """Subscribe to the topic."""
        super().__init__("track_printer")
        self.create_subscription(PointCloud2, topic, self.print_tracks, 5)

    def print_tracks(self, cloud: PointCloud2) -> None:
        """Print one message. Its stamp is that of the image."""
        rows = np.frombuffer(cloud.data, TRACK_FIELDS)
        visible = rows[rows["visible"] == 1]
        print(f"{len(visible)} visible of {len(rows)} points", flush=True)
        if len(visible):
            point = visible[0]
            print(f"  point {point['id']} at ({point['u']:.1f}, {point['v']:.1f})", flush=True)


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(TrackPrinter(sys.argv[1]))
