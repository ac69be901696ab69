// Each position of the unpooled image asks the windows that reach it: so overlaps meet in no particular order, and no
// two threads write to the same place.
#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "masks.h"
#include "pooling.h"

namespace {

constexpr float INF = std::numeric_limits<float>::infinity(), NONE = std::numeric_limits<float>::quiet_NaN();

struct Reach {  // a window that reaches a position, and by which of its taps
  int64_t window, tap;
};

// The windows that reach each position of one axis.
class Axis {
 public:
  Axis(const Unpooling& p, int a) : first_(1, 0) {
    for (int64_t at = 0; at < p.size[a]; ++at) {
      for (int64_t t = 0; t < p.kernel[a]; ++t) {
        const int64_t start = at + p.before[a] - t * p.dilation[a];
        if (start >= 0 && start % p.stride[a] == 0 && start / p.stride[a] < p.out[a])
          reaches_.push_back({start / p.stride[a], t});
      }
      first_.push_back(reaches_.size());
    }
  }
  const Reach* begin(int64_t at) const { return reaches_.data() + first_[at]; }
  const Reach* end(int64_t at) const { return reaches_.data() + first_[at + 1]; }
  int64_t count(int64_t at) const { return int64_t(first_[at + 1] - first_[at]); }

 private:
  std::vector<size_t> first_;
  std::vector<Reach> reaches_;
};

// Sixteen bitmaps: where is this tap in them, and where are several?
template <class T>
struct Bitmaps {
  U word;
  explicit Bitmaps(const T* p, uint64_t mask) : word(load(p) & all(uint32_t(mask))) {}
  M has(int64_t tap) const { return set(word & all(1u << tap)); }
  M several() const { return set(word & (word - all(1u))); }
};

template <>
struct Bitmaps<uint64_t> {
  U low, high;
  explicit Bitmaps(const uint64_t* p, uint64_t mask) {
    uint32_t l[16], h[16];
    for (int i = 0; i < 16; ++i) l[i] = uint32_t(p[i] & mask), h[i] = uint32_t((p[i] & mask) >> 32);
    low = load(l), high = load(h);
  }
  M has(int64_t tap) const { return set(tap < 32 ? low & all(1u << tap) : high & all(1u << (tap - 32))); }
  M several() const {
    return set(low & (low - all(1u))) | set(high & (high - all(1u))) | (set(low) & set(high));
  }
};

// What the windows of one position say so far.
struct Verdict {
  F top = all(-INF);
  M hit = nowhere(), bad = nowhere();

  template <class T>
  void hear(F v, const Bitmaps<T>& ties, int64_t tap) {
    const M here = ties.has(tap), number = equal(v, v) & !ties.several();
    bad = bad | (here & !number);
    const M counts = here & number;
    hit = hit | counts;
    const F w = select(counts, v, all(-INF));
    // Of two zeros the positive one is larger, whoever came first.
    const F more = greater(w, top);
    top = select(equal(w, top), floats(bits(w) & bits(top)), more);
  }

  F result(bool nan_wins) const {
    const F zero = all(0.0f), nan = all(NONE);
    return nan_wins ? select(bad, nan, select(hit, top, zero)) : select(hit, top, select(bad, nan, zero));
  }
};

template <class T>
class Unpool {
 public:
  explicit Unpool(const Unpooling& p)
      : p(p), ties(static_cast<const T*>(p.ties)), axes{Axis(p, 0), Axis(p, 1), Axis(p, 2)},
        mask(p.taps() >= 64 ? ~0ull : (1ull << p.taps()) - 1),
        pairs(p.kernel[2] == 2 && p.stride[2] == 2 && p.dilation[2] == 1 && p.before[2] == 0) {}

  void run() const {
    const int64_t images = p.channels_last ? p.n : p.n * p.channels, rows = images * p.size[0] * p.size[1];
#pragma omp parallel num_threads(int(p.threads))
    {
      std::vector<Reach> across, reaches;
#pragma omp for schedule(static)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t y = r % p.size[1], z = r / p.size[1] % p.size[0], image = r / p.size[1] / p.size[0];
        // Rows of windows (image included) that reach this row, and their first tap in it.
        across.clear();
        for (const Reach* i = axes[0].begin(z); i < axes[0].end(z); ++i)
          for (const Reach* j = axes[1].begin(y); j < axes[1].end(y); ++j)
            across.push_back({(image * p.out[0] + i->window) * p.out[1] + j->window,
                              (i->tap * p.kernel[1] + j->tap) * p.kernel[2]});
        const bool simple = pairs && across.size() < 2;
        if (p.channels_last)
          simple && p.channels >= 16 ? two_pixels(r, across) : channels(r, across, reaches);
        else if (simple)
          two(r, across);
        else
          places(r, across);
      }
    }
  }

