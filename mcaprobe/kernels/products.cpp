// Convolutions and matrix products with every multiply-add rounded as the mode says.
//
// Outputs are cut into panels of 64 columns, whatever the instruction set; each panel has its inputs copied side by side
// (gather.h). Mode `random` rounds up throughout: product k of (row r, column c) is multiplied by the sign x y, x random
// for (r, k), y for (c, k); x is folded into the weights, y into the inputs, and the accumulator is turned by the changes
// of both. Signs of two different sums are independent of each other. Mode `nearness` accumulates in double, where a
// product is exact, and adds the random number x xor y to the bits that a float has not.
#include "products.h"

#include <omp.h>

#include <new>

#include "gather.h"
#include "random.h"
#include "rounding.h"

namespace {

constexpr int BLOCK = 16, TILE = 4, TILES = BLOCK / TILE;
constexpr uint32_t ROWS = 16;  // lanes 0 .. 15 draw for columns, the others for blocks of rows

// What one thread needs for one panel and one block of rows. Steps: the products, then an addition for each segment.
struct Workspace {
  Workspace(int64_t mode, int64_t products, int64_t steps, int64_t segments)
      : input(size_t(products) * COLUMNS + BLOCK), weight(size_t(products) * BLOCK + BLOCK) {
    if (mode == NEAREST) return;
    row.resize(size_t(steps) * BLOCK);
    column.resize(mode == RANDOM ? size_t((steps + 31) / 32) * 4 * BLOCK : size_t(steps) * COLUMNS);
    if (mode == NEARNESS) return;
    last_row.resize(size_t(segments) * BLOCK);
    last_column.resize(size_t(segments) * COLUMNS);
  }

