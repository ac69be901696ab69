// The geometry of one pooling, as the Python side fills it in. Three axes; those that an image lacks have size 1.
#pragma once
#include "abi.h"

struct Pooling {
  const float* x;    // (n, channels, size...) or, channels last, (n, size..., channels)
  float* values;     // likewise, of size `out`
  int64_t* indices;  // as values, or null: flat position of the maximum in its image
  void* ties;        // as values, or null: bitmap of the taps that tie, `word` bytes each
  int64_t n, channels, channels_last, word;
  int64_t size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
  int64_t max_ties;  // more than these make a window ambiguous
  int64_t kind;      // ABSOLUTE, RELATIVE, ULPS
  float amount, floor;
  uint32_t ulps;
  uint32_t threads;

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t volume() const { return size[0] * size[1] * size[2]; }
  int64_t places() const { return out[0] * out[1] * out[2]; }
};

enum { ABSOLUTE = 0, RELATIVE = 1, ULPS = 2 };

struct Unpooling {
  const float* values;  // (n, channels, out...) or, channels last, (n, out..., channels)
  const void* ties;     // likewise, `word` bytes each
  float* y;             // likewise, of size `size`
  int64_t n, channels, channels_last, word;
  int64_t size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
  int64_t nan_wins;     // where windows overlap
  int64_t threads;

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t volume() const { return size[0] * size[1] * size[2]; }
  int64_t places() const { return out[0] * out[1] * out[2]; }
};
