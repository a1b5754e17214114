"""Conversions between ROS messages and NumPy arrays, without ROS.

Nothing here imports ROS. A message is any object that has the fields of the message's definition:
one from rclpy, one from rosbags, or a test double.
"""
