// How do moments become bits, classes and counts? The eight scores of scores.py, for a piece of elements.
#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "statistics.h"

namespace statistics {
namespace {

constexpr int64_t MANTISSA = 0x000fffffffffffff;

// Biased exponent of positive numbers, as doubles: the low bits of 2^52 + e are e.
inline Doubles exponent(Longs pattern) {
  const Longs shifted = (pattern >> 52) | 0x4330000000000000;
  return (Doubles)shifted - (4503599627370496.0 + 1023.0);
}
inline Doubles floor_log2(Doubles x) { return exponent((Longs)x); }

// log2 of positive normal numbers, within 1 ulp of the larger of it and 1; exact for powers of 2. The series of
// fdlibm's log on [sqrt(1/2), sqrt(2)), without multiply-add, so that both libraries have the same bits. COUNT of them
// side by side: the steps of one wait for each other.
template <int COUNT> inline void log2(Doubles (&x)[COUNT]) {
  const Longs half_root = Longs{} + 0x3fe6a09e667f3bcd;  // the bits of sqrt(1/2)
  constexpr double FACTORS[] = {1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
                                2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01};
  Longs moved[COUNT];
  Doubles f[COUNT], s[COUNT], z[COUNT], series[COUNT];
  for (int i = 0; i < COUNT; ++i) {
    moved[i] = (Longs)x[i] + (0x3ff0000000000000 - half_root);
    f[i] = (Doubles)((moved[i] & MANTISSA) + half_root) - 1.0;
    s[i] = f[i] / (2.0 + f[i]);
  }
  for (int i = 0; i < COUNT; ++i) {
    z[i] = s[i] * s[i];
    series[i] = z[i] * 1.479819860511658591e-01;
  }
#pragma GCC unroll 8
  for (const double factor : FACTORS)
    for (int i = 0; i < COUNT; ++i) series[i] = z[i] * (factor + series[i]);
  for (int i = 0; i < COUNT; ++i) {
    const Doubles half = 0.5 * f[i] * f[i];
    x[i] = exponent(moved[i]) + (f[i] - (half - s[i] * (half + series[i]))) * 1.4426950408889634;
  }
}

inline Doubles magnitude(Doubles x) { return (Doubles)((Longs)x & 0x7fffffffffffffff); }
inline Ints narrow(Longs x) { return __builtin_convertvector(x, Ints); }

#ifdef __AVX512F__
typedef __mmask8 Mask;
inline Mask mask_of(Longs chosen) { return _mm512_movepi64_mask((__m512i)chosen); }
inline Mask mask_of(Ints chosen) { return _mm256_movepi32_mask((__m256i)chosen); }
inline Ints together(Ints values, Mask mask) { return (Ints)_mm256_maskz_compress_epi32(mask, (__m256i)values); }
inline Ints clamp(Ints x, int32_t low, int32_t high) {
  return (Ints)_mm256_min_epi32(_mm256_max_epi32((__m256i)x, _mm256_set1_epi32(low)), _mm256_set1_epi32(high));
}
#else
typedef int Mask;
inline Mask mask_of(Longs chosen) { return _mm256_movemask_pd((__m256d)chosen); }
inline Mask mask_of(Ints chosen) { return _mm_movemask_ps((__m128)chosen); }
// The bytes of those of four integers whose bit is set, in order.
struct Moves {
  alignas(16) uint8_t bytes[16][16];
  constexpr Moves() : bytes{} {
    for (int mask = 0; mask < 16; ++mask) {
      int to = 0;
      for (int i = 0; i < 4; ++i)
        if (mask >> i & 1)
          for (int b = 0; b < 4; ++b) bytes[mask][to++] = uint8_t(4 * i + b);
    }
  }
};
constexpr Moves MOVES;
inline Ints together(Ints values, Mask mask) {
  return (Ints)_mm_shuffle_epi8((__m128i)values, _mm_load_si128((const __m128i*)MOVES.bytes[mask]));
}
inline Ints clamp(Ints x, int32_t low, int32_t high) {
  return (Ints)_mm_min_epi32(_mm_max_epi32((__m128i)x, _mm_set1_epi32(low)), _mm_set1_epi32(high));
}
#endif

// As many elements as a register holds doubles.
struct Input {
  const double *offset, *m2;
  const float *minimum, *maximum, *reference;
  const uint8_t *cell, *special;  // special: not 0 where an element is not counted
};

// What does not change from group to group.
struct Constants {
  Divisor samples;
  double cost, per_bit, start;
  int32_t bins, pairs, most, below, above;
  explicit Constants(const Question& q)
      : samples(q.samples), cost(q.cost), per_bit(double(q.per_bit)),
        start(-double(q.lowest * q.per_bit)), bins(int32_t(q.bins)), pairs(int32_t(q.pairs())),
        most(int32_t(q.bins - 1)), below(int32_t(2 * (q.lowest - 1))), above(below + pairs - 1) {}
};

// Indices into the tables of one centre.
struct Indices {
  Ints normal[RELATIONS], general;
};

// The scores to one centre (its magnitude) of values that deviate from it by `deviation` at most. Where it is 0 its
// exponent is that of the smallest number: the scores are far below all bins.
struct Scored {
  Doubles normal[RELATIONS];
  // floor(log2 c) - ceil(log2 d), twice, and whether -ceil(log2(d / c)) is one more: that is the floor of the
  // difference of patterns.
  Longs pair;
  Scored(Doubles centre, Doubles logarithm, Doubles deviation, Doubles spread)
      : normal{logarithm - spread, floor_log2(centre) - spread} {
    const Longs c = (Longs)centre, d = (Longs)deviation;
    const Longs absolute = (c >> 52) - ((d + MANTISSA) >> 52);
    pair = absolute + absolute + ((((c - d) >> 52) ^ absolute) & 1);
  }
  template <bool RELATIVE> Doubles general() const {
    const Ints twice = narrow(pair), absolute = twice >> 1;
    return __builtin_convertvector(RELATIVE ? absolute + (twice & 1) : absolute, Doubles);
  }
  Indices indices(const Constants& k, Ints cell) const {
    Indices found;
    for (int r = 0; r < RELATIONS; ++r) {
      // What is no int32, NaN included, becomes the least one.
      const Doubles scaled = multiply_add(normal[r], all(k.per_bit), all(k.start));
      found.normal[r] = clamp(__builtin_convertvector(scaled, Ints), 0, k.most) + cell * k.bins;
    }
    found.general = clamp(narrow(pair), k.below, k.above) - k.below + cell * k.pairs;
    return found;
  }
};

// Note the columns of those of `mask`, and those of the mean that differ.
inline void note(const Indices& ieee, const Indices& mean, Mask mask, Columns& to) {
  const bool whole = mask == Mask((1 << WIDTH) - 1);
  const auto moved = [&](Ints values, Mask chosen) { return whole ? values : together(values, chosen); };
  for (int r = 0; r < RELATIONS; ++r) {
    store(to.normal[r] + to.count, moved(ieee.normal[r], mask));
    const Mask other = mask_of(ieee.normal[r] != mean.normal[r]) & mask;
    if (!other) continue;
    store(to.normal_from[r] + to.normal_others[r], together(ieee.normal[r], other));
    store(to.normal_to[r] + to.normal_others[r], together(mean.normal[r], other));
    to.normal_others[r] += __builtin_popcount(other);
  }
  store(to.general + to.count, moved(ieee.general, mask));
  const Mask other = mask_of(ieee.general != mean.general) & mask;
  store(to.general_from + to.general_others, together(ieee.general, other));
  store(to.general_to + to.general_others, together(mean.general, other));
  to.general_others += __builtin_popcount(other);
  to.count += __builtin_popcount(mask);
}

// Score as many elements as a register holds doubles, GROUPS times.
template <int COMBINATION, bool SPECIALS, int GROUPS>
inline void score_groups(const Constants& k, const Input& in, double* bits, uint8_t* kinds, Columns& columns) {
  constexpr bool GENERAL = COMBINATION >= 4, MEAN = COMBINATION / 2 % 2 == 1, RELATIVE = COMBINATION % 2 == 0;
  Mask varying[GROUPS], some = 0;
  Doubles variance[GROUPS], logarithms[3 * GROUPS];
  for (int g = 0; g < GROUPS; ++g)
    some |= varying[g] = mask_of(load<Floats>(in.minimum + g * WIDTH) < load<Floats>(in.maximum + g * WIDTH));
  if (some) {
    for (int g = 0; g < GROUPS; ++g) {
      variance[g] = divide(load<Doubles>(in.m2 + g * WIDTH), k.samples);
      logarithms[3 * g] = variance[g];
      logarithms[3 * g + 1] = magnitude(widen(load<Floats>(in.reference + g * WIDTH)));
      logarithms[3 * g + 2] = magnitude(load<Doubles>(in.offset + g * WIDTH));
    }
    log2(logarithms);
  }
  for (int g = 0; g < GROUPS; ++g) {
    const int64_t at = g * WIDTH;
    const Floats least = load<Floats>(in.minimum + at), greatest = load<Floats>(in.maximum + at);
    const Floats value = load<Floats>(in.reference + at);
    Longs fixed{};
    if (varying[g] != Mask((1 << WIDTH) - 1)) {
      const Ints equal = least == greatest, exact = equal & (least == value), zero = exact & (value == 0.0f);
      const Ints kind = (equal & ~exact & int32_t(SHIFTED)) | (exact & ~zero & int32_t(EXACT)) | (zero & int32_t(ZERO));
      fixed = widen(kind);
      if (!varying[g]) {
        store(bits + at, Doubles{} + std::numeric_limits<double>::quiet_NaN());
        store(kinds + at, __builtin_convertvector(kind, Bytes));
        continue;
      }
    }
    const Doubles low = widen(least), high = widen(greatest), spread = 0.5 * logarithms[3 * g];
    const Doubles reference = widen(value), mean = load<Doubles>(in.offset + at);
    const Scored to_ieee(magnitude(reference), logarithms[3 * g + 1], larger(high - reference, reference - low), spread);
    const Scored to_mean(magnitude(mean), logarithms[3 * g + 2], larger(high - mean, mean - low), spread);
    const Scored& wanted = MEAN ? to_mean : to_ieee;
    const Doubles score = GENERAL ? wanted.template general<RELATIVE>() : wanted.normal[RELATIVE ? 0 : 1];
    const Doubles chosen = score - k.cost;
    store(bits + at, chosen);
    const Longs below = variance[g] >= mean * mean, varies = widen(least < greatest);
    const Longs kind = (varies & ((~(chosen > 0.0) & NOISE) | (below & CLASSES))) | fixed;
    store(kinds + at, __builtin_convertvector(kind, Bytes));
    Mask counted = varying[g];
    if (SPECIALS) counted &= mask_of(longs(in.special + at) == 0);
    const Ints cell = ints(in.cell + at);
    note(to_ieee.indices(k, cell), to_mean.indices(k, cell), counted, columns);
  }
}

// The same for the last elements, fewer than a register holds.
template <int COMBINATION, bool SPECIALS>
void score_rest(const Constants& k, const Moments& m, const uint8_t* cell, int64_t from, int64_t length, double* bits,
                Room& room) {
  double offset[WIDTH] = {}, m2[WIDTH] = {}, padded[WIDTH];
  float minimum[WIDTH] = {}, maximum[WIDTH] = {}, reference[WIDTH] = {};
  uint8_t cells[WIDTH] = {}, special[WIDTH] = {};
  for (int64_t j = 0; from + j < length; ++j) {
    offset[j] = m.offset[from + j];
    m2[j] = m.m2[from + j];
    minimum[j] = m.minimum[from + j];
    maximum[j] = m.maximum[from + j];
    reference[j] = m.reference[from + j];
    cells[j] = cell[from + j];
    special[j] = room.special[from + j];
  }
  // A piece is a multiple of WIDTH: the room has place for the padding, whose elements do not vary.
  const Input in{offset, m2, minimum, maximum, reference, cells, special};
  score_groups<COMBINATION, SPECIALS, 1>(k, in, padded, room.kinds + from, room.columns);
  for (int64_t j = 0; from + j < length; ++j) bits[from + j] = padded[j];
}

// Note the classes of elements that saw NaN or infinity, NUMBER for others; return whether there are any.
bool find_specials(const Question& q, const Moments& m, int64_t length, Room& room) {
  if (!m.nans && !m.infs && all_finite(m.reference, length)) return false;
  bool some = false;
  for (int64_t i = 0; i < length; ++i) {
    const int64_t nans = m.nans ? m.nans[i] : 0, infs = m.infs ? m.infs[i] : 0;
    int64_t kind = NUMBER;
    if (infs > 0 || std::isinf(m.reference[i])) kind = INFINITE;
    if (nans > 0 || std::isnan(m.reference[i])) kind = NOT_A_NUMBER;
    if (nans + infs == q.samples) kind = UNDEFINED;
    room.special[i] = uint8_t(kind);
    some = some || kind != NUMBER;
  }
  return some;
}

void mark_specials(const Moments& m, int64_t length, Room& room) {
  for (int64_t i = 0; i < length; ++i) {
    if (!room.special[i]) continue;
    // A reference that is not finite leaves the signal to noise ratio of the samples alone.
    const bool seen = (m.nans && m.nans[i]) || (m.infs && m.infs[i]);
    room.kinds[i] = uint8_t(room.special[i] | (seen ? 0 : room.kinds[i] & CLASSES));
  }
}

// Add the bits of the numbers to the sums of `all` and REGIONS regions, or of q.regions where that is less than 0.
template <int REGIONS>
void add_numbers(const Question& q, const double* bits, const uint8_t* codes, const uint8_t* cell, int64_t length,
                 Sums& sums) {
  constexpr int PARTS = 8 / WIDTH, MOST = REGIONS < 0 ? MOST_SUMS : REGIONS + 1;
  const int count = REGIONS < 0 ? int(q.regions) + 1 : REGIONS + 1;
  Doubles total[MOST][PARTS];
  for (int r = 0; r < count; ++r)
    for (int p = 0; p < PARTS; ++p) total[r][p] = load<Doubles>(sums.parts[r] + p * WIDTH);
  int64_t i = 0;
  for (; i + 8 <= length; i += 8)
    for (int p = 0; p < PARTS; ++p) {
      const int64_t at = i + p * WIDTH;
      const Longs number = longs(codes + at) == NUMBER;
      const Longs value = number & (Longs)load<Doubles>(bits + at);
      const Longs here = longs(cell + at);
      total[0][p] += (Doubles)value;
      for (int r = 1; r < count; ++r) total[r][p] += (Doubles)(value & -(here >> (r - 1) & 1));
    }
  for (int r = 0; r < count; ++r)
    for (int p = 0; p < PARTS; ++p) store(sums.parts[r] + p * WIDTH, total[r][p]);
  for (int j = 0; i < length; ++i, ++j)
    for (int r = 0; r < count; ++r)
      sums.parts[r][j] += codes[i] == NUMBER && (r == 0 || cell[i] >> (r - 1) & 1) ? bits[i] : 0.0;
}

void tally(const Question& q, const uint8_t* cell, int64_t length, const Room& room, Counts& counts) {
  const int64_t normal = q.cells * q.bins, general = q.cells * q.pairs(), kinds = q.cells * 2 * CLASSES;
  const Columns& columns = room.columns;
  int32_t* ieee = counts.general;
  for (int64_t j = 0; j < columns.count; ++j) {
    for (int r = 0; r < RELATIONS; ++r) ++counts.normal[r * normal + columns.normal[r][j]];
    ++ieee[j % SPREAD * general + columns.general[j]];
  }
  for (int r = 0; r < RELATIONS; ++r) {
    int32_t* mean = counts.normal + (RELATIONS + r) * normal;
    for (int64_t j = 0; j < columns.normal_others[r]; ++j) {
      --mean[columns.normal_from[r][j]];
      ++mean[columns.normal_to[r][j]];
    }
  }
  int32_t* mean = counts.general + SPREAD * general;
  for (int64_t j = 0; j < columns.general_others; ++j) {
    --mean[j % SPREAD * general + columns.general_from[j]];
    ++mean[j % SPREAD * general + columns.general_to[j]];
  }
  int64_t j = 0;
  for (; j + 8 <= length; j += 8) {
    uint64_t numbers;
    std::memcpy(&numbers, room.kinds + j, 8);
    if (numbers)
      for (int64_t i = j; i < j + 8; ++i) ++counts.kinds[i % SPREAD * kinds + cell[i] * 2 * CLASSES + room.kinds[i]];
  }
  for (; j < length; ++j) ++counts.kinds[cell[j] * 2 * CLASSES + room.kinds[j]];
}

template <int COMBINATION, bool SPECIALS>
void score_all(const Question& q, const Moments& m, int64_t length, const uint8_t* cell, double* bits, Room& room) {
  const Constants k(q);
  const auto score = [&](auto groups, int64_t i) {
    const Input in{m.offset + i,    m.m2 + i, m.minimum + i,    m.maximum + i,
                   m.reference + i, cell + i, room.special + i};
    score_groups<COMBINATION, SPECIALS, decltype(groups)::value>(k, in, bits + i, room.kinds + i, room.columns);
  };
  constexpr int GROUPS = WIDTH / 4;  // as the registers suffice
  int64_t i = 0;
  for (; i + GROUPS * WIDTH <= length; i += GROUPS * WIDTH) score(std::integral_constant<int, GROUPS>{}, i);
  for (; i + WIDTH <= length; i += WIDTH) score(std::integral_constant<int, 1>{}, i);
  if (i < length) score_rest<COMBINATION, SPECIALS>(k, m, cell, i, length, bits, room);
}

using Scorer = void (*)(const Question&, const Moments&, int64_t, const uint8_t*, double*, Room&);
constexpr Scorer SCORERS[COMBINATIONS][2] = {
    {score_all<0, false>, score_all<0, true>}, {score_all<1, false>, score_all<1, true>},
    {score_all<2, false>, score_all<2, true>}, {score_all<3, false>, score_all<3, true>},
    {score_all<4, false>, score_all<4, true>}, {score_all<5, false>, score_all<5, true>},
    {score_all<6, false>, score_all<6, true>}, {score_all<7, false>, score_all<7, true>}};

}  // namespace

void score_piece(const Question& q, const Moments& m, int64_t length, const uint8_t* cell, double* bits,
                 uint8_t* codes, Counts& counts, Sums& sums, Room& room) {
  const bool specials = find_specials(q, m, length, room);
  room.columns.clear();
  SCORERS[q.combination][specials](q, m, length, cell, bits, room);
  if (specials) mark_specials(m, length, room);
  for (int64_t j = 0; j < length; ++j) codes[j] = room.kinds[j] & (CLASSES - 1);
  tally(q, cell, length, room, counts);
  const auto add = q.regions == 0 ? add_numbers<0> : q.regions == 1 ? add_numbers<1> : q.regions == 2 ? add_numbers<2>
                 : add_numbers<-1>;
  add(q, bits, codes, cell, length, sums);
}

}  // namespace statistics
