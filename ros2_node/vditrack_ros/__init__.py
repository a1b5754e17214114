"""ROS 2 node that tracks points and object masks in camera topics."""
