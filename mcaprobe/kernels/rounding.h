// How is one result rounded? Modes, the processor's rounding direction, and stochastic rounding of doubles.
#pragma once
#include <xmmintrin.h>

#include "simd.h"

// Random rounding: the float above or below with probability 1/2 each is s up(s x), s a random sign. Exact results stay.
enum Mode : int32_t { NEAREST = 0, RANDOM = 1, NEARNESS = 2 };

constexpr uint32_t SIGN = 0x80000000u;
constexpr uint64_t LOW = (uint64_t(1) << 29) - 1;  // bits of a double's mantissa that a float has not

// The rounding direction of this thread while an object of this class lives. Nothing else runs meanwhile.
class Direction {
 public:
  explicit Direction(Mode mode) : before(_mm_getcsr()) {
    _mm_setcsr((before & ~_MM_ROUND_MASK) | (mode == RANDOM ? _MM_ROUND_UP : _MM_ROUND_NEAREST));
  }
  ~Direction() { _mm_setcsr(before); }
  Direction(const Direction&) = delete;
  Direction& operator=(const Direction&) = delete;

 private:
  unsigned before;
};

// Stochastic rounding to 24 bits of a double away from under- and overflow: r is uniform on 0 .. 2^29 - 1.
inline D shorten(D x, W r) { return number((bits(x) + r) & all(~LOW)); }

// The same for every double: below 2^-126 the floats are 2^-149 apart, above the largest there is infinity.
inline D shorten_any(D x, W r) {
  const W sign = all(uint64_t(1) << 63);
  const D size = number(bits(x) & all(~(uint64_t(1) << 63)));
  const D steps = floor(size * all(0x1p149) + floating(r) * all(0x1p-29));
  const D small = number(bits(steps * all(0x1p-149)) | (bits(x) & sign));
  const D usual = shorten(x, r);
  const D most = number(bits(all(__builtin_inf())) | (bits(x) & sign));
  const D large = where_less(size, all(__builtin_inf()), most, x);  // infinities and NaN stay
  const D finite = where_less(number(bits(usual) & all(~(uint64_t(1) << 63))), all(0x1p128), usual, large);
  return where_less(size, all(0x1p-126), small, finite);
}
