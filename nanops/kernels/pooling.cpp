// Maximum of each window, its place and the values that tie with it. Sixteen windows at a time: of neighbouring channels
// where channels are last, else of neighbouring places. Padding is read as NaN, which neither wins nor ties.
#include "pooling.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "masks.h"

namespace {

constexpr float INF = std::numeric_limits<float>::infinity(), NONE = std::numeric_limits<float>::quiet_NaN();

// Numbers in the order of the values they stand for, one apart where the values are neighbours; both zeros are 0.
inline U rank(F a) {
  const U negative = all(0u) - (bits(a) >> 31);
  return ((bits(a) & all(0x7fffffffu)) ^ negative) - negative;
}

// Which values tie with the largest of their window?
template <int KIND>
struct Tie {
  F largest, reach;
  U top, ulps;
  M finite;

  Tie(const Pooling& p, F largest) : largest(largest) {
    if (KIND == ABSOLUTE) reach = all(p.amount);
    if (KIND == RELATIVE) reach = all(p.floor) + all(p.amount) * floats(bits(largest) & all(0x7fffffffu));
    if (KIND == ULPS) top = rank(largest), ulps = all(p.ulps);
    if (KIND != ABSOLUTE) finite = less(largest, all(INF));
  }

  M operator()(F v, M same) const {
    if (KIND == ABSOLUTE) return same | less(largest - v, reach);
    const M valid = finite & less(all(-INF), v);
    if (KIND == RELATIVE) return same | (valid & at_most(largest - v, reach));
    return same | (valid & at_most(top - rank(v), ulps));
  }
};

// What sixteen windows know of their places.
struct Places {
  U start;         // flat position of the first tap, maybe outside
  U first;         // flat position of the first tap that is inside
  U low, high;     // taps that are inside
};

struct Found {
  F value;
  U index, low, high;
};

// `tap(t)` gives sixteen values; `shift` their flat distance from the first tap.
template <int KIND, bool BITMAP, class Tap>
inline __attribute__((always_inline)) Found decide(const Pooling& p, int taps, const uint32_t* shift, const Places& at,
                                                   const Tap& tap) {
  F largest = all(-INF);
#pragma GCC unroll 8
  for (int t = 0; t < taps; ++t) largest = greater(tap(t), largest);
  const Tie<KIND> tie(p, largest);
  Found found{largest, all(0u), all(0u), all(0u)};
  U count = all(0u);
  const U one = all(1u);
#pragma GCC unroll 8
  for (int t = taps - 1; t >= 0; --t) {  // backwards: the first of several maxima is written last
    const F v = tap(t);
    const M same = equal(v, largest), near = tie(v, same);
    count = count + keep(near, one);
    if (!BITMAP)
      found.index = select(same, all(shift[t]), found.index);
    else if (t < 32)
      found.low = found.low | keep(near, all(1u << t));
    else
      found.high = found.high | keep(near, all(1u << (t - 32)));
  }
  const M valid = set(count), clear = valid & at_most(count, all(uint32_t(p.max_ties)));
  found.value = select(clear, largest, all(NONE));
  if (BITMAP) {
    found.low = select(valid, found.low, at.low);
    if (taps > 32) found.high = select(valid, found.high, at.high);
  } else {
    found.index = select(clear, at.start + found.index, at.first);
  }
  return found;
}

// Writes the results of `lanes` windows from place `at` on.
template <bool BITMAP>
inline void write(const Pooling& p, int64_t at, int lanes, const Found& f) {
  if (lanes < 16) {
    alignas(64) float value[16];
    store(value, f.value);
    std::memcpy(p.values + at, value, 4 * lanes);
  } else {
    store(p.values + at, f.value);
  }
  if (!BITMAP) {
    if (lanes == 16) return store(p.indices + at, f.index);
    alignas(64) int64_t index[16];
    store(index, f.index);
    std::memcpy(p.indices + at, index, 8 * lanes);
    return;
  }
  uint8_t* ties = static_cast<uint8_t*>(p.ties) + at * p.word;
  alignas(64) uint8_t room[128];
  uint8_t* to = lanes == 16 ? ties : room;
  switch (p.word) {
    case 1: store(to, f.low); break;
    case 2: store(reinterpret_cast<uint16_t*>(to), f.low); break;
    case 4: store(reinterpret_cast<uint32_t*>(to), f.low); break;
    default: {
      alignas(64) uint32_t low[16], high[16];
      store(low, f.low);
      store(high, f.high);
      for (int l = 0; l < 16; ++l) {
        const uint64_t both = uint64_t(high[l]) << 32 | low[l];
        std::memcpy(to + 8 * l, &both, 8);
      }
    }
  }
  if (lanes < 16) std::memcpy(ties, room, lanes * p.word);
}

// The part of one window that lies inside, along one axis: taps from .. upto.
struct Span {
  int64_t from, upto;
  bool whole;
  Span(const Pooling& p, int a, int64_t place) {
    const int64_t start = place * p.stride[a] - p.before[a], d = p.dilation[a];
    from = start < 0 ? std::min((-start + d - 1) / d, p.kernel[a]) : 0;
    upto = std::clamp<int64_t>((p.size[a] - start + d - 1) / d, from, p.kernel[a]);
    whole = from == 0 && upto == p.kernel[a];
  }
};

inline uint64_t ones(int64_t count) { return count >= 64 ? ~0ull : (1ull << count) - 1; }

class Pool {
 public:
  explicit Pool(const Pooling& p) : p(p), taps(int(p.taps())), fast(false) {
    for (int64_t z = 0; z < p.kernel[0]; ++z)
      for (int64_t y = 0; y < p.kernel[1]; ++y)
        for (int64_t x = 0; x < p.kernel[2]; ++x) shift.push_back(uint32_t(flat(z * p.dilation[0], y * p.dilation[1], x * p.dilation[2])));
    for (int a = 0; a < 3; ++a)
      for (int64_t place = 0; place < p.out[a]; ++place) spans[a].emplace_back(p, a, place);
    fast = p.kernel[2] == 2 && p.stride[2] == 2 && p.dilation[2] == 1 && (taps == 2 || taps == 4 || taps == 8);
  }

