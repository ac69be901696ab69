// How do moments become bits, classes and counts? The eight scores of scores.py, for a chunk of elements.
#include <cmath>

#include "statistics.h"

namespace statistics {
namespace {

// Biased exponent of positive numbers, as doubles: the low bits of 2^52 + e are e.
inline Doubles exponent(Longs pattern) {
  const Longs shifted = (Longs)((pattern >> 52) & 0x7ff) | 0x4330000000000000;
  return (Doubles)shifted - (4503599627370496.0 + 1023.0);
}
inline Doubles floor_log2(Doubles x) { return exponent((Longs)x); }
inline Doubles ceil_log2(Doubles x) { return exponent((Longs)x + 0x000fffffffffffff); }

// log2 of positive normal numbers, within 1 ulp of the larger of it and 1; exact for powers of 2. The series of
// fdlibm's log on [sqrt(1/2), sqrt(2)), without multiply-add, so that both libraries have the same bits.
inline Doubles log2(Doubles x) {
  const Longs half_root = Longs{} + 0x3fe6a09e667f3bcd;  // the bits of sqrt(1/2)
  const Longs moved = (Longs)x + (0x3ff0000000000000 - half_root);
  const Doubles f = (Doubles)((moved & 0x000fffffffffffff) + half_root) - 1.0;
  const Doubles s = f / (2.0 + f), z = s * s;
  const Doubles series =
      z * (6.666666666666735130e-01 +
           z * (3.999999999940941908e-01 +
                z * (2.857142874366239149e-01 +
                     z * (2.222219843214978396e-01 +
                          z * (1.818357216161805012e-01 +
                               z * (1.531383769920937332e-01 + z * 1.479819860511658591e-01))))));
  const Doubles half = 0.5 * f * f;
  return exponent(moved) + (f - (half - s * (half + series))) * 1.4426950408889634;
}

inline Doubles magnitude(Doubles x) { return (Doubles)((Longs)x & 0x7fffffffffffffff); }
inline Doubles larger(Doubles a, Doubles b) { return a > b ? a : b; }

// As many elements as a register holds doubles.
struct Input {
  const double *offset, *m2;
  const float *minimum, *maximum, *reference;
  const uint8_t* cell;
};

// The bin of each score as an index into a table of cells; what the clamp meets first takes NaN to bin 0.
inline Ints index_of(Doubles scaled, double most, Ints first) {
  Doubles t = scaled > 0.0 ? scaled : Doubles{};
  t = t < most ? t : Doubles{} + most;
  return __builtin_convertvector(t, Ints) + first;
}

inline void score_group(const Question& q, const Input& in, double* bits, Room& room, int64_t at) {
  const Doubles reference = widen(load<Floats>(in.reference)), mean = load<Doubles>(in.offset);
  const Doubles low = widen(load<Floats>(in.minimum)), high = widen(load<Floats>(in.maximum));
  const Doubles variance = load<Doubles>(in.m2) / double(q.samples);
  const Doubles spread = 0.5 * log2(variance);

  // Where a centre is 0, its exponent is that of the smallest number: the score is far below all bins.
  const Doubles centres[2] = {magnitude(reference), magnitude(mean)};
  const Doubles deviations[2] = {larger(high - reference, reference - low), larger(high - mean, mean - low)};
  Doubles scores[COMBINATIONS];
  for (int r = 0; r < 2; ++r) {
    const Doubles whole = floor_log2(centres[r]);
    scores[2 * r] = log2(centres[r]) - spread;
    scores[2 * r + 1] = whole - spread;
    scores[4 + 2 * r] = 0.0 - ceil_log2(deviations[r] / centres[r]);
    scores[4 + 2 * r + 1] = whole - ceil_log2(deviations[r]);
  }
  const Doubles chosen = scores[q.combination] - q.cost;
  store(bits, chosen);

  const Longs varies = low < high;
  const Longs number = varies & (chosen > 0.0);
  const Longs equal = low == high, exact = equal & (low == reference), zero = exact & (reference == 0.0);
  const Longs below = varies & (variance >= mean * mean);
  const Longs kind = (~number & varies & NOISE) | (equal & ~exact & SHIFTED) | (exact & ~zero & EXACT) |
                     (zero & ZERO) | (below & CLASSES);
  store(room.kinds + at, __builtin_convertvector(kind, Bytes));

  const Ints cell = __builtin_convertvector(load<Bytes>(in.cell), Ints);
  const Ints none = Ints{} + int32_t(q.cells);
  const Ints varying = __builtin_convertvector(varies, Ints), numeric = __builtin_convertvector(number, Ints);
  const Ints first = (varying ? cell : none) * int32_t(q.bins);
  const double most = double(q.bins - 1);
  for (int k = 0; k < COMBINATIONS; ++k)
    store(room.bins[k] + at, index_of((scores[k] - q.lowest) * q.per_bit, most, first));
  store(room.bins[COMBINATIONS] + at,
        index_of(chosen * q.rank_per_bit, double(q.rank_bins - 1), (numeric ? cell : none) * int32_t(q.rank_bins)));
}

// The classes of elements that saw NaN or infinity, and their bins: none.
void mark_specials(const Question& q, const Moments& m, int64_t length, Room& room) {
  for (int64_t i = 0; i < length; ++i) {
    const int64_t nans = m.nans ? m.nans[i] : 0, infs = m.infs ? m.infs[i] : 0;
    const bool seen = nans + infs > 0;
    if (!seen && std::isfinite(m.reference[i])) continue;
    int64_t kind = NUMBER;
    if (infs > 0 || std::isinf(m.reference[i])) kind = INFINITE;
    if (nans > 0 || std::isnan(m.reference[i])) kind = NOT_A_NUMBER;
    if (nans + infs == q.samples) kind = UNDEFINED;
    // A reference that is not finite leaves the signal to noise ratio of the samples alone.
    room.kinds[i] = uint8_t(kind | (seen ? 0 : room.kinds[i] & CLASSES));
    for (int k = 0; k < COMBINATIONS; ++k) room.bins[k][i] = int32_t(q.cells * q.bins);
    room.bins[COMBINATIONS][i] = int32_t(q.cells * q.rank_bins);
  }
}

// The sum of the bits of the numbers in the cells whose number has `bit` (every cell for 0).
double sum_of_numbers(const double* bits, const uint8_t* codes, const uint8_t* cell, int64_t length, uint8_t bit) {
  double parts[8] = {};
  int64_t i = 0;
  for (; i + 8 <= length; i += 8)
    for (int j = 0; j < 8; ++j)
      parts[j] += codes[i + j] == NUMBER && (cell[i + j] & bit) == bit ? bits[i + j] : 0.0;
  for (int j = 0; i < length; ++i, ++j)
    parts[j] += codes[i] == NUMBER && (cell[i] & bit) == bit ? bits[i] : 0.0;
  return ((parts[0] + parts[1]) + (parts[2] + parts[3])) + ((parts[4] + parts[5]) + (parts[6] + parts[7]));
}

void score_rest(const Question& q, const Moments& m, const uint8_t* cell, int64_t from, int64_t length,
                double* bits, Room& room) {
  double offset[WIDTH] = {}, m2[WIDTH] = {}, padded[WIDTH];
  float minimum[WIDTH] = {}, maximum[WIDTH] = {}, reference[WIDTH] = {};
  uint8_t cells[WIDTH] = {};
  for (int64_t j = 0; from + j < length; ++j) {
    offset[j] = m.offset[from + j];
    m2[j] = m.m2[from + j];
    minimum[j] = m.minimum[from + j];
    maximum[j] = m.maximum[from + j];
    reference[j] = m.reference[from + j];
    cells[j] = cell[from + j];
  }
  // A chunk is a multiple of WIDTH: the room has place for the padding.
  score_group(q, {offset, m2, minimum, maximum, reference, cells}, padded, room, from);
  for (int64_t j = 0; from + j < length; ++j) bits[from + j] = padded[j];
}

}  // namespace

void score_chunk(const Question& q, const Moments& m, int64_t length, const uint8_t* cell, double* bits,
                 uint8_t* codes, Counts& counts, double* sums, Room& room) {
  int64_t i = 0;
  for (; i + WIDTH <= length; i += WIDTH)
    score_group(q, {m.offset + i, m.m2 + i, m.minimum + i, m.maximum + i, m.reference + i, cell + i}, bits + i, room,
                i);
  if (i < length) score_rest(q, m, cell, i, length, bits, room);
  if (m.nans || m.infs || !all_finite(m.reference, length)) mark_specials(q, m, length, room);

  for (int64_t j = 0; j < length; ++j) {
    codes[j] = room.kinds[j] & (CLASSES - 1);
    ++counts.kinds[cell[j] * 2 * CLASSES + room.kinds[j]];
    ++counts.ranks[room.bins[COMBINATIONS][j]];
  }
  if (counts.table)
    for (int64_t j = 0; j < length; ++j)
      for (int k = 0; k < COMBINATIONS; ++k)
        ++counts.table[k * (q.cells + 1) * q.bins + room.bins[k][j]];
  sums[0] = sum_of_numbers(bits, codes, cell, length, 0);
  for (int64_t r = 0; r < q.regions; ++r) sums[r + 1] = sum_of_numbers(bits, codes, cell, length, uint8_t(1 << r));
}

}  // namespace statistics
