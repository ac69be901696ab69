// The NaN convolution: windows that are to be computed are collected, whatever their places, and computed in batches.
#include <cmath>
#include <limits>
#include <vector>

#include "convolution.h"
#include "counting.h"
#include "micro.h"
#include "normal.h"

namespace {

constexpr int BATCH = 96;  // whole windows that are computed together: the rows they read stay in cache
constexpr int OTHERS = 48;  // of others, at most: the copies of their rows should stay in the first-level cache
constexpr int64_t COPIES = 20 << 10;  // bytes of them

// What does not depend on the window.
struct Plan {
  const Convolution& c;
  int64_t inputs, outputs;  // of a group
  int64_t room;             // outputs rounded up to whole octets
  bool joined;              // a row of taps is one run of numbers
  int64_t length;           // of a segment
  int segments;
  bool direct;              // outputs are written where they belong
  std::vector<int64_t> shift, rows;  // of a segment from the first: numbers, pixels

  explicit Plan(const Convolution& c)
      : c(c), inputs(c.inputs()), outputs(c.outputs / c.groups), room(micro::OCTET * micro::octets(outputs)),
        joined(c.groups == 1 && c.dilation[2] == 1), length(joined ? c.kernel[2] * inputs : inputs),
        segments(int(joined ? c.kernel[0] * c.kernel[1] : c.taps())), direct(outputs == room) {
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y)
        for (int64_t x = 0; x < (joined ? 1 : c.kernel[2]); ++x)
          rows.push_back((z * c.dilation[0] * c.size[1] + y * c.dilation[1]) * c.size[2] + x * c.dilation[2]);
    for (int64_t r : rows) shift.push_back(r * c.channels);
  }
};

float sum_valid(const float* v, int64_t count) {
  F sum = all(0.0f);
  int64_t k = 0;
  for (; k + 16 <= count; k += 16) {
    const F x = load(v + k);
    sum = sum + where_nan(x, all(0.0f), x);
  }
  float rest = 0;
  for (; k < count; ++k) rest += v[k] == v[k] ? v[k] : 0.0f;
  return rest + total(sum);
}

struct Place {  // of a window: its first tap in the image, and its output
  int64_t start[3];
  int64_t output;
};

// Values that replace the NaNs of one window.
class Fill {
 public:
  explicit Fill(const Plan& p)
      : p_(p), all_(p.c.taps() * p.inputs), mean_(p.c.fill == MEAN),
        normals_(p.c.fill == MAX_NORMAL ? (p.c.taps() * p.inputs + 63) / 64 * 64 : 0) {}

  // Fixes mean or maximum of the window's valid values; `known` is their sum, or null.
  void begin(const float* x, const float* known, const Place& at, bool inner, int64_t group, int64_t missing) {
    if (known && (inner || p_.c.count_padding)) {
      value_ = *known / float(all_ - missing);
      if (std::isfinite(value_)) return;
    }
    settle(x, known, at, inner, group, missing);
  }

  // Copies `count` numbers, the window's from `element` on, with NaN replaced.
  void pack(float* to, const float* from, int64_t count, int64_t element) {
    int64_t k = 0;
    if (mean_) {
      const F value = all(value_);
      for (; k + 16 <= count; k += 16) replace(to + k, from + k, value);
      if (k < count && count >= 16) return replace(to + count - 16, from + count - 16, value);
      for (; k < count; ++k) to[k] = from[k] == from[k] ? from[k] : value_;
      return;
    }
    for (; k < count; ++k) to[k] = from[k] == from[k] ? from[k] : value_ + p_.c.sigma * normal(element + k);
  }