  template <int KIND, bool BITMAP>
  void run() const {
    const int64_t images = p.channels_last ? p.n : p.n * p.channels, rows = images * p.out[0] * p.out[1];
#pragma omp parallel num_threads(int(p.threads))
    {
      std::vector<float> scratch(16 * size_t(taps));
      std::vector<const float*> pointers(taps);
#pragma omp for schedule(static)
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t y = r % p.out[1], z = r / p.out[1] % p.out[0], image = r / p.out[1] / p.out[0];
        if (p.channels_last)
          channels<KIND, BITMAP>(image, z, y, pointers.data(), scratch.data());
        else
          places<KIND, BITMAP>(image, z, y, scratch.data());
      }
    }
  }

 private:
  int64_t flat(int64_t z, int64_t y, int64_t x) const { return (z * p.size[1] + y) * p.size[2] + x; }

  // Taps inside the image, given those of each axis; at most 64 are asked for.
  uint64_t inside(const Span& z, const Span& y, const Span& x) const {
    uint64_t found = 0;
    for (int64_t i = z.from; i < z.upto; ++i)
      for (int64_t j = y.from; j < y.upto; ++j)
        found |= (ones(x.upto - x.from) << x.from) << ((i * p.kernel[1] + j) * p.kernel[2]);
    return found;
  }

  int64_t first(int64_t start, const Span& z, const Span& y, const Span& x) const {
    return start + flat(z.from * p.dilation[0], y.from * p.dilation[1], x.from * p.dilation[2]);
  }

  int64_t start(int64_t z, int64_t y, int64_t x) const {
    return flat(z * p.stride[0] - p.before[0], y * p.stride[1] - p.before[1], x * p.stride[2] - p.before[2]);
  }

  // Windows of few taps that lie inside, in a row. What they share is copied: no store can be taken to change it.
  template <int KIND, bool BITMAP, int TAPS>
  __attribute__((noinline)) void inner(const float* x, int64_t place, int64_t from, int64_t count) const {
    const Pooling q = p;
    const int64_t c = q.channels, step = q.stride[2];
    uint32_t away[TAPS];
    int64_t hop[TAPS];
    for (int t = 0; t < TAPS; ++t) away[t] = shift[t], hop[t] = int64_t(shift[t]) * c;
    const uint32_t every = uint32_t(ones(TAPS));
    for (int64_t w = 0; w < count; ++w, ++place, from += step) {
      const Places at{all(uint32_t(from)), all(uint32_t(from)), all(every), all(0u)};
      for (int64_t done = 0; done < c; done += 16) {
        const int64_t k = std::min(done, c - 16);
        const float* v = x + from * c + k;
        F taken[TAPS];
#pragma GCC unroll 8
        for (int t = 0; t < TAPS; ++t) taken[t] = load(v + hop[t]);
        const Found found = decide<KIND, BITMAP>(q, TAPS, away, at, [&](int t) { return taken[t]; });
        const int64_t to = place * c + k;
        store(q.values + to, found.value);
        if (BITMAP)
          store(static_cast<uint8_t*>(q.ties) + to, found.low);
        else
          store(q.indices + to, found.index);
      }
    }
  }

