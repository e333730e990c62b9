// SPDX-License-Identifier: Apache-2.0
// For consumers of seqamodal_msgs/LayeredMasks in C++17: which objects are free, and a mask at the size of the image it belongs to.
// Copy it into your package; it needs seqamodal_msgs alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "seqamodal_msgs/msg/layered_masks.hpp"

namespace seqamodal
{

constexpr std::size_t LARGEST_SIDE = 16384;  // of a source image, pixels; the node takes no larger one

// The objects that can be picked now and score at least `min_score`, the highest score first. They live as long as `masks`.
inline std::vector<const seqamodal_msgs::msg::AmodalObject *> free_objects(
  const seqamodal_msgs::msg::LayeredMasks & masks, float min_score = 0.6f)
{
  std::vector<const seqamodal_msgs::msg::AmodalObject *> found;
  for (const auto & object : masks.objects) {
    // a deeper object without known occluders is not free; a score of NaN, not computed, is below any minimum
    if (object.layer == 1 && object.occluded_by.empty() && object.score >= min_score) {
      found.push_back(&object);
    }
  }
  std::stable_sort(found.begin(), found.end(), [](auto one, auto other) {return one->score > other->score;});
  return found;
}

void free_objects(seqamodal_msgs::msg::LayeredMasks &&, float = 0.6f) = delete;  // the objects would not outlive the call

// For a source pixel along one axis: the two mask pixels that it lies between, and the weight of the second. `inside` is false
// outside the square that the masks cover.
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
    const double from_edge = static_cast<double>(x) + 0.5 - offset;
    const double position = std::clamp(from_edge / scale - 0.5, 0.0, static_cast<double>(size - 1));
    const auto low = std::min(static_cast<std::size_t>(position), size < 2 ? 0 : size - 2);
    const auto share = static_cast<float>(position - static_cast<double>(low));
    const bool inside = from_edge >= 0 && from_edge <= scale * static_cast<double>(size);
    found[x] = {low, std::min(low + 1, size - 1), share, inside};
  }
  return found;
}

// A mono8 mask of the message, such as an object's `amodal` or `visible`, at the size of the source image: source_height rows of
// source_width pixels, 255 where bilinear interpolation gives a half or more, else 0.
// Throws std::invalid_argument if the mask is not one of this message, or the message's sizes and geometry make no sense.
inline std::vector<std::uint8_t> to_source(
  const seqamodal_msgs::msg::LayeredMasks & masks, const sensor_msgs::msg::Image & mask)
{
  const std::size_t width = masks.mask_width, height = masks.mask_height;
  if (width > LARGEST_SIDE || height > LARGEST_SIDE || mask.encoding != "mono8" || mask.width != width ||
    mask.height != height || mask.step != width || mask.data.size() != width * height || mask.data.empty())
  {
    throw std::invalid_argument("no mono8 mask of mask_width x mask_height pixels");
  }
  if (masks.source_width < 1 || masks.source_width > LARGEST_SIDE || masks.source_height < 1 ||
    masks.source_height > LARGEST_SIDE || !(masks.scale_x > 0) || !(masks.scale_y > 0) ||
    !std::isfinite(masks.scale_x + masks.scale_y + masks.offset_x + masks.offset_y))
  {
    throw std::invalid_argument("no source image of 1 to 16384 pixels a side, or no place of the masks in it");
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
