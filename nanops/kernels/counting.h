// How many numbers of a run are NaN? Integer comparisons, so that infinities never confuse a sum.
#pragma once
#include <cstdint>
#include <cstring>

inline int32_t nans(const float* p, int64_t count) {
  int32_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    int32_t bits;
    std::memcpy(&bits, p + i, 4);
    found += (bits & 0x7fffffff) > 0x7f800000;
  }
  return found;
}
