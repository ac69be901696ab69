// Windows times weights, in registers: P windows by E octets of output channels, at the speed of a dense convolution
// for any list of windows. Each output is one chain of fused multiply-adds in the order of the weights.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

namespace micro {

constexpr int OCTET = 8;  // outputs are padded to so many

#if defined(__AVX512F__)
using Vector = __m512;
constexpr int LANES = 16, MOST = 9;  // octets of a block
constexpr int WINDOWS[] = {0, 12, 12, 12, 12, 8, 8, 6, 6, 5};
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Vector a) { _mm512_storeu_ps(p, a); }
inline Vector all(float a) { return _mm512_set1_ps(a); }
inline Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline __m256 half(Vector a) { return _mm512_castps512_ps256(a); }
#else
using Vector = __m256;
constexpr int LANES = 8, MOST = 3;
constexpr int WINDOWS[] = {0, 12, 6, 4};
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vector a) { _mm256_storeu_ps(p, a); }
inline Vector all(float a) { return _mm256_set1_ps(a); }
inline Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline __m256 half(Vector a) { return a; }
#endif

struct Segments {
  int count;             // segments of a window; each is `length` floats in a row
  int64_t length;
  const int64_t* shift;  // of each segment from the window's pointer; null: `pointers` has one for each segment
  int64_t pitch;         // pointers of a segment lie so far behind those of the one before
};

// outs[p] = (first ? bias : outs[p]) + sum over segments and k of x[k] w[k]
template <int E, int P>
__attribute__((noinline)) void block(const Segments& s, int64_t from, int64_t upto, const float* w, int64_t step,
                                     const float* const* pointers, float* const* outs, const float* bias, bool first) {
  constexpr int WIDE = OCTET * E, FULL = WIDE / LANES;
  constexpr bool HALF = WIDE % LANES != 0;  // the last octet fills half a vector
  Vector c[P][FULL ? FULL : 1];
  __m256 h[P];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    const float* start = first ? bias : outs[p];
#pragma GCC unroll 4
    for (int b = 0; b < FULL; ++b) c[p][b] = load(start + LANES * b);
    if constexpr (HALF) h[p] = _mm256_loadu_ps(start + LANES * FULL);
  }
  for (int r = 0; r < s.count; ++r) {
    const float* x[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) x[p] = s.shift ? pointers[p] + s.shift[r] : pointers[r * s.pitch + p];
    const float* v = w + r * step;
    for (int64_t k = from; k < upto; ++k) {
      Vector a[FULL ? FULL : 1];
      __m256 d;
#pragma GCC unroll 4
      for (int b = 0; b < FULL; ++b) a[b] = load(v + LANES * b);
      if constexpr (HALF) d = _mm256_loadu_ps(v + LANES * FULL);
      v += WIDE;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const Vector e = all(x[p][k]);
#pragma GCC unroll 4
        for (int b = 0; b < FULL; ++b) c[p][b] = fma(e, a[b], c[p][b]);
        if constexpr (HALF) h[p] = _mm256_fmadd_ps(half(e), d, h[p]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
    for (int b = 0; b < FULL; ++b) store(outs[p] + LANES * b, c[p][b]);
    if constexpr (HALF) _mm256_storeu_ps(outs[p] + LANES * FULL, h[p]);
  }
}

using Block = void (*)(const Segments&, int64_t, int64_t, const float*, int64_t, const float* const*, float* const*,
                       const float*, bool);

// block<E, P> at P - 1.
template <int E, int... P>
constexpr std::array<Block, 12> blocks(std::integer_sequence<int, P...>) {
  return {&block<E, P + 1>...};
}

template <int... E>
constexpr std::array<std::array<Block, 12>, MOST> tables(std::integer_sequence<int, E...>) {
  return {blocks<E + 1>(std::make_integer_sequence<int, WINDOWS[E + 1]>())...};
}

inline constexpr auto TABLE = tables(std::make_integer_sequence<int, MOST>());

inline int octets(int64_t outputs) { return int((outputs + OCTET - 1) / OCTET); }

// How many octets the next block takes: blocks are about as wide as each other.
inline int next(int left) {
  const int count = (left + MOST - 1) / MOST;
  return (left + count - 1) / count;
}

inline void groups(int e, int windows, const Segments& s, int64_t from, int64_t upto, const float* w, int64_t step,
                   const float* const* pointers, float** outs, const float* bias, bool first) {
  const int parts = (windows + WINDOWS[e] - 1) / WINDOWS[e];
  for (int i = 0, part = 0; part < parts; ++part) {
    const int now = (windows - i + parts - part - 1) / (parts - part);
    TABLE[size_t(e - 1)][size_t(now - 1)](s, from, upto, w, step, pointers + i, outs + i, bias, first);
    i += now;
  }
}

// Weights of one block that are walked in one go: they stay in the second-level cache.
constexpr int64_t BYTES = 1 << 20;

// All output channels of a list of windows; outs has whole octets of room each and is moved along.
inline void run(int windows, int64_t outputs, const Segments& s, const float* w, const float* const* pointers,
                float** outs, const float* bias) {
  for (int left = octets(outputs); left > 0;) {
    const int e = next(left);
    const int64_t wide = OCTET * e, step = s.length * wide, bytes = 4 * step;
    const int some = int(std::clamp<int64_t>(BYTES / bytes, 1, s.count));
    const int64_t part = bytes > BYTES ? std::max<int64_t>(1, BYTES / (4 * wide)) : s.length;
    bool first = true;
    for (int r = 0; r < s.count; r += some)
      for (int64_t from = 0; from < s.length; from += part) {
        const Segments piece{std::min(some, s.count - r), s.length, s.shift ? s.shift + r : nullptr, s.pitch};
        groups(e, windows, piece, from, std::min(from + part, s.length), w + r * step + from * wide, step,
               s.shift ? pointers : pointers + r * s.pitch, outs, bias, first);
        first = false;
      }
    for (int i = 0; i < windows; ++i) outs[i] += wide;
    w += s.count * step;
    bias += wide;
    left -= e;
  }
}

struct Lists {
  int taps, pitch;  // a tap's entries lie so far behind those of the one before
  const int* counts;
  const float* const* from;
  const uint8_t* rows;
};

// Adds to rows[i] the products of those taps of window i that are listed; weights as for run, of segments of one tap.
inline void listed(const Lists& l, int64_t outputs, int64_t inputs, const float* w, float* const* rows) {
  static constexpr int64_t HERE = 0;
  const Segments one{1, inputs, &HERE, 0};
  int64_t offset = 0;
  for (int left = octets(outputs); left > 0;) {
    const int e = next(left);
    const int64_t wide = OCTET * e;
    for (int t = 0; t < l.taps; ++t, w += inputs * wide) {
      float* outs[UINT8_MAX + 1];
      for (int i = 0; i < l.counts[t]; ++i) outs[i] = rows[l.rows[t * l.pitch + i]] + offset;
      groups(e, l.counts[t], one, 0, inputs, w, 0, l.from + t * l.pitch, outs, nullptr, false);
    }
    offset += wide;
    left -= e;
  }
}

}  // namespace micro
