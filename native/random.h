// Where do random bits come from? Philox4x32-10 (Salmon et al. 2011): a function of a key and a counter, no state.
#pragma once
#include "simd.h"

struct Key {
  uint32_t first, second;  // of (seed, sample, call)
  uint32_t site;           // number of the elementary operation within the call
};

// Four words for each of sixteen lanes. `place` numbers what is drawn, `part` its pieces; lane l has `lane` + l.
struct Words { U word[4]; };

inline Words philox(U c0, U c1, U c2, U c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    U high0, low0, high1, low1;
    multiply(c0, 0xD2511F53u, high0, low0);
    multiply(c2, 0xCD9E8D57u, high1, low1);
    c0 = high1 ^ c1 ^ all(k0);
    c1 = low1;
    c2 = high0 ^ c3 ^ all(k1);
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

inline Words draw(const Key& key, uint64_t place, uint32_t part, uint32_t lane) {
  return philox(all(part), all(uint32_t(place)), all(lane) + lanes(), all(key.site ^ uint32_t(place >> 32) << 16),
                key.first, key.second);
}
