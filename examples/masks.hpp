// SPDX-License-Identifier: Apache-2.0
// For consumers of seqamodal_msgs/LayeredMasks in C++17: what can be picked now, and a mask at the size of the image that it answers.
// Copy it into your package; it needs seqamodal_msgs alone.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "seqamodal_msgs/msg/layered_masks.hpp"

namespace seqamodal
{

// Objects of the front layer that score as much, the highest-scoring first. An empty `occluded_by` does not make an object free.
inline std::vector<const seqamodal_msgs::msg::AmodalObject *> free_objects(
  const seqamodal_msgs::msg::LayeredMasks & masks, float min_score = 0.6f)
{
  std::vector<const seqamodal_msgs::msg::AmodalObject *> found;
  for (const auto & object : masks.objects) {
    if (object.layer == 1 && object.score >= min_score) {  // a score that is NaN was not computed
      found.push_back(&object);
    }
  }
  std::stable_sort(found.begin(), found.end(), [](auto one, auto other) {return one->score > other->score;});
  return found;
}

// Of the source pixels along an axis, which two mask pixels each lies between, and the weight of the latter; none outside the square.
struct Tap
{
  std::size_t low, high;
  float share;
  bool inside;
};

inline std::vector<Tap> taps(std::size_t length, double scale, double offset, std::size_t size)
{
  std::vector<Tap> found(length);
  for (std::size_t x = 0; x < length; ++x) {
    const double from_edge = x + 0.5 - offset;
    const double position = std::clamp(from_edge / scale - 0.5, 0.0, size - 1.0);
    const auto low = std::min(static_cast<std::size_t>(position), size < 2 ? 0 : size - 2);
    found[x] = {
      low, std::min(low + 1, size - 1), static_cast<float>(position - low), from_edge >= 0 && from_edge <= scale * size};
  }
  return found;
}

// A mono8 mask of the message (an object's `amodal` or `visible`, a layer's) as source_height rows of source_width pixels, 0 or 255:
// bilinear, from a half on. Throws std::invalid_argument where the mask is none of this message.
inline std::vector<std::uint8_t> to_source(
  const seqamodal_msgs::msg::LayeredMasks & masks, const sensor_msgs::msg::Image & mask)
{
  const std::size_t width = masks.mask_width, height = masks.mask_height;
  if (mask.encoding != "mono8" || mask.width != width || mask.height != height || mask.step != width ||
    mask.data.size() != width * height || mask.data.empty())
  {
    throw std::invalid_argument("no mono8 mask of mask_width x mask_height pixels");
  }
  const auto across = taps(masks.source_width, masks.scale_x, masks.offset_x, width);
  const auto down = taps(masks.source_height, masks.scale_y, masks.offset_y, height);
  std::vector<float> wide(height * across.size());
  for (std::size_t v = 0; v < height; ++v) {
    for (std::size_t x = 0; x < across.size(); ++x) {
      const auto & tap = across[x];
      const float low = mask.data[v * width + tap.low] ? 1 - tap.share : 0, high = mask.data[v * width + tap.high] ? tap.share : 0;
      wide[v * across.size() + x] = tap.inside ? low + high : 0;
    }
  }
  std::vector<std::uint8_t> whole(across.size() * down.size());
  for (std::size_t y = 0; y < down.size(); ++y) {
    const auto & tap = down[y];
    for (std::size_t x = 0; tap.inside && x < across.size(); ++x) {
      const float soft = wide[tap.low * across.size() + x] * (1 - tap.share) + wide[tap.high * across.size() + x] * tap.share;
      whole[y * across.size() + x] = soft >= 0.5f ? 255 : 0;
    }
  }
  return whole;
}

}  // namespace seqamodal
