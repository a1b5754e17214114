"""Reading images from rosbag2 recordings and writing tracks to them, without ROS."""
