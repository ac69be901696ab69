// Windows times weights, in registers: P windows by NB vectors of output channels, at the speed of a dense convolution
// for any list of windows. Each output is one chain of fused multiply-adds in the order of the weights.
#pragma once
#include "simd.h"

#include <algorithm>
#include <array>
#include <utility>

namespace micro {

#if defined(__AVX512F__)
constexpr int MOST_VECTORS = 4;
constexpr int WINDOWS[] = {0, 12, 12, 8, 6};
#else
constexpr int MOST_VECTORS = 2;
constexpr int WINDOWS[] = {0, 6, 3};
#endif

struct Segments {
  int count;             // segments of a window; each is `length` floats in a row
  int64_t length;
  const int64_t* shift;  // of each segment from the window's pointer; null: `pointers` has one for each segment
  int64_t pitch;         // pointers of a segment lie so far behind those of the one before
};

// outs[p] += (first ? bias : outs[p]) + sum over segments and k of x[k] w[k]
template <int NB, int P>
__attribute__((noinline)) void block(const Segments& s, int64_t from, int64_t upto, const float* w, int64_t step,
                                     const float* const* pointers, float* const* outs, const float* bias, bool first) {
  F c[P][NB];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b)
      c[p][b] = load(first ? bias + 16 * b : outs[p] + 16 * b);
  for (int r = 0; r < s.count; ++r) {
    const float* x[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) x[p] = (s.shift ? pointers[p] + s.shift[r] : pointers[r * s.pitch + p]);
    const float* v = w + r * step;
    for (int64_t k = from; k < upto; ++k) {
      F a[NB];
#pragma GCC unroll 4
      for (int b = 0; b < NB; ++b) a[b] = load(v + 16 * b);
      v += 16 * NB;
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) {
        const F e = all(x[p][k]);
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) c[p][b] = fma(e, a[b], c[p][b]);
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) store(outs[p] + 16 * b, c[p][b]);
}

using Block = void (*)(const Segments&, int64_t, int64_t, const float*, int64_t, const float* const*, float* const*,
                       const float*, bool);

// block<NB, P> at P - 1.
template <int NB, int... P>
constexpr std::array<Block, sizeof...(P)> blocks(std::integer_sequence<int, P...>) {
  return {&block<NB, P + 1>...};
}

inline int vectors(int64_t outputs) { return int((outputs + 15) / 16); }

// How many vectors the next block takes, so that no narrow one is left over.
inline int next(int left) {
  if (MOST_VECTORS == 4 && (left == 5 || left == 6)) return 3;
  return std::min(left, MOST_VECTORS);
}

template <int NB>
void groups(int windows, const Segments& s, int64_t from, int64_t upto, const float* w, int64_t step,
            const float* const* pointers, float** outs, const float* bias, bool first) {
  constexpr int P = WINDOWS[NB];
  static constexpr auto table = blocks<NB>(std::make_integer_sequence<int, P>());
  const int parts = (windows + P - 1) / P;
  for (int i = 0, part = 0; part < parts; ++part) {
    const int now = (windows - i + parts - part - 1) / (parts - part);
    table[size_t(now - 1)](s, from, upto, w, step, pointers + i, outs + i, bias, first);
    i += now;
  }
}

// Weights of one block that are walked in one go: they stay in the second-level cache.
constexpr int64_t BYTES = 1 << 20;

// All output channels of a list of windows; outs has `vectors` times 16 floats of room each and is moved along.
inline void run(int windows, int64_t outputs, const Segments& s, const float* w, const float* const* pointers,
                float** outs, const float* bias) {
  for (int left = vectors(outputs); left > 0;) {
    const int nb = next(left);
    const int64_t step = s.length * 16 * nb, bytes = 4 * step;
    const int some = int(std::clamp<int64_t>(BYTES / bytes, 1, s.count));
    const int64_t part = bytes > BYTES ? std::max<int64_t>(1, BYTES / (64 * nb)) : s.length;
    bool first = true;
    for (int r = 0; r < s.count; r += some)
      for (int64_t from = 0; from < s.length; from += part) {
        const Segments piece{std::min(some, s.count - r), s.length, s.shift ? s.shift + r : nullptr, s.pitch};
        const float* v = w + r * step + from * 16 * nb;
        const float* const* at = s.shift ? pointers : pointers + r * s.pitch;
        const int64_t upto = std::min(from + part, s.length);
        switch (nb) {
          case 1: groups<1>(windows, piece, from, upto, v, step, at, outs, bias, first); break;
          case 2: groups<2>(windows, piece, from, upto, v, step, at, outs, bias, first); break;
#if defined(__AVX512F__)
          case 3: groups<3>(windows, piece, from, upto, v, step, at, outs, bias, first); break;
          case 4: groups<4>(windows, piece, from, upto, v, step, at, outs, bias, first); break;
#endif
        }
        first = false;
      }
    for (int i = 0; i < windows; ++i) outs[i] += 16 * nb;
    w += s.count * step;
    bias += 16 * nb;
    left -= nb;
  }
}

}  // namespace micro
