"""ROS messages as arrays, and bags, without ROS.

Nothing here imports ROS: a message is whatever has the fields of its definition, be it from rclpy,
from rosbags, or made up in a test.
"""