  std::vector<float> input;          // (products, 64); mode random: times y
  std::vector<uint32_t> column;      // random: (steps / 8, 16) changes of y, 4 bits a step; nearness: (steps, 64)
  std::vector<float> weight;         // (4 tiles, products, 4); random: times x
  std::vector<uint32_t> row;         // (4 tiles, steps, 4), random: changes of x as sign bits; nearness: 29 bits
  std::vector<uint32_t> last_row;    // (segments, 16), random: x at the end of a segment
  std::vector<uint32_t> last_column; // (segments, 64), random: y at the end of a segment
};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Job {
 public:
  explicit Job(const Products& p)
      : p(p), key{p.key[0], p.key[1], p.site}, segments(std::max<int64_t>(1, ceil_div(p.products, p.segment))),
        steps(p.products + segments + 1), blocks(ceil_div(p.rows, BLOCK)),
        total(p.images * p.outputs[0] * p.outputs[1] * p.outputs[2]), panels(ceil_div(total, COLUMNS)) {
    // Lines are copied channel by channel: the taps of one channel share their cache lines.
    by_channel.resize(size_t(p.products));
    for (int64_t k = 0; k < p.products; ++k) by_channel[size_t(k)] = int32_t(k);
    std::stable_sort(by_channel.begin(), by_channel.end(), [&](int32_t a, int32_t b) { return p.channel[a] < p.channel[b]; });
    if (p.mode != NEARNESS) return;
    for (int64_t i = 0; i < p.groups * blocks * p.products * BLOCK; ++i) extremes(p.weight[i], weights);
    for (int64_t i = 0; p.bias && i < p.groups * p.rows; ++i) extremes(p.bias[i], biases);
  }

  void run() const {
    std::vector<Workspace> workspaces;
    for (uint32_t i = 0; i < p.threads; ++i) workspaces.emplace_back(p.mode, p.products, steps, segments);
#pragma omp parallel num_threads(int(p.threads)) if (p.threads > 1)
    {
      const Direction direction{Mode(p.mode)};
      Workspace& w = workspaces[size_t(omp_get_thread_num())];
#pragma omp for schedule(dynamic, 1)
      for (int64_t i = 0; i < p.groups * panels; ++i) panel(w, i / panels, i % panels);
    }
  }

 private:
  struct Range { uint32_t low = 0xFFFFFFFFu, high = 0; };  // bits of the smallest and largest size that is not 0

  static void extremes(float x, Range& range) {
    uint32_t b;
    std::memcpy(&b, &x, 4);
    b &= ~SIGN;
    if (b == 0) return;
    range.low = std::min(range.low, b);
    range.high = std::max(range.high, b);
  }

  __attribute__((noinline)) void panel(Workspace& w, int64_t group, int64_t number) const {
    const Panel panel(p, number * COLUMNS, total);
    const uint64_t place = uint64_t(group * panels + number);
    const float* source = p.input + group * p.channels * p.input_stride[1];
    for (size_t i = 0; i < by_channel.size(); ++i) {
      const int32_t k = by_channel[i], later = by_channel[std::min(i + 2 * size_t(p.taps), by_channel.size() - 1)];
      panel.prefetch(p.tap[later], source + p.channel[later] * p.input_stride[1]);
      panel.line(p.tap[k], source + p.channel[k] * p.input_stride[1], &w.input[size_t(k) * COLUMNS]);
    }
    bool careful = false;
    if (p.mode == RANDOM) sign_columns(w, place);
    if (p.mode == NEARNESS) {
      draw_columns(w, place);
      careful = leaves_the_middle(w);
    }
    for (int64_t block = 0; block < blocks; ++block) {
      const float* weight = p.weight + (group * blocks + block) * p.products * BLOCK;
      if (p.mode == RANDOM) sign_rows(w, weight, place, block);
      else copy_rows(w, weight);
      if (p.mode == NEARNESS) draw_rows(w, place, block);
      for (int tile = 0; tile < TILES && block * BLOCK + tile * TILE < p.rows; ++tile) {
        const int64_t row = group * p.rows + block * BLOCK + tile * TILE;
        const int rows = int(std::min<int64_t>(TILE, p.rows - block * BLOCK - tile * TILE));
        float sums[TILE * COLUMNS];
        accumulate(w, tile, rows, row, panel.used, careful, sums);
        for (int r = 0; r < rows; ++r) panel.scatter(sums + r * COLUMNS, p.output + (row + r) * p.output_stride[1]);
      }
    }
  }

  // Random signs: bits of 32 steps x 4 quarters of the columns are one draw.
  void sign_columns(Workspace& w, uint64_t place) const {
    const int64_t eights = ceil_div(steps, 8);
    for (int64_t group = 0; group * 4 < eights; ++group) {
      const Words words = draw(key, place, uint32_t(group), 0);
      for (int i = 0; i < 4; ++i) store(&w.column[size_t(group * 4 + i) * BLOCK], words.word[i]);
    }
    U y[4];
    for (int64_t k = 0, segment = 0; k < p.products; ++segment) {
      for (int n = 0; n < 4; ++n) y[n] = all(0u);
      const int64_t end = std::min(p.products, k + p.segment);
      U word = load(&w.column[size_t(k / 8) * BLOCK]) << (4 * int(k % 8));
      for (; k < end; ++k) {
        if (k % 8 == 0) word = load(&w.column[size_t(k / 8) * BLOCK]);
        float* line = &w.input[size_t(k) * COLUMNS];
        for (int n = 0; n < 4; ++n) {
          y[n] = y[n] ^ (word & all(SIGN));
          store(line + n * BLOCK, flip(load(line + n * BLOCK), y[n]));
          word = word + word;
        }
      }
      for (int n = 0; n < 4; ++n) store(&w.last_column[size_t(segment) * COLUMNS + n * BLOCK], y[n]);
    }
  }

  void sign_rows(Workspace& w, const float* weight, uint64_t place, int64_t block) const {
    const int64_t tile = p.products * TILE, row_tile = steps * TILE;
    Words words{};
    U x = all(0u), word = x;
    int64_t segment = 0, begins = 0;  // the next segment begins at product `begins`
    for (int64_t k = 0; k < steps; ++k) {
      if (k % 128 == 0) words = draw(key, place, uint32_t(k / 128), uint32_t(block + 1) * ROWS);
      if (k % 32 == 0) word = words.word[k / 32 % 4];
      const U change = word & all(SIGN);
      word = word + word;
      store_quarters((float*)&w.row[size_t(k) * TILE], row_tile, flip(all(0.0f), change));
      if (k >= p.products) continue;
      if (k == begins) {
        x = change;
        begins += p.segment;
      } else {
        x = x ^ change;
      }
      store_quarters(&w.weight[size_t(k) * TILE], tile, flip(load(weight + k * BLOCK), x));
      if (k + 1 == begins || k + 1 == p.products) store(&w.last_row[size_t(segment++) * BLOCK], x);
    }
  }

  void copy_rows(Workspace& w, const float* weight) const {
    for (int64_t k = 0; k < p.products; ++k) {
      store_quarters(&w.weight[size_t(k) * TILE], p.products * TILE, load(weight + k * BLOCK));
    }
  }

  void draw_columns(Workspace& w, uint64_t place) const {
    for (int64_t k = 0; k < steps; ++k) {
      const Words words = draw(key, place, uint32_t(k), 0);
      for (int n = 0; n < 4; ++n) store(&w.column[size_t(k) * COLUMNS + n * BLOCK], words.word[n] & all(uint32_t(LOW)));
    }
  }

  void draw_rows(Workspace& w, uint64_t place, int64_t block) const {
    Words words{};
    for (int64_t k = 0; k < steps; ++k) {
      if (k % 4 == 0) words = draw(key, place, uint32_t(k / 4), uint32_t(block + 1) * ROWS);
      store_quarters((float*)&w.row[size_t(k) * TILE], steps * TILE, flip(all(0.0f), words.word[k % 4] & all(uint32_t(LOW))));
    }
  }

  // Whether a partial sum could underflow or overflow: then every step looks for it.
  bool leaves_the_middle(const Workspace& w) const {
    U low = all(0xFFFFFFFFu), high = all(0u);
    for (int64_t i = 0; i < p.products * COLUMNS; i += BLOCK) {
      const U size = bits(load(&w.input[size_t(i)])) & all(~SIGN);
      low = lower(low, size - all(1u));  // 0 becomes the largest
      high = upper(high, size);
    }
    uint32_t lows[BLOCK], highs[BLOCK];
    store(lows, low);
    store(highs, high);
    const int smallest = int(*std::min_element(lows, lows + BLOCK) >> 23), largest = int(*std::max_element(highs, highs + BLOCK) >> 23);
    const int below = smallest + int(weights.low >> 23), above = largest + int(weights.high >> 23);
    // Biased exponents: the lowest bit of a product is at least 2^(below - 254 - 46), and terms number less than 2^24.
    return below < 254 + 46 - 149 || above > 254 + 127 - 26 || int(biases.high >> 23) > 127 + 126;
  }

  template <int R, int N>
  static void chain(const float* a, const uint32_t* changes, const float* b, const uint32_t* column, int n0, int64_t begin,
                    int64_t end, float* sums) {
    F c[R][N];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) c[r][n] = load(sums + r * COLUMNS + (n0 + n) * BLOCK);
    U word = load(column + (begin / 8) * BLOCK) << (4 * int(begin % 8) + n0);
    for (int64_t k = begin; k < end; ++k) {
      if (k % 8 == 0) word = load(column + (k / 8) * BLOCK) << n0;
      F line[N];
      U y[N];
      for (int n = 0; n < N; ++n) {
        line[n] = load(b + k * COLUMNS + (n0 + n) * BLOCK);
        y[n] = word & all(SIGN);
        word = word + word;
      }
      if (N < 4) word = word << (4 - N);
      for (int r = 0; r < R; ++r) {
        const F factor = all(a[k * TILE + r]);
        const U x = all(changes[k * TILE + r]);
        for (int n = 0; n < N; ++n) c[r][n] = fma(factor, line[n], flip(c[r][n], x, y[n]));
      }
    }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) store(sums + r * COLUMNS + (n0 + n) * BLOCK, c[r][n]);
  }

  template <int R, int N>
  static void chain_nearest(const float* a, const float* b, int n0, int64_t begin, int64_t end, float* sums) {
    F c[R][N];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) c[r][n] = load(sums + r * COLUMNS + (n0 + n) * BLOCK);
    for (int64_t k = begin; k < end; ++k) {
      F line[N];
      for (int n = 0; n < N; ++n) line[n] = load(b + k * COLUMNS + (n0 + n) * BLOCK);
      for (int r = 0; r < R; ++r) {
        const F factor = all(a[k * TILE + r]);
        for (int n = 0; n < N; ++n) c[r][n] = fma(factor, line[n], c[r][n]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) store(sums + r * COLUMNS + (n0 + n) * BLOCK, c[r][n]);
  }

  // N registers of doubles from column n0.
  template <int R, int N, bool CAREFUL>
  static void chain_nearness(const float* a, const uint32_t* row, const float* b, const uint32_t* column, int n0,
                             int64_t begin, int64_t end, float* sums) {
    D c[R][N];
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) c[r][n] = widen(sums + r * COLUMNS + n0 + n * D::width);
    for (int64_t k = begin; k < end; ++k) {
      D line[N];
      W y[N];
      for (int n = 0; n < N; ++n) {
        line[n] = widen(b + k * COLUMNS + n0 + n * D::width);
        y[n] = widen(column + k * COLUMNS + n0 + n * D::width);
      }
      for (int r = 0; r < R; ++r) {
        const D factor = all(double(a[k * TILE + r]));
        const W x = all(uint64_t(row[k * TILE + r]));
        for (int n = 0; n < N; ++n) {
          const D exact = fma(factor, line[n], c[r][n]);
          c[r][n] = CAREFUL ? shorten_any(exact, x ^ y[n]) : shorten(exact, x ^ y[n]);
        }
      }
    }
    for (int r = 0; r < R; ++r)
      for (int n = 0; n < N; ++n) narrow(sums + r * COLUMNS + n0 + n * D::width, c[r][n]);
  }