 private:
  __attribute__((noinline)) void settle(const float* x, const float* known, const Place& at, bool inner, int64_t group,
                                        int64_t missing) {
    const Convolution& c = p_.c;
    int64_t low[3], high[3], inside = 1;
    for (int a = 0; a < 3; ++a) {
      const Inside in = inner ? Inside{0, c.kernel[a]} : c.inside(a, at.start[a]);
      low[a] = in.low, high[a] = in.high;
      inside *= in.high - in.low;
    }
    const auto each = [&](auto visit) {  // every pixel inside, or every row of them
      for (int64_t z = low[0]; z < high[0]; ++z)
        for (int64_t y = low[1]; y < high[1]; ++y) {
          const int64_t line = ((at.start[0] + z * c.dilation[0]) * c.size[1] + at.start[1] + y * c.dilation[1]) * c.size[2];
          if (p_.joined)
            visit(line + at.start[2] + low[2], high[2] - low[2]);
          else
            for (int64_t k = low[2]; k < high[2]; ++k) visit(line + at.start[2] + k * c.dilation[2], int64_t(1));
        }
    };
    if (mean_) {
      const int64_t valid = (c.count_padding ? c.taps() : inside) * p_.inputs - missing;
      float sum = 0;
      if (known)
        sum = *known;
      else
        each([&](int64_t i, int64_t count) { sum += sum_valid(x + i * c.channels, count * p_.inputs); });
      value_ = sum / float(valid);
      if (!std::isfinite(sum)) {  // it may overflow where the mean does not
        double wide = 0;
        each([&](int64_t i, int64_t count) {
          const float* v = x + i * c.channels;
          for (int64_t k = 0; k < count * p_.inputs; ++k) wide += v[k] == v[k] ? double(v[k]) : 0.0;
        });
        value_ = float(wide / double(valid));
      }
      return;
    }
    float most = -std::numeric_limits<float>::infinity();
    each([&](int64_t i, int64_t count) {
      const float* v = x + i * c.channels;
      for (int64_t k = 0; k < count * p_.inputs; ++k) most = v[k] > most ? v[k] : most;
    });
    value_ = c.count_padding && inside < c.taps() ? std::max(most, 0.0f) : most;
    place_ = uint64_t(at.output), group_ = uint32_t(group);
    drawn_.assign(normals_.size() / 64, false);
  }

  static void replace(float* to, const float* from, F value) {
    const F v = load(from);
    store(to, where_nan(v, value, v));
  }

  // A function of the key, the window and the element: sixty-four elements share a draw of sixteen lanes.
  float normal(int64_t element) {
    const int64_t part = element / 64;
    if (!drawn_[size_t(part)]) {
      const Words words = philox(all(group_), all(uint32_t(place_)), all(uint32_t(part * 16)) + lanes(),
                                 all(uint32_t(place_ >> 32)), p_.c.key[0], p_.c.key[1]);
      F z[4];
      ::normals(words, z);
      for (int i = 0; i < 4; ++i) store(normals_.data() + part * 64 + 16 * i, z[i]);
      drawn_[size_t(part)] = true;
    }
    return normals_[size_t(element)];
  }

  const Plan& p_;
  const int64_t all_;  // values of a window
  const bool mean_;
  float value_ = 0;
  uint64_t place_ = 0;
  uint32_t group_ = 0;
  std::vector<float> normals_;
  std::vector<char> drawn_;
};

// Windows of one thread that wait to be computed: whole ones by one pointer each, others by one a segment.
class Batch {
 public:
  explicit Batch(const Plan& p)
      : p_(p), fill_(p), pointers_(size_t(OTHERS * p.segments)), packed_(size_t(OTHERS * p.segments * p.length)),
        apart_(p.direct ? 0 : size_t(BATCH * p.room)), mask_(p.c.background ? NAN_MASK : -1) {
    const int step = micro::WINDOWS[micro::next(micro::octets(p.outputs))];
    const int64_t fit = COPIES / (4 * p.segments * p.length);
    most_ = int(std::clamp<int64_t>(fit / step * step, step, OTHERS / step * step));
  }

  void start(const float* x, const float* weight, const float* bias, const int32_t* pixels, float* y, int64_t group) {
    x_ = x, weight_ = weight, bias_ = bias, pixels_ = pixels, y_ = y, group_ = group;
  }

  void whole(const Place& at) {
    const Convolution& c = p_.c;
    wholes_[whole_] = x_ + ((at.start[0] * c.size[1] + at.start[1]) * c.size[2] + at.start[2]) * c.channels;
    to_[0][whole_++] = y_ + at.output * c.outputs;
    if (whole_ == BATCH) flush_whole();
  }

