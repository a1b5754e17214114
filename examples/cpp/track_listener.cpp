// Prints the visible points of a topic: ros2 run vditrack_listener track_listener
//   --ros-args -r tracks:=/tracker/tracks
#include <memory>
#include <stdexcept>

#include <rclcpp/rclcpp.hpp>

#include "tracks.hpp"

class TrackListener : public rclcpp::Node
{
public:
  TrackListener()
  : Node("track_listener")
  {
    subscription_ = create_subscription<sensor_msgs::msg::PointCloud2>(
      "tracks", 5, [this](const sensor_msgs::msg::PointCloud2 & cloud) {print(cloud);});
  }

private:
  void print(const sensor_msgs::msg::PointCloud2 & cloud)
  {
    try {
      for (const auto & track : read_tracks(cloud)) {
        if (track.visible == 0) {
          continue;
        }
        if (track.scale == 2) {
          RCLCPP_INFO(
            get_logger(), "point %d at (%.2f, %.2f, %.2f) m", track.id, track.x, track.y, track.z);
        } else {
          RCLCPP_INFO(get_logger(), "point %d at pixel (%.1f, %.1f)", track.id, track.u, track.v);
        }
      }
    } catch (const std::runtime_error & error) {
      RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), 5000, "%s", error.what());
    }
  }

  rclcpp::Subscription<sensor_msgs::msg::PointCloud2>::SharedPtr subscription_;
};

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  rclcpp::spin(std::make_shared<TrackListener>());
  rclcpp::shutdown();
  return 0;
}