  // One row of windows, sixteen channels at a time.
  template <int KIND, bool BITMAP>
  void channels(int64_t image, int64_t oz, int64_t oy, const float** pointers, float* scratch) const {
    const int64_t c = p.channels;
    const float* x = p.x + image * p.volume() * c;
    const Span z = spans[0][oz], y = spans[1][oy];
    for (int64_t ox = 0; ox < p.out[2]; ++ox) {
      if (z.whole && y.whole && spans[2][ox].whole && c >= 16 && (taps == 2 || taps == 4 || taps == 8)) {
        int64_t upto = ox + 1;
        while (upto < p.out[2] && spans[2][upto].whole) ++upto;
        const int64_t place = ((image * p.out[0] + oz) * p.out[1] + oy) * p.out[2] + ox, from = start(oz, oy, ox);
        switch (taps) {
          case 2: inner<KIND, BITMAP, 2>(x, place, from, upto - ox); break;
          case 4: inner<KIND, BITMAP, 4>(x, place, from, upto - ox); break;
          default: inner<KIND, BITMAP, 8>(x, place, from, upto - ox);
        }
        ox = upto - 1;
        continue;
      }
      const Span w = spans[2][ox];
      const bool whole = z.whole && y.whole && w.whole;
      const uint64_t in = BITMAP ? (whole ? ones(taps) : inside(z, y, w)) : 0;
      const int64_t from = start(oz, oy, ox);
      const Places at{all(uint32_t(from)), all(uint32_t(first(from, z, y, w))), all(uint32_t(in)), all(uint32_t(in >> 32))};
      for (int t = 0; t < taps; ++t) pointers[t] = x + (from + int64_t(shift[t])) * c;
      if (!whole)
        for (int64_t k = 0, t = 0; k < p.kernel[0]; ++k)
          for (int64_t j = 0; j < p.kernel[1]; ++j)
            for (int64_t i = 0; i < p.kernel[2]; ++i, ++t)
              if (k < z.from || k >= z.upto || j < y.from || j >= y.upto || i < w.from || i >= w.upto)
                pointers[t] = nullptr;
      const int64_t place = ((image * p.out[0] + oz) * p.out[1] + oy) * p.out[2] + ox;
      for (int64_t done = 0; done < c; done += 16) {
        // The last vector begins earlier and repeats some channels.
        const int64_t k = c >= 16 ? std::min(done, c - 16) : 0;
        const int lanes = int(std::min<int64_t>(c, 16));
        Found found;
        if (whole && lanes == 16) {
          found = decide<KIND, BITMAP>(p, taps, shift.data(), at, [&](int t) { return load(pointers[t] + k); });
        } else {
          for (int t = 0; t < taps; ++t) {
            if (pointers[t] && lanes == 16) {
              store(scratch + 16 * t, load(pointers[t] + k));
            } else {
              store(scratch + 16 * t, all(NONE));
              if (pointers[t]) std::memcpy(scratch + 16 * t, pointers[t], 4 * lanes);
            }
          }
          found = decide<KIND, BITMAP>(p, taps, shift.data(), at, [&](int t) { return load(scratch + 16 * t); });
        }
        write<BITMAP>(p, place * c + k, lanes, found);
      }
    }
  }

