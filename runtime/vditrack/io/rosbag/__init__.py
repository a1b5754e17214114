"""Reading images from rosbag2 recordings and writing tracks to rosbag2, without ROS."""
