// The geometry of one convolution, as the Python side fills it in. Images are channels last: (n, size, channels).
#pragma once
#include <algorithm>

#include "abi.h"

struct Inside {
  int64_t low, high;
  int64_t count() const { return high - low; }
};

struct Convolution {
  const float* x;        // (n, size..., channels)
  const float* weight;   // (outputs, inputs of a group, taps), with `strides` between them
  const float* bias;     // (outputs), or null
  float* y;              // (n, out..., outputs)
  int32_t* pixels;       // (n, groups, size...): NaNs of each pixel, see UNIFORM
  int32_t* windows;      // (n, groups, out...): NaNs of each window, see UNIFORM
  const int64_t* least;  // (taps + 1): NaNs from which on a window is skipped, by how many of its taps lie inside
  const float* background;  // (n, channels), or null: a pixel equal to it is uniform
  const float* slope;    // (slopes), or null: x is read behind an activation, see Activation; one group, two axes
  const float *mean, *variance, *gamma, *beta;  // (outputs) of a batch norm behind the sums; gamma, beta or all null
  const float* other;    // like y, or null: the larger one of both is the result
  int64_t strides[3];
  int64_t n, channels, outputs, groups;
  int64_t size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
  int64_t count_padding;  // whether padding counts as valid zeros
  int64_t fill;           // MEAN, MAX_NORMAL
  int64_t x_first, y_first;  // whether the images lie channels first; nan_convolve_alone only
  int64_t slopes, rectified;  // 1 or channels; whether the activation is 0 where x is not positive
  float sigma, epsilon;       // the latter is added to the variance
  uint32_t key[2];
  uint32_t threads;
  int64_t found[4];  // NaNs; windows that are skipped, that hold NaNs but are computed, that are uniform

  // Taps of a window that starts at `start` which lie in the image: from `low` to before `high`.
  Inside inside(int axis, int64_t start) const {
    const int64_t d = dilation[axis], k = kernel[axis];
    const int64_t low = std::min(k, start >= 0 ? 0 : (-start + d - 1) / d);
    const int64_t high = start >= size[axis] ? 0 : (size[axis] - start + d - 1) / d;
    return {low, std::max(low, std::min(high, k))};
  }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t volume() const { return size[0] * size[1] * size[2]; }
  int64_t places() const { return out[0] * out[1] * out[2]; }
  int64_t inputs() const { return channels / groups; }
};

enum { MEAN = 0, MAX_NORMAL = 1 };
// In one integer: NaNs below this bit, uniform pixels above it. Only where a background is given.
constexpr int UNIFORM_BIT = 20;
constexpr int32_t UNIFORM = 1 << UNIFORM_BIT, NAN_MASK = UNIFORM - 1;

// survey.cpp
NAN_API int64_t nan_survey(Convolution* c);
