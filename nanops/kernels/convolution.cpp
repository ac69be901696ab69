// The NaN convolution: windows that are to be computed are collected, whatever their places, and computed in batches.
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "active.h"
#include "batch.h"
#include "convolution.h"
#include "packing.h"
#include "room.h"
#include "turning.h"

namespace {

constexpr int64_t CACHED = 1 << 20;  // bytes of outputs that the second-level cache holds

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

// Fills outputs with NaN; `past` the caches, where they would not stay there: no line has to be read first.
void fill_nan(float* from, float* to, bool past) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  if (past) {
    while (from < to && reinterpret_cast<uintptr_t>(from) % 64) *from++ = nan;
    for (const F value = all(nan); from + 16 <= to; from += 16) stream(from, value);
  }
  std::fill(from, to, nan);
}

// What is known of windows of background only, of one image and group.
struct Known {
  std::vector<float> sums;    // as the convolution leaves them; empty if there is no such window
  std::vector<float> output;  // what becomes of them; empty if that depends on the place
};

// One line of outputs: skipped windows become NaN, uniform ones what is known, the others join the batch.
void line(const Plan& p, Batch& batch, const int32_t* counts, const float* sums, float* y, const Known* known, int64_t z,
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
  const bool past = 4 * c.n * c.places() * c.outputs > CACHED;
  y += at.output * c.outputs;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t missing = counts[o] & mask;
    const bool inner = o >= first && o < last;
    const int64_t within = inner ? taps : deep[0] * deep[1] * c.inside(2, o * c.stride[2] - c.before[2]).count();
    const int64_t least = c.least[c.count_padding ? taps : within];
    if (missing >= least) {
      if (c.groups > 1 || !(c.count_padding || inner)) {
        fill_nan(y + o * c.outputs, y + o * c.outputs + p.outputs, past);
        continue;
      }
      int64_t upto = o + 1;  // neighbours that are skipped too are filled in one go
      while (upto < out && (counts[upto] & mask) >= least && (c.count_padding || upto < last)) ++upto;
      fill_nan(y + o * c.outputs, y + upto * c.outputs, past);
      o = upto - 1;
      continue;
    }
    if (known && inner && (counts[o] >> UNIFORM_BIT) == taps) {
      if (known->output.empty())
        batch.output().move(known->sums.data(), y + o * c.outputs);
      else
        std::memcpy(y + o * c.outputs, known->output.data(), 4 * size_t(p.outputs));
      continue;
    }
    Place here = at;
    here.start[2] = o * c.stride[2] - c.before[2];
    here.output += o;
    if (!inner)
      batch.other(here, missing, taps - within, sums ? sums + o : nullptr);
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

// Whether the window at a place has the pixel of `other` there among its own, since both are one image.
bool beside_itself(const Convolution& c) {
  bool found = c.other == c.x && c.outputs == c.channels && c.groups == 1;
  for (int a = 0; a < 3; ++a)
    found = found && c.stride[a] == 1 && c.out[a] == c.size[a] && c.before[a] >= 0 && c.before[a] % c.dilation[a] == 0 &&
            c.before[a] / c.dilation[a] < c.kernel[a];
  return found;
}

// Which outputs of some lines may have to be computed: from the first to before the last column, and none at all.
std::pair<int64_t, int64_t> columns(const Convolution& c, const int32_t* counts, int64_t lines, const Known* known) {
  const int32_t mask = c.background ? NAN_MASK : -1;
  const int64_t least = c.least[c.taps()], uniform = c.taps();
  int64_t low = c.out[2], high = 0;
  for (int64_t i = 0; i < lines; ++i, counts += c.out[2]) {
    const auto needed = [&](int64_t o) {
      return (counts[o] & mask) < least && !(known && (counts[o] >> UNIFORM_BIT) == uniform);
    };
    for (int64_t o = 0; o < low; ++o)
      if (needed(o)) low = o;
    for (int64_t o = c.out[2]; o > std::max(high, low); --o)
      if (needed(o - 1)) high = o;
  }
  return {std::min(low, high), high};
}

// One call: what its threads share.
class Call {
 public:
  explicit Call(const Convolution& c)
      : c_(c), plan_(c), packed_(plan_), activation_(c), planes_(c.n * c.groups), known_(c.background ? size_t(planes_) : 0),
        sums_(size_t(c.fill == MEAN && c.found[2] ? planes_ : 0)) {}

  void run() {
    if (!sums_.empty()) add_up();
    const int64_t lines = c_.out[0] * c_.out[1];
    int64_t some = std::min<int64_t>(512 / c_.out[2], planes_ * lines / (4 * c_.threads));
    if (c_.slope) some = std::min(Lines::fit(c_), planes_ * lines / (2 * c_.threads));
    some = std::max<int64_t>(1, some);
    const int64_t parts = (lines + some - 1) / some;
#pragma omp parallel num_threads(c_.threads)
    {
      Batch batch(plan_);
      Lines staged(c_, activation_);
      std::vector<float> across, line_sums(size_t(c_.out[2]));
      if (c_.background)
#pragma omp for schedule(dynamic, 1)
        for (int64_t plane = 0; plane < planes_; ++plane) background_output(batch, staged, plane);
      batch.output().finishing(true);
      int64_t now = -1;
#pragma omp for schedule(dynamic, 1) nowait
      for (int64_t i = 0; i < planes_ * parts; ++i) {
        const int64_t plane = i / parts, first = i % parts * some, last = std::min(lines, first + some);
        const int32_t* counts = c_.windows + plane * c_.places();
        const Known* known = c_.background && !known_[size_t(plane)].sums.empty() ? &known_[size_t(plane)] : nullptr;
        if (c_.slope || plane != now) {
          batch.flush();
          begin(batch, plane, c_.slope ? staged_part(staged, plane, first, last, counts, known) : image(plane));
          now = plane;
        }
        const float* sums = sums_.empty() || sums_[size_t(plane)].empty() ? nullptr : sums_[size_t(plane)].data();
        for (int64_t at = first; at < last; ++at) {
          const int64_t z = at / c_.out[1], y = at % c_.out[1];
          if (sums) sum_line(c_, sums, z, y, across, line_sums.data());
          line(plan_, batch, counts + at * c_.out[2], sums ? line_sums.data() : nullptr, result(plane), known, z, y);
        }
      }
      batch.flush();
      _mm_sfence();  // outputs that went past the caches
    }
  }

 private:
  const float* image(int64_t plane) const {
    return c_.x + plane / c_.groups * c_.volume() * c_.channels + plane % c_.groups * plan_.inputs;
  }

  float* result(int64_t plane) const {
    return c_.y + plane / c_.groups * c_.places() * c_.outputs + plane % c_.groups * plan_.outputs;
  }

  // Where the image would start if the lines that some outputs read were part of it, behind the activation.
  const float* staged_part(Lines& staged, int64_t plane, int64_t first, int64_t last, const int32_t* counts,
                           const Known* known) const {
    const auto [left, right] = columns(c_, counts + first * c_.out[2], last - first, known);
    return staged.stage(image(plane), first, last - first, left, right - left);
  }

  // The batch gets the image and group it works on; x: where the image starts, or would start.
  void begin(Batch& batch, int64_t plane, const float* x) const {
    const int64_t g = plane % c_.groups;
    batch.start({x, packed_.weight(g), packed_.bias(g), packed_.summable() ? packed_.sums(g) : nullptr,
                 c_.pixels + plane * c_.volume(), result(plane), g});
  }

  // Where many windows of an image need their mean, each of its pixels is added up once.
  void add_up() {
#pragma omp parallel for num_threads(c_.threads) schedule(dynamic, 1)
    for (int64_t plane = 0; plane < planes_; ++plane)
      if (partial_windows(c_, c_.windows + plane * c_.places()) * plan_.segments > c_.volume())
        sums_[size_t(plane)].resize(size_t(c_.volume()));
    const int64_t width = c_.size[2], rows = c_.volume() / width;
#pragma omp parallel num_threads(c_.threads)
    {
      std::vector<float> active(c_.slope ? size_t(c_.channels) : 0);
#pragma omp for schedule(static)
      for (int64_t i = 0; i < planes_ * rows; ++i) {
        const int64_t plane = i / rows;
        if (sums_[size_t(plane)].empty()) continue;
        const float* v = image(plane) + i % rows * width * c_.channels;
        float* to = sums_[size_t(plane)].data() + i % rows * width;
        for (int64_t k = 0; k < width; ++k, v += c_.channels) {
          if (c_.slope) activation_.apply(v, active.data());
          to[k] = sum_valid(c_.slope ? active.data() : v, plan_.inputs);
        }
      }
    }
  }

  // The output of a window of background only: that of the first one.
  void background_output(Batch& batch, Lines& staged, int64_t plane) {
    const int32_t* counts = c_.windows + plane * c_.places();
    Known& known = known_[size_t(plane)];
    for (int64_t i = 0; i < c_.places(); ++i) {
      if ((counts[i] >> UNIFORM_BIT) != c_.taps() || (counts[i] & NAN_MASK) >= c_.least[c_.taps()]) continue;
      const int64_t o[3] = {i / (c_.out[1] * c_.out[2]), i / c_.out[2] % c_.out[1], i % c_.out[2]};
      begin(batch, plane, c_.slope ? staged.stage(image(plane), o[1], 1, o[2], 1) : image(plane));
      Place at{{}, i};
      for (int a = 0; a < 3; ++a) at.start[a] = o[a] * c_.stride[a] - c_.before[a];
      if (const int64_t missing = counts[i] & NAN_MASK)
        batch.partial(at, missing, nullptr);
      else
        batch.whole(at);
      batch.flush();
      const float* found = result(plane) + i * c_.outputs;
      known.sums.assign(found, found + plan_.outputs);
      if (Epilogue::on(c_) && c_.other && !beside_itself(c_)) return;
      known.output = known.sums;
      if (Epilogue::on(c_))
        batch.output().epilogue().finish(known.sums.data(), known.output.data(),
                                         c_.other ? c_.background + plane * c_.channels : nullptr);
      return;
    }
  }

  const Convolution& c_;
  const Plan plan_;
  const Packed packed_;
  const Activation activation_;
  const int64_t planes_;
  std::vector<Known> known_;
  std::vector<std::vector<float>> sums_;
};

}  // namespace

// Fills y, from what the survey found.
NAN_API int64_t nan_convolve(const Convolution* given) {
  Call(*given).run();
  return 0;
}

// Fills y. Pixels and windows are counted aside; x and y are turned where they lie channels first.
NAN_API int64_t nan_convolve_alone(const Convolution* given) {
  Convolution c = *given;
  const Room<int32_t> pixels(c.n * c.groups * c.volume()), windows(c.n * c.groups * c.places());
  const Room<float> x(c.x_first ? c.n * c.volume() * c.channels : 0), y(c.y_first ? c.n * c.places() * c.outputs : 0);
  c.pixels = pixels.begin(), c.windows = windows.begin();
  if (c.x_first) {
    turn(given->x, x.begin(), c.n, c.channels, c.volume(), int(c.threads));
    c.x = x.begin();
  }
  if (c.y_first) c.y = y.begin();
  nan_survey(&c);
  nan_convolve(&c);
  if (c.y_first) turn(c.y, given->y, c.n, c.places(), c.outputs, int(c.threads));
  return 0;
}
