// Lines of an image behind an activation, in a thread's own memory: a convolution reads them from cache, and the image
// behind the activation is never written.
#pragma once
#include <algorithm>
#include <vector>

#include "convolution.h"
#include "simd.h"

// x where it is positive, else x times the slope of its channel; with a slope of 0 for all of them 0.
class Activation {
 public:
  explicit Activation(const Convolution& c) : channels_(c.channels), slopes_(c.slope ? size_t(c.channels) : 0) {
    for (size_t i = 0; i < slopes_.size(); ++i) slopes_[i] = c.slope[c.slopes == 1 ? 0 : i];
    cut_ = !slopes_.empty() && c.rectified;
  }

  // One pixel.
  void apply(const float* from, float* to) const {
    const float* slope = slopes_.data();
    int64_t k = 0;
    for (; k + 16 <= channels_; k += 16) {
      const F v = load(from + k);
      store(to + k, where_positive(v, v, cut_ ? where_nan(v, v, all(0.0f)) : v * load(slope + k)));
    }
    for (; k < channels_; ++k) {
      const float v = from[k];
      to[k] = v > 0 ? v : cut_ ? (v != v ? v : 0.0f) : v * slope[k];
    }
  }

 private:
  int64_t channels_;
  std::vector<float> slopes_;
  bool cut_;
};

// The lines that a part of the outputs reads. Images have two axes here: size[0] is 1.
class Lines {
 public:
  Lines(const Convolution& c, const Activation& activation) : c_(c), activation_(activation) {}

  // How many lines of outputs are worth a part: what they read stays in the second-level cache.
  static int64_t fit(const Convolution& c) {
    const int64_t line = 4 * c.size[2] * c.channels, around = (c.kernel[1] - 1) * c.dilation[1] + 1;
    return std::max<int64_t>(1, (ROOM / line - around) / c.stride[1] + 1);
  }

  // Returns where the image of x would start if the lines of `rows` outputs from `row` on were part of it.
  const float* stage(const float* x, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const auto reach = [&](int axis, int64_t from, int64_t count, int64_t& low, int64_t& high) {
      low = std::clamp<int64_t>(from * c_.stride[axis] - c_.before[axis], 0, c_.size[axis]);
      high = std::clamp<int64_t>((from + count - 1) * c_.stride[axis] - c_.before[axis] +
                                     (c_.kernel[axis] - 1) * c_.dilation[axis] + 1, low, c_.size[axis]);
    };
    int64_t top, bottom, left, right;
    reach(1, row, rows, top, bottom);
    reach(2, column, columns, left, right);
    const int64_t line = c_.size[2] * c_.channels;
    if (int64_t(room_.size()) < (bottom - top) * line) room_.resize(size_t((bottom - top) * line));
    for (int64_t i = top; i < bottom; ++i)
      for (int64_t k = left; k < right; ++k)
        activation_.apply(x + i * line + k * c_.channels, room_.data() + (i - top) * line + k * c_.channels);
    return room_.data() - top * line;
  }

 private:
  static constexpr int64_t ROOM = 512 << 10;
  const Convolution& c_;
  const Activation& activation_;
  std::vector<float> room_;
};
