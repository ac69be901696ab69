// Normal random numbers, two vectors from two words (Box & Muller 1958). The same operations on every processor.
#pragma once
#include "random.h"

// -2 ln u for u = (w + 1/2) 2^-32: exponent and mantissa apart, ln of the mantissa by its series around 1.
inline F minus_two_log(U w) {
  alignas(64) uint32_t words[16];
  alignas(64) float result[16];
  store(words, w);
  for (int i = 0; i < 16; i += D::width) {
    const D u = (floating(widen(words + i)) + all(0.5)) * all(0x1p-32);
    const W field = bits(u);
    // Mantissa in [sqrt 1/2, sqrt 2): adding the distance to sqrt 1/2 carries into the exponent there.
    const W moved = field + all(uint64_t(0x3FF0000000000000) - uint64_t(0x3FE6A09E667F3BCD));
    const D mantissa = number((moved & all(uint64_t(0x000FFFFFFFFFFFFF))) + all(uint64_t(0x3FE6A09E667F3BCD)));
    const D exponent = floating(highest(moved)) - all(1023.0);
    const D t = (mantissa - all(1.0)) / (mantissa + all(1.0)), q = t * t;
    D series = all(2.0 / 13);
    for (double c : {2.0 / 11, 2.0 / 9, 2.0 / 7, 2.0 / 5, 2.0 / 3, 2.0}) series = fma(series, q, all(c));
    narrow(result + i, all(-2.0) * fma(exponent, all(0.693147180559945309), t * series));
  }
  return load(result);
}

// cos and sin of 2 pi w / 2^32: the angle within an eighth of a turn by its series, the octant by symmetry.
inline void turn(U w, F& cosine, F& sine) {
  const U octant = (w + all(0x20000000u)) >> 30;  // quarter turn that is nearest
  alignas(64) uint32_t rest[16];
  alignas(64) float angle[16];
  store(rest, w - (octant << 30));
  for (int i = 0; i < 16; ++i) angle[i] = float(int32_t(rest[i])) * 1.4629180792671596e-9f;  // 2 pi / 2^32
  const F x = load(angle), q = x * x;
  F c = all(2.48015873e-5f), s = all(2.75573192e-6f);
  for (float k : {-1.38888889e-3f, 4.16666667e-2f, -0.5f, 1.0f}) c = fma(c, q, all(k));
  for (float k : {-1.98412698e-4f, 8.33333333e-3f, -1.66666667e-1f, 1.0f}) s = fma(s, q, all(k));
  s = s * x;
  // Quarter turns: (c, s), (-s, c), (-c, -s), (s, -c).
  const U odd = all(0u) - (octant & all(1u));
  const U cos_sign = ((octant + all(1u)) & all(2u)) << 30, sin_sign = (octant & all(2u)) << 30;
  cosine = flip(choose(odd, s, c), cos_sign);
  sine = flip(choose(odd, c, s), sin_sign);
}

// Four vectors of standard normal numbers from one draw.
inline void normals(const Words& words, F* z) {
  for (int i = 0; i < 4; i += 2) {
    const F radius = root(minus_two_log(words.word[i]));
    F cosine, sine;
    turn(words.word[i + 1], cosine, sine);
    z[i] = radius * cosine;
    z[i + 1] = radius * sine;
  }
}