 private:
  void channels(int64_t row, const std::vector<Reach>& across, std::vector<Reach>& reaches) const {
    const int64_t c = p.channels;
    for (int64_t x = 0; x < p.size[2]; ++x) {
      float* y = p.y + (row * p.size[2] + x) * c;
      reaches.clear();
      for (const Reach& a : across)
        for (const Reach* i = axes[2].begin(x); i < axes[2].end(x); ++i)
          reaches.push_back({(a.window * p.out[2] + i->window) * c, a.tap + i->tap});
      if (reaches.empty()) {
        std::memset(y, 0, 4 * c);
      } else if (c < 16) {
        float v[16] = {}, out[16];
        T word[16] = {};
        Verdict verdict;
        for (const Reach& a : reaches) {
          std::memcpy(v, p.values + a.window, 4 * c);
          std::memcpy(word, ties + a.window, sizeof(T) * c);
          verdict.hear(load(v), Bitmaps<T>(word, mask), a.tap);
        }
        store(out, verdict.result(p.nan_wins));
        std::memcpy(y, out, 4 * c);
      } else {
        for (int64_t done = 0; done < c; done += 16) {
          const int64_t k = std::min(done, c - 16);  // the last vector begins earlier and repeats some channels
          if (reaches.size() == 1) {
            const Reach& a = reaches[0];
            store(y + k, alone(load(p.values + a.window + k), Bitmaps<T>(ties + a.window + k, mask), a.tap));
            continue;
          }
          Verdict verdict;
          for (const Reach& a : reaches)
            verdict.hear(load(p.values + a.window + k), Bitmaps<T>(ties + a.window + k, mask), a.tap);
          store(y + k, verdict.result(p.nan_wins));
        }
      }
    }
  }

  // As `two`, channels last.
  void two_pixels(int64_t row, const std::vector<Reach>& across) const {
    const int64_t c = p.channels, wide = p.out[2], size = p.size[2];
    float* y = p.y + row * size * c;
    if (across.empty()) {
      std::memset(y, 0, 4 * size * c);
      return;
    }
    const int64_t from = across[0].window * wide, tap = across[0].tap, covered = std::min(2 * wide, size);
    for (int64_t w = 0; 2 * w < covered; ++w, y += 2 * c) {
      const float* values = p.values + (from + w) * c;
      const T* words = ties + (from + w) * c;
      const bool second = 2 * w + 1 < covered;
      for (int64_t done = 0; done < c; done += 16) {
        const int64_t k = std::min(done, c - 16);
        const F v = load(values + k);
        const Bitmaps<T> word(words + k, mask);
        store(y + k, alone(v, word, tap));
        if (second) store(y + c + k, alone(v, word, tap + 1));
      }
    }
    std::memset(p.y + (row * size + covered) * c, 0, 4 * (size - covered) * c);
  }

  static F alone(F v, const Bitmaps<T>& word, int64_t tap) {
    const F number = select(equal(v, v), v, all(NONE));
    return select(word.has(tap), select(word.several(), all(NONE), number), all(0.0f));
  }

  // Windows two wide, side by side, at most one row of them: each gives two neighbouring numbers.
  void two(int64_t row, const std::vector<Reach>& across) const {
    float* y = p.y + row * p.size[2];
    if (across.empty()) {
      std::memset(y, 0, 4 * p.size[2]);
      return;
    }
    const int64_t wide = p.out[2], from = across[0].window * wide, tap = across[0].tap;
    const int64_t covered = std::min(2 * wide, p.size[2]), body = covered / 32 * 16;
    for (int64_t w = 0; 2 * w < covered; w += 16) {
      F a, b;
      if (w < body) {
        both(load(p.values + from + w), Bitmaps<T>(ties + from + w, mask), tap, a, b);
        store(y + 2 * w, a);
        store(y + 2 * w + 16, b);
      } else {
        const int64_t left = std::min<int64_t>(16, wide - w);
        float v[16] = {}, out[32];
        T word[16] = {};
        std::memcpy(v, p.values + from + w, 4 * left);
        std::memcpy(word, ties + from + w, sizeof(T) * left);
        both(load(v), Bitmaps<T>(word, mask), tap, a, b);
        store(out, a);
        store(out + 16, b);
        std::memcpy(y + 2 * w, out, 4 * std::min<int64_t>(32, covered - 2 * w));
      }
    }
    std::memset(y + covered, 0, 4 * (p.size[2] - covered));
  }

  static void both(F v, const Bitmaps<T>& word, int64_t tap, F& a, F& b) {
    weave(alone(v, word, tap), alone(v, word, tap + 1), a, b);
  }

  void places(int64_t row, const std::vector<Reach>& across) const {
    float* y = p.y + row * p.size[2];
    for (int64_t x = 0; x < p.size[2]; ++x) {
      float top = -INF;
      bool hit = false, bad = false;
      for (const Reach& a : across)
        for (const Reach* i = axes[2].begin(x); i < axes[2].end(x); ++i) {
          const int64_t at = a.window * p.out[2] + i->window;
          const uint64_t word = uint64_t(ties[at]) & mask;
          if (!(word >> (a.tap + i->tap) & 1)) continue;
          const float v = p.values[at];
          if ((word & (word - 1)) || v != v) {
            bad = true;
          } else {
            hit = true;
            if (v > top || (v == 0 && top == 0 && !__builtin_signbit(v))) top = v;
          }
        }
      const float number = hit ? top : 0.0f;
      y[x] = bad && (p.nan_wins || !hit) ? NONE : number;
    }
  }

  const Unpooling& p;
  const T* ties;
  const Axis axes[3];
  const uint64_t mask;
  const bool pairs;
};

}  // namespace

NAN_API void nan_unpool(const Unpooling* p) {
  switch (p->word) {
    case 1: return Unpool<uint8_t>(*p).run();
    case 2: return Unpool<uint16_t>(*p).run();
    case 4: return Unpool<uint32_t>(*p).run();
    default: return Unpool<uint64_t>(*p).run();
  }
}
