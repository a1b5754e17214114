// A point of PCL for ~/tracks: pcl::PointCloud<PclTrack> points; pcl::fromROSMsg(cloud, points);
#pragma once

#include <cstdint>

#define PCL_NO_PRECOMPILE
#include <pcl/pcl_macros.h>
#include <pcl/point_types.h>
#include <pcl/register_point_struct.h>

struct EIGEN_ALIGN16 PclTrack
{
  PCL_ADD_POINT4D;  // x, y, z and padding
  float u, v;
  std::int32_t id;
  std::uint8_t visible;
  std::uint8_t object_id;
  std::uint8_t requested;
  std::uint8_t scale;
  float confidence;
  float forward_backward_error;
  float seconds_since_model;
  PCL_MAKE_ALIGNED_OPERATOR_NEW
};

// clang-format off
POINT_CLOUD_REGISTER_POINT_STRUCT(
  PclTrack,
  (float, x, x)(float, y, y)(float, z, z)(float, u, u)(float, v, v)
  (std::int32_t, id, id)
  (std::uint8_t, visible, visible)(std::uint8_t, object_id, object_id)
  (std::uint8_t, requested, requested)(std::uint8_t, scale, scale)
  (float, confidence, confidence)
  (float, forward_backward_error, forward_backward_error)
  (float, seconds_since_model, seconds_since_model))
// clang-format on
