// What do the channels of each position have in common? The median of the bits, the majority and shares of classes.
#include <algorithm>
#include <limits>
#include <vector>

#include "abi.h"
#include "statistics.h"

using namespace statistics;

namespace {

constexpr int64_t TILE = 64;  // positions side by side

// Sort the columns of rows of TILE floats: Batcher's merge exchange (Knuth, vol. 3, 5.2.2 M), which compares the same
// rows whatever they hold.
void sort_columns(float* rows, int64_t count) {
  const auto exchange = [&](int64_t i, int64_t j) {
    float *a = rows + i * TILE, *b = rows + j * TILE;
    for (int64_t p = 0; p < TILE; ++p) {
      const float x = a[p], y = b[p];
      a[p] = x < y ? x : y;
      b[p] = x < y ? y : x;
    }
  };
  int64_t top = 1;
  while (2 * top < count) top *= 2;
  if (count < 2) return;
  for (int64_t p = top; p > 0; p /= 2) {
    int64_t q = top, r = 0, d = p;
    while (true) {
      for (int64_t i = 0; i + d < count; ++i)
        if ((i & p) == r) exchange(i, i + d);
      if (q == p) break;
      d = q - p;
      q /= 2;
      r = p;
    }
  }
}

struct Tile {
  std::vector<float> rows;
  uint16_t counts[CLASSES][TILE];
  int64_t numbers;  // in all
};

// Read the channels of `width` positions. Those that are no numbers sort behind the numbers.
void read(const double* bits, const uint8_t* codes, int64_t channels, int64_t positions, int64_t begin, int64_t width,
          Tile& t) {
  constexpr float none = std::numeric_limits<float>::infinity();
  constexpr int64_t FEW = 255;  // channels that a byte can count
  std::memset(t.counts, 0, sizeof t.counts);
  uint8_t few[CLASSES][TILE] = {}, code[TILE];
  std::memset(code, int(CLASSES), TILE);  // beside the width: no class
  t.numbers = channels * width;
  for (int64_t c = 0; c < channels; ++c) {
    float* row = t.rows.data() + c * TILE;
    const double* from = bits + c * positions + begin;
    const uint8_t* classes = codes + c * positions + begin;
    for (int64_t p = 0; p < width; p += 8) {  // the next tile's
      _mm_prefetch((const char*)(from + width + p), _MM_HINT_T0);
    }
    _mm_prefetch((const char*)(classes + width), _MM_HINT_T0);
    std::memcpy(code, classes, width);
    uint64_t others = 0;
    for (int64_t p = 0; p < TILE; p += 8) {
      uint64_t eight;
      std::memcpy(&eight, code + p, 8);
      others |= eight & 0x0707070707070707;
    }
    if (width == TILE) {
      for (int64_t p = 0; p < TILE; ++p) row[p] = float(from[p]);
    } else {
      for (int64_t p = 0; p < width; ++p) row[p] = float(from[p]);
    }
    if (others) {
      for (int64_t p = 0; p < TILE; ++p) row[p] = code[p] == NUMBER ? row[p] : none;
      for (int k = 1; k < CLASSES; ++k)
        for (int64_t p = 0; p < TILE; ++p) few[k][p] += code[p] == k;
    }
    if ((c + 1) % FEW && c + 1 < channels) continue;
    for (int k = 1; k < CLASSES; ++k)
      for (int64_t p = 0; p < TILE; ++p) t.counts[k][p] += few[k][p];
    std::memset(few, 0, sizeof few);
  }
  for (int64_t p = 0; p < TILE; ++p) {
    int others = 0;
    for (int k = 1; k < CLASSES; ++k) others += t.counts[k][p];
    t.counts[NUMBER][p] = uint16_t(channels - others);
    if (p < width) t.numbers -= others;
  }
}

// Write the median of the numbers of each position: the mean of the middle two of an even count.
void medians(Tile& t, int64_t channels, int64_t width, float* out) {
  const float* rows = t.rows.data();
  if (t.numbers == channels * width) {
    const float *lower = rows + (channels - 1) / 2 * TILE, *upper = rows + channels / 2 * TILE;
    for (int64_t p = 0; p < width; ++p) out[p] = (lower[p] + upper[p]) * 0.5f;
    return;
  }
  const auto look = [&](int32_t p) {
    const int32_t numbers = t.counts[NUMBER][p], lower = (numbers - (numbers > 0)) / 2, upper = numbers / 2;
    const int32_t last = int32_t(channels) - 1;
    const float sum = rows[lower * int32_t(TILE) + p] + rows[(upper < last ? upper : last) * int32_t(TILE) + p];
    return numbers ? sum * 0.5f : std::numeric_limits<float>::quiet_NaN();
  };
#pragma omp simd
  for (int32_t p = 0; p < int32_t(width); ++p) out[p] = look(p);
}

// Write the class of the majority, or, without numbers, the most frequent one.
void majorities(const Tile& t, int64_t channels, int64_t width, uint8_t* out) {
  uint16_t most[TILE], highest[TILE];
  for (int64_t p = 0; p < TILE; ++p) {
    most[p] = NUMBER;
    highest[p] = t.counts[NUMBER][p];
  }
  for (int k = 1; k < CLASSES; ++k)
    for (int64_t p = 0; p < TILE; ++p) {
      const bool more = t.counts[k][p] > highest[p];
      most[p] = more ? uint16_t(k) : most[p];
      highest[p] = more ? t.counts[k][p] : highest[p];
    }
  for (int64_t p = 0; p < width; ++p)
    out[p] = uint8_t(2 * int32_t(highest[p]) > int32_t(channels) || t.counts[NUMBER][p] == 0 ? most[p] : NUMBER);
}

}  // namespace

// `bits` and `codes` of (channels, positions), channels < 2^16; `shares` of (CLASSES, positions).
MCA_API void mca_channel_map(const double* bits, const uint8_t* codes, int64_t channels, int64_t positions,
                             float* median, uint8_t* majority, float* shares, int32_t threads) {
  const int64_t tiles = (positions + TILE - 1) / TILE;
#pragma omp parallel num_threads(int(std::min<int64_t>(threads, (tiles + 15) / 16)))
  {
    OrdinaryArithmetic ordinary;
    Tile t;
    t.rows.assign(channels * TILE, 0);
#pragma omp for schedule(dynamic, 16) nowait
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = tile * TILE, width = std::min(TILE, positions - begin);
      read(bits, codes, channels, positions, begin, width, t);
      if (t.numbers) sort_columns(t.rows.data(), channels);
      medians(t, channels, width, median + begin);
      majorities(t, channels, width, majority + begin);
      for (int k = 0; k < CLASSES; ++k)
        for (int64_t p = 0; p < width; ++p)
          shares[k * positions + begin + p] = float(t.counts[k][p]) / float(channels);
    }
  }
}
