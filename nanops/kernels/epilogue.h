// What follows a convolution, done while its outputs are in cache: a batch norm, and the larger one of two images.
#pragma once
#include <cmath>
#include <vector>

#include "convolution.h"
#include "simd.h"

// y * scale + shift, and the larger one of that and `other`, NaN where either is: the arithmetic of torch's own
// batch norm and maximum.
class Epilogue {
 public:
  explicit Epilogue(const Convolution& c)
      : c_(c), scale_(c.mean ? size_t(c.outputs) : 0), shift_(scale_.size()) {
    for (size_t i = 0; i < scale_.size(); ++i) {
      scale_[i] = 1 / std::sqrt(c.variance[i] + c.epsilon) * (c.gamma ? c.gamma[i] : 1.0f);
      shift_[i] = __builtin_fmaf(-c.mean[i], scale_[i], c.beta ? c.beta[i] : 0.0f);
    }
  }

  static bool on(const Convolution& c) { return c.mean || c.other; }

  // Finishes the outputs of one window, `from` as the convolution left them, into their place in y.
  void finish(const float* from, float* y) const {
    finish(from, y, c_.other ? c_.other + (y - c_.y) : nullptr);
  }

  void finish(const float* from, float* y, const float* other) const {
    const float *scale = scale_.empty() ? nullptr : scale_.data(), *shift = shift_.data();
    int64_t k = 0;
    for (; k + 16 <= c_.outputs; k += 16) {
      F v = load(from + k);
      if (scale) v = fma(v, load(scale + k), load(shift + k));
      if (other) {
        const F o = load(other + k);
        v = where_nan(o, o, where_less(v, o, o, v));
      }
      store(y + k, v);
    }
    for (; k < c_.outputs; ++k) {
      float v = from[k];
      if (scale) v = __builtin_fmaf(v, scale[k], shift[k]);
      if (other) v = other[k] != other[k] || v < other[k] ? other[k] : v;
      y[k] = v;
    }
  }

 private:
  const Convolution& c_;
  std::vector<float> scale_, shift_;
};
