// What the files of the sweep over a layer share: vectors, a chunk's moments, and what is counted.
//
// A layer is swept in pieces of PIECE elements, whose moments and scores stay in the first-level cache. Sums are taken
// by chunks of CHUNK elements and then in the order of the chunks, so that no bit depends on threads or vector width.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace statistics {

constexpr int64_t CHUNK = 4096, PIECE = 256;
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
#ifdef __AVX512F__
inline Doubles all(double x) { return _mm512_set1_pd(x); }
inline Doubles smaller(Doubles a, Doubles b) { return _mm512_min_pd(a, b); }  // the second where one is NaN
inline Doubles larger(Doubles a, Doubles b) { return _mm512_max_pd(a, b); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm512_fmadd_pd(a, b, c); }
// gcc 12 widens 512 bits in halves.
inline Doubles widen(Floats x) { return _mm512_cvtps_pd((__m256)x); }
inline Longs widen(Ints x) { return (Longs)_mm512_cvtepi32_epi64((__m256i)x); }
inline Longs longs(const uint8_t* from) { return (Longs)_mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i*)from)); }
inline Ints ints(const uint8_t* from) { return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)from)); }
#else
inline Doubles all(double x) { return _mm256_set1_pd(x); }
inline Doubles smaller(Doubles a, Doubles b) { return _mm256_min_pd(a, b); }
inline Doubles larger(Doubles a, Doubles b) { return _mm256_max_pd(a, b); }
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) { return _mm256_fmadd_pd(a, b, c); }
inline Doubles widen(Floats x) { return _mm256_cvtps_pd((__m128)x); }
inline Longs widen(Ints x) { return (Longs)_mm256_cvtepi32_epi64((__m128i)x); }
inline Longs longs(const uint8_t* from) { return (Longs)_mm256_cvtepu8_epi64(_mm_loadu_si32(from)); }
inline Ints ints(const uint8_t* from) { return (Ints)_mm_cvtepu8_epi32(_mm_loadu_si32(from)); }
#endif

// Division by a count n < 2^16, correctly rounded where nothing under- or overflows: the corrected product with the
// reciprocal is within 2^-51 ulp of the quotient, which is at least 1 / 2n ulp away from the middle of two doubles
// (Markstein 1990). A zero may lose its sign; infinities become NaN.
struct Divisor {
  double minus, reciprocal;
  explicit Divisor(int64_t n) : minus(-double(n)), reciprocal(1.0 / double(n)) {}
};
inline Doubles divide(Doubles d, const Divisor& n) {
  const Doubles q = d * n.reciprocal, rest = multiply_add(all(n.minus), q, d);
  return multiply_add(rest, all(n.reciprocal), q);
}

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
// `out` may be null. counts[k] divides by k + 1. Return whether all samples are finite.
bool reduce_piece(const Samples& samples, const Divisor* counts, int64_t begin, int64_t length,
                  const Moments& out);

// What is asked of the scores.
struct Question {
  int64_t samples;      // in all
  int64_t combination;  // which of the eight gives the bits
  double cost;          // of the bits, see estimators.shift
  int64_t lowest, per_bit;
  int64_t bins;         // of the histogram: bin b holds [lowest + b / per_bit, lowest + (b + 1) / per_bit)
  int64_t cells;        // combinations of regions: bit i of a cell's number tells whether region i has it
  int64_t regions;      // without `all`

  // A general score is an integer; the relative one is the absolute one or the next. They are counted together.
  int64_t pairs() const { return 2 * (bins / per_bit + 2); }
};

constexpr int CENTRES = 2, RELATIONS = 2;
constexpr int SPREAD = 4;  // equal tables in turn: an increment waits for the one before it of the same number

// What one thread counts. The tables of the mean, the second centre, hold by how much they differ from those of the
// reference: the two are seldom in different bins. Groups of 8 elements that are all numbers are not in `kinds`.
struct Counts {
  int32_t* normal;   // (CENTRES, RELATIONS, cells, bins): cnh
  int32_t* general;  // (CENTRES, SPREAD, cells, pairs)
  int32_t* kinds;    // (SPREAD, cells, 2, CLASSES): classes, and whether the signal to noise ratio is below 1
};

// Sums of the bits of the numbers, of `all` and each region; entry j of one sum has every 8th element from the j-th on.
constexpr int MOST_SUMS = 8;
struct Sums {
  double parts[MOST_SUMS][8];
  double total(int64_t r) const {
    const double* p = parts[r];
    return ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7]));
  }
};

// Indices into the tables of the elements of a piece that vary, side by side; and from where to where those move whose
// score to the mean has another index than that to the reference.
struct Columns {
  static constexpr int64_t ROOM = PIECE + 8;
  int64_t count, normal_others[RELATIONS], general_others;
  int32_t normal[RELATIONS][ROOM], normal_from[RELATIONS][ROOM], normal_to[RELATIONS][ROOM];
  int32_t general[ROOM], general_from[ROOM], general_to[ROOM];
  void clear() { count = normal_others[0] = normal_others[1] = general_others = 0; }
};

// Room of one thread for a piece's scores.
struct Room {
  Columns columns;
  uint8_t special[PIECE];
  uint8_t kinds[PIECE];  // the class, and 8 where the signal to noise ratio is below 1
};

// Score a piece: write bits and codes, count, add to the sums. `cell` is the cell of each element.
void score_piece(const Question& q, const Moments& m, int64_t length, const uint8_t* cell, double* bits,
                 uint8_t* codes, Counts& counts, Sums& sums, Room& room);

// Arithmetic to nearest with denormals, whatever the thread is set to.
class OrdinaryArithmetic {
  unsigned before = _mm_getcsr();

 public:
  OrdinaryArithmetic() { _mm_setcsr(0x1f80); }
  ~OrdinaryArithmetic() { _mm_setcsr(before); }
};

}  // namespace statistics
