// Windows of which taps are left out: they lie outside the image, or hold nothing but NaN.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "micro.h"
#include "plan.h"

struct Operands {  // of one image and group
  const float *x, *weight;
  const float* bias;   // whole octets of it
  const float* holes;  // (taps, room): each tap's weights added up over the channels; null if one is not finite
  const int32_t* pixels;
  float* y;
  int64_t group;
};

// Windows of one thread, computed tap by tap: the windows that have a tap are walked together. What stands for NaN is
// the same all over a window, hence a tap of NaN only is that number times the sum of the tap's weights.
class Sparse {
 public:
  explicit Sparse(const Plan& p)
      : p_(p), taps_(size_t(p.c.taps())), mask_(p.c.background ? NAN_MASK : -1), pixel_(taps_), counts_(taps_),
        from_(taps_ * SLOTS), slots_(taps_ * SLOTS), rows_(p.direct ? 0 : size_t(SLOTS * p.room)) {}

  // Takes a window if that is worth it. `outside`: of its taps; `mean`: what stands for NaN, itself NaN where that
  // is not the same all over the window.
  bool take(const Operands& o, const Place& at, int64_t missing, int64_t outside, float mean) {
    const int64_t inputs = p_.inputs;
    if (outside * inputs + missing <= COST * int64_t(taps_)) return false;
    if (missing && !(o.holes && std::isfinite(mean))) return false;
    const int64_t gone = find(o, at, missing, outside > 0);
    if (gone * inputs <= COST * int64_t(taps_)) return false;
    float* const y = o.y + at.output * p_.c.outputs;
    float* const row = p_.direct ? y : rows_.data() + used_ * p_.room;
    std::memcpy(row, o.bias, 4 * size_t(p_.room));
    for (size_t t = 0; t < taps_; ++t) {
      if (pixel_[t] == OUTSIDE) continue;
      if (pixel_[t] == HOLE) {
        const float* hole = o.holes + int64_t(t) * p_.room;
        for (int64_t i = 0; i < p_.room; ++i) row[i] = __builtin_fmaf(mean, hole[i], row[i]);
        continue;
      }
      const size_t k = t * SLOTS + size_t(counts_[t]++);
      from_[k] = o.x + pixel_[t] * p_.c.channels;
      slots_[k] = uint8_t(used_);
    }
    to_[used_] = row;
    y_[used_++] = y;
    if (used_ == SLOTS) flush(o);
    return true;
  }

  void flush(const Operands& o) {
    if (!used_) return;
    micro::listed({int(taps_), SLOTS, counts_.data(), from_.data(), slots_.data()}, p_.outputs, p_.inputs, o.weight, to_);
    if (!p_.direct)
      for (int i = 0; i < used_; ++i) std::memcpy(y_[i], to_[i], 4 * size_t(p_.outputs));
    std::fill(counts_.begin(), counts_.end(), 0);
    used_ = 0;
  }

 private:
  static constexpr int SLOTS = 72;        // windows that wait together: the largest blocks divide it
  static constexpr int64_t COST = 3;      // of adding up in memory once more: that of so many channels
  static constexpr int64_t OUTSIDE = -1, HOLE = -2;

  // Where each tap lies; returns how many can be left out, 0 if one of them holds NaNs among numbers.
  int64_t find(const Operands& o, const Place& at, int64_t missing, bool border) {
    const Convolution& c = p_.c;
    int64_t gone = 0, t = 0;
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y) {
        const int64_t iz = at.start[0] + z * c.dilation[0], iy = at.start[1] + y * c.dilation[1];
        const bool line = !border || (iz >= 0 && iz < c.size[0] && iy >= 0 && iy < c.size[1]);
        const int64_t first = (iz * c.size[1] + iy) * c.size[2];
        for (int64_t k = 0; k < c.kernel[2]; ++k, ++t) {
          const int64_t ix = at.start[2] + k * c.dilation[2], i = first + ix;
          pixel_[size_t(t)] = i;
          if (border && !(line && ix >= 0 && ix < c.size[2])) {
            pixel_[size_t(t)] = OUTSIDE;
            ++gone;
          } else if (const int32_t nans = missing ? o.pixels[i] & mask_ : 0) {
            if (nans != p_.inputs) return 0;
            pixel_[size_t(t)] = HOLE;
            ++gone;
          }
        }
      }
    return gone;
  }

  const Plan& p_;
  const size_t taps_;
  const int32_t mask_;
  std::vector<int64_t> pixel_;
  std::vector<int> counts_;
  std::vector<const float*> from_;
  std::vector<uint8_t> slots_;
  std::vector<float> rows_;
  float *to_[SLOTS], *y_[SLOTS];
  int used_ = 0;
};
