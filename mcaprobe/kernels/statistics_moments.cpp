// How do samples become moments? Welford within a block, Chan's merge from block to block, in double.
//
// The same operations in the same order as Moments.update and Moments.merge, hence the same bits.
#include <cmath>
#include <limits>

#include "statistics.h"

namespace statistics {
namespace {

constexpr int UNROLL = WIDTH / 2;  // groups side by side: the steps of one wait for each other
constexpr float INFINITY_F = std::numeric_limits<float>::infinity();

// Some elements at once, all samples finite.
struct Group {
  Doubles mean[UNROLL], m2[UNROLL];
  Floats low[UNROLL], high[UNROLL];
  Ints zeros[UNROLL];
};

#ifdef __AVX512F__
inline Floats smaller_float(Floats a, Floats b) { return _mm256_min_ps(a, b); }
inline Floats larger_float(Floats a, Floats b) { return _mm256_max_ps(a, b); }
#else
inline Floats smaller_float(Floats a, Floats b) { return _mm_min_ps(a, b); }
inline Floats larger_float(Floats a, Floats b) { return _mm_max_ps(a, b); }
#endif

template <bool ZEROS> inline void welford(const float* const* samples, int64_t count, const Divisor* counts,
                                        int64_t at, Group& g) {
  for (int u = 0; u < UNROLL; ++u) {
    g.mean[u] = g.m2[u] = Doubles{};
    g.low[u] = Floats{} + INFINITY_F;
    g.high[u] = Floats{} - INFINITY_F;
    g.zeros[u] = Ints{};
  }
  for (int64_t k = 0; k < count; ++k) {
    Doubles value[UNROLL], distance[UNROLL];
    for (int u = 0; u < UNROLL; ++u) {
      const Floats x = load<Floats>(samples[k] + at + u * WIDTH);
      value[u] = widen(x);
      distance[u] = value[u] - g.mean[u];
      g.low[u] = smaller_float(x, g.low[u]);
      g.high[u] = larger_float(x, g.high[u]);
      if (ZEROS) g.zeros[u] -= x == 0.0f;
    }
    for (int u = 0; u < UNROLL; ++u) g.mean[u] += divide(distance[u], counts[k]);
    for (int u = 0; u < UNROLL; ++u) g.m2[u] += distance[u] * (value[u] - g.mean[u]);
    for (int u = 0; u < UNROLL; u += 16 / WIDTH)  // the next piece's
      _mm_prefetch((const char*)(samples[k] + at + PIECE + u * WIDTH), _MM_HINT_T0);
  }
}

inline void chan(Group& a, const Group& b, double count_a, double count_b) {
  const double total = count_a + count_b, share = count_b / total, weight = count_a * count_b / total;
  for (int u = 0; u < UNROLL; ++u) {
    const Doubles distance = b.mean[u] - a.mean[u];
    const Doubles squared = distance * distance * weight;
    a.mean[u] += distance * share;
    a.m2[u] = (a.m2[u] + b.m2[u]) + squared;
    a.low[u] = b.low[u] < a.low[u] ? b.low[u] : a.low[u];
    a.high[u] = b.high[u] > a.high[u] ? b.high[u] : a.high[u];
    a.zeros[u] += b.zeros[u];
  }
}

// One element, whatever its samples are: those that are not finite are counted and left out.
struct Element {
  double count = 0, mean = 0, m2 = 0;
  float low = INFINITY_F, high = -INFINITY_F;
  int16_t zeros = 0, nans = 0, infs = 0;

  void take(float x) {
    if (!std::isfinite(x)) {
      (std::isnan(x) ? nans : infs) += 1;
      return;
    }
    count += 1;
    const double distance = double(x) - mean;
    mean += distance / count;
    m2 += distance * (double(x) - mean);
    low = x < low ? x : low;
    high = x > high ? x : high;
    zeros += x == 0.0f;
  }

  void merge(const Element& b) {
    const double total = count + b.count < 1 ? 1 : count + b.count;
    const double distance = b.mean - mean, share = b.count / total, weight = count * b.count / total;
    const double squared = weight == 0 ? 0 : distance * distance * weight;
    mean += distance * share;
    m2 = (m2 + b.m2) + squared;
    low = b.low < low ? b.low : low;
    high = b.high > high ? b.high : high;
    count += b.count;
    zeros += b.zeros;
    nans += b.nans;
    infs += b.infs;
  }
};

Element element(const Samples& samples, int64_t at) {
  Element total;
  const float* const* values = samples.values;
  for (int64_t b = 0; b < samples.blocks; values += samples.sizes[b++]) {
    Element block;
    for (int64_t k = 0; k < samples.sizes[b]; ++k) block.take(values[k][at]);
    if (b == 0)
      total = block;
    else
      total.merge(block);
  }
  return total;
}

// Return whether all samples of the elements are finite.
bool one_by_one(const Samples& samples, int64_t begin, int64_t from, int64_t to, const Moments& out) {
  bool finite = true;
  for (int64_t i = from; i < to; ++i) {
    const Element e = element(samples, begin + i);
    out.offset[i] = e.mean;
    out.m2[i] = e.m2;
    out.minimum[i] = e.low;
    out.maximum[i] = e.high;
    if (out.zeros) out.zeros[i] = e.zeros;
    if (out.nans) out.nans[i] = e.nans;
    if (out.infs) out.infs[i] = e.infs;
    finite = finite && e.nans == 0 && e.infs == 0;
  }
  return finite;
}

}  // namespace

namespace {

template <bool ZEROS>
bool reduce(const Samples& samples, const Divisor* counts, int64_t begin, int64_t length, const Moments& out) {
  constexpr int64_t STEP = WIDTH * UNROLL;
  bool finite = true;
  int64_t i = 0;
  for (; i + STEP <= length; i += STEP) {
    Group total, block;
    welford<ZEROS>(samples.values, samples.sizes[0], counts, begin + i, total);
    double count = double(samples.sizes[0]);
    const float* const* values = samples.values + samples.sizes[0];
    for (int64_t b = 1; b < samples.blocks; values += samples.sizes[b++]) {
      welford<ZEROS>(values, samples.sizes[b], counts, begin + i, block);
      chan(total, block, count, double(samples.sizes[b]));
      count += double(samples.sizes[b]);
    }
    // A NaN or an infinity stays in the mean, and the mean of finite floats is finite.
    Longs special{};
    for (int u = 0; u < UNROLL; ++u) special |= (total.mean[u] - total.mean[u]) != 0.0;
    if (any(special)) {
      finite = one_by_one(samples, begin, i, i + STEP, out) && finite;
      continue;
    }
    for (int u = 0; u < UNROLL; ++u) {
      const int64_t at = i + u * WIDTH;
      store(out.offset + at, total.mean[u]);
      store(out.m2 + at, total.m2[u]);
      store(out.minimum + at, total.low[u]);
      store(out.maximum + at, total.high[u]);
      if (ZEROS) store(out.zeros + at, __builtin_convertvector(total.zeros[u], Shorts));
      if (out.nans) store(out.nans + at, Shorts{});
      if (out.infs) store(out.infs + at, Shorts{});
    }
  }
  return one_by_one(samples, begin, i, length, out) && finite;
}

}  // namespace

bool reduce_piece(const Samples& samples, const Divisor* counts, int64_t begin, int64_t length,
                  const Moments& out) {
  return (out.zeros ? reduce<true> : reduce<false>)(samples, counts, begin, length, out);
}

}  // namespace statistics