#if defined(__AVX512F__)
  static constexpr int WIDE = 4, DOUBLES = 4;  // registers side by side: as many as there are registers for
#else
  static constexpr int WIDE = 1, DOUBLES = 2;
#endif

  template <int R>
  void segment(const Workspace& w, int tile, int64_t begin, int64_t end, int used, bool careful, float* sums) const {
    const float* a = &w.weight[size_t(tile * p.products) * TILE];
    const float* b = w.input.data();
    const uint32_t* row = p.mode == NEAREST ? nullptr : &w.row[size_t(tile * steps) * TILE];
    const uint32_t* column = w.column.data();
    if (p.mode == NEARNESS) {
      for (int n0 = 0; n0 < used; n0 += DOUBLES * D::width) {
        if (careful) chain_nearness<R, DOUBLES, true>(a, row, b, column, n0, begin, end, sums);
        else chain_nearness<R, DOUBLES, false>(a, row, b, column, n0, begin, end, sums);
      }
      return;
    }
    const int quarters = (used + BLOCK - 1) / BLOCK;
    const bool whole = quarters == 4 && WIDE == 4;
    for (int n0 = 0; n0 < quarters; n0 += whole ? 4 : 1) {
      if (p.mode == NEAREST) {
        if (whole) chain_nearest<R, WIDE>(a, b, n0, begin, end, sums);
        else chain_nearest<R, 1>(a, b, n0, begin, end, sums);
      } else {
        if (whole) chain<R, WIDE>(a, row, b, column, n0, begin, end, sums);
        else chain<R, 1>(a, row, b, column, n0, begin, end, sums);
      }
    }
  }

  static void fill_row(float* row, float value) {
    for (int n = 0; n < COLUMNS; n += BLOCK) store(row + n, all(value));
  }

  // The sums of one tile, of all segments, with the bias.
  void accumulate(const Workspace& w, int tile, int rows, int64_t row, int used, bool careful, float* sums) const {
    float part[TILE * COLUMNS], bias[TILE] = {0, 0, 0, 0};
    if (p.bias) std::memcpy(bias, p.bias + row, size_t(rows) * sizeof(float));
    for (int64_t s = 0; s < segments; ++s) {
      float* target = s == 0 ? sums : part;
      const bool from_bias = s == 0 && p.bias_first;
      for (int r = 0; r < TILE; ++r) fill_row(target + r * COLUMNS, from_bias ? bias[r] : 0.0f);
      const int64_t begin = s * p.segment, end = std::min(p.products, begin + p.segment);
      if (begin < end) {
        if (rows == 4) segment<4>(w, tile, begin, end, used, careful, target);
        else if (rows == 3) segment<3>(w, tile, begin, end, used, careful, target);
        else if (rows == 2) segment<2>(w, tile, begin, end, used, careful, target);
        else segment<1>(w, tile, begin, end, used, careful, target);
        if (p.mode == RANDOM) turn_back(w, tile, s, target);
      }
      if (s > 0) add(w, tile, p.products + s, part, sums);
    }
    if (p.bias && !p.bias_first) {
      for (int r = 0; r < TILE; ++r) fill_row(part + r * COLUMNS, bias[r]);
      add(w, tile, p.products + segments, part, sums);
    }
    // Exact cancellation rounded up gives -0 where the sign is negative; stock kernels give +0.
    for (int i = 0; i < TILE * COLUMNS; i += BLOCK) store(sums + i, load(sums + i) + all(0.0f));
  }

  void turn_back(const Workspace& w, int tile, int64_t s, float* sums) const {
    for (int r = 0; r < TILE; ++r) {
      const U x = all(w.last_row[size_t(s) * BLOCK + tile * TILE + r]);
      for (int n = 0; n < 4; ++n) {
        float* at = sums + r * COLUMNS + n * BLOCK;
        store(at, flip(load(at), x, load(&w.last_column[size_t(s) * COLUMNS + n * BLOCK])));
      }
    }
  }

  // sums += part, rounded as step `step`.
  void add(const Workspace& w, int tile, int64_t step, const float* part, float* sums) const {
    for (int r = 0; r < TILE; ++r) {
      const uint32_t x = p.mode == NEAREST ? 0 : w.row[size_t(tile * steps + step) * TILE + r];
      for (int n = 0; n < COLUMNS; n += BLOCK) {
        float* at = sums + r * COLUMNS + n;
        const float* other = part + r * COLUMNS + n;
        if (p.mode == NEARNESS) {
          for (int i = 0; i < BLOCK; i += D::width) {
            const W y = widen(&w.column[size_t(step) * COLUMNS + n + i]);
            narrow(at + i, shorten_any(widen(at + i) + widen(other + i), all(uint64_t(x)) ^ y));
          }
          continue;
        }
        U sign = all(0u);
        if (p.mode == RANDOM) {
          const U word = load(&w.column[size_t(step / 8) * BLOCK]);
          sign = all(x) ^ ((word << (4 * int(step % 8) + n / BLOCK)) & all(SIGN));
        }
        store(at, flip(flip(load(at), sign) + flip(load(other), sign), sign));
      }
    }
  }

  const Products& p;
  const Key key;
  const int64_t segments, steps, blocks, total, panels;
  Range weights, biases;
  std::vector<int32_t> by_channel;
};

}  // namespace

// Returns 0, or 1 where memory did not suffice.
MCA_API int32_t mca_products(const Products* products) {
  try {
    Job(*products).run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}
