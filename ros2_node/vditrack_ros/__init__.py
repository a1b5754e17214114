"""vditrack as a ROS 2 node: camera topics in, tracked points out."""