  // A window inside the image that holds NaNs, `missing` of them; `sum` of its valid values, or null.
  void partial(const Place& at, int64_t missing, const float* sum) {
    if (!p_.joined) return other(at, missing, sum);
    const Convolution& c = p_.c;
    fill_.begin(x_, sum, at, true, group_, missing);
    const int64_t corner = (at.start[0] * c.size[1] + at.start[1]) * c.size[2] + at.start[2];
    const float* base = x_ + corner * c.channels;
    for (int r = 0; r < p_.segments; ++r) {
      const int32_t* pixels = pixels_ + corner + p_.rows[size_t(r)];
      int32_t dirty = 0;
      for (int64_t k = 0; k < c.kernel[2]; ++k) dirty |= pixels[k];
      const float* from = base + p_.shift[size_t(r)];
      if (dirty & mask_) {
        float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
        fill_.pack(to, from, p_.length, r * p_.length);
        from = to;
      }
      pointers_[size_t(r * OTHERS + others_)] = from;
    }
    to_[1][others_++] = y_ + at.output * c.outputs;
    if (others_ == most_) flush_others();
  }

  // A window that touches the padding, and may hold NaNs.
  void other(const Place& at, int64_t missing, const float* sum) {
    const Convolution& c = p_.c;
    if (missing) fill_.begin(x_, sum, at, false, group_, missing);
    int segment = 0;
    for (int64_t z = 0; z < c.kernel[0]; ++z)
      for (int64_t y = 0; y < c.kernel[1]; ++y) {
        const int64_t iz = at.start[0] + z * c.dilation[0], iy = at.start[1] + y * c.dilation[1];
        const bool in = iz >= 0 && iz < c.size[0] && iy >= 0 && iy < c.size[1];
        const int64_t line = (iz * c.size[1] + iy) * c.size[2];
        if (p_.joined) {
          const float* from = in ? row(line, at.start[2], missing, segment) : zeros();
          pointers_[size_t(segment++ * OTHERS + others_)] = from;
        } else {
          for (int64_t k = 0; k < c.kernel[2]; ++k, ++segment) {
            const int64_t ix = at.start[2] + k * c.dilation[2];
            const float* from = in && ix >= 0 && ix < c.size[2] ? pixel(line + ix, segment) : zeros();
            pointers_[size_t(segment * OTHERS + others_)] = from;
          }
        }
      }
    to_[1][others_++] = y_ + at.output * c.outputs;
    if (others_ == most_) flush_others();
  }

  void flush() {
    flush_whole();
    flush_others();
  }

 private:
  // A row of taps: where it lies in the image if it is clean, else a copy.
  const float* row(int64_t line, int64_t first, int64_t missing, int segment) {
    const Convolution& c = p_.c;
    const int64_t kw = c.kernel[2], last = first + kw;
    const int64_t low = std::max<int64_t>(first, 0), high = std::min(last, c.size[2]);
    if (low >= high) return zeros();
    const float* from = x_ + (line + low) * c.channels;
    bool dirty = false;
    if (missing)
      for (int64_t k = low; k < high; ++k) dirty |= (pixels_[line + k] & mask_) != 0;
    if (!dirty && low == first && high == last) return from;
    float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
    const int64_t inputs = p_.inputs, element = segment * p_.length;
    std::fill(to, to + (low - first) * inputs, 0.0f);
    float* middle = to + (low - first) * inputs;
    if (dirty)
      fill_.pack(middle, from, (high - low) * inputs, element + (low - first) * inputs);
    else
      std::copy(from, from + (high - low) * inputs, middle);
    std::fill(to + (high - first) * inputs, to + p_.length, 0.0f);
    return to;
  }

  const float* pixel(int64_t at, int segment) {
    const float* from = x_ + at * p_.c.channels;
    if (!(pixels_[at] & mask_)) return from;
    float* to = packed_.data() + size_t(used_++) * size_t(p_.length);
    fill_.pack(to, from, p_.inputs, segment * p_.length);
    return to;
  }

  const float* zeros() {
    if (zeros_.empty()) zeros_.assign(size_t(p_.length), 0.0f);
    return zeros_.data();
  }

