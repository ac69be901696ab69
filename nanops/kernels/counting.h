// How many numbers of a run are NaN? Comparisons of integers or of unordered numbers: infinities never confuse a count.
#pragma once
#include "simd.h"

// Whether a long run holds one.
inline bool any_nans(const float* p, int64_t count) {
  bool found = false;
  int64_t i = 0;
  for (; i + 64 <= count; i += 64)
    found |= either_nan(load(p + i), load(p + i + 16)) | either_nan(load(p + i + 32), load(p + i + 48));
  for (; i < count; ++i) found |= p[i] != p[i];
  return found;
}

// Of the channels of a pixel.
inline int32_t pixel_nans(const float* p, int64_t count) {
  int32_t found = 0;
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) found += count_nan(load(p + k));
  for (; k < count; ++k) found += p[k] != p[k];
  return found;
}
