// What stands for the NaNs of a window that is computed?
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "normal.h"
#include "plan.h"

// Values that replace the NaNs of one window.
class Fill {
 public:
  explicit Fill(const Plan& p)
      : p_(p), all_(p.c.taps() * p.inputs), mean_(p.c.fill == MEAN),
        normals_(p.c.fill == MAX_NORMAL ? (p.c.taps() * p.inputs + 63) / 64 * 64 : 0) {}

  // Fixes mean or maximum of the window's valid values; `known` is their sum, or null.
  void begin(const float* x, const float* known, const Place& at, bool inner, int64_t group, int64_t missing) {
    if (known && (inner || p_.c.count_padding)) {
      value_ = *known / float(all_ - missing);
      if (std::isfinite(value_)) return;
    }
    settle(x, known, at, inner, group, missing);
  }

  // Copies `count` numbers, the window's from `element` on, with NaN replaced.
  void pack(float* to, const float* from, int64_t count, int64_t element) {
    int64_t k = 0;
    if (mean_) {
      const F value = all(value_);
      for (; k + 16 <= count; k += 16) replace(to + k, from + k, value);
      if (k < count && count >= 16) return replace(to + count - 16, from + count - 16, value);
      for (; k < count; ++k) to[k] = from[k] == from[k] ? from[k] : value_;
      return;
    }
    for (; k < count; ++k) to[k] = from[k] == from[k] ? from[k] : value_ + p_.c.sigma * normal(element + k);
  }

 private:
  __attribute__((noinline)) void settle(const float* x, const float* known, const Place& at, bool inner, int64_t group,
                                        int64_t missing) {
    const Convolution& c = p_.c;
    int64_t low[3], high[3], inside = 1;
    for (int a = 0; a < 3; ++a) {
      const Inside in = inner ? Inside{0, c.kernel[a]} : c.inside(a, at.start[a]);
      low[a] = in.low, high[a] = in.high;
      inside *= in.high - in.low;
    }
    const auto each = [&](auto visit) {  // every pixel inside, or every row of them
      for (int64_t z = low[0]; z < high[0]; ++z)
        for (int64_t y = low[1]; y < high[1]; ++y) {
          const int64_t line = ((at.start[0] + z * c.dilation[0]) * c.size[1] + at.start[1] + y * c.dilation[1]) * c.size[2];
          if (p_.joined)
            visit(line + at.start[2] + low[2], high[2] - low[2]);
          else
            for (int64_t k = low[2]; k < high[2]; ++k) visit(line + at.start[2] + k * c.dilation[2], int64_t(1));
        }
    };
    if (mean_) {
      const int64_t valid = (c.count_padding ? c.taps() : inside) * p_.inputs - missing;
      float sum = 0;
      if (known)
        sum = *known;
      else
        each([&](int64_t i, int64_t count) { sum += sum_valid(x + i * c.channels, count * p_.inputs); });
      value_ = sum / float(valid);
      if (!std::isfinite(sum)) {  // it may overflow where the mean does not
        double wide = 0;
        each([&](int64_t i, int64_t count) {
          const float* v = x + i * c.channels;
          for (int64_t k = 0; k < count * p_.inputs; ++k) wide += v[k] == v[k] ? double(v[k]) : 0.0;
        });
        value_ = float(wide / double(valid));
      }
      return;
    }
    float most = -std::numeric_limits<float>::infinity();
    each([&](int64_t i, int64_t count) {
      const float* v = x + i * c.channels;
      for (int64_t k = 0; k < count * p_.inputs; ++k) most = v[k] > most ? v[k] : most;
    });
    value_ = c.count_padding && inside < c.taps() ? std::max(most, 0.0f) : most;
    place_ = uint64_t(at.output), group_ = uint32_t(group);
    drawn_.assign(normals_.size() / 64, false);
  }

  static void replace(float* to, const float* from, F value) {
    const F v = load(from);
    store(to, where_nan(v, value, v));
  }

  // A function of the key, the window and the element: sixty-four elements share a draw of sixteen lanes.
  float normal(int64_t element) {
    const int64_t part = element / 64;
    if (!drawn_[size_t(part)]) {
      const Words words = philox(all(group_), all(uint32_t(place_)), all(uint32_t(part * 16)) + lanes(),
                                 all(uint32_t(place_ >> 32)), p_.c.key[0], p_.c.key[1]);
      F z[4];
      ::normals(words, z);
      for (int i = 0; i < 4; ++i) store(normals_.data() + part * 64 + 16 * i, z[i]);
      drawn_[size_t(part)] = true;
    }
    return normals_[size_t(element)];
  }

  const Plan& p_;
  const int64_t all_;  // values of a window
  const bool mean_;
  float value_ = 0;
  uint64_t place_ = 0;
  uint32_t group_ = 0;
  std::vector<float> normals_;
  std::vector<char> drawn_;
};