  // One row of windows of one plane, sixteen places at a time.
  template <int KIND, bool BITMAP>
  void places(int64_t image, int64_t oz, int64_t oy, float* scratch) const {
    const float* x = p.x + image * p.volume();
    const Span z = spans[0][oz], y = spans[1][oy];
    const bool rows = z.whole && y.whole;
    const int64_t row = ((image * p.out[0] + oz) * p.out[1] + oy) * p.out[2], wide = p.out[2];
    for (int64_t done = 0; done < wide; done += 16) {
      const int64_t ox = wide >= 16 ? std::min(done, wide - 16) : 0;
      const int lanes = int(std::min<int64_t>(wide, 16));
      const bool whole = rows && spans[2][ox].whole && spans[2][ox + lanes - 1].whole;
      const int64_t from = start(oz, oy, ox);
      const U starts = all(uint32_t(from)) + scaled(uint32_t(p.stride[2]));
      Found found;
      if (whole && fast) {
        const uint64_t in = ones(taps);
        found = pairs<KIND, BITMAP>(x + from, lanes, scratch, {starts, starts, all(uint32_t(in)), all(0u)});
      } else {
        alignas(64) uint32_t firsts[16], low[16] = {}, high[16] = {};
        for (int l = 0; l < 16; ++l) {
          const Span w = spans[2][ox + std::min(l, lanes - 1)];
          firsts[l] = uint32_t(first(from + l * p.stride[2], z, y, w));
          if (BITMAP) {
            const uint64_t in = inside(z, y, w);
            low[l] = uint32_t(in), high[l] = uint32_t(in >> 32);
          }
        }
        collect(x + from, z, y, ox, lanes, scratch);
        found = decide<KIND, BITMAP>(p, taps, shift.data(), {starts, load(firsts), load(low), load(high)},
                                     [&](int t) { return load(scratch + 16 * t); });
      }
      write<BITMAP>(p, row + ox, lanes, found);
    }
  }

  U scaled(uint32_t step) const {
    U high, low;
    multiply(lanes(), step, high, low);
    return low;
  }

  // Windows two wide, side by side: each row is two vectors, whose numbers at even and at odd places are the two taps.
  template <int KIND, bool BITMAP>
  inline __attribute__((always_inline)) Found pairs(const float* x, int lanes, float* scratch, const Places& at) const {
    if (lanes < 16) {
      for (int t = 0; t < taps; t += 2) {
        for (int l = 0; l < 2; ++l) store(scratch + 16 * (t + l), all(NONE));
        std::memcpy(scratch + 16 * t, x + shift[t], 8 * lanes);
      }
    }
    switch (taps) {
      case 2: return two<KIND, BITMAP, 2>(x, lanes, scratch, at);
      case 4: return two<KIND, BITMAP, 4>(x, lanes, scratch, at);
      default: return two<KIND, BITMAP, 8>(x, lanes, scratch, at);
    }
  }

  template <int KIND, bool BITMAP, int TAPS>
  inline __attribute__((always_inline)) Found two(const float* x, int lanes, const float* scratch, const Places& at) const {
    F v[TAPS];
#pragma GCC unroll 4
    for (int t = 0; t < TAPS; t += 2) {
      const float* row = lanes == 16 ? x + shift[t] : scratch + 16 * t;
      part(load(row), load(row + 16), v[t], v[t + 1]);
    }
    return decide<KIND, BITMAP>(p, TAPS, shift.data(), at, [&](int t) { return v[t]; });
  }

  // Fills scratch (taps, 16) with NaN outside the image.
  void collect(const float* x, const Span& z, const Span& y, int64_t ox, int lanes, float* scratch) const {
    const int64_t step = p.stride[2];
    float* to = scratch;
    for (int64_t k = 0, t = 0; k < p.kernel[0]; ++k)
      for (int64_t j = 0; j < p.kernel[1]; ++j) {
        const bool here = z.from <= k && k < z.upto && y.from <= j && j < y.upto;
        for (int64_t i = 0; i < p.kernel[2]; ++i, ++t, to += 16) {
          const int64_t begin = ox * step - p.before[2] + i * p.dilation[2];
          const int64_t l0 = here ? (begin < 0 ? (-begin + step - 1) / step : 0) : 16;
          const int64_t l1 = std::min<int64_t>(lanes, begin < p.size[2] ? (p.size[2] - begin + step - 1) / step : 0);
          const float* v = x + shift[t];
          if (l0 == 0 && l1 == 16 && step == 1) {
            store(to, load(v));
            continue;
          }
          if (l0 > 0 || l1 < 16) store(to, all(NONE));
          for (int64_t l = l0; l < l1; ++l) to[l] = v[l * step];
        }
      }
  }

  const Pooling& p;
  int taps;
  bool fast;
  std::vector<Span> spans[3];   // of each place on each axis
  std::vector<uint32_t> shift;  // flat distance of each tap from the first
};

template <int KIND>
void pool(const Pooling& p) {
  p.ties ? Pool(p).run<KIND, true>() : Pool(p).run<KIND, false>();
}

}  // namespace

NAN_API void nan_pool(const Pooling* p) {
  switch (p->kind) {
    case ABSOLUTE: return pool<ABSOLUTE>(*p);
    case RELATIVE: return pool<RELATIVE>(*p);
    default: return pool<ULPS>(*p);
  }
}
