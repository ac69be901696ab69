// Matrices turned: images from channels first to channels last, and back.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

namespace turning {

constexpr int64_t OCTET = 8, TILE = 64;  // numbers along each side

// to[c][r] = from[r][c], eight by eight.
inline void octets(const float* from, int64_t columns, float* to, int64_t rows) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(from + i * columns);
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; ++k) {
      a[i + 2 * k] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0x44);
      a[i + 2 * k + 1] = _mm256_shuffle_ps(b[i + k], b[i + k + 2], 0xEE);
    }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * rows, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * rows, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

inline void part(const float* from, float* to, int64_t rows, int64_t columns, int64_t r, int64_t c, int64_t high,
                 int64_t wide) {
  if (high == OCTET && wide == OCTET) return octets(from + r * columns + c, columns, to + c * rows + r, rows);
  for (int64_t i = r; i < r + high; ++i)
    for (int64_t k = c; k < c + wide; ++k) to[k * rows + i] = from[i * columns + k];
}

// One tile. Whichever side has its rows further apart is walked eight rows at a time: more of them, often a power of two
// apart, would fight for the same lines of the cache.
inline void tile(const float* from, float* to, int64_t rows, int64_t columns, int64_t r0, int64_t c0) {
  const int64_t r1 = std::min(rows, r0 + TILE), c1 = std::min(columns, c0 + TILE);
  if (columns > rows) {
    for (int64_t r = r0; r < r1; r += OCTET)
      for (int64_t c = c0; c < c1; c += OCTET)
        part(from, to, rows, columns, r, c, std::min(OCTET, r1 - r), std::min(OCTET, c1 - c));
  } else {
    for (int64_t c = c0; c < c1; c += OCTET)
      for (int64_t r = r0; r < r1; r += OCTET)
        part(from, to, rows, columns, r, c, std::min(OCTET, r1 - r), std::min(OCTET, c1 - c));
  }
}

}  // namespace turning

// Turns each of n matrices: (n, rows, columns) becomes (n, columns, rows).
inline void turn(const float* from, float* to, int64_t n, int64_t rows, int64_t columns, int threads) {
  using turning::TILE;
  const int64_t high = (rows + TILE - 1) / TILE, wide = (columns + TILE - 1) / TILE;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int64_t i = 0; i < n * high * wide; ++i) {
    const int64_t image = i / (high * wide) * rows * columns;
    turning::tile(from + image, to + image, rows, columns, i / wide % high * TILE, i % wide * TILE);
  }
}
