// What the files of the sweep over a layer share: vectors, a chunk's moments, and what is counted.
//
// A layer is swept in chunks of CHUNK elements, whose moments and scores stay in the second-level cache. Sums are
// taken chunk by chunk and then in the order of the chunks, so that no bit depends on threads or vector width.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace statistics {

constexpr int64_t CHUNK = 4096;
constexpr int CLASSES = 8;       // the codes of estimators.Class
constexpr int COMBINATIONS = 8;  // method x reference x error, in the order of histogram.COMBINATIONS
constexpr int64_t NUMBER = 0, NOISE = 1, ZERO = 2, EXACT = 3, SHIFTED = 4, NOT_A_NUMBER = 5, INFINITE = 6, UNDEFINED = 7;

// As many elements as a register holds doubles. gcc's vectors have the operators of their elements.
#ifdef __AVX512F__
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif
typedef double Doubles __attribute__((vector_size(WIDTH * 8)));
typedef int64_t Longs __attribute__((vector_size(WIDTH * 8)));
typedef float Floats __attribute__((vector_size(WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(WIDTH * 4)));
typedef int16_t Shorts __attribute__((vector_size(WIDTH * 2)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));

template <class V, class T> inline V load(const T* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V, class T> inline void store(T* to, V v) { std::memcpy(to, &v, sizeof v); }
inline Doubles widen(Floats x) { return __builtin_convertvector(x, Doubles); }
inline bool any(Longs mask) {
#ifdef __AVX512F__
  return _mm512_movepi64_mask((__m512i)mask) != 0;
#else
  return _mm256_movemask_pd((__m256d)mask) != 0;
#endif
}

inline bool all_finite(const float* values, int64_t length) {
  uint32_t special = 0;
  for (int64_t i = 0; i < length; ++i) {
    uint32_t pattern;
    std::memcpy(&pattern, values + i, sizeof pattern);
    special |= (pattern & 0x7f800000) == 0x7f800000;
  }
  return special == 0;
}

// The moments of some elements; see moments.Moments. `nans` and `infs` may be null: then there is none.
struct Moments {
  double* offset;
  double* m2;
  float* minimum;
  float* maximum;
  const float* reference;
  int16_t* zeros;
  int16_t* nans;
  int16_t* infs;
};

// The samples of a layer, in blocks that are merged in order.
struct Samples {
  const float* const* values;
  const int64_t* sizes;
  int64_t blocks;
};

// Reduce `length` samples' elements from `begin` on into `out`, which starts there; `zeros`, `nans` and `infs` of
// `out` may be null. Return whether all samples are finite.
bool reduce_chunk(const Samples& samples, int64_t begin, int64_t length, const Moments& out);

// What is asked of the scores.
struct Question {
  int64_t samples;      // in all
  int64_t combination;  // which of the eight gives the bits
  double cost;          // of the bits, see estimators.shift
  double lowest, per_bit;
  int64_t bins;         // of the histogram: bin b holds [lowest + b / per_bit, lowest + (b + 1) / per_bit)
  double rank_per_bit;
  int64_t rank_bins;    // bin b holds bits in [b, b + 1) / rank_per_bit; the last one all above
  int64_t cells;        // combinations of regions: bit i of a cell's number tells whether region i has it
  int64_t regions;      // without `all`
};

// What one thread counts: cells of the table have `bins` entries each, one more cell takes what does not vary.
struct Counts {
  int32_t* table;   // (COMBINATIONS, cells + 1, bins), or null
  int32_t* ranks;   // (cells + 1, rank_bins)
  int64_t* kinds;   // (cells, 2, CLASSES): classes, and whether the signal to noise ratio is below 1
};

// Room of one thread for a chunk's scores.
struct Room {
  int32_t bins[COMBINATIONS + 1][CHUNK];
  uint8_t kinds[CHUNK];  // the class, and 8 where the signal to noise ratio is below 1
};

// Score a chunk: write bits and codes, count, and put the sums of the bits of the numbers of `all` and each region
// into `sums`. `cell` is the cell of each element.
void score_chunk(const Question& q, const Moments& m, int64_t length, const uint8_t* cell, double* bits,
                 uint8_t* codes, Counts& counts, double* sums, Room& room);

// Arithmetic to nearest with denormals, whatever the thread is set to.
class OrdinaryArithmetic {
  unsigned before = _mm_getcsr();

 public:
  OrdinaryArithmetic() { _mm_setcsr(0x1f80); }
  ~OrdinaryArithmetic() { _mm_setcsr(before); }
};

}  // namespace statistics
