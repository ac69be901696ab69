// Windows of which taps are left out: they lie outside the image, or hold nothing but NaN.
#pragma once
#include <cmath>
#include <cstring>
#include <vector>

#include "epilogue.h"
#include "micro.h"
#include "plan.h"

// How outputs that were computed aside come to their place.
class Output {
 public:
  explicit Output(const Plan& p) : p_(p), epilogue_(p.c) {}

  // Whether they are finished, as all are but the known one of background.
  void finishing(bool yes) { finishing_ = yes && Epilogue::on(p_.c); }

  void move(const float* from, float* y) const {
    if (finishing_)
      epilogue_.finish(from, y);
    else
      std::memcpy(y, from, 4 * size_t(p_.outputs));
  }
  const Epilogue& epilogue() const { return epilogue_; }

 private:
  const Plan& p_;
  const Epilogue epilogue_;
  bool finishing_ = false;
};

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
  Sparse(const Plan& p, const Output& output)
      : p_(p), output_(output), taps_(p.c.taps()), mask_(p.c.background ? NAN_MASK : -1), tap_(size_t(taps_ + 1)),
        pixel_(size_t(taps_ + 1)), hole_(size_t(taps_ + 1)), counts_(size_t(taps_)), from_(size_t(taps_ * SLOTS)),
        slots_(size_t(taps_ * SLOTS)), rows_(p.direct ? 0 : size_t(SLOTS * p.room)) {}

  // Takes a window if that is worth it: `missing` of its values are NaN, `outside` of its taps lie beyond the image.
  bool take(const Operands& o, const Place& at, int64_t missing, int64_t outside) {
    if (missing && !(o.holes && p_.c.fill == MEAN)) return false;
    if ((outside + missing / p_.inputs) * p_.inputs <= COST * taps_) return false;  // so few taps can be left out
    if (!(outside ? find<true>(o, at, missing) : find<false>(o, at, missing))) return false;
    if ((taps_ - valid_) * p_.inputs <= COST * taps_) return false;
    const float mean = missing ? this->mean(o, missing, outside) : 0.0f;
    if (!std::isfinite(mean)) return false;  // a sum may overflow where the mean does not
    float* const y = o.y + at.output * p_.c.outputs;
    float* const row = p_.direct ? y : rows_.data() + used_ * p_.room;
    begin(o, mean, row);
    for (int64_t i = 0; i < valid_; ++i) {
      const int64_t t = tap_[size_t(i)], k = t * SLOTS + counts_[size_t(t)]++;
      from_[size_t(k)] = o.x + pixel_[size_t(i)] * p_.c.channels;
      slots_[size_t(k)] = uint8_t(used_);
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
      for (int i = 0; i < used_; ++i) output_.move(to_[i], y_[i]);
    std::fill(counts_.begin(), counts_.end(), 0);
    used_ = 0;
  }

 private:
  static constexpr int SLOTS = 72;    // windows that wait together: the largest blocks divide it
  static constexpr int64_t COST = 3;  // of adding up in memory once more: that of so many channels

  // Lists the taps that count and where they lie, and those of NaN only; false where NaNs lie among numbers.
  template <bool BORDER>
  bool find(const Operands& o, const Place& at, int64_t missing) {
    const Convolution& c = p_.c;
    int64_t t = 0, mixed = 0;
    valid_ = hollow_ = 0;
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y) {
        const int64_t iz = at.start[0] + z * c.dilation[0], iy = at.start[1] + y * c.dilation[1];
        const int64_t first = (iz * c.size[1] + iy) * c.size[2];
        if (BORDER && (iz < 0 || iz >= c.size[0] || iy < 0 || iy >= c.size[1])) {
          t += c.kernel[2];
          continue;
        }
        for (int64_t k = 0; k < c.kernel[2]; ++k, ++t) {  // without branches: where NaNs lie cannot be foreseen
          const int64_t ix = at.start[2] + k * c.dilation[2];
          if (BORDER && (ix < 0 || ix >= c.size[2])) continue;
          const int64_t nans = missing ? o.pixels[first + ix] & mask_ : 0, hole = nans == p_.inputs;
          tap_[size_t(valid_)] = t;
          pixel_[size_t(valid_)] = first + ix;
          hole_[size_t(hollow_)] = t;
          valid_ += 1 - hole;
          hollow_ += hole;
          mixed |= nans != 0 && !hole;
        }
        if (mixed) return false;
      }
    return true;
  }

  float mean(const Operands& o, int64_t missing, int64_t outside) const {
    F sum = all(0.0f);
    float rest = 0;
    for (int64_t i = 0; i < valid_; ++i) {
      const float* v = o.x + pixel_[size_t(i)] * p_.c.channels;
      int64_t k = 0;
      for (; k + 16 <= p_.inputs; k += 16) sum = sum + load(v + k);
      for (; k < p_.inputs; ++k) rest += v[k];
    }
    const int64_t taps = p_.c.count_padding ? taps_ : taps_ - outside;
    return (total(sum) + rest) / float(taps * p_.inputs - missing);
  }

  // The bias, and what the taps of NaN only add.
  void begin(const Operands& o, float mean, float* row) const {
    const __m256 value = _mm256_set1_ps(mean);
    for (int64_t i = 0; i < p_.room; i += micro::OCTET) {
      __m256 sum = _mm256_loadu_ps(o.bias + i);
      for (int64_t h = 0; h < hollow_; ++h)
        sum = _mm256_fmadd_ps(value, _mm256_loadu_ps(o.holes + hole_[size_t(h)] * p_.room + i), sum);
      _mm256_storeu_ps(row + i, sum);
    }
  }

  const Plan& p_;
  const Output& output_;
  const int64_t taps_;
  const int32_t mask_;
  int64_t valid_ = 0, hollow_ = 0;
  std::vector<int64_t> tap_, pixel_, hole_;
  std::vector<int> counts_;
  std::vector<const float*> from_;
  std::vector<uint8_t> slots_;
  std::vector<float> rows_;
  float *to_[SLOTS], *y_[SLOTS];
  int used_ = 0;
};
