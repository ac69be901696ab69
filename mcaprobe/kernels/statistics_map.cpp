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
};

void read(const double* bits, const uint8_t* codes, int64_t channels, int64_t positions, int64_t begin, int64_t width,
          Tile& t) {
  constexpr float none = std::numeric_limits<float>::infinity();  // sorts behind the numbers
  std::fill(&t.counts[0][0], &t.counts[0][0] + CLASSES * TILE, uint16_t(0));
  uint8_t code[TILE] = {};
  for (int64_t c = 0; c < channels; ++c) {
    float* row = t.rows.data() + c * TILE;
    const double* from = bits + c * positions + begin;
    std::memcpy(code, codes + c * positions + begin, width);
    for (int64_t p = 0; p < width; ++p) row[p] = code[p] == NUMBER ? float(from[p]) : none;
    for (int k = 0; k < CLASSES; ++k)
      for (int64_t p = 0; p < TILE; ++p) t.counts[k][p] += code[p] == k;
  }
}

}  // namespace

// `bits` and `codes` of (channels, positions), channels < 2^16; `shares` of (CLASSES, positions).
MCA_API void mca_channel_map(const double* bits, const uint8_t* codes, int64_t channels, int64_t positions,
                             float* median, uint8_t* majority, float* shares, int32_t threads) {
  const int64_t tiles = (positions + TILE - 1) / TILE;
#pragma omp parallel num_threads(threads)
  {
    OrdinaryArithmetic ordinary;
    Tile t;
    t.rows.assign(channels * TILE, 0);
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = tile * TILE, width = std::min(TILE, positions - begin);
      read(bits, codes, channels, positions, begin, width, t);
      sort_columns(t.rows.data(), channels);
      for (int64_t p = 0; p < width; ++p) {
        const int64_t numbers = t.counts[NUMBER][p];
        const auto row = [&](int64_t r) { return t.rows[r * TILE + p]; };
        median[begin + p] =
            numbers ? (row((numbers - 1) / 2) + row(numbers / 2)) * 0.5f : std::numeric_limits<float>::quiet_NaN();
        int64_t most = 0;
        for (int k = 1; k < CLASSES; ++k)
          if (t.counts[k][p] > t.counts[most][p]) most = k;
        majority[begin + p] = uint8_t(2 * t.counts[most][p] > channels || numbers == 0 ? most : int64_t(NUMBER));
        for (int k = 0; k < CLASSES; ++k)
          shares[k * positions + begin + p] = float(t.counts[k][p]) / float(channels);
      }
    }
  }
}