  void flush_whole() {
    if (whole_) compute({p_.segments, p_.length, p_.shift.data(), 0}, wholes_, to_[0], whole_);
    whole_ = 0;
  }

  void flush_others() {
    if (others_) compute({p_.segments, p_.length, nullptr, OTHERS}, pointers_.data(), to_[1], others_);
    others_ = used_ = 0;
  }

  void compute(const micro::Segments& s, const float* const* from, float* const* to, int count) {
    float* outs[BATCH];
    if (p_.direct) {
      std::copy(to, to + count, outs);
      micro::run(count, p_.outputs, s, weight_, from, outs, bias_);
      return;
    }
    for (int i = 0; i < count; ++i) outs[i] = apart_.data() + i * p_.room;
    micro::run(count, p_.outputs, s, weight_, from, outs, bias_);
    for (int i = 0; i < count; ++i) std::memcpy(to[i], apart_.data() + i * p_.room, 4 * size_t(p_.outputs));
  }

  const Plan& p_;
  Fill fill_;
  const float *x_ = nullptr, *weight_ = nullptr, *bias_ = nullptr;
  const int32_t* pixels_ = nullptr;
  float* y_ = nullptr;
  int64_t group_ = 0;
  int whole_ = 0, others_ = 0, used_ = 0, most_ = OTHERS;
  const float* wholes_[BATCH];
  float* to_[2][BATCH];
  std::vector<const float*> pointers_;
  std::vector<float> packed_, apart_, zeros_;
  const int32_t mask_;
};

// Sums of the valid values of the windows of one line, from those of the pixels.
void sum_line(const Convolution& c, const float* sums, int64_t z, int64_t y, std::vector<float>& across, float* to) {
  const int64_t width = c.size[2];
  const int64_t start[2] = {z * c.stride[0] - c.before[0], y * c.stride[1] - c.before[1]};
  const Inside iz = c.inside(0, start[0]), iy = c.inside(1, start[1]);
  across.assign(size_t(width), 0.0f);
  for (int64_t kz = iz.low; kz < iz.high; ++kz)
    for (int64_t ky = iy.low; ky < iy.high; ++ky) {
      const float* from = sums + ((start[0] + kz * c.dilation[0]) * c.size[1] + start[1] + ky * c.dilation[1]) * width;
      for (int64_t k = 0; k < width; ++k) across[size_t(k)] += from[k];
    }
  std::fill_n(to, c.out[2], 0.0f);
  for (int64_t k = 0; k < c.kernel[2]; ++k) {
    const int64_t shift = k * c.dilation[2] - c.before[2], step = c.stride[2];
    const int64_t low = shift >= 0 ? 0 : (-shift + step - 1) / step;
    const int64_t high = std::min(c.out[2], shift >= width ? 0 : (width - shift + step - 1) / step);
    const float* from = across.data() + shift;
    if (step == 1)
      for (int64_t o = low; o < high; ++o) to[o] += from[o];
    else
      for (int64_t o = low; o < high; ++o) to[o] += from[o * step];
  }
}

