// Reads the tracked points of ~/tracks. Needs the headers of sensor_msgs, and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

// A row of the cloud.
struct Track
{
  float x, y, z;  // position in the frame of the message; see `scale`
  float u, v;     // pixels; (0, 0) is the upper-left corner of the image
  std::int32_t id;
  std::uint8_t visible;    // 1 or 0; the position of an invisible point is an estimate
  std::uint8_t object_id;  // index of the object that the point is on, or 0
  std::uint8_t requested;  // 1 for a point that was asked for
  std::uint8_t scale;      // 0: unknown, x, y, z are NaN; 1: the plane z = 1; 2: metres
  float confidence;        // 0 to 1
  float forward_backward_error;  // pixels of the model's input; infinity where unknown
  float seconds_since_model;
};
static_assert(sizeof(Track) == 40, "a row has 40 bytes");

// Returns the rows of a cloud. Throws std::runtime_error if they are no Track.
inline std::vector<Track> read_tracks(const sensor_msgs::msg::PointCloud2 & cloud)
{
  using sensor_msgs::msg::PointField;
  struct Column
  {
    const char * name;
    std::size_t offset;
    std::uint8_t datatype;
    bool optional = false;  // of a recording of an older node; then it is 0
  };
  static const Column columns[] = {
    {"x", offsetof(Track, x), PointField::FLOAT32},
    {"y", offsetof(Track, y), PointField::FLOAT32},
    {"z", offsetof(Track, z), PointField::FLOAT32},
    {"u", offsetof(Track, u), PointField::FLOAT32},
    {"v", offsetof(Track, v), PointField::FLOAT32},
    {"id", offsetof(Track, id), PointField::INT32},
    {"visible", offsetof(Track, visible), PointField::UINT8},
    {"object_id", offsetof(Track, object_id), PointField::UINT8},
    {"requested", offsetof(Track, requested), PointField::UINT8, true},
    {"scale", offsetof(Track, scale), PointField::UINT8, true},
    {"confidence", offsetof(Track, confidence), PointField::FLOAT32},
    {"forward_backward_error", offsetof(Track, forward_backward_error), PointField::FLOAT32},
    {"seconds_since_model", offsetof(Track, seconds_since_model), PointField::FLOAT32},
  };
  for (const auto & column : columns) {
    bool fits = column.optional;
    for (const auto & field : cloud.fields) {
      if (field.name == column.name) {
        fits = field.offset == column.offset && field.datatype == column.datatype;
      }
    }
    if (!fits) {
      throw std::runtime_error(std::string("the cloud is not of ~/tracks: ") + column.name);
    }
  }
  const std::size_t count = static_cast<std::size_t>(cloud.width) * cloud.height;
  if (cloud.is_bigendian || cloud.point_step != sizeof(Track) ||
    cloud.data.size() != count * sizeof(Track))
  {
    throw std::runtime_error("the cloud is not of ~/tracks: its rows have another size");
  }
  std::vector<Track> tracks(count);
  if (count > 0) {
    std::memcpy(tracks.data(), cloud.data.data(), cloud.data.size());
  }
  return tracks;
}

// The same for a few fields, by their names: it works for any layout, and is slower.
inline std::size_t count_visible(const sensor_msgs::msg::PointCloud2 & cloud)
{
  std::size_t count = 0;
  sensor_msgs::PointCloud2ConstIterator<std::uint8_t> visible(cloud, "visible");
  sensor_msgs::PointCloud2ConstIterator<float> confidence(cloud, "confidence");
  for (; visible != visible.end(); ++visible, ++confidence) {
    count += *visible == 1 && *confidence >= 0.5F;
  }
  return count;
}
