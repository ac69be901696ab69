// Elementary operations on sixteen numbers at once, each rounded as the mode says, one after the other.
#pragma once
#include "random.h"
#include "rounding.h"

// Draws successive random numbers of one place. Mode RANDOM expects the processor to round up (Direction).
template <Mode M>
class Rounder {
 public:
  Rounder(const Key& key, uint64_t place) : key(key), place(place) {}

  F add(F a, F b) {
    if constexpr (M == NEAREST) return a + b;
    if constexpr (M == NEARNESS) return in_double(a, b, b, [](D x, D y, D) { return x + y; });
    const U s = sign();
    const F up = a + b;
    // Exact cancellation gives +0, whatever the sign; a sum never underflows.
    return where_zero(up, up, flip(flip(a, s) + flip(b, s), s));
  }

  F multiply(F a, F b) {
    if constexpr (M == NEAREST) return a * b;
    if constexpr (M == NEARNESS) return in_double(a, b, b, [](D x, D y, D) { return x * y; });
    const U s = sign();
    return flip(flip(a, s) * b, s);
  }

  F divide(F a, F b) {
    if constexpr (M == NEAREST) return a / b;
    if constexpr (M == NEARNESS) return in_double(a, b, b, [](D x, D y, D) { return x / y; });
    const U s = sign();
    return flip(flip(a, s) / b, s);
  }

  F multiply_add(F a, F b, F c) {
    if constexpr (M == NEAREST) return fma(a, b, c);
    if constexpr (M == NEARNESS) return in_double(a, b, c, [](D x, D y, D z) { return fma(x, y, z); });
    const U s = sign();
    const F up = fma(a, b, c), signed_up = flip(fma(flip(a, s), b, flip(c, s)), s);
    // Both zero: an exact cancellation, or a negative underflow, whose zero is -0.
    return where_zero(signed_up, where_zero(up, up, signed_up), signed_up);
  }

  F square_root(F a) {
    if constexpr (M == NEAREST) return root(a);
    // A root of 24 bits is exact or further than 2^-50 from any float: double tells.
    if constexpr (M == NEARNESS) return in_double(a, a, a, [](D x, D, D) { return root(x); });
    float numbers[16];
    double wide[16];
    store(numbers, a);
    for (int i = 0; i < 16; i += D::width) store(wide + i, root(widen(numbers + i)));
    return round(wide);
  }

  // Round sixteen doubles.
  F round(const double* wide) {
    float result[16];
    if constexpr (M == NEAREST) {
      for (int i = 0; i < 16; i += D::width) narrow(result + i, load(wide + i));
      return load(result);
    }
    uint32_t drawn[16];
    if constexpr (M == NEARNESS) {
      store(drawn, low_bits());
      for (int i = 0; i < 16; i += D::width) narrow(result + i, shorten_any(load(wide + i), widen(drawn + i)));
      return load(result);
    }
    const U s = sign();
    store(drawn, s);
    for (int i = 0; i < 16; i += D::width) {
      narrow(result + i, number(bits(load(wide + i)) ^ raised(widen(drawn + i))));
    }
    return flip(load(result), s);
  }

 private:
  template <typename Operation>
  F in_double(F a, F b, F c, Operation operation) {
    float x[16], y[16], z[16], result[16];
    uint32_t drawn[16];
    store(x, a);
    store(y, b);
    store(z, c);
    store(drawn, low_bits());
    for (int i = 0; i < 16; i += D::width) {
      const D exact = operation(widen(x + i), widen(y + i), widen(z + i));
      narrow(result + i, shorten_any(exact, widen(drawn + i)));
    }
    return load(result);
  }

  U sign() {
    if (left == 0) fetch(128);
    const int at = 128 - left--;
    return (words.word[at / 32] << (at % 32)) & all(SIGN);
  }

  U low_bits() {
    if (left == 0) fetch(4);
    return words.word[4 - left--] & all(uint32_t(LOW));
  }

  void fetch(int count) {
    words = draw(key, place, part++, 0);
    left = count;
  }

  const Key key;
  const uint64_t place;
  uint32_t part = 0;
  int left = 0;
  Words words;
};