// One line of outputs: skipped windows become NaN, uniform ones the known vector, the others join the batch.
void line(const Plan& p, Batch& batch, const int32_t* counts, const float* sums, float* y, const float* known, int64_t z,
          int64_t row) {
  const Convolution& c = p.c;
  const int64_t taps = c.taps(), out = c.out[2];
  Place at{{z * c.stride[0] - c.before[0], row * c.stride[1] - c.before[1], 0}, (z * c.out[1] + row) * out};
  const int64_t deep[2] = {c.inside(0, at.start[0]).count(), c.inside(1, at.start[1]).count()};
  // Windows that do not touch the padding: from `first` to before `last`.
  const int64_t reach = c.size[2] + c.before[2] - (c.kernel[2] - 1) * c.dilation[2] - 1;
  const bool in = deep[0] == c.kernel[0] && deep[1] == c.kernel[1] && reach >= 0;
  const int64_t first = in ? std::min(out, (std::max<int64_t>(c.before[2], 0) + c.stride[2] - 1) / c.stride[2]) : out;
  const int64_t last = in ? std::min(out, reach / c.stride[2] + 1) : out;
  const int32_t mask = c.background ? NAN_MASK : -1;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  y += at.output * c.outputs;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t missing = counts[o] & mask;
    const bool inner = o >= first && o < last;
    int64_t least = c.least[taps];
    if (!c.count_padding && !inner) least = c.least[deep[0] * deep[1] * c.inside(2, o * c.stride[2] - c.before[2]).count()];
    if (missing >= least) {
      if (c.groups > 1 || !(c.count_padding || inner)) {
        std::fill_n(y + o * c.outputs, p.outputs, nan);
        continue;
      }
      int64_t upto = o + 1;  // neighbours that are skipped too are filled in one go
      while (upto < out && (counts[upto] & mask) >= least && (c.count_padding || upto < last)) ++upto;
      std::fill(y + o * c.outputs, y + upto * c.outputs, nan);
      o = upto - 1;
      continue;
    }
    if (known && inner && (counts[o] >> UNIFORM_BIT) == taps) {
      std::memcpy(y + o * c.outputs, known, 4 * size_t(p.outputs));
      continue;
    }
    Place here = at;
    here.start[2] = o * c.stride[2] - c.before[2];
    here.output += o;
    if (!inner)
      batch.other(here, missing, sums ? sums + o : nullptr);
    else if (missing)
      batch.partial(here, missing, sums ? sums + o : nullptr);
    else
      batch.whole(here);
  }
}

// Windows of one image and group that hold NaNs and, as far as windows inside the image go, are not skipped.
int64_t partial_windows(const Convolution& c, const int32_t* counts) {
  const int32_t mask = c.background ? NAN_MASK : -1, least = int32_t(std::min<int64_t>(c.least[c.taps()], 1 << 30));
  int64_t found = 0;
  for (int64_t i = 0; i < c.places(); ++i) found += (counts[i] & mask) > 0 && (counts[i] & mask) < least;
  return found;
}

// The output of a window of background only: that of the first one.
bool background_output(const Plan& p, Batch& batch, const int32_t* counts, float* y, std::vector<float>& known) {
  const Convolution& c = p.c;
  for (int64_t i = 0; i < c.places(); ++i) {
    if ((counts[i] >> UNIFORM_BIT) != c.taps() || (counts[i] & NAN_MASK) >= c.least[c.taps()]) continue;
    const int64_t o[3] = {i / (c.out[1] * c.out[2]), i / c.out[2] % c.out[1], i % c.out[2]};
    Place at{{}, i};
    for (int a = 0; a < 3; ++a) at.start[a] = o[a] * c.stride[a] - c.before[a];
    if (const int64_t missing = counts[i] & NAN_MASK)
      batch.partial(at, missing, nullptr);
    else
      batch.whole(at);
    batch.flush();
    known.assign(y + i * c.outputs, y + i * c.outputs + p.outputs);
    return true;
  }
  return false;
}

}  // namespace

// Numbers that nan_pack writes.
NAN_API int64_t nan_pack_size(const Convolution* c) {
  return c->groups * micro::OCTET * micro::octets(c->outputs / c->groups) * (c->taps() * c->inputs() + 1);
}

// Weights (outputs, inputs, taps), with strides between them, as the micro-kernels read them: for each group its blocks
// of outputs, then the bias, both padded to whole octets.
NAN_API int64_t nan_pack(const Convolution* c, const float* weight, const int64_t* strides, const float* bias, float* to) {
  const int64_t outputs = c->outputs / c->groups, inputs = c->inputs(), taps = c->taps();
  const int64_t size = nan_pack_size(c) / c->groups;
  for (int64_t g = 0; g < c->groups; ++g) {
    int64_t first = 0;
    float* block = to + g * size;
    for (int left = micro::octets(outputs); left > 0;) {
      const int64_t wide = micro::OCTET * micro::next(left);
#pragma omp parallel for num_threads(c->threads) schedule(static)
      for (int64_t t = 0; t < taps; ++t)
        for (int64_t i = 0; i < inputs; ++i) {
          float* v = block + (t * inputs + i) * wide;
          const float* from = weight + (g * outputs + first) * strides[0] + i * strides[1] + t * strides[2];
          const int64_t full = std::min(wide, outputs - first);
          for (int64_t o = 0; o < full; ++o) v[o] = from[o * strides[0]];
          std::fill(v + full, v + wide, 0.0f);
        }
      block += taps * inputs * wide;
      first += wide;
      left -= int(wide / micro::OCTET);
    }
    std::fill(block, block + micro::OCTET * micro::octets(outputs), 0.0f);
    if (bias) std::copy(bias + g * outputs, bias + (g + 1) * outputs, block);
  }
  return 0;
}

