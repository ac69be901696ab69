// How many numbers of a run are NaN? Comparisons of integers or of unordered numbers: infinities never confuse a count.
#pragma once
#include <cstring>

#include "simd.h"

// Of a long run.
inline int32_t nans(const float* p, int64_t count) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, p + i, 4);
    found += (bits & 0x7fffffff) > 0x7f800000;
  }
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