// Fills y.
NAN_API int64_t nan_convolve(const Convolution* given) {
  const Convolution& c = *given;
  const Plan plan(c);
  const int64_t lines = c.out[0] * c.out[1], planes = c.n * c.groups;
  const int64_t pack = nan_pack_size(given) / c.groups;
  std::vector<std::vector<float>> known(c.background ? size_t(planes) : 0);
  // Where many windows of an image need their mean, each of its pixels is added up once.
  std::vector<std::vector<float>> sums(size_t(c.fill == MEAN && c.found[2] ? planes : 0));
#pragma omp parallel for num_threads(c.threads) schedule(dynamic, 1)
  for (int64_t plane = 0; plane < int64_t(sums.size()); ++plane)
    if (partial_windows(c, c.windows + plane * c.places()) * plan.segments > c.volume())
      sums[size_t(plane)].resize(size_t(c.volume()));
  if (!sums.empty()) {
    const int64_t width = c.size[2], rows = c.volume() / width;
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (int64_t i = 0; i < planes * rows; ++i) {
      const int64_t plane = i / rows, n = plane / c.groups;
      if (sums[size_t(plane)].empty()) continue;
      const float* v = c.x + (n * rows + i % rows) * width * c.channels + plane % c.groups * plan.inputs;
      float* to = sums[size_t(plane)].data() + i % rows * width;
      for (int64_t k = 0; k < width; ++k) to[k] = sum_valid(v + k * c.channels, plan.inputs);
    }
  }
  const int64_t some = std::max<int64_t>(1, std::min<int64_t>(512 / c.out[2], planes * lines / (4 * c.threads)));
#pragma omp parallel num_threads(c.threads)
  {
    Batch batch(plan);
    std::vector<float> across, line_sums(size_t(c.out[2]));
    const auto begin = [&](int64_t plane) {
      const int64_t n = plane / c.groups, g = plane % c.groups;
      batch.start(c.x + n * c.volume() * c.channels + g * plan.inputs, c.weight + g * pack,
                  c.weight + (g + 1) * pack - plan.room, c.pixels + plane * c.volume(), c.y + n * c.places() * c.outputs + g * plan.outputs, g);
    };
    if (c.background)
#pragma omp for schedule(dynamic, 1)
      for (int64_t plane = 0; plane < planes; ++plane) {
        begin(plane);
        float* y = c.y + plane / c.groups * c.places() * c.outputs + plane % c.groups * plan.outputs;
        background_output(plan, batch, c.windows + plane * c.places(), y, known[size_t(plane)]);
      }
#pragma omp for schedule(dynamic, 1)
    for (int64_t part = 0; part < (planes * lines + some - 1) / some; ++part) {
      int64_t now = -1;
      for (int64_t i = part * some; i < std::min(planes * lines, (part + 1) * some); ++i) {
        const int64_t plane = i / lines, at = i % lines;
        if (plane != now) {
          batch.flush();
          begin(plane);
          now = plane;
        }
        float* y = c.y + plane / c.groups * c.places() * c.outputs + plane % c.groups * plan.outputs;
        const float* vector = c.background && !known[size_t(plane)].empty() ? known[size_t(plane)].data() : nullptr;
        const bool summed = !sums.empty() && !sums[size_t(plane)].empty();
        if (summed) sum_line(c, sums[size_t(plane)].data(), at / c.out[1], at % c.out[1], across, line_sums.data());
        line(plan, batch, c.windows + i * c.out[2], summed ? line_sums.data() : nullptr, y, vector, at / c.out[1], at % c.out[1]);
      }
      batch.flush();
    }
  }
  return 0;
}
